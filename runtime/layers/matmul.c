/* The product of two values, matrix by matrix and head by head: y = scale a b, or scale a b^T. */
#include "runtime/compute/batched.h"
#include "runtime/layers/layer.h"

enum { A, B, OUT };                  /* buffers */
enum { A_ACROSS = 1, B_ACROSS = 2 }; /* flags of a step: what is transposed */
enum { HEADS, MATRICES };            /* sizes; matrices of a row of the batch */

static struct batched_operand operand(const struct plan_run *run, const struct plan_step *step, unsigned role)
{
    return (struct batched_operand){.view = plan_view(run, step, role),
                                    .columns = (cl_int)plan_buffer_of(run, step, role)->columns};
}

static int launch(const struct plan_run *run, const struct plan_step *step)
{
    const struct plan_buffer *a = plan_buffer_of(run, step, A), *out = plan_buffer_of(run, step, OUT);
    const uint64_t heads = step->sizes[HEADS], matrices = step->sizes[MATRICES];
    const struct batched_call call = {
        .matrices = run->rows * (cl_int)matrices,
        .heads = (cl_int)heads,
        .rows = (cl_int)(out->tokens / matrices),
        .columns = (cl_int)(out->columns / heads),
        .count = (cl_int)(step->flags & A_ACROSS ? a->tokens / matrices : a->columns / heads),
        .a_across = (step->flags & A_ACROSS) != 0,
        .b_across = (step->flags & B_ACROSS) != 0,
        .scale = step->number,
        .a = operand(run, step, A),
        .b = operand(run, step, B),
        .out = operand(run, step, OUT),
    };
    return batched_product(run->device, &call);
}

static void add_step(struct plan *plan, const struct plan_layer *layer, unsigned across, int a, int b, int out)
{
    const struct tensor_desc *desc = &plan->graph->values[layer->node->operands[0]].desc;
    struct plan_step *step = plan_add(plan, launch);
    step->flags = across;
    step->number = (float)layer->node->settings.scale;
    step->sizes[HEADS] = layer->node->settings.heads;
    step->sizes[MATRICES] = 1;
    for (unsigned d = 0; d + 2 < desc->ndim; d++)
        step->sizes[MATRICES] *= desc->dims[d];
    plan_use(plan, A, a);
    plan_use(plan, B, b);
    plan_use(plan, OUT, out);
    plan_makes(plan, 1U << OUT);
}

static void needs(struct plan *plan, struct plan_layer *layer)
{
    for (unsigned i = 0; i < layer->operands_count; i++)
        plan_need(plan, layer->operands[i], false);
}

static void forward(struct plan *plan, struct plan_layer *layer)
{
    const int a = plan_read(plan, layer->operands[A]), b = plan_read(plan, layer->operands[B]);
    add_step(plan, layer, layer->node->settings.transpose ? B_ACROSS : 0, a, b, plan_write(plan, layer->value));
}

/* Of a b: dy b^T and a^T dy. Of a b^T: dy b and dy^T a. */
static void backward(struct plan *plan, struct plan_layer *layer)
{
    const bool across = layer->node->settings.transpose != 0;
    const int dy = plan_gradient(plan, layer);
    const int a = plan_read(plan, layer->operands[A]), b = plan_read(plan, layer->operands[B]);
    const int grad_a = plan_contribution(plan, layer->operands[A]);
    add_step(plan, layer, across ? 0 : B_ACROSS, dy, b, grad_a);
    plan_contribute(plan, layer->operands[A], grad_a);
    const int grad_b = plan_contribution(plan, layer->operands[B]);
    add_step(plan, layer, A_ACROSS, across ? dy : a, across ? a : dy, grad_b);
    plan_contribute(plan, layer->operands[B], grad_b);
}

const struct layer_kind layer_matmul = {.name = "matmul", .needs = needs, .forward = forward, .backward = backward};
