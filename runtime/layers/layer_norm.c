#include "runtime/layers/layer_norm.h"

#include "runtime/compute/kernel_launch.h"
#include "runtime/compute/provider.h"

int layer_norm_forward(struct device *device, cl_int rows, cl_int columns, cl_float eps, const struct device_rows *data,
                       cl_mem weights, cl_ulong gamma_offset, cl_ulong beta_offset)
{
    struct kernel_grid grid;
    provider_grid(device, KERNEL_LAYER_NORM, (uint64_t)rows, (uint64_t)columns, 0, &grid);
    const struct kernel_argument arguments[] = {
        KERNEL_ARGUMENT(rows),         KERNEL_ARGUMENT(columns),      KERNEL_ARGUMENT(eps),
        KERNEL_ARGUMENT(data->buffer), KERNEL_ARGUMENT(data->offset), KERNEL_ARGUMENT(weights),
        KERNEL_ARGUMENT(gamma_offset), KERNEL_ARGUMENT(weights),      KERNEL_ARGUMENT(beta_offset),
    };
    return kernel_launch(device, KERNEL_LAYER_NORM, &grid, arguments, sizeof arguments / sizeof arguments[0]);
}

int layer_norm_backward(struct device *device, const struct layer_norm_backward_call *call)
{
    struct kernel_grid grid;
    provider_grid(device, KERNEL_LAYER_NORM_BACKWARD, (uint64_t)call->rows, (uint64_t)call->columns, 0, &grid);
    const struct kernel_argument arguments[] = {
        KERNEL_ARGUMENT(call->rows),         KERNEL_ARGUMENT(call->columns),   KERNEL_ARGUMENT(call->eps),
        KERNEL_ARGUMENT(call->x.buffer),     KERNEL_ARGUMENT(call->x.offset),  KERNEL_ARGUMENT(call->dy.buffer),
        KERNEL_ARGUMENT(call->dy.offset),    KERNEL_ARGUMENT(call->weights),   KERNEL_ARGUMENT(call->gamma_offset),
        KERNEL_ARGUMENT(call->dx.buffer),    KERNEL_ARGUMENT(call->dx.offset), KERNEL_ARGUMENT(call->stats.buffer),
        KERNEL_ARGUMENT(call->stats.offset),
    };
    return kernel_launch(device, KERNEL_LAYER_NORM_BACKWARD, &grid, arguments, sizeof arguments / sizeof arguments[0]);
}

int layer_norm_sums(struct device *device, const struct layer_norm_backward_call *call)
{
    struct kernel_grid grid;
    provider_grid(device, KERNEL_LAYER_NORM_SUMS, (uint64_t)call->rows, (uint64_t)call->columns, 0, &grid);
    const struct kernel_argument arguments[] = {
        KERNEL_ARGUMENT(call->rows),          KERNEL_ARGUMENT(call->columns),      KERNEL_ARGUMENT(call->accumulate),
        KERNEL_ARGUMENT(call->x.buffer),      KERNEL_ARGUMENT(call->x.offset),     KERNEL_ARGUMENT(call->dy.buffer),
        KERNEL_ARGUMENT(call->dy.offset),     KERNEL_ARGUMENT(call->dx.buffer),    KERNEL_ARGUMENT(call->dx.offset),
        KERNEL_ARGUMENT(call->stats.buffer),  KERNEL_ARGUMENT(call->stats.offset), KERNEL_ARGUMENT(call->gradients),
        KERNEL_ARGUMENT(call->dgamma_offset), KERNEL_ARGUMENT(call->gradients),    KERNEL_ARGUMENT(call->dbeta_offset),
        KERNEL_ARGUMENT(call->gradients),     KERNEL_ARGUMENT(call->dbias_offset),
    };
    return kernel_launch(device, KERNEL_LAYER_NORM_SUMS, &grid, arguments, sizeof arguments / sizeof arguments[0]);
}
