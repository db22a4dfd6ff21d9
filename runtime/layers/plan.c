#include "runtime/layers/plan.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/layers/fusion.h"
#include "runtime/layers/layer.h"

enum { ALIGNMENT_FLOATS = 64 };

/* Rows that a client sent, as floats. */
static int add_input(struct plan *plan, unsigned tensor, uint32_t dtype, const struct plan_value *v, bool packed)
{
    const int slab = plan_slab(plan, PLAN_INPUT, tensor, v);
    if (!plan_is_short(dtype))
        return slab;
    const int wide = plan_matrix(plan, v->tokens, v->columns, !packed);
    plan_widen(plan, dtype, slab, wide);
    return wide;
}

static uint32_t input_dtype(const struct plan_value *v)
{
    return v->input != PLAN_NONE ? v->desc->dtype : DTYPE_FLOAT32;
}

static uint32_t output_dtype(const struct plan *plan, const struct plan_value *v)
{
    return v->output != PLAN_NONE ? plan->graph->outputs.tensors[v->output].dtype : DTYPE_FLOAT32;
}

/* --- values ------------------------------------------------------------------------------------------------------- */

int plan_read(struct plan *plan, unsigned value)
{
    struct plan_value *v = &plan->values[value];
    if (v->packed == PLAN_NONE && v->by_rows == PLAN_NONE && v->input != PLAN_NONE) {
        const bool packed = plan_is_short(input_dtype(v)) && v->needed_packed;
        *(packed ? &v->packed : &v->by_rows) = add_input(plan, (unsigned)v->input, input_dtype(v), v, packed);
    }
    if (v->packed == PLAN_NONE && v->needed_packed)
        v->packed = plan_packed(plan, v->by_rows);
    return v->packed != PLAN_NONE ? v->packed : v->by_rows;
}

int plan_read_packed(struct plan *plan, unsigned value)
{
    const int buffer = plan_read(plan, value);
    struct plan_value *v = &plan->values[value];
    if (v->packed == PLAN_NONE)
        v->packed = plan_packed(plan, buffer);
    return v->packed;
}

int plan_write(struct plan *plan, unsigned value)
{
    struct plan_value *v = &plan->values[value];
    if (plan->backward)
        return v->packed = plan_matrix(plan, v->tokens, v->columns, false);
    if (v->home != PLAN_NONE) /* the layer behind it works in place: it has been made, or is to be made, there */
        v->by_rows = plan_write(plan, (unsigned)v->home);
    else if (v->by_rows == PLAN_NONE)
        v->by_rows = v->output != PLAN_NONE && !plan_is_short(output_dtype(plan, v))
                         ? plan_slab(plan, PLAN_RESULT, (unsigned)v->output, v)
                         : plan_matrix(plan, v->tokens, v->columns, true);
    return v->by_rows;
}

void plan_need(struct plan *plan, unsigned value, bool packed)
{
    plan->values[value].needed = true;
    plan->values[value].needed_packed |= packed;
}

/* --- gradients ---------------------------------------------------------------------------------------------------- */

bool plan_wants(const struct plan *plan, unsigned value)
{
    const struct plan_value *v = &plan->values[value];
    return v->desc == NULL || dtype_is_float(v->desc->dtype);
}

int plan_gradient(const struct plan *plan, const struct plan_layer *layer)
{
    assert(plan->values[layer->value].pending == 0);
    return plan->values[layer->value].gradient;
}

/* An input's gradient is made in the rows that the client gets, or (of 16 bits) brought there at the end. */
static bool goes_to_client(const struct plan_value *v)
{
    return v->input != PLAN_NONE && !plan_is_short(input_dtype(v));
}

/* Where the last contribution goes. */
static int last_place(struct plan *plan, const struct plan_value *v)
{
    return goes_to_client(v) ? plan_slab(plan, PLAN_RESULT, (unsigned)v->input, v)
                             : plan_matrix(plan, v->tokens, v->columns, false);
}

/* The layer whose activation the value is, with nothing between them: its gradient can go through the activation where
 * it is made. */
static const struct plan_layer *activated(const struct plan *plan, const struct plan_value *v)
{
    const struct plan_layer *layer = v->layer != PLAN_NONE ? &plan->layers[v->layer] : NULL;
    return layer != NULL && layer->saves && layer->epilogue == PLAN_PLAIN && layer->kind == &layer_linear ? layer
                                                                                                          : NULL;
}

void plan_contribute_product(struct plan *plan, unsigned value, struct plan_contribution *contribution)
{
    struct plan_value *v = &plan->values[value];
    const struct plan_layer *layer = activated(plan, v);
    *contribution = (struct plan_contribution){.second = v->gradient};
    v->pending--;
    if (v->gradient != PLAN_NONE) {
        contribution->flags = LINEAR_ADD;
    } else if (layer != NULL && v->pending == 0) {
        contribution->second = layer->saved[0];
        contribution->flags = fusion_activation_gradient(layer->node->settings.activation);
        v->gradient_is_inner = true;
    }
    contribution->out = v->pending == 0 ? last_place(plan, v) : plan_matrix(plan, v->tokens, v->columns, false);
    v->gradient = contribution->out;
}

int plan_contribution(struct plan *plan, unsigned value)
{
    const struct plan_value *v = &plan->values[value];
    return v->pending == 1 && v->gradient == PLAN_NONE ? last_place(plan, v)
                                                       : plan_matrix(plan, v->tokens, v->columns, false);
}

void plan_contribute(struct plan *plan, unsigned value, int gradient)
{
    struct plan_value *v = &plan->values[value];
    v->pending--;
    /* The last contribution to an input's gradient has to come to the client's rows. */
    const bool moves =
        v->pending == 0 && goes_to_client(v) && !plan->failed && plan->buffers[gradient].place != PLAN_RESULT;
    if (v->gradient == PLAN_NONE && !moves) {
        v->gradient = gradient;
        return;
    }
    const int sum = v->pending == 0 ? last_place(plan, v) : plan_matrix(plan, v->tokens, v->columns, false);
    plan_apply(plan, v->gradient != PLAN_NONE ? LINEAR_ADD : 0, gradient, v->gradient, sum);
    v->gradient = sum;
}

/* --- making ------------------------------------------------------------------------------------------------------- */

static void reset(struct plan *plan)
{
    for (unsigned i = 0; i < plan->values_count; i++) {
        struct plan_value *v = &plan->values[i];
        v->by_rows = v->packed = v->home = v->gradient = PLAN_NONE;
        v->pending = v->uses;
    }
    for (unsigned i = 0; i < plan->layers_count; i++)
        plan->layers[i].saved[0] = plan->layers[i].saved[1] = PLAN_NONE;
}

/* Layers that may work in place have their operand made where their value is to be, if nothing else reads it. */
static void find_homes(struct plan *plan)
{
    for (unsigned i = 0; i < plan->layers_count; i++) {
        const struct plan_layer *layer = &plan->layers[i];
        struct plan_value *operand = &plan->values[layer->operands[0]];
        if (layer->kind->in_place && operand->uses == 1 && operand->input == PLAN_NONE && operand->output == PLAN_NONE)
            operand->home = (int)layer->value;
    }
}

static void plan_forward(struct plan *plan)
{
    find_homes(plan);
    for (unsigned i = 0; i < plan->layers_count; i++) {
        const struct plan_value *v = &plan->values[plan->layers[i].value];
        plan->layers[i].kind->forward(plan, &plan->layers[i]);
        if (plan_is_short(output_dtype(plan, v)))
            plan_narrow(plan, output_dtype(plan, v), v->by_rows, plan_slab(plan, PLAN_RESULT, (unsigned)v->output, v));
    }
}

static void take_gradients(struct plan *plan)
{
    for (unsigned i = 0; i < plan->values_count; i++) {
        struct plan_value *v = &plan->values[i];
        if (v->output != PLAN_NONE)
            v->gradient =
                add_input(plan, plan->graph->inputs.count + (unsigned)v->output, output_dtype(plan, v), v, false);
    }
}

static void give_gradients(struct plan *plan)
{
    for (unsigned i = 0; i < plan->values_count; i++) {
        const struct plan_value *v = &plan->values[i];
        if (v->gradient != PLAN_NONE && plan_is_short(input_dtype(v)))
            plan_narrow(plan, input_dtype(v), v->gradient, plan_slab(plan, PLAN_RESULT, (unsigned)v->input, v));
    }
}

static void need_operands(struct plan *plan, const struct plan_layer *layer)
{
    for (unsigned i = 0; i < layer->operands_count; i++)
        plan_need(plan, layer->operands[i], false);
    if (layer->second != PLAN_NONE)
        plan_need(plan, (unsigned)layer->second, false);
}

/* What each step is wanted for: the results that it makes, and what those steps are wanted for that come later and read
 * what it makes (or write it, which may be in place). */
static void find_wanted(struct plan *plan)
{
    uint32_t results[SCHEMA_MAX_TENSORS];
    uint32_t *matrices = calloc(plan->buffers_count + 1, sizeof *matrices);
    plan->failed = plan->failed || matrices == NULL;
    for (unsigned i = 0; i < SCHEMA_MAX_TENSORS; i++)
        results[i] = UINT32_C(1) << i;
    for (unsigned i = plan->failed ? 0 : plan->steps_count; i-- > 0;) {
        struct plan_step *step = &plan->steps[i];
        uint32_t *wanted[PLAN_STEP_BUFFERS] = {NULL};
        step->wanted_for = step->makes == 0 ? UINT32_MAX : 0;
        for (unsigned role = 0; role < PLAN_STEP_BUFFERS; role++) {
            const int b = step->buffers[role];
            wanted[role] = b == PLAN_NONE ? NULL : &matrices[b];
            if (b != PLAN_NONE && plan->buffers[b].place == PLAN_RESULT)
                wanted[role] = &results[plan->buffers[b].tensor];
            if (wanted[role] != NULL && (step->makes >> role & 1))
                step->wanted_for |= *wanted[role];
        }
        for (unsigned role = 0; role < PLAN_STEP_BUFFERS; role++) {
            if (wanted[role] != NULL)
                *wanted[role] |= step->wanted_for;
        }
    }
    free(matrices);
}

static void plan_backward(struct plan *plan)
{
    for (unsigned i = plan->layers_count; i-- > 0;) {
        struct plan_layer *layer = &plan->layers[i];
        if (layer->kind->needs != NULL)
            layer->kind->needs(plan, layer);
        layer->recomputed = layer->saves || plan->values[layer->value].needed;
        if (layer->recomputed)
            need_operands(plan, layer);
    }
    for (unsigned i = 0; i < plan->layers_count; i++) {
        if (plan->layers[i].recomputed)
            plan->layers[i].kind->forward(plan, &plan->layers[i]);
    }
    take_gradients(plan);
    for (unsigned i = plan->layers_count; i-- > 0;)
        plan->layers[i].kind->backward(plan, &plan->layers[i]);
    give_gradients(plan);
    find_wanted(plan);
}

/* In the order in which the layers are declared, which is the state dict's. */
static void add_parameters(struct plan *plan)
{
    const struct block *block = plan->graph->block;
    for (unsigned i = 0; i < block->layers_count * plan->layers_count; i++) {
        struct plan_layer *layer = &plan->layers[i % plan->layers_count];
        if (layer->kind->parameters != NULL && layer->node->layer == &block->layers[i / plan->layers_count])
            layer->kind->parameters(plan, layer);
    }
}

int plan_make(struct plan *plan, const struct block_graph *graph, const struct kernel_shape *shape,
              struct parameters *parameters, bool backward)
{
    *plan = (struct plan){
        .graph = graph, .shape = shape, .parameters = parameters, .backward = backward, .trains = parameters->trains};
    fusion_find(plan);
    add_parameters(plan);
    reset(plan);
    if (backward)
        plan_backward(plan);
    else
        plan_forward(plan);
    if (plan->failed) {
        plan_free(plan);
        return -ENOMEM;
    }
    return 0;
}

void plan_free(struct plan *plan)
{
    free(plan->buffers);
    free(plan->steps);
    free(plan->sizes);
    plan->buffers = NULL;
    plan->steps = NULL;
    plan->sizes = NULL;
}

/* --- the workspace ------------------------------------------------------------------------------------------------ */

static uint64_t buffer_floats(const struct plan *plan, const struct plan_buffer *buffer, uint64_t chunk_rows)
{
    const uint64_t rows = chunk_rows * buffer->tokens;
    uint64_t floats = buffer->fixed_floats;
    if (floats == 0)
        floats = buffer->rows ? rows * buffer->columns : kernel_packed_floats(plan->shape, rows, buffer->columns);
    return (floats + ALIGNMENT_FLOATS - 1) / ALIGNMENT_FLOATS * ALIGNMENT_FLOATS;
}

static bool placed(const struct plan_buffer *buffer)
{
    return buffer->place == PLAN_WORKSPACE && buffer->first != ~0U;
}

/* The first place behind `at` where nothing lies that lives together with the buffer: what stands in the way of one
 * place tells the next one to be tried. */
static uint64_t find_place(const struct plan *plan, unsigned index, uint64_t at, uint64_t chunk_rows)
{
    const struct plan_buffer *buffer = &plan->buffers[index];
    const uint64_t floats = buffer_floats(plan, buffer, chunk_rows);
    for (bool moved = true; moved;) {
        moved = false;
        for (unsigned i = 0; i < index; i++) {
            const struct plan_buffer *other = &plan->buffers[i];
            if (!placed(other) || other->last < buffer->first || other->first > buffer->last)
                continue;
            const uint64_t end = other->offset + buffer_floats(plan, other, chunk_rows);
            if (other->offset < at + floats && at < end) {
                at = end;
                moved = true;
            }
        }
    }
    return at;
}

uint64_t plan_place(struct plan *plan, uint64_t chunk_rows)
{
    uint64_t end;
    plan->gradient_floats = plan->backward && plan->trains ? plan->parameters->trained_floats : 0;
    end = plan->gradient_floats;
    for (unsigned i = 0; i < plan->buffers_count; i++) {
        struct plan_buffer *buffer = &plan->buffers[i];
        if (!placed(buffer))
            continue;
        buffer->offset = find_place(plan, i, plan->gradient_floats, chunk_rows);
        const uint64_t last = buffer->offset + buffer_floats(plan, buffer, chunk_rows);
        end = last > end ? last : end;
    }
    return end;
}

uint64_t plan_tokens(const struct plan *plan)
{
    uint64_t tokens = 1;
    for (unsigned i = 0; i < plan->values_count; i++)
        tokens = plan->values[i].tokens > tokens ? plan->values[i].tokens : tokens;
    return tokens;
}
