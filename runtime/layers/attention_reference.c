#include "runtime/layers/reference.h"

#include <math.h>
#include <stdlib.h>

static double dot(const float *a, const float *b, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

/* The weights of one query over the keys; all 0 where every key is left out. */
static void attention_weights(const struct reference_attention *call, const float *q, const float *keys,
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
static void attend(const struct reference_attention *call, size_t at, const unsigned char *mask)
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

void reference_attention(const struct reference_attention *call)
{
    for (size_t row = 0; row < call->rows; row++) {
        for (size_t head = 0; head < call->heads; head++)
            attend(call, row * call->tokens * call->heads * call->width + head * call->width,
                   call->mask + row * call->tokens);
    }
}
