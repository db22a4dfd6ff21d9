#include "runtime/layer_norm.h"

#include "runtime/linear.h"

int layer_norm_forward(struct device *device, cl_int rows, cl_int columns, cl_float eps, const struct device_rows *data,
                       cl_mem weights, cl_ulong gamma_offset, cl_ulong beta_offset)
{
    struct kernel_grid grid;
    device->provider->grid(device, KERNEL_LAYER_NORM, (uint64_t)rows, (uint64_t)columns, 0, &grid);
    const struct kernel_argument arguments[] = {
        KERNEL_ARGUMENT(rows),         KERNEL_ARGUMENT(columns),      KERNEL_ARGUMENT(eps),
        KERNEL_ARGUMENT(data->buffer), KERNEL_ARGUMENT(data->offset), KERNEL_ARGUMENT(weights),
        KERNEL_ARGUMENT(gamma_offset), KERNEL_ARGUMENT(weights),      KERNEL_ARGUMENT(beta_offset),
    };
    return kernel_launch(device, KERNEL_LAYER_NORM, &grid, arguments, sizeof arguments / sizeof arguments[0]);
}
