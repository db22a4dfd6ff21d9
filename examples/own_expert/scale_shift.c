/* A block of one's own with a kernel of its own: y = x * weight + bias, element by element, trained by the server's
 * optimizers. Compiled to scale_shift.so beside scale_shift.cl; in the configuration it is the block of an expert:
 *
 *     experts:
 *       - {uid: "scale_shift.[0:4]", block: /usr/local/lib/expertd/scale_shift.so, hidden_dim: 64}
 *
 * What it says is a kind of layer, and a block that has one of them. The rest (memory, batches, gradients of other
 * layers, the optimizer's step, checkpoints) is the engine's.
 */
#include "runtime/blocks/own_expert.h"

enum { WEIGHT, BIAS }; /* parameters */
enum { X, Y, DY };     /* matrices of a step; X is also where dx goes, in a backward */

static const char kernels[] = "scale_shift.cl";

static int launch(const struct plan_run *run, const struct plan_step *step, const char *kernel, int to)
{
    const struct kernel_view x = plan_view(run, step, X), y = plan_view(run, step, (unsigned)to);
    const struct kernel_view dy = step->buffers[DY] != PLAN_NONE ? plan_view(run, step, DY) : y;
    const cl_int rows = plan_view_rows(run, step, X), columns = (cl_int)plan_parameter(run, step, WEIGHT)->out;
    const cl_int accumulate = run->accumulate;
    const cl_ulong weight = plan_parameter(run, step, WEIGHT)->at, bias = plan_parameter(run, step, BIAS)->at;
    const cl_ulong grad_weight = plan_parameter_gradient(run, step, WEIGHT);
    const cl_ulong grad_bias = plan_parameter_gradient(run, step, BIAS);
    const cl_mem gradients = plan_workspace(run);
    const struct kernel_grid grid = {.dims = 1, .global = {plan_padded(run, (uint64_t)columns)}, .local = {1}};
    const struct kernel_argument arguments[] = {
        KERNEL_ARGUMENT(rows),
        KERNEL_ARGUMENT(columns),
        KERNEL_ARGUMENT(accumulate),
        KERNEL_ARGUMENT(x.buffer),
        KERNEL_ARGUMENT(x.offset),
        KERNEL_ARGUMENT(x.row_stride),
        KERNEL_ARGUMENT(x.panel_stride),
        KERNEL_ARGUMENT(y.buffer),
        KERNEL_ARGUMENT(y.offset),
        KERNEL_ARGUMENT(y.row_stride),
        KERNEL_ARGUMENT(y.panel_stride),
        KERNEL_ARGUMENT(dy.buffer),
        KERNEL_ARGUMENT(dy.offset),
        KERNEL_ARGUMENT(dy.row_stride),
        KERNEL_ARGUMENT(dy.panel_stride),
        KERNEL_ARGUMENT(run->parameters->vectors),
        KERNEL_ARGUMENT(weight),
        KERNEL_ARGUMENT(bias),
        KERNEL_ARGUMENT(gradients),
        KERNEL_ARGUMENT(grad_weight),
        KERNEL_ARGUMENT(grad_bias),
    };
    return own_kernel_launch(run->device, &own_expert, kernels, kernel, &grid, arguments,
                             sizeof arguments / sizeof *arguments);
}

static int launch_forward(const struct plan_run *run, const struct plan_step *step)
{
    return launch(run, step, "scale_shift_forward", Y);
}

static int launch_backward(const struct plan_run *run, const struct plan_step *step)
{
    return launch(run, step, "scale_shift_backward", Y);
}

static int launch_sums(const struct plan_run *run, const struct plan_step *step)
{
    return launch(run, step, "scale_shift_sums", DY);
}

/* --- the layer ---------------------------------------------------------------------------------------------------- */

static void parameters(struct plan *plan, struct plan_layer *layer)
{
    const uint64_t columns = plan->values[layer->value].columns;
    layer->parameters[WEIGHT] = layer_parameter(plan, layer, "weight", NULL, columns, 0, PARAMETER_ONE);
    layer->parameters[BIAS] = layer_parameter(plan, layer, "bias", NULL, columns, 0, PARAMETER_ZERO);
}

/* The gradient of the weight is made of what came in. */
static void needs(struct plan *plan, struct plan_layer *layer)
{
    plan_need(plan, layer->operands[0], false);
}

static void add_step(struct plan *plan, const struct plan_layer *layer, plan_launch *launcher, int x, int y, int dy)
{
    struct plan_step *step = plan_add(plan, launcher);
    step->parameters[WEIGHT] = layer->parameters[WEIGHT];
    step->parameters[BIAS] = layer->parameters[BIAS];
    plan_use(plan, X, x);
    plan_use(plan, Y, y);
    plan_use(plan, DY, dy);
    if (launcher != launch_sums) /* which makes gradients of parameters */
        plan_makes(plan, 1U << Y);
}

static void forward(struct plan *plan, struct plan_layer *layer)
{
    const int x = plan_read(plan, layer->operands[0]);
    add_step(plan, layer, launch_forward, x, plan_write(plan, layer->value), PLAN_NONE);
}

static void backward(struct plan *plan, struct plan_layer *layer)
{
    const int x = plan_read(plan, layer->operands[0]), dy = plan_gradient(plan, layer);
    if (plan->trains)
        add_step(plan, layer, launch_sums, x, PLAN_NONE, dy);
    const int dx = plan_contribution(plan, layer->operands[0]);
    add_step(plan, layer, launch_backward, x, dx, dy);
    plan_contribute(plan, layer->operands[0], dx);
}

static const struct layer_kind scale_shift_layer = {
    .name = "scale_shift", .parameters = parameters, .needs = needs, .forward = forward, .backward = backward};

/* --- what a declaration may say of it, and the block of this one layer -------------------------------------------- */

static const struct block_kind scale_shift_kind = {.name = "scale_shift",
                                                   .operands_min = 1,
                                                   .operands_max = 1,
                                                   .parameters = 2,
                                                   .shape = own_shape_of_operand,
                                                   .implementation = &scale_shift_layer};

OWN_EXPERT_OF_LAYER("scale_shift", "x * weight + bias", scale_shift_kind);
