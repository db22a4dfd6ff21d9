#include "examples/digits/linear.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const float beta1 = 0.9F, beta2 = 0.999F, epsilon = 1e-8F;

/* splitmix64, uniform in [-1, 1). */
static float draw(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9E3779B97F4A7C15));
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    z ^= z >> 31;
    return (float)(z >> 40) / (float)(1 << 23) - 1.0F;
}

int linear_create(struct linear *layer, size_t in, size_t out, uint64_t seed)
{
    *layer = (struct linear){.in = in, .out = out, .count = out * in + out};
    layer->weight = malloc(layer->count * sizeof(float));
    layer->moment1 = calloc(layer->count, sizeof(float));
    layer->moment2 = calloc(layer->count, sizeof(float));
    if (!layer->weight || !layer->moment1 || !layer->moment2) {
        linear_destroy(layer);
        return -ENOMEM;
    }
    layer->bias = layer->weight + out * in;
    float bound = 1.0F / sqrtf((float)in);
    for (size_t i = 0; i < layer->count; i++) {
        layer->weight[i] = bound * draw(&seed);
    }
    return 0;
}

void linear_destroy(struct linear *layer)
{
    free(layer->weight);
    free(layer->moment1);
    free(layer->moment2);
    *layer = (struct linear){0};
}

void linear_forward(const struct linear *layer, const float *x, size_t rows, float *y)
{
    for (size_t r = 0; r < rows; r++, x += layer->in, y += layer->out) {
        for (size_t o = 0; o < layer->out; o++) {
            const float *w = layer->weight + o * layer->in;
            float sum = layer->bias[o];
            for (size_t i = 0; i < layer->in; i++) {
                sum += w[i] * x[i];
            }
            y[o] = sum;
        }
    }
}

void linear_backward(const struct linear *layer, const float *x, const float *grad_y, size_t rows, float *gradient,
                     float *grad_x)
{
    float *grad_bias = gradient + layer->out * layer->in;
    if (grad_x) {
        memset(grad_x, 0, rows * layer->in * sizeof *grad_x);
    }
    for (size_t r = 0; r < rows; r++, x += layer->in, grad_y += layer->out) {
        for (size_t o = 0; o < layer->out; o++) {
            const float *w = layer->weight + o * layer->in;
            float *grad_w = gradient + o * layer->in, g = grad_y[o];
            grad_bias[o] += g;
            for (size_t i = 0; i < layer->in; i++) {
                grad_w[i] += g * x[i];
            }
            for (size_t i = 0; grad_x && i < layer->in; i++) {
                grad_x[r * layer->in + i] += g * w[i];
            }
        }
    }
}

int linear_step(struct linear *layer, const float *gradient, float learning_rate)
{
    for (size_t i = 0; i < layer->count; i++) {
        if (!isfinite(gradient[i])) {
            return -EDOM;
        }
    }
    layer->steps++;
    float correction1 = 1.0F - powf(beta1, (float)layer->steps);
    float correction2 = 1.0F - powf(beta2, (float)layer->steps);
    for (size_t i = 0; i < layer->count; i++) {
        layer->moment1[i] = beta1 * layer->moment1[i] + (1.0F - beta1) * gradient[i];
        layer->moment2[i] = beta2 * layer->moment2[i] + (1.0F - beta2) * gradient[i] * gradient[i];
        float spread = sqrtf(layer->moment2[i] / correction2) + epsilon;
        layer->weight[i] -= learning_rate * layer->moment1[i] / correction1 / spread;
    }
    return 0;
}

/* Turns one row of logits into its softmax, less 1 at the label, over rows: the gradient of the mean. */
static double row_cross_entropy(float *row, size_t label, size_t rows, size_t classes, size_t *right)
{
    size_t best = 0;
    double sum = 0; /* at least 1 in the end: the largest logit gives 1 */
    for (size_t c = 1; c < classes; c++) {
        best = row[c] > row[best] ? c : best;
    }
    float top = row[best], at_label = row[label] - top;
    *right += best == label;
    for (size_t c = 0; c < classes; c++) {
        row[c] = expf(row[c] - top);
        sum += row[c];
    }
    for (size_t c = 0; c < classes; c++) {
        row[c] = (float)(row[c] / sum - (c == label)) / (float)rows;
    }
    return log(fmax(sum, 1)) - at_label;
}

double linear_cross_entropy(float *logits, const uint8_t *labels, size_t rows, size_t classes, size_t *right)
{
    double loss = 0;
    *right = 0;
    for (size_t r = 0; r < rows; r++) {
        loss += row_cross_entropy(logits + r * classes, labels[r], rows, classes, right);
    }
    return loss / (double)rows;
}
