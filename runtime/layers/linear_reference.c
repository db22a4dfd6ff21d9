#include "runtime/layers/reference.h"

#include "runtime/compute/linear.h"

static double epilogue(const struct reference_product *call, size_t at, size_t column, double value)
{
    if (call->flags & LINEAR_BIAS)
        value += (double)call->bias[column];
    if (call->flags & LINEAR_SAVE)
        call->save[at] = (float)value;
    return reference_applied(call->flags, value, call->flags & LINEAR_TAKES_SECOND ? (double)call->second[at] : 0);
}

void reference_product(const struct reference_product *call)
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

void reference_gradient(size_t rows, size_t n, size_t k, const float *x, const float *dy, bool accumulate, float *dw)
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

void reference_column_sums(size_t rows, size_t columns, const float *data, float *sums)
{
    for (size_t c = 0; c < columns; c++) {
        double sum = 0;
        for (size_t row = 0; row < rows; row++)
            sum += (double)data[row * columns + c];
        sums[c] = (float)sum;
    }
}
