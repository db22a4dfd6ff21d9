#include "runtime/layers/rms_norm.h"

#include "runtime/compute/kernel_launch.h"
#include "runtime/compute/linear.h"
#include "runtime/compute/provider.h"
#include "runtime/device/device_private.h"
#include "runtime/layers/layer.h"

int rms_norm_forward(struct device *device, cl_int rows, cl_int columns, cl_float eps, const struct kernel_view *x,
                     const struct kernel_view *out, cl_mem weights, cl_ulong gamma_offset)
{
    struct kernel_grid grid;
    const cl_int flags = norm_flags(out);
    const cl_long4 x_at = kernel_view_place(x, (uint64_t)columns), out_at = kernel_view_place(out, (uint64_t)columns);
    provider_grid(device, KERNEL_RMS_NORM, (uint64_t)rows, (uint64_t)columns, 0, &grid);
    const struct kernel_argument arguments[] = {
        KERNEL_ARGUMENT(rows),        KERNEL_ARGUMENT(columns), KERNEL_ARGUMENT(flags),   KERNEL_ARGUMENT(eps),
        KERNEL_ARGUMENT(x->buffer),   KERNEL_ARGUMENT(x_at),    KERNEL_ARGUMENT(weights), KERNEL_ARGUMENT(gamma_offset),
        KERNEL_ARGUMENT(out->buffer), KERNEL_ARGUMENT(out_at),
    };
    return kernel_launch(device, KERNEL_RMS_NORM, &grid, arguments, sizeof arguments / sizeof arguments[0]);
}

int rms_norm_sums(struct device *device, const struct norm_backward_call *call)
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

/* --- the layer ---------------------------------------------------------------------------------------------------- */

enum { OUT = NORM_BUFFERS }; /* a buffer */

static void parameters(struct plan *plan, struct plan_layer *layer)
{
    layer->parameters[NORM_GAMMA] =
        layer_parameter(plan, layer, NULL, "weight", plan->values[layer->value].columns, 0, PARAMETER_ONE);
}

static int launch_forward(const struct plan_run *run, const struct plan_step *step)
{
    const struct kernel_view x = plan_view(run, step, NORM_X), out = plan_view(run, step, OUT);
    return rms_norm_forward(run->device, plan_view_rows(run, step, OUT),
                            (cl_int)plan_buffer_of(run, step, OUT)->columns, step->number, &x, &out,
                            run->parameters->vectors, plan_parameter(run, step, NORM_GAMMA)->at);
}

static int launch_backward(const struct plan_run *run, const struct plan_step *step)
{
    const struct norm_backward_call call = norm_call_of(run, step);
    return norm_backward(run->device, KERNEL_RMS_NORM_BACKWARD, &call);
}

static int launch_sums(const struct plan_run *run, const struct plan_step *step)
{
    const struct norm_backward_call call = norm_call_of(run, step);
    return rms_norm_sums(run->device, &call);
}

static void forward(struct plan *plan, struct plan_layer *layer)
{
    const int x = plan_read(plan, layer->operands[0]), out = plan_write(plan, layer->value);
    norm_step(plan, layer, launch_forward, (const int[NORM_BUFFERS]){x, PLAN_NONE, PLAN_NONE, PLAN_NONE});
    plan_use(plan, OUT, out);
    plan_makes(plan, 1U << OUT);
}

static void backward(struct plan *plan, struct plan_layer *layer)
{
    int buffers[NORM_BUFFERS];
    norm_backward_buffers(plan, layer, 1, buffers);
    norm_step(plan, layer, launch_backward, buffers);
    plan_makes(plan, 1U << NORM_DX | 1U << NORM_STATS);
    if (plan->trains)
        norm_step(plan, layer, launch_sums, buffers);
    plan_contribute(plan, layer->operands[0], buffers[NORM_DX]);
}

const struct layer_kind layer_rms_norm = {
    .name = "rms_norm",
    .parameters = parameters,
    .needs = norm_needs,
    .forward = forward,
    .backward = backward,
    .in_place = true,
};
