#include "runtime/layers/layer_norm.h"

#include <string.h>

#include "runtime/compute/kernel_launch.h"
#include "runtime/compute/linear.h"
#include "runtime/compute/provider.h"
#include "runtime/device/device_private.h"
#include "runtime/layers/layer.h"

int layer_norm_forward(struct device *device, cl_int rows, cl_int columns, cl_float eps, const struct kernel_view *x,
                       const struct kernel_view *out, cl_mem weights, cl_ulong gamma_offset, cl_ulong beta_offset)
{
    struct kernel_grid grid;
    const cl_int flags = norm_flags(out);
    const cl_long4 x_at = kernel_view_place(x, (uint64_t)columns), out_at = kernel_view_place(out, (uint64_t)columns);
    provider_grid(device, KERNEL_LAYER_NORM, (uint64_t)rows, (uint64_t)columns, 0, &grid);
    const struct kernel_argument arguments[] = {
        KERNEL_ARGUMENT(rows),        KERNEL_ARGUMENT(columns),      KERNEL_ARGUMENT(flags),
        KERNEL_ARGUMENT(eps),         KERNEL_ARGUMENT(x->buffer),    KERNEL_ARGUMENT(x_at),
        KERNEL_ARGUMENT(weights),     KERNEL_ARGUMENT(gamma_offset), KERNEL_ARGUMENT(weights),
        KERNEL_ARGUMENT(beta_offset), KERNEL_ARGUMENT(out->buffer),  KERNEL_ARGUMENT(out_at),
    };
    return kernel_launch(device, KERNEL_LAYER_NORM, &grid, arguments, sizeof arguments / sizeof arguments[0]);
}

int layer_norm_sums(struct device *device, const struct norm_backward_call *call)
{
    struct kernel_grid grid;
    const uint64_t columns = (uint64_t)call->columns;
    const cl_long4 x_at = kernel_view_place(&call->x, columns), dy_at = kernel_view_place(&call->dy, columns);
    const cl_long4 dx_at = kernel_view_place(&call->dx, columns);
    provider_grid(device, KERNEL_LAYER_NORM_SUMS, (uint64_t)call->rows, columns, 0, &grid);
    const struct kernel_argument arguments[] = {
        KERNEL_ARGUMENT(call->rows),
        KERNEL_ARGUMENT(call->columns),
        KERNEL_ARGUMENT(call->accumulate),
        KERNEL_ARGUMENT(call->x.buffer),
        KERNEL_ARGUMENT(x_at),
        KERNEL_ARGUMENT(call->dy.buffer),
        KERNEL_ARGUMENT(dy_at),
        KERNEL_ARGUMENT(call->dx.buffer),
        KERNEL_ARGUMENT(dx_at),
        KERNEL_ARGUMENT(call->stats.buffer),
        KERNEL_ARGUMENT(call->stats.offset),
        KERNEL_ARGUMENT(call->gradients),
        KERNEL_ARGUMENT(call->dgamma_offset),
        KERNEL_ARGUMENT(call->gradients),
        KERNEL_ARGUMENT(call->dbeta_offset),
        KERNEL_ARGUMENT(call->gradients),
        KERNEL_ARGUMENT(call->dbias_offset),
    };
    return kernel_launch(device, KERNEL_LAYER_NORM_SUMS, &grid, arguments, sizeof arguments / sizeof arguments[0]);
}

/* --- the layer ---------------------------------------------------------------------------------------------------- */

enum { BETA = NORM_GAMMA + 1, BIAS_UNDER }; /* parameters; the last one is that of the linear layer that made x */
enum { NO_BIAS = NORM_BUFFERS, OUT };       /* buffers */

static void parameters(struct plan *plan, struct plan_layer *layer)
{
    const uint64_t columns = plan->values[layer->value].columns;
    layer->parameters[NORM_GAMMA] = layer_parameter(plan, layer, NULL, "weight", columns, 0, PARAMETER_ONE);
    layer->parameters[BETA] = layer_parameter(plan, layer, NULL, "bias", columns, 0, PARAMETER_ZERO);
}

static int launch_forward(const struct plan_run *run, const struct plan_step *step)
{
    const struct kernel_view x = plan_view(run, step, NORM_X), out = plan_view(run, step, OUT);
    return layer_norm_forward(
        run->device, plan_view_rows(run, step, OUT), (cl_int)plan_buffer_of(run, step, OUT)->columns, step->number, &x,
        &out, run->parameters->vectors, plan_parameter(run, step, NORM_GAMMA)->at, plan_parameter(run, step, BETA)->at);
}

static struct norm_backward_call call_of(const struct plan_run *run, const struct plan_step *step)
{
    struct norm_backward_call call = norm_call_of(run, step);
    call.dbeta_offset = plan_parameter_gradient(run, step, BETA);
    return call;
}

static int launch_backward(const struct plan_run *run, const struct plan_step *step)
{
    const struct norm_backward_call call = call_of(run, step);
    return norm_backward(run->device, KERNEL_LAYER_NORM_BACKWARD, &call);
}

static int launch_sums(const struct plan_run *run, const struct plan_step *step)
{
    struct norm_backward_call call = call_of(run, step);
    call.dbias_offset = step->parameters[BIAS_UNDER] != PLAN_NONE ? plan_parameter_gradient(run, step, BIAS_UNDER)
                                                                  : plan_rows_of(run, step, NO_BIAS).offset;
    return layer_norm_sums(run->device, &call);
}

static void forward(struct plan *plan, struct plan_layer *layer)
{
    const int x = plan_read(plan, layer->operands[0]), out = plan_write(plan, layer->value);
    norm_step(plan, layer, launch_forward, (const int[NORM_BUFFERS]){x, PLAN_NONE, PLAN_NONE, PLAN_NONE});
    plan_use(plan, OUT, out);
    plan_makes(plan, 1U << OUT);
}

/* The linear layer whose bias has the column sums of dx as its gradient. */
static struct plan_layer *bias_under(struct plan *plan, const struct plan_layer *layer)
{
    const struct plan_value *x = &plan->values[layer->operands[0]];
    struct plan_layer *under = x->layer != PLAN_NONE ? &plan->layers[x->layer] : NULL;
    return under != NULL && under->kind == &layer_linear && !under->saves && under->epilogue != PLAN_MULTIPLY &&
                   under->node->settings.bias && x->uses == 1 && x->output == PLAN_NONE
               ? under
               : NULL;
}

static void backward(struct plan *plan, struct plan_layer *layer)
{
    int buffers[NORM_BUFFERS];
    norm_backward_buffers(plan, layer, 2, buffers);
    norm_step(plan, layer, launch_backward, buffers);
    plan_makes(plan, 1U << NORM_DX | 1U << NORM_STATS);
    if (plan->trains) {
        struct plan_layer *under = bias_under(plan, layer);
        struct plan_step *step = norm_step(plan, layer, launch_sums, buffers);
        if (under != NULL) {
            step->parameters[BIAS_UNDER] = under->parameters[1];
            under->bias_summed = true;
        } else {
            const uint64_t columns = plan->values[layer->value].columns;
            plan_use(plan, NO_BIAS, plan_scratch(plan, kernel_packed_floats(plan->shape, 1, columns)));
        }
    }
    plan_contribute(plan, layer->operands[0], buffers[NORM_DX]);
}

const struct layer_kind layer_layer_norm = {
    .name = "layer_norm",
    .parameters = parameters,
    .needs = norm_needs,
    .forward = forward,
    .backward = backward,
    .in_place = true,
};
