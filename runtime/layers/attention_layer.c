/* Attention as a layer: queries, keys and values are three values, or lie side by side in one. */
#include "runtime/layers/attention.h"
#include "runtime/layers/layer.h"

enum { Q, K, V, OUT, MASK, STATS, GRAD_OUT, GRAD_Q, GRAD_K, GRAD_V }; /* buffers; with all three in one no K and V */
enum { SAVED_STATS };

static bool in_one(const struct plan_layer *layer)
{
    return layer->operands_count == 1;
}

static struct batched_operand operand(const struct plan_run *run, const struct plan_step *step, unsigned role,
                                      unsigned part)
{
    const struct plan_buffer *buffer = plan_buffer_of(run, step, role);
    const cl_int columns = (cl_int)buffer->columns;
    const bool shared = step->sizes[1] != 0; /* all three in one matrix */
    return (struct batched_operand){
        .view = plan_view(run, step, role), .columns = columns, .first = shared ? (cl_int)part * (columns / 3) : 0};
}

static struct attention_call call_of(const struct plan_run *run, const struct plan_step *step)
{
    const bool shared = step->sizes[1] != 0;
    const struct plan_buffer *out = plan_buffer_of(run, step, OUT), *mask = plan_buffer_of(run, step, MASK);
    struct attention_call call = {
        .rows = run->rows,
        .tokens = (cl_int)out->tokens,
        .heads = (cl_int)step->sizes[0],
        .width = (cl_int)(out->columns / step->sizes[0]),
        .q = operand(run, step, Q, 0),
        .k = operand(run, step, shared ? Q : K, 1),
        .v = operand(run, step, shared ? Q : V, 2),
        .out = {.view = plan_view(run, step, OUT), .columns = (cl_int)out->columns},
    };
    if (mask != NULL) {
        call.mask = run->inputs[mask->tensor].buffer;
        call.mask_offset_bytes = run->inputs[mask->tensor].offset_bytes;
    }
    if (plan_buffer_of(run, step, STATS) != NULL) {
        const struct device_rows stats = plan_rows_of(run, step, STATS);
        call.stats = stats.buffer;
        call.stats_offset = stats.offset;
    }
    return call;
}

static int launch_forward(const struct plan_run *run, const struct plan_step *step)
{
    const struct attention_call call = call_of(run, step);
    return attention_forward(run->device, &call);
}

static int launch_backward(const struct plan_run *run, const struct plan_step *step)
{
    const struct attention_call call = call_of(run, step);
    const bool shared = step->sizes[1] != 0;
    const struct attention_gradients gradients = {
        .out = {.view = plan_view(run, step, GRAD_OUT), .columns = call.out.columns},
        .q = operand(run, step, GRAD_Q, 0),
        .k = operand(run, step, shared ? GRAD_Q : GRAD_K, 1),
        .v = operand(run, step, shared ? GRAD_Q : GRAD_V, 2),
    };
    return attention_backward(run->device, &call, &gradients);
}

static void needs(struct plan *plan, struct plan_layer *layer)
{
    for (unsigned i = 0; i < layer->operands_count; i++)
        plan_need(plan, layer->operands[i], false);
    layer->saves = true;
}

static void add_step(struct plan *plan, const struct plan_layer *layer, plan_launch *launch, const int operands[3],
                     int out)
{
    const int mask = layer->mask != PLAN_NONE ? plan_read(plan, (unsigned)layer->mask) : PLAN_NONE;
    struct plan_step *step = plan_add(plan, launch);
    step->sizes[0] = layer->node->settings.heads;
    step->sizes[1] = in_one(layer);
    for (unsigned i = 0; i < layer->operands_count; i++)
        plan_use(plan, Q + i, operands[i]);
    plan_use(plan, OUT, out);
    plan_use(plan, MASK, mask);
    plan_use(plan, STATS, layer->saved[SAVED_STATS]);
}

static void read_operands(struct plan *plan, const struct plan_layer *layer, int operands[3])
{
    for (unsigned i = 0; i < layer->operands_count; i++)
        operands[i] = plan_read(plan, layer->operands[i]);
}

static void forward(struct plan *plan, struct plan_layer *layer)
{
    int operands[3];
    read_operands(plan, layer, operands);
    const int out = plan_write(plan, layer->value);
    const struct plan_value *value = &plan->values[layer->value];
    if (plan->backward)
        layer->saved[SAVED_STATS] =
            plan_matrix(plan, value->tokens, attention_stats_floats(1, 1, layer->node->settings.heads), true);
    add_step(plan, layer, launch_forward, operands, out);
    plan_makes(plan, 1U << OUT | 1U << STATS);
}

static void backward(struct plan *plan, struct plan_layer *layer)
{
    int operands[3], gradients[3];
    const int dy = plan_gradient(plan, layer);
    read_operands(plan, layer, operands);
    for (unsigned i = 0; i < layer->operands_count; i++)
        gradients[i] = plan_contribution(plan, layer->operands[i]);
    add_step(plan, layer, launch_backward, operands, plan_read(plan, layer->value));
    plan_use(plan, GRAD_OUT, dy);
    for (unsigned i = 0; i < layer->operands_count; i++)
        plan_use(plan, GRAD_Q + i, gradients[i]);
    plan_makes(plan, 1U << GRAD_Q | 1U << GRAD_K | 1U << GRAD_V);
    for (unsigned i = 0; i < layer->operands_count; i++)
        plan_contribute(plan, layer->operands[i], gradients[i]);
}

const struct layer_kind layer_attention = {
    .name = "attention",
    .needs = needs,
    .forward = forward,
    .backward = backward,
};
