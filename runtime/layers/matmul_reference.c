#include "runtime/layers/reference.h"

/* Element (i, j) of the matrix and head, of a value whose matrices have so many rows and columns. */
static size_t at(const struct reference_matmul *call, size_t matrix, size_t head, size_t rows, size_t columns, size_t i,
                 size_t j)
{
    return ((matrix * rows + i) * call->heads + head) * columns + j;
}

static size_t at_b(const struct reference_matmul *call, size_t matrix, size_t head, size_t k, size_t column)
{
    return call->b_across ? at(call, matrix, head, call->columns, call->count, column, k)
                          : at(call, matrix, head, call->count, call->columns, k, column);
}

static void multiply(const struct reference_matmul *call, size_t matrix, size_t head)
{
    for (size_t i = 0; i < call->rows; i++) {
        for (size_t j = 0; j < call->columns; j++) {
            double sum = 0;
            for (size_t k = 0; k < call->count; k++)
                sum += (double)call->a[at(call, matrix, head, call->rows, call->count, i, k)] *
                       (double)call->b[at_b(call, matrix, head, k, j)];
            call->out[at(call, matrix, head, call->rows, call->columns, i, j)] = (float)(call->scale * sum);
        }
    }
}

static void multiply_back(const struct reference_matmul *call, size_t matrix, size_t head)
{
    for (size_t k = 0; k < call->count; k++) {
        for (size_t i = 0; i < call->rows; i++) {
            double sum = 0;
            for (size_t j = 0; j < call->columns; j++)
                sum += (double)call->grad[at(call, matrix, head, call->rows, call->columns, i, j)] *
                       (double)call->b[at_b(call, matrix, head, k, j)];
            call->grad_a[at(call, matrix, head, call->rows, call->count, i, k)] = (float)(call->scale * sum);
        }
        for (size_t j = 0; j < call->columns; j++) {
            double sum = 0;
            for (size_t i = 0; i < call->rows; i++)
                sum += (double)call->grad[at(call, matrix, head, call->rows, call->columns, i, j)] *
                       (double)call->a[at(call, matrix, head, call->rows, call->count, i, k)];
            call->grad_b[at_b(call, matrix, head, k, j)] = (float)(call->scale * sum);
        }
    }
}

void reference_matmul(const struct reference_matmul *call)
{
    for (size_t i = 0; i < call->matrices * call->heads; i++) {
        multiply(call, i / call->heads, i % call->heads);
        if (call->grad)
            multiply_back(call, i / call->heads, i % call->heads);
    }
}
