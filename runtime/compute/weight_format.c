#include "runtime/compute/weight_format.h"

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "common/half.h"
#include "common/small_float.h"

/* --- scales ------------------------------------------------------------------------------------------------------- */

static float half_scale(const void *kept)
{
    uint16_t half;
    memcpy(&half, kept, sizeof half);
    return half_to_float(half);
}

static void keep_half(float scale, void *kept)
{
    const uint16_t half = half_from_float(scale);
    memcpy(kept, &half, sizeof half);
}

static float float_scale(const void *kept)
{
    float scale;
    memcpy(&scale, kept, sizeof scale);
    return scale;
}

static void keep_float(float scale, void *kept)
{
    memcpy(kept, &scale, sizeof scale);
}

static float power_scale(const void *kept)
{
    return small_float_e8m0(*(const uint8_t *)kept);
}

/* A power of 2 is its exponent's bits; 2^-127, a subnormal, has none. */
static void keep_power(float scale, void *kept)
{
    *(uint8_t *)kept = (uint8_t)(half_float_bits(scale) >> 23);
}

/* --- int8 and int4 ------------------------------------------------------------------------------------------------ */

static float number_of_int8(uint8_t code)
{
    return (float)(int8_t)code;
}

static float divisor_of_int8(float m)
{
    return fabsf(m) / 127;
}

/* To nearest, halves away from 0. */
static inline uint8_t code_of_int8(float x)
{
    const int whole = (int)x;
    const float rest = x - (float)whole;
    return (uint8_t)(whole + (rest >= 0.5f) - (rest <= -0.5f));
}

static float number_of_int4(uint8_t code)
{
    return (float)((int)((code & 15U) ^ 8U) - 8);
}

static float divisor_of_int4(float m)
{
    return m / -8;
}

static inline uint8_t code_of_int4(float x)
{
    const int number = (int)(x + 8.5f) - 8;
    return (uint8_t)(number < 7 ? number : 7) & 15;
}

/* --- fp8 and mxfp4 ------------------------------------------------------------------------------------------------ */

static float divisor_of_fp8(float m)
{
    const float d = fabsf(m) / SMALL_FLOAT_E4M3_GREATEST;
    return d < FLT_MIN ? 0 : d;
}

/* 2^(exponent - 2), of as small ones 2^-127. */
static float divisor_of_mxfp4(float m)
{
    const uint32_t exponent = half_float_bits(m) >> 23 & 255;
    return m == 0 ? 0 : small_float_e8m0((uint8_t)(exponent > 2 ? exponent - 2 : 0));
}

/* --- runs of codes ------------------------------------------------------------------------------------------------ */

#define CODES_OF(name, code_of)                                                                                        \
    static void name(const float *values, uint64_t count, float inverse, uint8_t *codes)                               \
    {                                                                                                                  \
        for (uint64_t i = 0; i < count; i++)                                                                           \
            codes[i] = code_of(values[i] * inverse);                                                                   \
    }
CODES_OF(codes_of_int8, code_of_int8)
CODES_OF(codes_of_int4, code_of_int4)
CODES_OF(codes_of_fp8, small_float_to_e4m3)
CODES_OF(codes_of_mxfp4, small_float_to_e2m1)

/* --- the table ---------------------------------------------------------------------------------------------------- */

static const struct weight_format formats[] = {
    {
        .precision = "int8",
        .options = " -DQUANTIZED_BITS=8",
        .bits = 8,
        .scale_bytes = sizeof(uint16_t),
        .greatest = 127 * 65519.996f /* what is less is no infinite half */,
        .number = number_of_int8,
        .scale = half_scale,
        .keep_scale = keep_half,
        .divisor = divisor_of_int8,
        .codes = codes_of_int8,
    },
    {
        .precision = "int4",
        .options = " -DQUANTIZED_BITS=4",
        .bits = 4,
        .scale_bytes = sizeof(uint16_t),
        .greatest = 8 * 65519.996f,
        .number = number_of_int4,
        .scale = half_scale,
        .keep_scale = keep_half,
        .divisor = divisor_of_int4,
        .codes = codes_of_int4,
    },
    {
        .precision = "fp8",
        .options = " -DQUANTIZED_BITS=8 -DQUANTIZED_FP8",
        .bits = 8,
        .scale_bytes = sizeof(float),
        .square = true,
        .of_files = true,
        .greatest = FLT_MAX,
        .most = SMALL_FLOAT_E4M3_GREATEST,
        .number = small_float_e4m3,
        .scale = float_scale,
        .keep_scale = keep_float,
        .divisor = divisor_of_fp8,
        .codes = codes_of_fp8,
    },
    {
        .precision = "mxfp4",
        .options = " -DQUANTIZED_BITS=4 -DQUANTIZED_MXFP4",
        .bits = 4,
        .scale_bytes = 1,
        .of_files = true,
        .greatest = FLT_MAX,
        .most = 1,
        .number = small_float_e2m1,
        .scale = power_scale,
        .keep_scale = keep_power,
        .divisor = divisor_of_mxfp4,
        .codes = codes_of_mxfp4,
    },
};

const struct weight_format *weight_format_find(const char *precision)
{
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++)
        if (strcmp(formats[i].precision, precision) == 0)
            return &formats[i];
    return NULL;
}

float weight_format_scale(const struct weight_format *format, float m, float *inverse)
{
    uint32_t kept = 0;
    const float d = format->divisor(m);
    format->keep_scale(d, &kept);
    const float scale = format->scale(&kept);
    *inverse = d == 0 || scale == 0 ? 0 : 1 / d;
    return d == 0 ? 0 : scale;
}
