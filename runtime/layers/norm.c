#include "runtime/layers/norm.h"

#include <string.h>

#include "runtime/compute/kernel_launch.h"
#include "runtime/compute/linear.h"
#include "runtime/compute/provider.h"
#include "runtime/device/device_private.h"

cl_int norm_flags(const struct kernel_view *out)
{
    return out->rows ? LINEAR_OUT_ROWS : 0;
}

int norm_backward(struct device *device, enum kernel kernel, const struct norm_backward_call *call)
{
    struct kernel_grid grid;
    const uint64_t columns = (uint64_t)call->columns;
    const cl_int flags = norm_flags(&call->dx);
    const cl_long4 x_at = kernel_view_place(&call->x, columns), dy_at = kernel_view_place(&call->dy, columns);
    const cl_long4 dx_at = kernel_view_place(&call->dx, columns);
    provider_grid(device, kernel, (uint64_t)call->rows, columns, 0, &grid);
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
    return kernel_launch(device, kernel, &grid, arguments, sizeof arguments / sizeof arguments[0]);
}

void norm_needs(struct plan *plan, struct plan_layer *layer)
{
    plan_need(plan, layer->operands[0], false);
}

struct plan_step *norm_step(struct plan *plan, const struct plan_layer *layer, plan_launch *launch,
                            const int buffers[NORM_BUFFERS])
{
    struct plan_step *step = plan_add(plan, launch);
    step->number = (float)layer->node->settings.epsilon;
    memcpy(step->parameters, layer->parameters, sizeof layer->parameters);
    for (unsigned i = 0; i < NORM_BUFFERS; i++)
        plan_use(plan, i, buffers[i]);
    return step;
}

void norm_backward_buffers(struct plan *plan, struct plan_layer *layer, uint64_t stats, int buffers[NORM_BUFFERS])
{
    buffers[NORM_X] = plan_read(plan, layer->operands[0]);
    buffers[NORM_DY] = plan_gradient(plan, layer);
    buffers[NORM_DX] = plan_contribution(plan, layer->operands[0]);
    buffers[NORM_STATS] = plan_matrix(plan, plan->values[layer->value].tokens, stats, true);
}

struct norm_backward_call norm_call_of(const struct plan_run *run, const struct plan_step *step)
{
    return (struct norm_backward_call){
        .rows = plan_view_rows(run, step, NORM_X),
        .columns = (cl_int)plan_buffer_of(run, step, NORM_X)->columns,
        .eps = step->number,
        .accumulate = run->accumulate,
        .x = plan_view(run, step, NORM_X),
        .dy = plan_view(run, step, NORM_DY),
        .dx = plan_view(run, step, NORM_DX),
        .stats = plan_rows_of(run, step, NORM_STATS),
        .weights = run->parameters->vectors,
        .gamma_offset = plan_parameter(run, step, NORM_GAMMA)->at,
        .gradients = run->device->workspace,
        .dgamma_offset = plan_parameter_gradient(run, step, NORM_GAMMA),
    };
}
