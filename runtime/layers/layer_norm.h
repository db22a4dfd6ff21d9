/* LayerNorm over the rows of a matrix, y = (x - mean) / sqrt(variance + eps) * gamma + beta, on a device. Matrices
 * are row-major or in panels; the vectors lie in the weights buffer, padded to whole panels. All enqueue and do not
 * wait. */
#ifndef EXPERTD_RUNTIME_LAYER_NORM_H
#define EXPERTD_RUNTIME_LAYER_NORM_H

#include "runtime/compute/kernel.h"
#include "runtime/device/device.h"

/* `out` may be `x`. */
int layer_norm_forward(struct device *device, cl_int rows, cl_int columns, cl_float eps, const struct kernel_view *x,
                       const struct kernel_view *out, cl_mem weights, cl_ulong gamma_offset, cl_ulong beta_offset);

/* Backward, with z = (x - mean) / sqrt(variance + eps) and g = dy * gamma:
 *     dx = (g - mean(g) - z * mean(g * z)) / sqrt(variance + eps)
 *     dgamma = sum of dy * z over rows, dbeta = sum of dy, and, as x came from a linear layer, dbias = sum of dx. */
struct layer_norm_backward_call {
    cl_int rows, columns;
    cl_float eps;
    cl_int accumulate; /* the sums are added to what is there */
    struct kernel_view x, dy;
    struct kernel_view dx;    /* written */
    struct device_rows stats; /* mean and 1 / sqrt(variance + eps) of each row; written */
    cl_mem weights;
    cl_ulong gamma_offset;
    cl_mem gradients;
    cl_ulong dgamma_offset, dbeta_offset, dbias_offset; /* padded to whole panels */
};
int layer_norm_backward(struct device *device, const struct layer_norm_backward_call *call);
/* The sums; after layer_norm_backward. */
int layer_norm_sums(struct device *device, const struct layer_norm_backward_call *call);

#endif
