/* UNIFORM_8BIT, QUANTILE_8BIT, BLOCKWISE_8BIT: a codebook of 256 numbers, and an index into it for each element. */
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "proto/codec_private.h"

enum { CODES = CODEC_CODES, BLOCK = CODEC_BLOCK, LANES = 16 };

/* ---- layout ------------------------------------------------------------------------------------------------------ */

static int64_t read_count(const unsigned char *at)
{
    int64_t count;
    memcpy(&count, at, sizeof count);
    return count;
}

static void write_count(unsigned char *at, int64_t count)
{
    memcpy(at, &count, sizeof count);
}

static bool all_finite(const codec_f32 *x, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

const char *codec_codebook_check(const void *frame)
{
    const unsigned char *bytes = frame;
    if (read_count(bytes) != CODES)
        return "its codebook has not 256 numbers";
    return all_finite((const codec_f32 *)(const void *)(bytes + 8), CODES) ? NULL : "its codebook has NaN or Inf";
}

/* ---- decoding ---------------------------------------------------------------------------------------------------- */

static void look_up(const uint8_t *indices, uint64_t count, const float *codebook, float *to)
{
    uint64_t i = 0;
    for (; i + 8 <= count; i += 8) {
        uint64_t eight;
        memcpy(&eight, indices + i, sizeof eight);
        for (int k = 0; k < 8; k++)
            to[i + (uint64_t)k] = codebook[eight >> 8 * k & 255];
    }
    for (; i < count; i++)
        to[i] = codebook[indices[i]];
}

void codec_codebook_decode(const void *frame, uint64_t first, uint64_t count, float *to)
{
    const unsigned char *bytes = frame;
    float codebook[CODES];
    memcpy(codebook, bytes + 8, sizeof codebook);
    look_up(bytes + 8 + sizeof codebook + first, count, codebook, to);
}

/* ---- the codebook of indices: each number is the mean of what fell to it -------------------------------------------
 */

/* Four of each, so that neighbours with the same index do not wait for each other. */
struct buckets {
    double sums[4][CODES];
    uint64_t counts[4][CODES];
};

static void fill(struct buckets *buckets, const float *x, const uint8_t *indices, uint64_t count)
{
    uint64_t i = 0;
    for (; i + 4 <= count; i += 4)
        for (int k = 0; k < 4; k++) {
            const uint8_t index = indices[i + (uint64_t)k];
            buckets->sums[k][index] += (double)x[i + (uint64_t)k];
            buckets->counts[k][index]++;
        }
    for (; i < count; i++) {
        buckets->sums[0][indices[i]] += (double)x[i];
        buckets->counts[0][indices[i]]++;
    }
}

static void write_codebook(unsigned char *frame, const struct buckets *buckets)
{
    codec_f32 *codebook = (codec_f32 *)(void *)(frame + 8);
    write_count(frame, CODES);
    for (int c = 0; c < CODES; c++) {
        double sum = 0;
        uint64_t count = 0;
        for (int k = 0; k < 4; k++) {
            sum += buckets->sums[k][c];
            count += buckets->counts[k][c];
        }
        codebook[c] = count ? (float)(sum / (double)count) : 0;
    }
}

/* ---- uniform ----------------------------------------------------------------------------------------------------- */

/* Adding 3 * 2^22 rounds to an integer, ties to even, and leaves that integer in the low bits. */
CODEC_VECTORS static void quantize(const float *x, uint64_t count, float mean, float inverse, uint8_t *indices)
{
    for (uint64_t i = 0; i < count; i++) {
        const float scaled = (x[i] - mean) * inverse;
        const float low = scaled < -128 ? -128 : scaled;
        const float rounded = (low > 127 ? 127 : low) + 0x1.8p23f;
        uint32_t bits;
        memcpy(&bits, &rounded, sizeof bits);
        indices[i] = (uint8_t)(bits + 128);
    }
}

bool codec_uniform_encode(const float *from, uint64_t elements, void *frame)
{
    uint8_t *indices = (uint8_t *)frame + 8 + 4 * CODES;
    struct buckets buckets;
    memset(&buckets, 0, sizeof buckets);
    const double total = codec_sum(from, elements);
    if (!isfinite(total))
        return false;
    const float mean = elements ? (float)(total / (double)elements) : 0;
    const double deviation = elements > 1 ? sqrt(codec_sum_squares(from, elements, mean) / (double)(elements - 1)) : 0;
    const float scale = (float)(6 * deviation / CODES);
    /* A constant, one element, and what is as narrow as that: all are the mean. Wider than floats go: by halves. */
    const float inverse = scale >= 0x1p-126f && isfinite(scale) ? 1 / scale : 0;
    for (uint64_t i = 0; i < elements; i += BLOCK) {
        const uint64_t count = elements - i < BLOCK ? elements - i : BLOCK;
        quantize(from + i, count, mean, inverse, indices + i);
        fill(&buckets, from + i, indices + i, count);
    }
    write_codebook(frame, &buckets);
    return true;
}

/* ---- quantiles --------------------------------------------------------------------------------------------------- */

enum { SAMPLE = 16384 };

static int compare(const void *left, const void *right)
{
    const float a = *(const float *)left;
    const float b = *(const float *)right;
    return (a > b) - (a < b);
}

/* All elements, or as many drawn from as many equal parts: at a fixed distance they might all be of one column. */
static size_t draw_sample(const float *from, uint64_t elements, float *sample)
{
    if (elements <= SAMPLE) {
        memcpy(sample, from, elements * sizeof *sample);
        return (size_t)elements;
    }
    uint64_t random = elements;
    for (uint64_t i = 0; i < SAMPLE; i++) {
        const uint64_t first = (uint64_t)((unsigned __int128)elements * i / SAMPLE);
        const uint64_t next = (uint64_t)((unsigned __int128)elements * (i + 1) / SAMPLE);
        random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        sample[i] = from[first + (random >> 33) % (next - first)];
    }
    return SAMPLE;
}

/* borders[b]: the (b + 1) / 256 quantile, linear between neighbours. */
static void find_borders(const float *sorted, size_t count, float borders[CODES - 1])
{
    for (int b = 0; b < CODES - 1; b++) {
        const double at = (double)(b + 1) / CODES * (double)(count - 1);
        const size_t below = (size_t)at;
        const size_t above = below + 1 < count ? below + 1 : below;
        const double part = at - (double)below;
        borders[b] = (float)((1 - part) * (double)sorted[below] + part * (double)sorted[above]);
    }
}

/* How many borders lie strictly below: a search that always takes eight steps. */
static void bucketize(const float *x, uint64_t count, const float borders[CODES], uint8_t *indices)
{
    for (uint64_t i = 0; i < count; i++) {
        const float value = x[i];
        const float *at = borders;
        for (unsigned step = CODES / 2; step > 0; step /= 2)
            at += (unsigned)(at[step - 1] < value) * step;
        indices[i] = (uint8_t)(at - borders);
    }
}

bool codec_quantile_encode(const float *from, uint64_t elements, void *frame)
{
    static _Thread_local float sample[SAMPLE];
    uint8_t *indices = (uint8_t *)frame + 8 + 4 * CODES;
    float borders[CODES];
    struct buckets buckets;
    memset(&buckets, 0, sizeof buckets);
    if (!isfinite(codec_sum(from, elements)))
        return false;
    if (elements > 0) {
        const size_t count = draw_sample(from, elements, sample);
        qsort(sample, count, sizeof *sample, compare);
        find_borders(sample, count, borders);
        borders[CODES - 1] = INFINITY;
    }
    for (uint64_t i = 0; i < elements; i += BLOCK) {
        const uint64_t count = elements - i < BLOCK ? elements - i : BLOCK;
        bucketize(from + i, count, borders, indices + i);
        fill(&buckets, from + i, indices + i, count);
    }
    write_codebook(frame, &buckets);
    return true;
}

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

/* The dynamic map of bitsandbytes (Dettmers et al. 2021, "8-bit Optimizers via Block-wise Quantization"): decades of
 * falling size and resolution; and which of its numbers is nearest to each of 65,535 values of -1 ... 1, an odd number,
 * so that 0 is one of them and stays what it is. The smallest number is -1, as its version for CPUs has it: else the
 * largest value of a block would come back smaller if it is negative. */
enum { HALF_CELLS = 32767, CELLS = 2 * HALF_CELLS + 1, DECADES = 7 };
static float dynamic_map[CODES];
static uint8_t nearest[CELLS + 1]; /* 16 bits, whatever they are, are an index */
static pthread_once_t made = PTHREAD_ONCE_INIT;

static void make_dynamic_map(void)
{
    int count = 0;
    for (int decade = 0; decade < DECADES; decade++) {
        const int parts = 1 << decade;
        const double size = pow(10, decade - (DECADES - 1));
        for (int p = 0; p < parts; p++) {
            const double low = 0.1 + 0.9 * p / parts;
            const double high = 0.1 + 0.9 * (p + 1) / parts;
            const float middle = (float)((low + high) / 2 * size);
            dynamic_map[count++] = middle;
            dynamic_map[count++] = -middle;
        }
    }
    dynamic_map[count++] = 0;
    dynamic_map[count++] = 1;
    qsort(dynamic_map, CODES, sizeof *dynamic_map, compare);
    dynamic_map[0] = -1;
    int code = 0;
    for (int cell = 0; cell < CELLS; cell++) {
        const double value = (double)(cell - HALF_CELLS) / HALF_CELLS;
        while (code + 1 < CODES && ((double)dynamic_map[code] + (double)dynamic_map[code + 1]) / 2 < value)
            code++;
        nearest[cell] = (uint8_t)code;
    }
}

static uint64_t blocks_of(uint64_t elements)
{
    return elements / BLOCK + (elements % BLOCK > 0);
}

const char *codec_blockwise_check(const void *frame, uint64_t elements)
{
    const unsigned char *bytes = frame;
    const uint64_t blocks = blocks_of(elements);
    if (read_count(bytes) < 0 || (uint64_t)read_count(bytes) != blocks)
        return "it has not one largest value for each 4,096 elements";
    if (read_count(bytes + 8) != CODES)
        return "its codebook has not 256 numbers";
    return all_finite((const codec_f32 *)(const void *)(bytes + 16), blocks + CODES)
               ? NULL
               : "its codebook or largest values have NaN or Inf";
}

void codec_blockwise_decode(const void *frame, uint64_t elements, uint64_t first, uint64_t count, float *to)
{
    const uint64_t blocks = blocks_of(elements);
    const codec_f32 *largest = (const codec_f32 *)(const void *)((const unsigned char *)frame + 16);
    const codec_f32 *codebook = largest + blocks;
    const uint8_t *indices = (const uint8_t *)(const void *)(codebook + CODES);
    for (uint64_t at = first, end = first + count, next; at < end; at = next) {
        float scaled[CODES];
        const uint64_t b = at / BLOCK;
        next = end < (b + 1) * BLOCK ? end : (b + 1) * BLOCK;
        for (int c = 0; c < CODES; c++)
            scaled[c] = codebook[c] * largest[b];
        look_up(indices + at, next - at, scaled, to + (at - first));
    }
}

/* The bits of the absolute values, of which the greatest is that of the greatest; NaN and Inf are above all. */
CODEC_VECTORS static float largest_of(const float *x, uint64_t count)
{
    uint32_t lanes[LANES] = {0};
    uint32_t most = 0;
    float value;
    uint64_t i = 0;
    for (; i + LANES <= count; i += LANES)
        for (int k = 0; k < LANES; k++) {
            uint32_t bits;
            memcpy(&bits, &x[i + (uint64_t)k], sizeof bits);
            bits &= 0x7fffffff;
            lanes[k] = bits > lanes[k] ? bits : lanes[k];
        }
    for (; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bits &= 0x7fffffff;
        most = bits > most ? bits : most;
    }
    for (int k = 0; k < LANES; k++)
        most = lanes[k] > most ? lanes[k] : most;
    memcpy(&value, &most, sizeof value);
    return value;
}

/* Cells first, of a few elements at a time, which vectors do; then their codes. Adding 2^23 rounds to an integer, which
 * is in the low bits then. Where others can write to the numbers, one may be larger by now than the largest was, or
 * NaN: its bits are those of some cell, while a conversion to an integer would be undefined. */
CODEC_VECTORS static void find_cells(const float *x, uint64_t count, float largest, uint16_t *cells)
{
    for (uint64_t i = 0; i < count; i++) {
        const float at = (x[i] / largest + 1) * HALF_CELLS + 0x1p23F;
        uint32_t bits;
        memcpy(&bits, &at, sizeof bits);
        cells[i] = (uint16_t)bits;
    }
}

bool codec_blockwise_encode(const float *from, uint64_t elements, void *frame)
{
    enum { STEP = 256 };
    unsigned char *bytes = frame;
    const uint64_t blocks = blocks_of(elements);
    codec_f32 *largest = (codec_f32 *)(void *)(bytes + 16);
    uint8_t *indices = bytes + 16 + 4 * (blocks + CODES);
    pthread_once(&made, make_dynamic_map);
    write_count(bytes, (int64_t)blocks);
    write_count(bytes + 8, CODES);
    memcpy(bytes + 16 + 4 * blocks, dynamic_map, sizeof dynamic_map);
    for (uint64_t at = 0; at < elements; at += BLOCK) {
        const uint64_t count = elements - at < BLOCK ? elements - at : BLOCK;
        const float most = largest_of(from + at, count);
        uint16_t cells[STEP];
        if (!isfinite(most))
            return false;
        largest[at / BLOCK] = most;
        for (uint64_t i = 0; i < count; i += STEP) {
            const uint64_t step = count - i < STEP ? count - i : STEP;
            find_cells(from + at + i, step, most > 0 ? most : 1, cells);
            for (uint64_t k = 0; k < step; k++)
                indices[at + i + k] = nearest[cells[k]];
        }
    }
    return true;
}

void codec_blockwise_move(const void *frame, uint64_t elements, uint64_t first, uint64_t count, void *to,
                          uint64_t to_elements, uint64_t to_first)
{
    const uint64_t blocks = blocks_of(elements), to_blocks = blocks_of(to_elements);
    const unsigned char *from = frame;
    unsigned char *at = to;
    write_count(at, (int64_t)to_blocks);
    write_count(at + 8, CODES);
    memcpy(at + 16 + 4 * to_blocks, from + 16 + 4 * blocks, 4 * CODES);
    memcpy(at + 16 + 4 * (to_first / BLOCK), from + 16 + 4 * (first / BLOCK), 4 * blocks_of(count));
    memcpy(at + 16 + 4 * (to_blocks + CODES) + to_first, from + 16 + 4 * (blocks + CODES) + first, count);
}
