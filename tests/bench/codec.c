/* How fast codecs decode and encode, and how fast memory is copied: of a tensor of 1 MiB,
 * each the best of the rounds that fit the time, in turn.
 *
 *     build/bench/codec [--seconds 1] [--json]
 *
 * GB/s are of the decoded bytes. */
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/tensor.h"
#include "proto/codec.h"

enum { ROWS = 256, LAST = 1024, ELEMENTS = ROWS * LAST };

struct speeds {
    double copy, decode[CODEC_COUNT], encode[CODEC_COUNT]; /* GB/s */
};

static void note(double *best, uint64_t start_ns)
{
    const double speed = ELEMENTS * sizeof(float) / (double)(clock_now_ns() - start_ns);
    *best = speed > *best ? speed : *best;
}

/* Sums of uniform numbers: near enough to a normal distribution. */
static void fill(float *x)
{
    uint64_t random = 1;
    for (size_t i = 0; i < ELEMENTS; i++) {
        float sum = -3;
        for (int k = 0; k < 6; k++) {
            random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            sum += (float)(random >> 40) / (1 << 24);
        }
        x[i] = sum;
    }
}

/* QUANTILE_8BIT sorts, and encodes in the first round only: the others would be few. */
static void round_of(struct speeds *speeds, bool first, const float *x, float *y, unsigned char *const *frames)
{
    uint64_t start_ns = clock_now_ns();
    memcpy(y, x, ELEMENTS * sizeof *x);
    note(&speeds->copy, start_ns);
    for (uint32_t codec = 1; codec < CODEC_COUNT; codec++) {
        if (first || codec != CODEC_QUANTILE_8BIT) {
            start_ns = clock_now_ns();
            codec_encode(codec, x, ELEMENTS, LAST, frames[codec]);
            note(&speeds->encode[codec], start_ns);
        }
        start_ns = clock_now_ns();
        codec_decode(codec, frames[codec], ELEMENTS, LAST, y);
        note(&speeds->decode[codec], start_ns);
    }
}

static void show(const struct speeds *speeds, bool json)
{
    printf(json ? "{\"copy\": %.3f" : "memcpy %.1f GB/s\n", speeds->copy);
    for (uint32_t codec = 1; codec < CODEC_COUNT; codec++)
        printf(json ? ", \"%s\": {\"decode\": %.4f, \"encode\": %.4f}" : "%-14s decode %6.2f GB/s  encode %6.2f GB/s\n",
               codec_name(codec), speeds->decode[codec], speeds->encode[codec]);
    if (json)
        puts("}");
}

int main(int argc, char **argv)
{
    static const struct option flags[] = {
        {"seconds", 1, NULL, 's'}, {"json", 0, NULL, 'j'}, {"help", 0, NULL, 'h'}, {NULL, 0, NULL, 0}};
    struct speeds speeds = {0};
    double seconds = 1;
    bool json = false;
    int flag;
    while ((flag = getopt_long(argc, argv, "", flags, NULL)) != -1) {
        if (flag == 's') {
            seconds = atof(optarg);
        } else if (flag == 'j') {
            json = true;
        } else {
            puts("codec [--seconds S] [--json]");
            return flag == 'h' ? 0 : 2;
        }
    }
    float *x = malloc(ELEMENTS * sizeof *x), *y = malloc(ELEMENTS * sizeof *y);
    unsigned char *frames[CODEC_COUNT] = {0};
    bool memory = x && y;
    for (uint32_t codec = 1; codec < CODEC_COUNT; codec++) {
        uint64_t bytes = 0;
        codec_frame_bytes(codec, DTYPE_FLOAT32, ELEMENTS, LAST, &bytes);
        frames[codec] = malloc(bytes);
        memory = memory && frames[codec];
    }
    if (!memory)
        return 1;
    fill(x);
    round_of(&speeds, true, x, y, frames);
    const uint64_t end_ns = clock_now_ns() + (uint64_t)(seconds * 1e9);
    do
        round_of(&speeds, false, x, y, frames);
    while (clock_now_ns() < end_ns);
    show(&speeds, json);
    for (uint32_t codec = 1; codec < CODEC_COUNT; codec++)
        free(frames[codec]);
    free(x);
    free(y);
    return 0;
}
