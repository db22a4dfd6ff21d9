/* Numbers of 8 and 4 bits, as checkpoints of public models have them, on the host. All of these are exact.
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

/* Of the low 4 bits. */
static inline float small_float_e2m1(uint8_t code)
{
    static const float values[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
    return code & 8 ? -values[code & 7] : values[code & 7];
}

static inline float small_float_e8m0(uint8_t code)
{
    return half_float_of_bits(code == 255 ? 0x7fc00000 : code == 0 ? 0x00400000 : (uint32_t)code << 23);
}

#endif
