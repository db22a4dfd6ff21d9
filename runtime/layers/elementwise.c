/* What is done element by element and found no product to go into: sums, products of two values (gates), and
 * activations of what is no linear layer's result. */
#include "runtime/compute/linear.h"
#include "runtime/layers/fusion.h"
#include "runtime/layers/layer.h"

/* --- sums: of two, as runtime/layers/fusion.c makes of more ------------------------------------------------------- */

static void add_forward(struct plan *plan, struct plan_layer *layer)
{
    const int a = plan_read(plan, layer->operands[0]), b = plan_read(plan, layer->operands[1]);
    plan_apply(plan, LINEAR_ADD, a, b, plan_write(plan, layer->value));
}

static void add_backward(struct plan *plan, struct plan_layer *layer)
{
    const int dy = plan_gradient(plan, layer);
    plan_contribute(plan, layer->operands[0], dy);
    plan_contribute(plan, layer->operands[1], dy);
}

const struct layer_kind layer_add = {.name = "add", .forward = add_forward, .backward = add_backward};

/* --- products: da = dy b, db = dy a ------------------------------------------------------------------------------- */

static void multiply_needs(struct plan *plan, struct plan_layer *layer)
{
    plan_need(plan, layer->operands[0], false);
    plan_need(plan, layer->operands[1], false);
}

static void multiply_forward(struct plan *plan, struct plan_layer *layer)
{
    const int a = plan_read(plan, layer->operands[0]), b = plan_read(plan, layer->operands[1]);
    plan_apply(plan, LINEAR_MULTIPLY, a, b, plan_write(plan, layer->value));
}

static void multiply_backward(struct plan *plan, struct plan_layer *layer)
{
    const int dy = plan_gradient(plan, layer);
    for (unsigned i = 0; i < 2; i++) {
        const int gradient = plan_contribution(plan, layer->operands[i]);
        plan_apply(plan, LINEAR_MULTIPLY, dy, plan_read(plan, layer->operands[1 - i]), gradient);
        plan_contribute(plan, layer->operands[i], gradient);
    }
}

const struct layer_kind layer_multiply = {
    .name = "multiply", .needs = multiply_needs, .forward = multiply_forward, .backward = multiply_backward};

/* --- activations: dx = dy times the slope at x -------------------------------------------------------------------- */

static void activation_needs(struct plan *plan, struct plan_layer *layer)
{
    plan_need(plan, layer->operands[0], false);
}

static void activation_forward(struct plan *plan, struct plan_layer *layer)
{
    const int x = plan_read(plan, layer->operands[0]);
    plan_apply(plan, fusion_activation(layer->node->settings.activation), x, PLAN_NONE, plan_write(plan, layer->value));
}

static void activation_backward(struct plan *plan, struct plan_layer *layer)
{
    const int dy = plan_gradient(plan, layer), gradient = plan_contribution(plan, layer->operands[0]);
    plan_apply(plan, fusion_activation_gradient(layer->node->settings.activation), dy,
               plan_read(plan, layer->operands[0]), gradient);
    plan_contribute(plan, layer->operands[0], gradient);
}

const struct layer_kind layer_activation = {
    .name = "activation", .needs = activation_needs, .forward = activation_forward, .backward = activation_backward};
