/* RMSNorm over the rows of a matrix, y = x / sqrt(mean of x^2 + eps) * gamma, on a device. Matrices are row-major or in
 * panels; vectors are padded to whole panels. All enqueue and do not wait. */
#ifndef EXPERTD_RUNTIME_RMS_NORM_H
#define EXPERTD_RUNTIME_RMS_NORM_H

#include "runtime/compute/kernel.h"
#include "runtime/device/device.h"

/* `out` may be `x`. */
int rms_norm_forward(struct device *device, cl_int rows, cl_int columns, cl_float eps, const struct kernel_view *x,
                     const struct kernel_view *out, cl_mem weights, cl_ulong gamma_offset);

/* Backward, with r = 1 / sqrt(mean of x^2 + eps), z = x * r and g = dy * gamma:
 *     dx = r * (g - z * mean(g * z)),  dgamma = sum of dy * z over rows. */
struct rms_norm_backward_call {
    cl_int rows, columns;
    cl_float eps;
    cl_int accumulate;            /* dgamma is added to what is there */
    struct kernel_view x, dy, dx; /* dx: written; may be dy, but not before rms_norm_sums is to read dy */
    struct device_rows stats;     /* r of each row; written */
    cl_mem weights;
    cl_ulong gamma_offset;
    cl_mem gradients;
    cl_ulong dgamma_offset;
};
int rms_norm_backward(struct device *device, const struct rms_norm_backward_call *call);
/* dgamma; after rms_norm_backward. */
int rms_norm_sums(struct device *device, const struct rms_norm_backward_call *call);

#endif
