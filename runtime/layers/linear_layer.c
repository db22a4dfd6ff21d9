/* y = activation(W x + b), and what surrounds it in a product's epilogue: + second, or * second. */
#include "runtime/compute/linear.h"
#include "runtime/compute/rows.h"
#include "runtime/device/device_private.h"
#include "runtime/layers/elementwise.h"
#include "runtime/layers/fusion.h"
#include "runtime/layers/layer.h"

enum { WEIGHT, BIAS };             /* parameters */
enum { X, OUT, SECOND, SAVE, DY }; /* buffers */
enum { PREACT };                   /* saved */

static enum parameter_init init_of(unsigned init)
{
    return init == BLOCK_INIT_ZERO ? PARAMETER_ZERO : init == BLOCK_INIT_XAVIER ? PARAMETER_XAVIER : PARAMETER_UNIFORM;
}

static void parameters(struct plan *plan, struct plan_layer *layer)
{
    const struct block_settings *settings = &layer->node->settings;
    const uint64_t in = plan->values[layer->operands[0]].columns;
    layer->parameters[WEIGHT] =
        layer_parameter(plan, layer, settings->weight_name, "weight", settings->size, in, init_of(settings->init));
    if (settings->bias)
        layer->parameters[BIAS] =
            layer_parameter(plan, layer, settings->bias_name, "bias", settings->size, 0, init_of(settings->bias_init));
}

static void needs(struct plan *plan, struct plan_layer *layer)
{
    if (plan->trains)
        plan_need(plan, layer->operands[0], true);
    layer->saves = layer->node->settings.activation != BLOCK_NONE || layer->epilogue == PLAN_MULTIPLY;
    if (layer->epilogue == PLAN_MULTIPLY)
        plan_need(plan, (unsigned)layer->second, false);
}

/* --- products ----------------------------------------------------------------------------------------------------- */

static int launch_product(const struct plan_run *run, const struct plan_step *step)
{
    const struct parameters *p = run->parameters;
    const struct parameter *weight = plan_parameter(run, step, WEIGHT);
    const struct linear_call call = {
        .rows = plan_view_rows(run, step, OUT),
        .n = (cl_int)weight->out,
        .k = (cl_int)weight->in,
        .flags = step->flags,
        .a = plan_view(run, step, X),
        .weights = p->matrices,
        .weights_offset = weight->at,
        .out = plan_view(run, step, OUT),
        .bias = step->parameters[BIAS] != PLAN_NONE ? p->vectors : NULL,
        .bias_offset = step->parameters[BIAS] != PLAN_NONE ? plan_parameter(run, step, BIAS)->at : 0,
        .second = plan_view(run, step, SECOND),
        .save = plan_view(run, step, SAVE).buffer,
        .save_offset = plan_view(run, step, SAVE).offset,
    };
    return linear_layer_forward(run->device, &call);
}

static int launch_input_gradient(const struct plan_run *run, const struct plan_step *step)
{
    const struct parameter *weight = plan_parameter(run, step, WEIGHT);
    const struct linear_call call = {
        .rows = plan_view_rows(run, step, OUT),
        .n = (cl_int)weight->in,
        .k = (cl_int)weight->out,
        .flags = step->flags,
        .a = plan_view(run, step, DY),
        .of_gradient = true,
        .weights = run->parameters->transposed,
        .weights_offset = weight->transposed,
        .out = plan_view(run, step, OUT),
        .second = plan_view(run, step, SECOND),
    };
    return linear_layer_forward(run->device, &call);
}

/* dw = x^T dy. */
static int launch_weight_gradient(const struct plan_run *run, const struct plan_step *step)
{
    const struct parameter *weight = plan_parameter(run, step, WEIGHT);
    const struct device_rows x = plan_rows_of(run, step, X), dy = plan_rows_of(run, step, DY);
    const struct linear_gradient_call call = {
        .rows = plan_view_rows(run, step, X),
        .n = (cl_int)weight->out,
        .k = (cl_int)weight->in,
        .accumulate = run->accumulate,
        .x = x.buffer,
        .dy = dy.buffer,
        .dw = run->device->workspace,
        .x_offset = x.offset,
        .dy_offset = dy.offset,
        .dw_offset = plan_parameter_gradient(run, step, WEIGHT),
    };
    return linear_layer_gradient(run->device, &call);
}

static int launch_bias_gradient(const struct plan_run *run, const struct plan_step *step)
{
    const struct device_rows dy = plan_rows_of(run, step, DY);
    return rows_column_sums(run->device, plan_view_rows(run, step, DY), (cl_int)plan_parameter(run, step, BIAS)->out,
                            run->accumulate, &dy, run->device->workspace, plan_parameter_gradient(run, step, BIAS));
}

/* ------------------------------------------------------------------------------------------------------------------ */

static void forward(struct plan *plan, struct plan_layer *layer)
{
    const struct block_settings *settings = &layer->node->settings;
    const int x = plan_read(plan, layer->operands[0]);
    const int second = layer->second != PLAN_NONE ? plan_read(plan, (unsigned)layer->second) : PLAN_NONE;
    const int out = plan_write(plan, layer->value);
    const struct plan_value *value = &plan->values[layer->value];
    struct plan_step *step = plan_add(plan, launch_product);
    step->parameters[WEIGHT] = layer->parameters[WEIGHT];
    step->parameters[BIAS] = layer->parameters[BIAS];
    step->flags = (settings->bias ? LINEAR_BIAS : 0) | fusion_activation(settings->activation);
    if (layer->epilogue != PLAN_PLAIN)
        step->flags |= layer->epilogue == PLAN_ADD ? LINEAR_ADD : LINEAR_MULTIPLY;
    plan_use(plan, X, x);
    plan_use(plan, OUT, out);
    plan_use(plan, SECOND, second);
    plan_note_product(plan, settings->size, plan->values[layer->operands[0]].columns);
    if (plan->backward && layer->saves) {
        step->flags |= LINEAR_SAVE;
        layer->saved[PREACT] = plan_matrix(plan, value->tokens, value->columns, false);
        plan_use(plan, SAVE, layer->saved[PREACT]);
    }
}

static void input_gradient(struct plan *plan, const struct plan_layer *layer, int dy)
{
    struct plan_contribution contribution;
    if (!plan_wants(plan, layer->operands[0]))
        return;
    plan_contribute_product(plan, layer->operands[0], &contribution);
    struct plan_step *step = plan_add(plan, launch_input_gradient);
    step->parameters[WEIGHT] = layer->parameters[WEIGHT];
    step->flags = contribution.flags;
    plan_use(plan, DY, dy);
    plan_use(plan, SECOND, contribution.second);
    plan_use(plan, OUT, contribution.out);
    plan_note_product(plan, plan->values[layer->operands[0]].columns, layer->node->settings.size);
}

/* Through what the epilogue did last: the second operand's gradient, and that of the activation. */
static int through_epilogue(struct plan *plan, const struct plan_layer *layer, int dy)
{
    if (layer->epilogue == PLAN_ADD)
        plan_contribute(plan, (unsigned)layer->second, dy);
    if (layer->epilogue != PLAN_MULTIPLY)
        return dy;
    const struct plan_value *value = &plan->values[layer->value];
    const unsigned second = (unsigned)layer->second;
    const int activated = plan_matrix(plan, value->tokens, value->columns, false);
    const int gradient = plan_contribution(plan, second);
    const int inner = plan_matrix(plan, value->tokens, value->columns, false);
    elementwise_add_step(plan, fusion_activation(layer->node->settings.activation), layer->saved[PREACT], PLAN_NONE,
                         activated);
    elementwise_add_step(plan, LINEAR_MULTIPLY, dy, activated, gradient);
    elementwise_add_step(plan, LINEAR_MULTIPLY, dy, plan_read(plan, second), inner);
    plan_contribute(plan, second, gradient);
    return inner;
}

static int through_activation(struct plan *plan, const struct plan_layer *layer, int dy)
{
    const enum block_activation activation = layer->node->settings.activation;
    const struct plan_value *value = &plan->values[layer->value];
    if (activation == BLOCK_NONE || value->gradient_is_inner)
        return dy;
    const int inner = plan_matrix(plan, value->tokens, value->columns, false);
    elementwise_add_step(plan, fusion_activation_gradient(activation), dy, layer->saved[PREACT], inner);
    return inner;
}

static void backward(struct plan *plan, struct plan_layer *layer)
{
    int dy = through_activation(plan, layer, through_epilogue(plan, layer, plan_gradient(plan, layer)));
    if (plan->trains)
        dy = plan_packed(plan, dy);
    if (plan->trains && layer->parameters[BIAS] != PLAN_NONE && !layer->bias_summed) {
        plan_add(plan, launch_bias_gradient)->parameters[BIAS] = layer->parameters[BIAS];
        plan_use(plan, DY, dy);
    }
    if (plan->trains) {
        const int x = plan_read_packed(plan, layer->operands[0]);
        plan_add(plan, launch_weight_gradient)->parameters[WEIGHT] = layer->parameters[WEIGHT];
        plan_use(plan, X, x);
        plan_use(plan, DY, dy);
    }
    input_gradient(plan, layer, dy);
}

const struct layer_kind layer_linear = {
    .name = "linear",
    .parameters = parameters,
    .needs = needs,
    .forward = forward,
    .backward = backward,
};
