/* Numbers of 8 and 4 bits, as checkpoints of public models have them, on the host. Widening is exact; what is narrowed
 * is rounded to nearest, ties to even, and what is beyond the greatest becomes that.
 *
 * E4M3 (OCP FP8, "F8_E4M3" in safetensors): a sign, 4 bits of exponent with bias 7, 3 of mantissa; no infinities, 0x7f
 * and 0xff are NaN, the greatest is 448. E2M1 (OCP FP4): a sign, 2 bits of exponent with bias 1, one of mantissa: 0,
 * 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives. E8M0, a scale: 2^(code - 127), 255 is NaN.
 *
 * MXFP4 is a block of 32 numbers of E2M1, two in a byte, the first in its low bits, and one scale of E8M0. */
#ifndef EXPERTD_COMMON_SMALL_FLOAT_H
#define EXPERTD_COMMON_SMALL_FLOAT_H

#include <stdint.h>

#include "common/half.h"

enum { MXFP4_BLOCK = 32, MXFP4_BLOCK_BYTES = MXFP4_BLOCK / 2 };

#define SMALL_FLOAT_E4M3_GREATEST 448.0f

static inline float small_float_e4m3(uint8_t code)
{
    const uint32_t sign = (uint32_t)(code & 0x80) << 24, exponent = code >> 3 & 15, mantissa = code & 7;
    if (exponent == 15 && mantissa == 7)
        return half_float_of_bits(sign | 0x7fc00000);
    if (exponent != 0)
        return half_float_of_bits(sign | (exponent + 120) << 23 | mantissa << 20);
    const float value = (float)mantissa * 0x1p-9f;
    return sign ? -value : value;
}

static inline uint8_t small_float_to_e4m3(float value)
{
    const uint32_t bits = half_float_bits(value), magnitude = bits & 0x7fffffff;
    const uint8_t sign = (uint8_t)(bits >> 24 & 0x80);
    if (magnitude >= half_float_bits(SMALL_FLOAT_E4M3_GREATEST))
        return sign | 0x7e;
    if (magnitude < half_float_bits(0x1p-6f)) /* from here down in units of 2^-9, which is the last place of 2^14 */
        return sign | (uint8_t)(half_float_bits(half_float_of_bits(magnitude) + 0x1p14f) - half_float_bits(0x1p14f));
    return sign | (uint8_t)((magnitude + 0x7ffff + (magnitude >> 20 & 1) - (120U << 23)) >> 20);
}

/* Of the low 4 bits. */
static inline float small_float_e2m1(uint8_t code)
{
    static const float values[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
    return code & 8 ? -values[code & 7] : values[code & 7];
}

static inline uint8_t small_float_to_e2m1(float value)
{
    const float x = value < 0 ? -value : value;
    const int code = (x > 0.25f) + (x >= 0.75f) + (x > 1.25f) + (x >= 1.75f) + (x > 2.5f) + (x >= 3.5f) + (x > 5);
    return (uint8_t)(code | (value < 0 ? 8 : 0));
}

static inline float small_float_e8m0(uint8_t code)
{
    return half_float_of_bits(code == 255 ? 0x7fc00000 : code == 0 ? 0x00400000 : (uint32_t)code << 23);
}

#endif
