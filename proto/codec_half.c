/* FLOAT16, BFLOAT16, MEANSTD_16BIT. */
#include <math.h>
#include <string.h>

#include "common/half.h"
#include "proto/codec_private.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define HALF_TARGET __attribute__((target("avx2,f16c")))
#endif

static const float half_most = 65504;

/* A NaN stays one. */
static inline float within_half(float value)
{
    const float below = value > half_most ? half_most : value;
    return below < -half_most ? -half_most : below;
}

/* ---- y = (x - shift) * factor as halves; x = y * scale + shift -------------------------------------------------- */

static void narrow(const float *from, uint64_t count, float shift, float factor, codec_u16 *to)
{
    for (uint64_t i = 0; i < count; i++)
        to[i] = half_from_float(within_half((from[i] - shift) * factor));
}

static void widen(const codec_u16 *from, uint64_t count, float shift, float scale, float *to)
{
    for (uint64_t i = 0; i < count; i++)
        to[i] = half_to_float(from[i]) * scale + shift;
}

#ifdef HALF_TARGET
/* min and max give their second operand for a NaN. */
HALF_TARGET static void narrow_f16c(const float *from, uint64_t count, float shift, float factor, codec_u16 *to)
{
    const __m256 most = _mm256_set1_ps(half_most), least = _mm256_set1_ps(-half_most);
    const __m256 shifts = _mm256_set1_ps(shift), factors = _mm256_set1_ps(factor);
    uint64_t i = 0;
    for (; i + 8 <= count; i += 8) {
        const __m256 y = _mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(from + i), shifts), factors);
        const __m256 bounded = _mm256_max_ps(least, _mm256_min_ps(most, y));
        _mm_storeu_si128((__m128i *)(void *)(to + i), _mm256_cvtps_ph(bounded, _MM_FROUND_TO_NEAREST_INT));
    }
    narrow(from + i, count - i, shift, factor, to + i);
}

HALF_TARGET static void widen_f16c(const codec_u16 *from, uint64_t count, float shift, float scale, float *to)
{
    const __m256 shifts = _mm256_set1_ps(shift), scales = _mm256_set1_ps(scale);
    uint64_t i = 0;
    for (; i + 8 <= count; i += 8) {
        const __m256 y = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(from + i)));
        _mm256_storeu_ps(to + i, _mm256_add_ps(_mm256_mul_ps(y, scales), shifts));
    }
    widen(from + i, count - i, shift, scale, to + i);
}
#endif

/* Every processor with AVX2 has F16C. */
static void narrow_best(const float *from, uint64_t count, float shift, float factor, codec_u16 *to)
{
#ifdef HALF_TARGET
    if (__builtin_cpu_supports("avx2")) {
        narrow_f16c(from, count, shift, factor, to);
        return;
    }
#endif
    narrow(from, count, shift, factor, to);
}

static void widen_best(const codec_u16 *from, uint64_t count, float shift, float scale, float *to)
{
#ifdef HALF_TARGET
    if (__builtin_cpu_supports("avx2")) {
        widen_f16c(from, count, shift, scale, to);
        return;
    }
#endif
    widen(from, count, shift, scale, to);
}

/* x + -0 is x, also of both zeros; so is x - 0. */
void codec_float16_decode(const void *frame, uint64_t elements, float *to)
{
    widen_best(frame, elements, -0.0F, 1, to);
}

void codec_float16_encode(const float *from, uint64_t elements, void *frame)
{
    narrow_best(from, elements, 0, 1, frame);
}

/* ---- bfloat16 ---------------------------------------------------------------------------------------------------- */

CODEC_VECTORS void codec_bfloat16_decode(const void *frame, uint64_t elements, float *to)
{
    const codec_u16 *from = frame;
    for (uint64_t i = 0; i < elements; i++) {
        const uint32_t bits = (uint32_t)from[i] << 16;
        memcpy(&to[i], &bits, sizeof bits);
    }
}

/* To nearest, ties to even; a NaN stays one. */
static void bfloat16_narrow(const float *from, uint64_t count, codec_u16 *to)
{
    for (uint64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &from[i], sizeof bits);
        const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
        to[i] = (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? (bits >> 16 | 0x40) : rounded);
    }
}

#ifdef HALF_TARGET
HALF_TARGET static inline __m256i bfloat16_of_eight(const float *from)
{
    const __m256i bits = _mm256_loadu_si256((const __m256i *)(const void *)from);
    const __m256i high = _mm256_srli_epi32(bits, 16);
    const __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
    const __m256i rounded =
        _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
    const __m256i nan =
        _mm256_cmpgt_epi32(_mm256_and_si256(bits, _mm256_set1_epi32(0x7fffffff)), _mm256_set1_epi32(0x7f800000));
    return _mm256_blendv_epi8(rounded, _mm256_or_si256(high, _mm256_set1_epi32(0x40)), nan);
}

/* Packing goes by halves of a vector, which are put in order afterwards. */
HALF_TARGET static void bfloat16_narrow_avx2(const float *from, uint64_t count, codec_u16 *to)
{
    uint64_t i = 0;
    for (; i + 16 <= count; i += 16) {
        const __m256i packed = _mm256_packus_epi32(bfloat16_of_eight(from + i), bfloat16_of_eight(from + i + 8));
        _mm256_storeu_si256((__m256i *)(void *)(to + i), _mm256_permute4x64_epi64(packed, 0xd8));
    }
    bfloat16_narrow(from + i, count - i, to + i);
}
#endif

void codec_bfloat16_encode(const float *from, uint64_t elements, void *frame)
{
#ifdef HALF_TARGET
    if (__builtin_cpu_supports("avx2")) {
        bfloat16_narrow_avx2(from, elements, frame);
        return;
    }
#endif
    bfloat16_narrow(from, elements, frame);
}

/* ---- mean and deviation of each last axis -------------------------------------------------------------------------
 */

/* In one pass. That takes the difference of two sums, which is the less precise the farther the first element lies from
 * the mean: beyond four deviations, and where a square is too large for a float, it takes two passes. */
static void mean_and_deviation(const float *x, uint64_t count, float *mean, float *deviation)
{
    const double n = (double)count;
    double sum, squares;
    codec_moments(x, count, x[0], &sum, &squares);
    const double offset = sum / n, variance = squares / n - offset * offset;
    if (isfinite(variance) && offset * offset <= 16 * variance) {
        *mean = (float)((double)x[0] + offset);
        *deviation = (float)sqrt(variance);
        return;
    }
    *mean = (float)(codec_sum(x, count) / n);
    *deviation = (float)sqrt(codec_sum_squares(x, count, *mean) / n);
}

bool codec_meanstd_encode(const float *from, uint64_t elements, uint64_t last, void *frame)
{
    const uint64_t rows = last ? elements / last : 0;
    codec_u16 *to = frame;
    codec_f32 *means = (codec_f32 *)(void *)(to + elements), *deviations = means + rows;
    for (uint64_t r = 0; r < rows; r++) {
        const float *x = from + r * last;
        float mean, deviation;
        mean_and_deviation(x, last, &mean, &deviation);
        if (!isfinite(mean) || !isfinite(deviation))
            return false;
        if (deviation < 0x1p-23f)
            deviation = 0x1p-23f;
        narrow_best(x, last, mean, 1 / deviation, to + r * last);
        means[r] = mean;
        deviations[r] = deviation;
    }
    return true;
}

void codec_meanstd_decode(const void *frame, uint64_t elements, uint64_t last, uint64_t first, uint64_t count,
                          float *to)
{
    if (last == 0)
        return; /* no elements */
    const uint64_t rows = elements / last;
    const codec_u16 *from = frame;
    const codec_f32 *means = (const codec_f32 *)(const void *)(from + elements), *deviations = means + rows;
    for (uint64_t at = first, end = first + count, next; at < end; at = next) {
        const uint64_t r = at / last;
        next = end < (r + 1) * last ? end : (r + 1) * last;
        widen_best(from + at, next - at, means[r], deviations[r], to + (at - first));
    }
}

/* The codes, then all means, then all deviations. */
void codec_meanstd_move(const void *frame, uint64_t elements, uint64_t last, uint64_t first, uint64_t count, void *to,
                        uint64_t to_elements, uint64_t to_first)
{
    const unsigned char *from = frame, *means = from + 2 * elements;
    unsigned char *at = to, *to_means = at + 2 * to_elements;
    const uint64_t rows = elements / last, to_rows = to_elements / last;
    memcpy(at + 2 * to_first, from + 2 * first, 2 * count);
    for (int table = 0; table < 2; table++)
        memcpy(to_means + 4 * (table * to_rows + to_first / last), means + 4 * (table * rows + first / last),
               4 * (count / last));
}
