#include "runtime/layers/rms_norm.h"

#include "runtime/compute/kernel_launch.h"
#include "runtime/compute/linear.h"
#include "runtime/compute/provider.h"
#include "runtime/device/device_private.h"
#include "runtime/layers/layer.h"

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

/* --- the layer ---------------------------------------------------------------------------------------------------- */

enum { GAMMA };                 /* parameters */
enum { X, DY, DX, STATS, OUT }; /* buffers */

static void parameters(struct plan *plan, struct plan_layer *layer)
{
    layer->parameters[GAMMA] =
        layer_parameter(plan, layer, NULL, "weight", plan->values[layer->value].columns, 0, PARAMETER_ONE);
}

static void needs(struct plan *plan, struct plan_layer *layer)
{
    plan_need(plan, layer->operands[0], false);
}

static int launch_forward(const struct plan_run *run, const struct plan_step *step)
{
    const struct kernel_view x = plan_view(run, step, X), out = plan_view(run, step, OUT);
    return rms_norm_forward(run->device, plan_view_rows(run, step, OUT),
                            (cl_int)plan_buffer_of(run, step, OUT)->columns, step->number, &x, &out,
                            run->parameters->vectors, plan_parameter(run, step, GAMMA)->at);
}

static struct rms_norm_backward_call call_of(const struct plan_run *run, const struct plan_step *step)
{
    return (struct rms_norm_backward_call){
        .rows = plan_view_rows(run, step, X),
        .columns = (cl_int)plan_buffer_of(run, step, X)->columns,
        .eps = step->number,
        .accumulate = run->accumulate,
        .x = plan_view(run, step, X),
        .dy = plan_view(run, step, DY),
        .dx = plan_view(run, step, DX),
        .stats = plan_rows_of(run, step, STATS),
        .weights = run->parameters->vectors,
        .gamma_offset = plan_parameter(run, step, GAMMA)->at,
        .gradients = run->device->workspace,
        .dgamma_offset = plan_parameter_gradient(run, step, GAMMA),
    };
}

static int launch_backward(const struct plan_run *run, const struct plan_step *step)
{
    const struct rms_norm_backward_call call = call_of(run, step);
    return rms_norm_backward(run->device, &call);
}

static int launch_sums(const struct plan_run *run, const struct plan_step *step)
{
    const struct rms_norm_backward_call call = call_of(run, step);
    return rms_norm_sums(run->device, &call);
}

static void add_step(struct plan *plan, const struct plan_layer *layer, plan_launch *launch, const int buffers[OUT])
{
    struct plan_step *step = plan_add(plan, launch);
    step->number = (float)layer->node->settings.epsilon;
    step->parameters[GAMMA] = layer->parameters[GAMMA];
    for (unsigned i = 0; i < OUT; i++)
        plan_use(plan, i, buffers[i]);
}

static void forward(struct plan *plan, struct plan_layer *layer)
{
    const int x = plan_read(plan, layer->operands[0]), out = plan_write(plan, layer->value);
    add_step(plan, layer, launch_forward, (const int[OUT]){x, PLAN_NONE, PLAN_NONE, PLAN_NONE});
    plan_use(plan, OUT, out);
    plan_makes(plan, 1U << OUT);
}

static void backward(struct plan *plan, struct plan_layer *layer)
{
    const int buffers[OUT] = {
        [X] = plan_read(plan, layer->operands[0]),
        [DY] = plan_gradient(plan, layer),
        [DX] = plan_contribution(plan, layer->operands[0]),
        [STATS] = plan_matrix(plan, plan->values[layer->value].tokens, 1, true),
    };
    add_step(plan, layer, launch_backward, buffers);
    plan_makes(plan, 1U << DX | 1U << STATS);
    if (plan->trains)
        add_step(plan, layer, launch_sums, buffers);
    plan_contribute(plan, layer->operands[0], buffers[DX]);
}

const struct layer_kind layer_rms_norm = {
    .name = "rms_norm",
    .parameters = parameters,
    .needs = needs,
    .forward = forward,
    .backward = backward,
    .in_place = true,
};
