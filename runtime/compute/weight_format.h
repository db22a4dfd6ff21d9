/* The formats of few bits in which a device keeps matrices of weights (config_device.precision): what a code stands
 * for, what a scale is, and how floats are rounded to both. Where codes and scales lie is
 * runtime/compute/quantized.h's. A weight is number(code) * scale, rounded once to fp32.
 *
 * The weights of an output that meet 32 inputs one behind the other are a group; the last one of an output may be
 * shorter. Of floats, m is the one of the greatest magnitude, the first of those.
 *   - int8: for each group d = |m| / 127, scale = d as a half, number = x / d to nearest, halves away from 0: -127 to
 *     127. This is GGUF's Q8_0.
 *   - int4: the same with d = m / -8, number = x / d to nearest, at most 7: -8 to 7. GGUF's Q4_0.
 *   - fp8: E4M3 (common/small_float.h), and a float as scale for each 128 x 128 weights, as DeepSeek's files have them;
 *     of floats scale = |m| / 448 of those, number = x / scale to nearest, ties to even.
 *   - mxfp4: E2M1, and for each group a power of 2 as scale, E8M0: gpt-oss's files. Of floats scale =
 *     2^(floor(log2 |m|) - 2), number = x / scale to nearest, ties to even, at most 6.
 *   - Where d, as it is kept, is 0 or (fp8) below 2^-126, scale and numbers are 0.
 *
 * So, with M = |m|, a weight differs from what it was by at most
 *   - int8: M (1/254 + 2^-11), and where d is below 2^-14 by 127 * 2^-25 more;
 *   - int4: M (1/8 + 2^-11), half as much for all but those near -m, and where d is below 2^-14 by 8 * 2^-25 more;
 *   - fp8: |x| / 16, or near 0 M / 2^18;
 *   - mxfp4: |x| / 4, or near 0 M / 16 or 2^-129.
 *
 * A new format is an entry here, and how kernels widen it: runtime/compute/kernels/quantized_cpu.cl, linear_gpu.cl. */
#ifndef EXPERTD_RUNTIME_WEIGHT_FORMAT_H
#define EXPERTD_RUNTIME_WEIGHT_FORMAT_H

#include <stdbool.h>
#include <stdint.h>

enum {
    WEIGHT_FORMAT_GROUP = 32,
    WEIGHT_FORMAT_SQUARE = 128,
};

struct weight_format {
    const char *precision; /* what the configuration calls it */
    const char *options;   /* for the kernels' compiler */
    unsigned bits;         /* of a code: 8 or 4 */
    unsigned scale_bytes;
    bool square;    /* a scale for each square of weights, not for each group */
    bool of_files;  /* public models have it: it is what a file must have, and is kept as it is there */
    float greatest; /* that a weight may be which is rounded to it */
    float most;     /* times which a scale must be finite */
    float (*number)(uint8_t code);
    float (*scale)(const void *kept);
    void (*keep_scale)(float scale, void *kept); /* to nearest */
    float (*divisor)(float m);                   /* d of floats */
    /* Of x * inverse, which is 1 / d. */
    void (*codes)(const float *values, uint64_t count, float inverse, uint8_t *codes);
};

/* The format that a precision is; NULL: it keeps weights otherwise. */
const struct weight_format *weight_format_find(const char *precision);
/* The scale that is kept for floats of which m is the greatest, and 1 / d; 0 and 0, which makes all numbers 0. */
float weight_format_scale(const struct weight_format *format, float m, float *inverse);

#endif
