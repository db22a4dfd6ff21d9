#include "runtime/layers/rms_norm.h"

#include "runtime/compute/kernel_launch.h"
#include "runtime/compute/linear.h"
#include "runtime/compute/provider.h"

static cl_int flags_of(const struct kernel_view *out)
{
    return out->rows ? LINEAR_OUT_ROWS : 0;
}

int rms_norm_forward(struct device *device, cl_int rows, cl_int columns, cl_float eps, const struct kernel_view *x,
                     const struct kernel_view *out, cl_mem weights, cl_ulong gamma_offset)
{
    struct kernel_grid grid;
    const cl_int flags = flags_of(out);
    const cl_long4 x_at = kernel_view_place(x, (uint64_t)columns), out_at = kernel_view_place(out, (uint64_t)columns);
    provider_grid(device, KERNEL_RMS_NORM, (uint64_t)rows, (uint64_t)columns, 0, &grid);
    const struct kernel_argument arguments[] = {
        KERNEL_ARGUMENT(rows),        KERNEL_ARGUMENT(columns), KERNEL_ARGUMENT(flags),   KERNEL_ARGUMENT(eps),
        KERNEL_ARGUMENT(x->buffer),   KERNEL_ARGUMENT(x_at),    KERNEL_ARGUMENT(weights), KERNEL_ARGUMENT(gamma_offset),
        KERNEL_ARGUMENT(out->buffer), KERNEL_ARGUMENT(out_at),
    };
    return kernel_launch(device, KERNEL_RMS_NORM, &grid, arguments, sizeof arguments / sizeof arguments[0]);
}

int rms_norm_backward(struct device *device, const struct rms_norm_backward_call *call)
{
    struct kernel_grid grid;
    const uint64_t columns = (uint64_t)call->columns;
    const cl_int flags = flags_of(&call->dx);
    const cl_long4 x_at = kernel_view_place(&call->x, columns), dy_at = kernel_view_place(&call->dy, columns);
    const cl_long4 dx_at = kernel_view_place(&call->dx, columns);
    provider_grid(device, KERNEL_RMS_NORM_BACKWARD, (uint64_t)call->rows, columns, 0, &grid);
    const struct kernel_argument arguments[] = {
        KERNEL_ARGUMENT(call->rows),
        KERNEL_ARGUMENT(call->columns),
        KERNEL_ARGUMENT(flags),
        KERNEL_ARGUMENT(call->eps),
        KERNEL_ARGUMENT(call->x.buffer),
        KERNEL_ARGUMENT(x_at),
        KERNEL_ARGUMENT(call->dy.buffer),
        KERNEL_ARGUMENT(dy_at),
        KERNEL_ARGUMENT(call->weights),
        KERNEL_ARGUMENT(call->gamma_offset),
        KERNEL_ARGUMENT(call->dx.buffer),
        KERNEL_ARGUMENT(dx_at),
        KERNEL_ARGUMENT(call->stats.buffer),
        KERNEL_ARGUMENT(call->stats.offset),
    };
    return kernel_launch(device, KERNEL_RMS_NORM_BACKWARD, &grid, arguments, sizeof arguments / sizeof arguments[0]);
}

int rms_norm_sums(struct device *device, const struct rms_norm_backward_call *call)
{
    struct kernel_grid grid;
    const uint64_t columns = (uint64_t)call->columns;
    const cl_long4 x_at = kernel_view_place(&call->x, columns), dy_at = kernel_view_place(&call->dy, columns);
    provider_grid(device, KERNEL_RMS_NORM_SUMS, (uint64_t)call->rows, columns, 0, &grid);
    const struct kernel_argument arguments[] = {
        KERNEL_ARGUMENT(call->rows),
        KERNEL_ARGUMENT(call->columns),
        KERNEL_ARGUMENT(call->accumulate),
        KERNEL_ARGUMENT(call->x.buffer),
        KERNEL_ARGUMENT(x_at),
        KERNEL_ARGUMENT(call->dy.buffer),
        KERNEL_ARGUMENT(dy_at),
        KERNEL_ARGUMENT(call->stats.buffer),
        KERNEL_ARGUMENT(call->stats.offset),
        KERNEL_ARGUMENT(call->gradients),
        KERNEL_ARGUMENT(call->dgamma_offset),
    };
    return kernel_launch(device, KERNEL_RMS_NORM_SUMS, &grid, arguments, sizeof arguments / sizeof arguments[0]);
}
