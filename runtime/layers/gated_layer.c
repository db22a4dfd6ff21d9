/* y = activation(G x + b) * (U x + c): the rows of G and U alternate in one matrix, so that it is one product, in whose
 * epilogue each gate meets what it lets through. Back: the gradients of both, side by side, are again one product's. */
#include <math.h>
#include <stdio.h>

#include "runtime/compute/rows.h"
#include "runtime/layers/fusion.h"
#include "runtime/layers/layer.h"
#include "runtime/layers/product.h"

enum { GATE_WEIGHT, GATE_BIAS, UP_WEIGHT, UP_BIAS }; /* parameters */
enum { PAIRS };                                      /* saved */
enum { DY, KEPT, GRADIENTS };                        /* buffers, on the way back */

static int add_parameter(struct plan *plan, const struct plan_layer *layer, bool up, const char *suffix, uint64_t in)
{
    const struct block_settings *settings = &layer->node->settings;
    const char *given = up ? settings->up : settings->gate;
    char name[PARAMETER_NAME_SIZE];
    if (given != NULL)
        snprintf(name, sizeof name, "%s.%s", given, suffix);
    else
        snprintf(name, sizeof name, "%s.%s.%s", layer->node->layer->name, up ? "up_proj" : "gate_proj", suffix);
    return layer_parameter(plan, layer, name, suffix, settings->size, in,
                           layer_init(in > 0 ? settings->init : settings->bias_init));
}

static void pair(struct plan *plan, int first, int second)
{
    if (first == PLAN_NONE || second == PLAN_NONE)
        return;
    struct parameter *items = plan->parameters->items;
    items[first].paired = items[second].paired = true;
    items[second].lane = 1;
    items[second].partner = (unsigned)first;
}

static void parameters(struct plan *plan, struct plan_layer *layer)
{
    const uint64_t in = plan->values[layer->operands[0]].columns;
    for (unsigned up = 0; up < 2; up++) {
        layer->parameters[up ? UP_WEIGHT : GATE_WEIGHT] = add_parameter(plan, layer, up, "weight", in);
        if (layer->node->settings.bias)
            layer->parameters[up ? UP_BIAS : GATE_BIAS] = add_parameter(plan, layer, up, "bias", 0);
    }
    pair(plan, layer->parameters[GATE_WEIGHT], layer->parameters[UP_WEIGHT]);
    pair(plan, layer->parameters[GATE_BIAS], layer->parameters[UP_BIAS]);
}

static struct product product_of(const struct plan *plan, const struct plan_layer *layer)
{
    return (struct product){.weight = layer->parameters[GATE_WEIGHT],
                            .bias = layer->parameters[GATE_BIAS],
                            .out = kernel_paired_columns(plan->shape, layer->node->settings.size),
                            .in = plan->values[layer->operands[0]].columns};
}

static void needs(struct plan *plan, struct plan_layer *layer)
{
    if (plan->trains)
        plan_need(plan, layer->operands[0], true);
    layer->saves = true;
}

static void forward(struct plan *plan, struct plan_layer *layer)
{
    const struct block_settings *settings = &layer->node->settings;
    const struct product product = product_of(plan, layer);
    layer->gate = (struct linear_gate){.limit = settings->limit > 0 ? (cl_float)settings->limit : INFINITY,
                                       .alpha = (cl_float)settings->alpha,
                                       .shift = (cl_float)settings->up_shift};
    struct product_forward forward = {
        .x = plan_read(plan, layer->operands[0]),
        .second = PLAN_NONE,
        .flags = LINEAR_GATED | fusion_activation(settings->activation) | (plan->backward ? LINEAR_SAVE : 0),
        .gate = &layer->gate,
    };
    forward.out = plan_write(plan, layer->value);
    forward.save = layer->saved[PAIRS] = plan_matrix(plan, plan->values[layer->value].tokens, product.out, false);
    product_forward(plan, &product, &forward);
}

static int launch_backward(const struct plan_run *run, const struct plan_step *step)
{
    const struct kernel_view dy = plan_view(run, step, DY);
    const struct rows_gate gate = {
        .flags = step->flags,
        .how = *step->gate,
        .pairs = plan_rows_of(run, step, KEPT),
        .gradients = plan_rows_of(run, step, GRADIENTS),
    };
    return rows_gate_backward(run->device, plan_view_rows(run, step, DY),
                              (cl_int)plan_buffer_of(run, step, DY)->columns, &gate, &dy);
}

static void backward(struct plan *plan, struct plan_layer *layer)
{
    const enum block_activation activation = layer->node->settings.activation;
    const struct product product = product_of(plan, layer);
    const int dy = plan_gradient(plan, layer);
    const int gradients = plan_matrix(plan, plan->values[layer->value].tokens, product.out, false);
    struct plan_step *step = plan_add(plan, launch_backward);
    step->flags = fusion_activation(activation) | fusion_activation_gradient(activation);
    step->gate = &layer->gate;
    plan_use(plan, DY, dy);
    plan_use(plan, KEPT, layer->saved[PAIRS]);
    plan_use(plan, GRADIENTS, gradients);
    plan_makes(plan, 1U << GRADIENTS);
    if (plan->trains && product.bias != PLAN_NONE)
        product_bias_gradient(plan, &product, gradients);
    if (plan->trains)
        product_weight_gradient(plan, &product, plan_read_packed(plan, layer->operands[0]), gradients);
    product_input_gradient(plan, &product, layer->operands[0], gradients);
}

const struct layer_kind layer_gated = {
    .name = "gated",
    .parameters = parameters,
    .needs = needs,
    .forward = forward,
    .backward = backward,
};
