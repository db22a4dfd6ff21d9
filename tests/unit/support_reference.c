#include "unit/support_reference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

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

static double activated(unsigned flags, double x)
{
    return flags & LINEAR_GELU   ? gelu(x)
           : flags & LINEAR_RELU ? fmax(x, 0)
           : flags & LINEAR_SILU ? x / (1 + exp(-x))
                                 : x * normal(x);
}

static double slope_of(unsigned flags, double x)
{
    return flags & LINEAR_GELU_GRAD   ? gelu_grad(x)
           : flags & LINEAR_RELU_GRAD ? x > 0
           : flags & LINEAR_SILU_GRAD ? silu_grad(x)
                                      : gelu_erf_grad(x);
}

void support_reference_gate(const struct support_gate *gate)
{
    for (size_t i = 0; i < gate->count; i++) {
        const double g = fmin((double)gate->pairs[2 * i], gate->limit);
        const double u = fmax(fmin((double)gate->pairs[2 * i + 1], gate->limit), -gate->limit);
        gate->out[i] = (float)(activated(gate->flags, gate->alpha * g) / gate->alpha * (u + gate->shift));
    }
}

void support_reference_gate_backward(const struct support_gate *gate)
{
    for (size_t i = 0; i < gate->count; i++) {
        const double g = (double)gate->pairs[2 * i], u = (double)gate->pairs[2 * i + 1], dy = (double)gate->dy[i];
        const double cut_g = fmin(g, gate->limit), cut_u = fmax(fmin(u, gate->limit), -gate->limit);
        gate->gradients[2 * i] =
            g > gate->limit ? 0 : (float)(dy * slope_of(gate->flags, gate->alpha * cut_g) * (cut_u + gate->shift));
        gate->gradients[2 * i + 1] =
            fabs(u) > gate->limit ? 0 : (float)(dy * activated(gate->flags, gate->alpha * cut_g) / gate->alpha);
    }
}

static double epilogue(const struct support_product *call, size_t at, size_t column, double value)
{
    if (call->flags & LINEAR_BIAS)
        value += (double)call->bias[column];
    if (call->flags & LINEAR_SAVE)
        call->save[at] = (float)value;
    if (call->flags & LINEAR_GELU)
        value = gelu(value);
    if (call->flags & LINEAR_RELU)
        value = value > 0 ? value : 0;
    if (call->flags & LINEAR_GELU_ERF)
        value *= normal(value);
    if (call->flags & LINEAR_SILU)
        value /= 1 + exp(-value);
    if (call->flags & LINEAR_GELU_GRAD)
        value *= gelu_grad((double)call->second[at]);
    if (call->flags & LINEAR_RELU_GRAD)
        value *= call->second[at] > 0;
    if (call->flags & LINEAR_GELU_ERF_GRAD)
        value *= gelu_erf_grad((double)call->second[at]);
    if (call->flags & LINEAR_SILU_GRAD)
        value *= silu_grad((double)call->second[at]);
    if (call->flags & LINEAR_MULTIPLY)
        value *= (double)call->second[at];
    if (call->flags & LINEAR_ADD)
        value += (double)call->second[at];
    return value;
}

void support_reference_product(const struct support_product *call)
{
    for (size_t row = 0; row < call->rows; row++) {
        for (size_t column = 0; column < call->n; column++) {
            double sum = 0;
            for (size_t i = 0; i < call->k; i++)
                sum += (double)call->a[row * call->k + i] * (double)call->b[i * call->n + column];
            const size_t at = row * call->n + column;
            call->out[at] = (float)epilogue(call, at, column, sum);
        }
    }
}

void support_reference_gradient(size_t rows, size_t n, size_t k, const float *x, const float *dy, bool accumulate,
                                float *dw)
{
    for (size_t i = 0; i < k; i++) {
        for (size_t column = 0; column < n; column++) {
            double sum = accumulate ? (double)dw[i * n + column] : 0;
            for (size_t row = 0; row < rows; row++)
                sum += (double)x[row * k + i] * (double)dy[row * n + column];
            dw[i * n + column] = (float)sum;
        }
    }
}

static void statistics(const float *row, size_t columns, double eps, double *mean, double *rstd)
{
    double sum = 0, squares = 0;
    for (size_t c = 0; c < columns; c++)
        sum += (double)row[c];
    *mean = sum / (double)columns;
    for (size_t c = 0; c < columns; c++)
        squares += ((double)row[c] - *mean) * ((double)row[c] - *mean);
    *rstd = 1 / sqrt(squares / (double)columns + eps);
}

void support_reference_layer_norm(size_t rows, size_t columns, double eps, const float *gamma, const float *beta,
                                  const float *x, float *y)
{
    for (size_t row = 0; row < rows; row++, x += columns, y += columns) {
        double mean, rstd;
        statistics(x, columns, eps, &mean, &rstd);
        for (size_t c = 0; c < columns; c++)
            y[c] = (float)(((double)x[c] - mean) * rstd * (double)gamma[c] + (double)beta[c]);
    }
}

void support_reference_layer_norm_backward(size_t rows, size_t columns, double eps, const float *gamma, const float *x,
                                           const float *dy, const struct support_norm_gradients *out)
{
    for (size_t row = 0; row < rows; row++) {
        const float *xr = x + row * columns, *dyr = dy + row * columns;
        double mean, rstd, sum_g = 0, sum_gz = 0;
        statistics(xr, columns, eps, &mean, &rstd);
        for (size_t c = 0; c < columns; c++) {
            const double g = (double)dyr[c] * (double)gamma[c];
            sum_g += g;
            sum_gz += g * ((double)xr[c] - mean) * rstd;
        }
        for (size_t c = 0; c < columns; c++) {
            const double g = (double)dyr[c] * (double)gamma[c], z = ((double)xr[c] - mean) * rstd;
            out->dx[row * columns + c] = (float)(rstd * (g - sum_g / (double)columns - z * sum_gz / (double)columns));
        }
        out->stats[2 * row] = (float)mean;
        out->stats[2 * row + 1] = (float)rstd;
    }
    for (size_t c = 0; c < columns; c++) {
        double dgamma = 0;
        for (size_t row = 0; row < rows; row++)
            dgamma += (double)dy[row * columns + c] * ((double)x[row * columns + c] - (double)out->stats[2 * row]) *
                      (double)out->stats[2 * row + 1];
        out->dgamma[c] = (float)dgamma;
    }
    support_reference_column_sums(rows, columns, dy, out->dbeta);
    support_reference_column_sums(rows, columns, out->dx, out->dbias);
}

static double dot(const float *a, const float *b, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

static double inverse_rms(const float *row, size_t columns, double eps)
{
    return 1 / sqrt(dot(row, row, columns) / (double)columns + eps);
}

void support_reference_rms_norm(size_t rows, size_t columns, double eps, const float *gamma, const float *x, float *y)
{
    for (size_t row = 0; row < rows; row++, x += columns, y += columns) {
        const double r = inverse_rms(x, columns, eps);
        for (size_t c = 0; c < columns; c++)
            y[c] = (float)((double)x[c] * r * (double)gamma[c]);
    }
}

void support_reference_rms_norm_backward(size_t rows, size_t columns, double eps, const float *gamma, const float *x,
                                         const float *dy, float *dx, float *stats, float *dgamma)
{
    double *sums = calloc(columns, sizeof *sums);
    for (size_t row = 0; row < rows; row++, x += columns, dy += columns, dx += columns) {
        const double r = inverse_rms(x, columns, eps);
        double mean = 0;
        for (size_t c = 0; c < columns; c++)
            mean += (double)dy[c] * (double)gamma[c] * (double)x[c] * r / (double)columns;
        for (size_t c = 0; c < columns; c++) {
            dx[c] = (float)(r * ((double)dy[c] * (double)gamma[c] - (double)x[c] * r * mean));
            sums[c] += (double)dy[c] * (double)x[c] * r;
        }
        stats[row] = (float)r;
    }
    for (size_t c = 0; c < columns; c++)
        dgamma[c] = (float)sums[c];
    free(sums);
}

/* The weights of one query over the keys; all 0 where every key is left out. */
static void attention_weights(const struct support_attention *call, const float *q, const float *keys,
                              const unsigned char *mask, double *weights)
{
    const size_t columns = call->heads * call->width;
    double most = -INFINITY, sum = 0;
    for (size_t j = 0; j < call->tokens; j++) {
        weights[j] = mask[j] ? -INFINITY : dot(q, keys + j * columns, call->width) / sqrt((double)call->width);
        most = weights[j] > most ? weights[j] : most;
    }
    for (size_t j = 0; j < call->tokens; j++)
        sum += weights[j] = mask[j] ? 0 : exp(weights[j] - most);
    for (size_t j = 0; j < call->tokens && sum > 0; j++)
        weights[j] /= sum;
}

/* For the tokens of one row and the columns of one head, from `at` on in each matrix. */
static void attend(const struct support_attention *call, size_t at, const unsigned char *mask)
{
    const size_t tokens = call->tokens, width = call->width, columns = call->heads * width;
    double *weights = calloc(tokens, sizeof *weights), *grads = calloc(3 * tokens * width, sizeof *grads);
    double *grad_q = grads, *grad_k = grads + tokens * width, *grad_v = grads + 2 * tokens * width;
    for (size_t i = 0; i < tokens; i++) {
        const float *q = call->q + at + i * columns, *grad = call->grad ? call->grad + at + i * columns : NULL;
        double total = 0;
        attention_weights(call, q, call->k + at, mask, weights);
        for (size_t c = 0; c < width; c++) {
            double sum = 0;
            for (size_t j = 0; j < tokens; j++)
                sum += weights[j] * (double)call->v[at + j * columns + c];
            call->out[at + i * columns + c] = (float)sum;
        }
        for (size_t j = 0; j < tokens && grad; j++)
            total += weights[j] * dot(grad, call->v + at + j * columns, width);
        for (size_t j = 0; j < tokens && grad; j++) {
            const double gradient = weights[j] * (dot(grad, call->v + at + j * columns, width) - total);
            for (size_t c = 0; c < width; c++) {
                grad_q[i * width + c] += gradient / sqrt((double)width) * (double)call->k[at + j * columns + c];
                grad_k[j * width + c] += gradient / sqrt((double)width) * (double)q[c];
                grad_v[j * width + c] += weights[j] * (double)grad[c];
            }
        }
    }
    for (size_t i = 0; i < tokens * width && call->grad; i++) {
        const size_t to = at + i / width * columns + i % width;
        call->grad_q[to] = (float)grad_q[i];
        call->grad_k[to] = (float)grad_k[i];
        call->grad_v[to] = (float)grad_v[i];
    }
    free(weights);
    free(grads);
}

void support_reference_attention(const struct support_attention *call)
{
    for (size_t row = 0; row < call->rows; row++) {
        for (size_t head = 0; head < call->heads; head++)
            attend(call, row * call->tokens * call->heads * call->width + head * call->width,
                   call->mask + row * call->tokens);
    }
}

void support_reference_column_sums(size_t rows, size_t columns, const float *data, float *sums)
{
    for (size_t c = 0; c < columns; c++) {
        double sum = 0;
        for (size_t row = 0; row < rows; row++)
            sum += (double)data[row * columns + c];
        sums[c] = (float)sum;
    }
}

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
