/* RMSNorm over the rows of a matrix, y = x / sqrt(mean of x^2 + eps) * gamma, on a device. Matrices are row-major or in
 * panels; vectors are padded to whole panels. All enqueue and do not wait. */
#ifndef EXPERTD_RUNTIME_RMS_NORM_H
#define EXPERTD_RUNTIME_RMS_NORM_H

#include "runtime/compute/kernel.h"
#include "runtime/device/device.h"
#include "runtime/layers/norm.h"

/* `out` may be `x`. */
int rms_norm_forward(struct device *device, cl_int rows, cl_int columns, cl_float eps, const struct kernel_view *x,
                     const struct kernel_view *out, cl_mem weights, cl_ulong gamma_offset);

/* Backward is norm_backward(); with r = 1 / sqrt(mean of x^2 + eps), z = x * r and g = dy * gamma:
 *     dx = r * (g - z * mean(g * z)),  dgamma = sum of dy * z over rows.
 * stats is r of each row. This: dgamma; after norm_backward(). */
int rms_norm_sums(struct device *device, const struct norm_backward_call *call);

#endif
