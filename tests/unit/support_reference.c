#include "unit/support_reference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/compute/linear.h"

/* To 11 significant bits, ties away from zero. */
static float round_tf32(float value)
{
    int exponent;
    frexp((double)value, &exponent);
    const double unit = ldexp(1, exponent - 11);
    return (float)(round((double)value / unit) * unit);
}

/* Ties to even, and 2^-24 the smallest unit. */
static float round_fp16(float value)
{
    int exponent;
    frexp((double)value, &exponent);
    const double unit = ldexp(1, exponent < -13 ? -24 : exponent - 11), result = rint((double)value / unit) * unit;
    return fabs(result) > 65504 ? copysignf(INFINITY, value) : (float)result;
}

/* To 8 significant bits, ties to even; the values are far from a float's least and greatest. */
static float round_bf16(float value)
{
    int exponent;
    frexp((double)value, &exponent);
    const double unit = ldexp(1, exponent - 8);
    return (float)(rint((double)value / unit) * unit);
}

void support_round(const char *precision, const float *values, size_t count, float *rounded)
{
    const bool tf32 = strcmp(precision, "tf32") == 0, fp16 = strcmp(precision, "fp16") == 0,
               bf16 = strcmp(precision, "bf16") == 0;
    for (size_t i = 0; i < count; i++) {
        const bool finite = isfinite(values[i]) != 0;
        rounded[i] = tf32 && finite   ? round_tf32(values[i])
                     : fp16 && finite ? round_fp16(values[i])
                     : bf16 && finite ? round_bf16(values[i])
                                      : values[i];
    }
}

void support_round_operand(const char *kernel, const char *precision, enum support_operand operand, const float *values,
                           size_t count, float *rounded)
{
    const bool fp16 = strcmp(precision, "fp16") == 0, mma = strcmp(kernel, "mma") == 0;
    if (fp16 && operand != SUPPORT_WEIGHT)
        precision = !mma ? "fp32" : operand == SUPPORT_OF_GRADIENT ? "tf32" : "fp16";
    if (strcmp(precision, "bf16") == 0 && operand != SUPPORT_WEIGHT)
        precision = mma ? "tf32" : "fp32";
    support_round(precision, values, count, rounded);
}

double support_reference_norm(const float *values, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += (double)values[i] * (double)values[i];
    return sqrt(sum);
}

void support_reference_step(const struct optimizer_settings *settings, unsigned update, double factor, size_t count,
                            const float *gradient, float *w, float *m, float *v, float *greatest)
{
    const double rate = optimizer_rate(settings, update);
    const double correction1 = 1 - pow(settings->beta1, update + 1), correction2 = 1 - pow(settings->beta2, update + 1);
    for (size_t i = 0; i < count; i++) {
        const bool decoupled = settings->kind == OPTIMIZER_ADAMW;
        const double decay = settings->weight_decay * (double)w[i];
        const double g = (double)gradient[i] * factor + (decoupled ? 0 : decay);
        if (optimizer_is_adam(settings)) {
            const double mi = settings->beta1 * (double)m[i] + (1 - settings->beta1) * g;
            const double vi = settings->beta2 * (double)v[i] + (1 - settings->beta2) * g * g;
            const double most = settings->amsgrad ? fmax(vi, (double)greatest[i]) : vi;
            w[i] = (float)((double)w[i] - (decoupled ? rate * decay : 0) -
                           rate / correction1 * mi / (sqrt(most) / sqrt(correction2) + settings->epsilon));
            if (settings->amsgrad)
                greatest[i] = (float)most;
            m[i] = (float)mi;
            v[i] = (float)vi;
        } else {
            const double buffer = settings->momentum > 0 ? settings->momentum * (double)m[i] + g : g;
            w[i] = (float)((double)w[i] - rate * buffer);
            if (settings->momentum > 0)
                m[i] = (float)buffer;
        }
    }
}

void support_reference_pack(size_t rows, size_t columns, size_t panel, const float *plain, float *packed)
{
    panel = panel != 0 ? panel : columns;
    for (size_t first = 0; first < columns; first += panel)
        for (size_t row = 0; row < rows; row++)
            for (size_t c = first; c < first + panel; c++)
                *packed++ = c < columns ? plain[row * columns + c] : 0.0f;
}

void support_reference_unpack(size_t rows, size_t columns, size_t panel, const float *packed, float *plain)
{
    panel = panel != 0 ? panel : columns;
    for (size_t first = 0; first < columns; first += panel)
        for (size_t row = 0; row < rows; row++)
            for (size_t c = first; c < first + panel; c++, packed++)
                if (c < columns)
                    plain[row * columns + c] = *packed;
}
