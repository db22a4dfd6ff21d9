/* y = x * scale * weight + bias + shift. weight and bias have a number for each column, or for each number of a row of
 * the batch; they train, or are fixed: kept as parameters are, and no optimizer's.
 *     dx = dy * scale * weight,  dweight = sum of dy * x * scale,  dbias = sum of dy */
#include "runtime/compute/rows.h"
#include "runtime/layers/layer.h"

enum { WEIGHT, BIAS }; /* parameters */
enum { X, DY, OUT };   /* buffers */

static int add_constant(struct plan *plan, const struct plan_layer *layer, unsigned which, unsigned constant)
{
    const struct block_settings *settings = &layer->node->settings;
    const struct plan_value *value = &plan->values[layer->value];
    const uint64_t rows = settings->over == BLOCK_OVER_ROW ? value->tokens : 1;
    if (constant == BLOCK_CONSTANT_NONE)
        return PLAN_NONE;
    const int index =
        which == WEIGHT
            ? layer_parameter(plan, layer, settings->weight_name, "weight", rows * value->columns, 0, PARAMETER_ONE)
            : layer_parameter(plan, layer, settings->bias_name, "bias", rows * value->columns, 0, PARAMETER_ZERO);
    if (index != PLAN_NONE) {
        plan->parameters->items[index].rows = rows;
        plan->parameters->items[index].fixed = constant == BLOCK_CONSTANT_FIXED;
    }
    return index;
}

static void parameters(struct plan *plan, struct plan_layer *layer)
{
    layer->parameters[WEIGHT] = add_constant(plan, layer, WEIGHT, layer->node->settings.weight);
    layer->parameters[BIAS] = add_constant(plan, layer, BIAS, layer->node->settings.bias);
}

static bool trains(const struct plan *plan, unsigned constant)
{
    return plan->trains && constant == BLOCK_CONSTANT_TRAINED;
}

static void needs(struct plan *plan, struct plan_layer *layer)
{
    if (trains(plan, layer->node->settings.weight))
        plan_need(plan, layer->operands[0], false);
}

static cl_int period_of(const struct plan_run *run, const struct plan_step *step, unsigned role)
{
    return step->flags == BLOCK_OVER_ROW ? (cl_int)plan_buffer_of(run, step, role)->tokens : 1;
}

static cl_ulong constant_at(const struct plan_run *run, const struct plan_step *step, unsigned which)
{
    return step->parameters[which] == PLAN_NONE ? ROWS_NONE : plan_parameter(run, step, which)->at;
}

static int launch(const struct plan_run *run, const struct plan_step *step)
{
    const struct rows_affine affine = {
        .scale = step->number,
        .shift = step->second_number,
        .constants = run->parameters->vectors,
        .weight = constant_at(run, step, WEIGHT),
        .bias = constant_at(run, step, BIAS),
        .period = period_of(run, step, OUT),
    };
    const struct kernel_view x = plan_view(run, step, X), out = plan_view(run, step, OUT);
    return rows_affine(run->device, plan_view_rows(run, step, OUT), (cl_int)plan_buffer_of(run, step, OUT)->columns,
                       &affine, &x, &out);
}

static cl_ulong gradient_at(const struct plan_run *run, const struct plan_step *step, unsigned which)
{
    return step->parameters[which] == PLAN_NONE ? ROWS_NONE : plan_parameter_gradient(run, step, which);
}

static int launch_sums(const struct plan_run *run, const struct plan_step *step)
{
    const struct rows_affine gradients = {
        .scale = step->number,
        .constants = plan_workspace(run),
        .weight = gradient_at(run, step, WEIGHT),
        .bias = gradient_at(run, step, BIAS),
        .period = period_of(run, step, DY),
    };
    const struct kernel_view x = plan_view(run, step, X), dy = plan_view(run, step, DY);
    return rows_affine_sums(run->device, plan_view_rows(run, step, DY), (cl_int)plan_buffer_of(run, step, DY)->columns,
                            run->accumulate, &gradients, &x, &dy);
}

static struct plan_step *add_step(struct plan *plan, const struct plan_layer *layer, plan_launch *launcher)
{
    struct plan_step *step = plan_add(plan, launcher);
    step->number = (float)layer->node->settings.scale;
    step->flags = layer->node->settings.over;
    return step;
}

static void forward(struct plan *plan, struct plan_layer *layer)
{
    const int x = plan_read(plan, layer->operands[0]), out = plan_write(plan, layer->value);
    struct plan_step *step = add_step(plan, layer, launch);
    step->second_number = (float)layer->node->settings.shift;
    step->parameters[WEIGHT] = layer->parameters[WEIGHT];
    step->parameters[BIAS] = layer->parameters[BIAS];
    plan_use(plan, X, x);
    plan_use(plan, OUT, out);
    plan_makes(plan, 1U << OUT);
}

static void add_sums(struct plan *plan, const struct plan_layer *layer, int dy)
{
    const struct block_settings *settings = &layer->node->settings;
    const int x = trains(plan, settings->weight) ? plan_read(plan, layer->operands[0]) : PLAN_NONE;
    struct plan_step *step = add_step(plan, layer, launch_sums);
    if (trains(plan, settings->weight))
        step->parameters[WEIGHT] = layer->parameters[WEIGHT];
    if (trains(plan, settings->bias))
        step->parameters[BIAS] = layer->parameters[BIAS];
    plan_use(plan, X, x);
    plan_use(plan, DY, dy);
}

static void backward(struct plan *plan, struct plan_layer *layer)
{
    const struct block_settings *settings = &layer->node->settings;
    const int dy = plan_gradient(plan, layer);
    if (trains(plan, settings->weight) || trains(plan, settings->bias))
        add_sums(plan, layer, dy);
    if (settings->weight == BLOCK_CONSTANT_NONE && (float)settings->scale == 1.0f) {
        plan_contribute(plan, layer->operands[0], dy);
        return;
    }
    const int gradient = plan_contribution(plan, layer->operands[0]);
    add_step(plan, layer, launch)->parameters[WEIGHT] = layer->parameters[WEIGHT];
    plan_use(plan, X, dy);
    plan_use(plan, OUT, gradient);
    plan_makes(plan, 1U << OUT);
    plan_contribute(plan, layer->operands[0], gradient);
}

const struct layer_kind layer_affine = {
    .name = "affine",
    .parameters = parameters,
    .needs = needs,
    .forward = forward,
    .backward = backward,
    .in_place = true,
};
