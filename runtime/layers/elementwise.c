/* What is done element by element and found no product to go into: sums, and products of two values (gates). */
#include "runtime/compute/linear.h"
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
