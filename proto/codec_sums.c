#include "proto/codec_private.h"

enum { LANES = 32, STEP = 1024 };

/* By halves, so that no sum waits for all others. */
static inline double add_lanes(float lanes[LANES])
{
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int k = 0; k < half; k++)
            lanes[k] += lanes[k + half];
    return (double)lanes[0];
}

CODEC_VECTORS double codec_sum(const float *x, uint64_t count)
{
    double all = 0;
    uint64_t i = 0;
    while (count - i >= LANES) {
        float lanes[LANES] = {0};
        const uint64_t end = i + (count - i < STEP ? count - i : STEP) / LANES * LANES;
        for (; i < end; i += LANES)
            for (int k = 0; k < LANES; k++)
                lanes[k] += x[i + (uint64_t)k];
        all += add_lanes(lanes);
    }
    for (; i < count; i++)
        all += (double)x[i];
    return all;
}

CODEC_VECTORS double codec_sum_squares(const float *x, uint64_t count, float mean)
{
    double all = 0;
    uint64_t i = 0;
    while (count - i >= LANES) {
        float lanes[LANES] = {0};
        const uint64_t end = i + (count - i < STEP ? count - i : STEP) / LANES * LANES;
        for (; i < end; i += LANES)
            for (int k = 0; k < LANES; k++)
                lanes[k] += (x[i + (uint64_t)k] - mean) * (x[i + (uint64_t)k] - mean);
        all += add_lanes(lanes);
    }
    for (; i < count; i++)
        all += (double)(x[i] - mean) * (double)(x[i] - mean);
    return all;
}

CODEC_VECTORS void codec_moments(const float *x, uint64_t count, float pivot, double *sum, double *squares)
{
    double sums = 0, all = 0;
    uint64_t i = 0;
    while (count - i >= LANES) {
        float lanes[LANES] = {0}, square_lanes[LANES] = {0};
        const uint64_t end = i + (count - i < STEP ? count - i : STEP) / LANES * LANES;
        for (; i < end; i += LANES)
            for (int k = 0; k < LANES; k++) {
                const float away = x[i + (uint64_t)k] - pivot;
                lanes[k] += away;
                square_lanes[k] += away * away;
            }
        sums += add_lanes(lanes);
        all += add_lanes(square_lanes);
    }
    for (; i < count; i++) {
        const double away = (double)x[i] - (double)pivot;
        sums += away;
        all += away * away;
    }
    *sum = sums;
    *squares = all;
}
