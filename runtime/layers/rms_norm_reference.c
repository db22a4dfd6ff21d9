#include "runtime/layers/reference.h"

#include <math.h>
#include <stdlib.h>

static double sum_of_squares(const float *row, size_t columns)
{
    double sum = 0;
    for (size_t c = 0; c < columns; c++)
        sum += (double)row[c] * (double)row[c];
    return sum;
}

static double inverse_rms(const float *row, size_t columns, double eps)
{
    return 1 / sqrt(sum_of_squares(row, columns) / (double)columns + eps);
}

void reference_rms_norm(size_t rows, size_t columns, double eps, const float *gamma, const float *x, float *y)
{
    for (size_t row = 0; row < rows; row++, x += columns, y += columns) {
        const double r = inverse_rms(x, columns, eps);
        for (size_t c = 0; c < columns; c++)
            y[c] = (float)((double)x[c] * r * (double)gamma[c]);
    }
}

void reference_rms_norm_backward(size_t rows, size_t columns, double eps, const float *gamma, const float *x,
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
