/* y = x * mask * scale, with a mask of bools or of whole numbers, which has no gradient; dx = dy * mask * scale. */
#include "runtime/compute/rows.h"
#include "runtime/layers/layer.h"

enum { X, MASK, OUT }; /* buffers */

static int launch(const struct plan_run *run, const struct plan_step *step)
{
    const struct plan_buffer *buffer = plan_buffer_of(run, step, MASK);
    const struct plan_rows *rows = &run->inputs[buffer->tensor];
    const struct rows_mask mask = {
        .buffer = rows->buffer, .offset_bytes = rows->offset_bytes, .wide = step->flags == DTYPE_INT64};
    const struct kernel_view x = plan_view(run, step, X), out = plan_view(run, step, OUT);
    return rows_mask(run->device, plan_view_rows(run, step, OUT), (cl_int)plan_buffer_of(run, step, OUT)->columns,
                     step->number, &x, &mask, &out);
}

static void add_step(struct plan *plan, const struct plan_layer *layer, int x, int out)
{
    const int mask = plan_read(plan, layer->operands[1]);
    struct plan_step *step = plan_add(plan, launch);
    step->number = (float)layer->node->settings.scale;
    step->flags = plan->values[layer->operands[1]].desc->dtype;
    plan_use(plan, X, x);
    plan_use(plan, MASK, mask);
    plan_use(plan, OUT, out);
    plan_makes(plan, 1U << OUT);
}

static void forward(struct plan *plan, struct plan_layer *layer)
{
    const int x = plan_read(plan, layer->operands[0]);
    add_step(plan, layer, x, plan_write(plan, layer->value));
}

static void backward(struct plan *plan, struct plan_layer *layer)
{
    const int gradient = plan_contribution(plan, layer->operands[0]);
    add_step(plan, layer, plan_gradient(plan, layer), gradient);
    plan_contribute(plan, layer->operands[0], gradient);
}

const struct layer_kind layer_mask = {.name = "mask", .forward = forward, .backward = backward};
