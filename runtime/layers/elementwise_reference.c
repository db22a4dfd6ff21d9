#include "runtime/layers/reference.h"

#include <math.h>

#include "runtime/compute/linear.h"

static double gelu(double x)
{
    return x / 2 * (1 + tanh(0.7978845608 * x * (1 + 0.044715 * x * x)));
}

static double gelu_grad(double x)
{
    const double t = tanh(0.7978845608 * x * (1 + 0.044715 * x * x));
    return (1 + t) / 2 + x / 2 * (1 - t * t) * 0.7978845608 * (1 + 3 * 0.044715 * x * x);
}

/* The normal distribution. */
static double normal(double x)
{
    return erfc(-x / sqrt(2)) / 2;
}

static double gelu_erf_grad(double x)
{
    return normal(x) + x * exp(-x * x / 2) / sqrt(2 * acos(-1));
}

static double silu_grad(double x)
{
    const double s = 1 / (1 + exp(-x));
    return s * (1 + x * (1 - s));
}

double reference_activation(unsigned flags, double x)
{
    return flags & LINEAR_GELU       ? gelu(x)
           : flags & LINEAR_RELU     ? (x > 0 ? x : 0)
           : flags & LINEAR_SILU     ? x / (1 + exp(-x))
           : flags & LINEAR_GELU_ERF ? x * normal(x)
                                     : x;
}

double reference_slope(unsigned flags, double x)
{
    return flags & LINEAR_GELU_GRAD       ? gelu_grad(x)
           : flags & LINEAR_RELU_GRAD     ? x > 0
           : flags & LINEAR_SILU_GRAD     ? silu_grad(x)
           : flags & LINEAR_GELU_ERF_GRAD ? gelu_erf_grad(x)
                                          : 1;
}

double reference_applied(unsigned flags, double value, double second)
{
    value = reference_activation(flags, value) * reference_slope(flags, second);
    return (flags & LINEAR_MULTIPLY ? value * second : value) + (flags & LINEAR_ADD ? second : 0);
}

void reference_apply(size_t count, unsigned flags, const float *a, const float *second, float *out)
{
    for (size_t i = 0; i < count; i++)
        out[i] = (float)reference_applied(flags, (double)a[i], flags & LINEAR_TAKES_SECOND ? (double)second[i] : 0);
}
