#include "runtime/compute/linear.h"

#include "runtime/compute/kernel_launch.h"
#include "runtime/compute/provider.h"
#include "runtime/device/device_private.h"

static const struct linear_products *products(const struct device *device)
{
    return device->compute->provider->products;
}

int linear_layer_prepare(struct device *device, uint64_t rows, const struct linear_size *sizes, unsigned count)
{
    return products(device)->prepare != NULL ? products(device)->prepare(device, rows, sizes, count) : 0;
}

uint64_t linear_layer_memory(const struct device *device, uint64_t rows, const struct linear_size *sizes,
                             unsigned count)
{
    return products(device)->memory != NULL ? products(device)->memory(device, rows, sizes, count) : 0;
}

int linear_layer_forward(struct device *device, const struct linear_call *call)
{
    return products(device)->forward(device, call);
}

int linear_layer_group(struct device *device, const struct linear_call *calls, unsigned count)
{
    int result = 0;
    if (count > 1 && linear_layer_groups(device))
        return products(device)->group(device, calls, count);
    for (unsigned i = 0; i < count && result == 0; i++)
        result = linear_layer_forward(device, &calls[i]);
    return result;
}

bool linear_layer_groups(const struct device *device)
{
    return products(device)->group != NULL && device->compute->groups;
}

int linear_layer_gradient(struct device *device, const struct linear_gradient_call *call)
{
    return products(device)->gradient(device, call);
}

int linear_launch_forward(struct device *device, const struct linear_call *call)
{
    struct kernel_grid grid;
    const cl_int flags =
        (cl_int)(call->flags | (call->out.rows ? LINEAR_OUT_ROWS : 0) | (call->second.rows ? LINEAR_SECOND_ROWS : 0) |
                 (call->of_gradient ? LINEAR_TRANSPOSED : 0));
    /* An argument must be some buffer, also where the flags say that it is not looked at. */
    const cl_mem bias = call->bias ? call->bias : call->weights;
    const cl_mem second = call->second.buffer ? call->second.buffer : call->weights;
    const cl_mem save = call->save ? call->save : call->weights;
    const cl_float4 gate = {{call->gate.limit, call->gate.alpha, call->gate.shift, 0}};
    provider_grid(device, KERNEL_LINEAR, (uint64_t)call->rows, (uint64_t)call->n, (uint64_t)call->k, &grid);
    if (call->of_gradient && grid.of_gradient != NULL)
        grid.object = grid.of_gradient;
    const struct kernel_argument arguments[] = {
        KERNEL_ARGUMENT(call->rows),
        KERNEL_ARGUMENT(call->n),
        KERNEL_ARGUMENT(call->k),
        KERNEL_ARGUMENT(flags),
        KERNEL_ARGUMENT(grid.group),
        KERNEL_ARGUMENT(grid.block),
        KERNEL_ARGUMENT(call->a.buffer),
        KERNEL_ARGUMENT(call->a.offset),
        KERNEL_ARGUMENT(call->a.row_stride),
        KERNEL_ARGUMENT(call->a.panel_stride),
        KERNEL_ARGUMENT(call->weights),
        KERNEL_ARGUMENT(call->weights_offset),
        KERNEL_ARGUMENT(call->out.buffer),
        KERNEL_ARGUMENT(call->out.offset),
        KERNEL_ARGUMENT(call->out.row_stride),
        KERNEL_ARGUMENT(call->out.panel_stride),
        KERNEL_ARGUMENT(bias),
        KERNEL_ARGUMENT(call->bias_offset),
        KERNEL_ARGUMENT(second),
        KERNEL_ARGUMENT(call->second.offset),
        KERNEL_ARGUMENT(call->second.row_stride),
        KERNEL_ARGUMENT(call->second.panel_stride),
        KERNEL_ARGUMENT(save),
        KERNEL_ARGUMENT(call->save_offset),
        KERNEL_ARGUMENT(gate),
    };
    return kernel_launch(device, KERNEL_LINEAR, &grid, arguments, sizeof arguments / sizeof arguments[0]);
}

int linear_launch_gradient(struct device *device, const struct linear_gradient_call *call)
{
    struct kernel_grid grid;
    provider_grid(device, KERNEL_WEIGHT_GRADIENT, (uint64_t)call->rows, (uint64_t)call->n, (uint64_t)call->k, &grid);
    const struct kernel_argument arguments[] = {
        KERNEL_ARGUMENT(call->rows),       KERNEL_ARGUMENT(call->n),         KERNEL_ARGUMENT(call->k),
        KERNEL_ARGUMENT(call->accumulate), KERNEL_ARGUMENT(grid.block),      KERNEL_ARGUMENT(call->x),
        KERNEL_ARGUMENT(call->x_offset),   KERNEL_ARGUMENT(call->dy),        KERNEL_ARGUMENT(call->dy_offset),
        KERNEL_ARGUMENT(call->dw),         KERNEL_ARGUMENT(call->dw_offset),
    };
    return kernel_launch(device, KERNEL_WEIGHT_GRADIENT, &grid, arguments, sizeof arguments / sizeof arguments[0]);
}
