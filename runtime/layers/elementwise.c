/* What is done element by element and found no product to go into: sums, products of two values (gates), the way back
 * through an activation, copies. */
#include "runtime/layers/elementwise.h"

#include "runtime/compute/rows.h"

enum { A, SECOND, OUT }; /* buffers */

static int launch(const struct plan_run *run, const struct plan_step *step)
{
    const struct kernel_view a = plan_view(run, step, A), second = plan_view(run, step, SECOND);
    const struct kernel_view out = plan_view(run, step, OUT);
    return rows_apply(run->device, plan_view_rows(run, step, OUT), (cl_int)plan_buffer_of(run, step, OUT)->columns,
                      step->flags, &a, second.buffer != NULL ? &second : NULL, &out);
}

void elementwise_add_step(struct plan *plan, unsigned flags, int a, int second, int out)
{
    plan_add(plan, launch)->flags = flags;
    plan_use(plan, A, a);
    plan_use(plan, SECOND, second);
    plan_use(plan, OUT, out);
}

/* --- sums: of two, as runtime/layers/fusion.c makes of more ------------------------------------------------------- */

static void add_forward(struct plan *plan, struct plan_layer *layer)
{
    const int a = plan_read(plan, layer->operands[0]), b = plan_read(plan, layer->operands[1]);
    elementwise_add_step(plan, LINEAR_ADD, a, b, plan_write(plan, layer->value));
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
    elementwise_add_step(plan, LINEAR_MULTIPLY, a, b, plan_write(plan, layer->value));
}

static void multiply_backward(struct plan *plan, struct plan_layer *layer)
{
    const int dy = plan_gradient(plan, layer);
    for (unsigned i = 0; i < 2; i++) {
        const int gradient = plan_contribution(plan, layer->operands[i]);
        elementwise_add_step(plan, LINEAR_MULTIPLY, dy, plan_read(plan, layer->operands[1 - i]), gradient);
        plan_contribute(plan, layer->operands[i], gradient);
    }
}

const struct layer_kind layer_multiply = {
    .name = "multiply", .needs = multiply_needs, .forward = multiply_forward, .backward = multiply_backward};
