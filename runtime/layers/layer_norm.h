/* LayerNorm over the rows of a matrix, y = (x - mean) / sqrt(variance + eps) * gamma + beta, on a device. Matrices
 * are row-major or in panels; the vectors lie in the weights buffer, padded to whole panels. All enqueue and do not
 * wait. */
#ifndef EXPERTD_RUNTIME_LAYER_NORM_H
#define EXPERTD_RUNTIME_LAYER_NORM_H

#include "runtime/compute/kernel.h"
#include "runtime/device/device.h"
#include "runtime/layers/norm.h"

/* `out` may be `x`. */
int layer_norm_forward(struct device *device, cl_int rows, cl_int columns, cl_float eps, const struct kernel_view *x,
                       const struct kernel_view *out, cl_mem weights, cl_ulong gamma_offset, cl_ulong beta_offset);

/* Backward is norm_backward(); with z = (x - mean) / sqrt(variance + eps) and g = dy * gamma:
 *     dx = (g - mean(g) - z * mean(g * z)) / sqrt(variance + eps)
 *     dgamma = sum of dy * z over rows, dbeta = sum of dy, and, as x came from a linear layer, dbias = sum of dx.
 * stats are mean and 1 / sqrt(variance + eps) of each row. This: the sums; after norm_backward(). */
int layer_norm_sums(struct device *device, const struct norm_backward_call *call);

#endif
