#include "runtime/layers/reference.h"

static void forward(const struct reference_affine *call, size_t i, size_t constant)
{
    const double weight = call->weight != NULL ? (double)call->weight[constant] : 1;
    const double bias = call->bias != NULL ? (double)call->bias[constant] : 0;
    call->y[i] = (float)((double)call->x[i] * call->scale * weight + bias + call->shift);
}

/* The gradients of one number of the constants, and of all rows that it is for. */
static void backward(const struct reference_affine *call, size_t constant)
{
    const size_t every = call->period * call->columns;
    const double weight = call->weight != NULL ? (double)call->weight[constant] : 1;
    double sum_weight = 0, sum_bias = 0;
    for (size_t i = constant; i < call->rows * call->columns; i += every) {
        const double dy = (double)call->grad[i];
        sum_weight += dy * (double)call->x[i] * call->scale;
        sum_bias += dy;
        call->grad_x[i] = (float)(dy * call->scale * weight);
    }
    if (call->grad_weight != NULL)
        call->grad_weight[constant] = (float)sum_weight;
    if (call->grad_bias != NULL)
        call->grad_bias[constant] = (float)sum_bias;
}

void reference_affine(const struct reference_affine *call)
{
    const size_t every = call->period * call->columns;
    for (size_t i = 0; i < call->rows * call->columns; i++)
        forward(call, i, i % every);
    for (size_t constant = 0; constant < every && call->grad != NULL; constant++)
        backward(call, constant);
}
