/* LayerNorm over the rows of a matrix, y = (x - mean) / sqrt(variance + eps) * gamma + beta, on a device. The vectors
 * lie in the weights buffer, padded to whole panels. All enqueue and do not wait. */
#ifndef EXPERTD_RUNTIME_LAYER_NORM_H
#define EXPERTD_RUNTIME_LAYER_NORM_H

#include "runtime/device_private.h"

/* In place, row-major rows. */
int layer_norm_forward(struct device *device, cl_int rows, cl_int columns, cl_float eps, const struct device_rows *data,
                       cl_mem weights, cl_ulong gamma_offset, cl_ulong beta_offset);

#endif
