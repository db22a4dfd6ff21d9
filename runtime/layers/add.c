/* y = a + b. Sums of more are made one after the other (runtime/layers/fusion.c), and most of them not here but in the
 * epilogue of a product. */
#include "runtime/layers/layer.h"

enum { A, B, SUM }; /* buffers */

int layer_launch_add(const struct plan_run *run, const struct plan_step *step)
{
    (void)run, (void)step;
    return -1;
}

static void forward(struct plan *plan, struct plan_layer *layer)
{
    const int a = plan_read(plan, layer->operands[0]), b = plan_read(plan, layer->operands[1]);
    const int sum = plan_write(plan, layer->value);
    plan_add(plan, layer_launch_add);
    plan_use(plan, A, a);
    plan_use(plan, B, b);
    plan_use(plan, SUM, sum);
}

static void backward(struct plan *plan, struct plan_layer *layer)
{
    const int dy = plan_gradient(plan, layer);
    for (unsigned i = 0; i < layer->operands_count; i++)
        plan_contribute(plan, layer->operands[i], dy);
}

const struct layer_kind layer_add = {.name = "add", .forward = forward, .backward = backward};
