/* y = activation(W x + b), and what surrounds it in a product's epilogue: + second, or * second. */
#include "runtime/compute/linear.h"
#include "runtime/layers/fusion.h"
#include "runtime/layers/layer.h"
#include "runtime/layers/product.h"

enum { WEIGHT, BIAS }; /* parameters */
enum { PREACT };       /* saved */

static void parameters(struct plan *plan, struct plan_layer *layer)
{
    const struct block_settings *settings = &layer->node->settings;
    const uint64_t in = plan->values[layer->operands[0]].columns;
    layer->parameters[WEIGHT] =
        layer_parameter(plan, layer, settings->weight_name, "weight", settings->size, in, layer_init(settings->init));
    if (settings->bias)
        layer->parameters[BIAS] = layer_parameter(plan, layer, settings->bias_name, "bias", settings->size, 0,
                                                  layer_init(settings->bias_init));
}

static void needs(struct plan *plan, struct plan_layer *layer)
{
    if (plan->trains)
        plan_need(plan, layer->operands[0], true);
    layer->saves = layer->node->settings.activation != BLOCK_NONE || layer->epilogue == PLAN_MULTIPLY;
    if (layer->epilogue == PLAN_MULTIPLY)
        plan_need(plan, (unsigned)layer->second, false);
}

static struct product product_of(const struct plan *plan, const struct plan_layer *layer)
{
    return (struct product){.weight = layer->parameters[WEIGHT],
                            .bias = layer->parameters[BIAS],
                            .out = layer->node->settings.size,
                            .in = plan->values[layer->operands[0]].columns};
}

static void forward(struct plan *plan, struct plan_layer *layer)
{
    const struct product product = product_of(plan, layer);
    const struct plan_value *value = &plan->values[layer->value];
    struct product_forward forward = {
        .x = plan_read(plan, layer->operands[0]),
        .second = layer->second != PLAN_NONE ? plan_read(plan, (unsigned)layer->second) : PLAN_NONE,
        .save = PLAN_NONE,
        .flags = fusion_activation(layer->node->settings.activation),
    };
    forward.out = plan_write(plan, layer->value);
    if (layer->epilogue != PLAN_PLAIN)
        forward.flags |= layer->epilogue == PLAN_ADD ? LINEAR_ADD : LINEAR_MULTIPLY;
    /* Where relu is 0 and where it is not tells its slope: what comes out serves as well as what went in. */
    const bool is_slope = layer->node->settings.activation == BLOCK_RELU && layer->epilogue == PLAN_PLAIN;
    if (plan->backward && layer->saves && is_slope) {
        layer->saved[PREACT] = forward.out;
    } else if (plan->backward && layer->saves) {
        forward.flags |= LINEAR_SAVE;
        forward.save = layer->saved[PREACT] = plan_matrix(plan, value->tokens, value->columns, false);
    }
    product_forward(plan, &product, &forward);
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
    plan_apply(plan, fusion_activation(layer->node->settings.activation), layer->saved[PREACT], PLAN_NONE, activated);
    plan_apply(plan, LINEAR_MULTIPLY, dy, activated, gradient);
    plan_apply(plan, LINEAR_MULTIPLY, dy, plan_read(plan, second), inner);
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
    plan_apply(plan, fusion_activation_gradient(activation), dy, layer->saved[PREACT], inner);
    return inner;
}

static void backward(struct plan *plan, struct plan_layer *layer)
{
    const struct product product = product_of(plan, layer);
    int dy = through_activation(plan, layer, through_epilogue(plan, layer, plan_gradient(plan, layer)));
    if (plan->trains)
        dy = plan_packed(plan, dy);
    if (plan->trains && product.bias != PLAN_NONE && !layer->bias_summed)
        product_bias_gradient(plan, &product, dy);
    if (plan->trains)
        product_weight_gradient(plan, &product, plan_read_packed(plan, layer->operands[0]), dy);
    product_input_gradient(plan, &product, layer->operands[0], dy);
}

const struct layer_kind layer_linear = {
    .name = "linear",
    .parameters = parameters,
    .needs = needs,
    .forward = forward,
    .backward = backward,
};
