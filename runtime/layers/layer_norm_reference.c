#include "runtime/layers/reference.h"

#include <math.h>

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

void reference_layer_norm(size_t rows, size_t columns, double eps, const float *gamma, const float *beta,
                          const float *x, float *y)
{
    for (size_t row = 0; row < rows; row++, x += columns, y += columns) {
        double mean, rstd;
        statistics(x, columns, eps, &mean, &rstd);
        for (size_t c = 0; c < columns; c++)
            y[c] = (float)(((double)x[c] - mean) * rstd * (double)gamma[c] + (double)beta[c]);
    }
}

void reference_layer_norm_backward(size_t rows, size_t columns, double eps, const float *gamma, const float *x,
                                   const float *dy, const struct reference_norm_gradients *out)
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
    reference_column_sums(rows, columns, dy, out->dbeta);
    reference_column_sums(rows, columns, out->dx, out->dbias);
}
