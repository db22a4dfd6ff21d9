/* Numbers of 16 bits on the host: halves, IEEE 754's, with a sign, 5 bits of exponent and 11 significant bits; and
 * bfloat16, the upper half of a float, with 8 significant bits and a float's range. */
#ifndef EXPERTD_RUNTIME_HALF_H
#define EXPERTD_RUNTIME_HALF_H

#include <stdint.h>
#include <string.h>

/* From here on a value rounds to infinity. */
#define HALF_INFINITE 65520.0f

static inline uint32_t half_float_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float half_float_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* To nearest, ties to even: 65520 and more become infinite, 2^-25 and less 0. A NaN stays one. */
static inline uint16_t half_from_float(float value)
{
    const uint32_t all = half_float_bits(value), bits = all & 0x7fffffff, sign = all >> 16 & 0x8000;
    if (bits >= 0x47800000) /* 65536 */
        return (uint16_t)(sign | (bits > 0x7f800000 ? 0x7e00 : 0x7c00));
    if (bits < 0x38800000) /* 2^-14: from here down in units of 2^-24, which is the last place of 0.5 */
        return (uint16_t)(sign | (half_float_bits(half_float_of_bits(bits) + 0.5f) - half_float_bits(0.5f)));
    const uint32_t rounded = bits + 0xfff + (bits >> 13 & 1);
    return (uint16_t)(sign | (rounded - ((127 - 15) << 23)) >> 13);
}

/* Exact. */
static inline float half_to_float(uint16_t half)
{
    const uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31, mantissa = half & 1023;
    if (exponent == 31)
        return half_float_of_bits(sign | 0x7f800000 | mantissa << 13);
    if (exponent != 0)
        return half_float_of_bits(sign | (exponent + 112) << 23 | mantissa << 13);
    /* Subnormal: mantissa * 2^-24, which a float holds exactly. */
    const float value = (float)mantissa * 0x1p-24f;
    return sign ? -value : value;
}

/* The greatest float that does not become infinite as a bfloat16. */
#define BFLOAT_GREATEST 0x1.fefffep127f

/* To nearest, ties to even; what is above BFLOAT_GREATEST becomes infinite. A NaN stays one. */
static inline uint16_t bfloat_from_float(float value)
{
    const uint32_t bits = half_float_bits(value);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* Exact. */
static inline float bfloat_to_float(uint16_t bfloat)
{
    return half_float_of_bits((uint32_t)bfloat << 16);
}

#endif
