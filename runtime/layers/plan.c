#include "runtime/layers/plan.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/compute/provider.h"
#include "runtime/compute/rows.h"
#include "runtime/device/device_private.h"
#include "runtime/layers/elementwise.h"
#include "runtime/layers/fusion.h"
#include "runtime/layers/layer.h"

enum { ALIGNMENT_FLOATS = 64 };

/* --- steps and buffers -------------------------------------------------------------------------------------------- */

/* Room for one more; false: there is no memory, and the plan has failed. */
static bool grow(struct plan *plan, void **items, unsigned count, unsigned *room, size_t size)
{
    if (count < *room)
        return true;
    const unsigned wanted = *room > 0 ? 2 * *room : 32;
    void *larger = realloc(*items, wanted * size);
    plan->failed = plan->failed || larger == NULL;
    if (larger == NULL)
        return false;
    *items = larger;
    *room = wanted;
    return true;
}

struct plan_step *plan_add(struct plan *plan, plan_launch *launch)
{
    static struct plan_step nowhere; /* for a plan that has failed */
    struct plan_step *step = &nowhere;
    if (grow(plan, (void **)&plan->steps, plan->steps_count, &plan->steps_room, sizeof *plan->steps))
        step = &plan->steps[plan->steps_count++];
    *step = (struct plan_step){.launch = launch};
    for (unsigned i = 0; i < PLAN_STEP_BUFFERS; i++)
        step->buffers[i] = PLAN_NONE;
    for (unsigned i = 0; i < PLAN_STEP_PARAMETERS; i++)
        step->parameters[i] = PLAN_NONE;
    return step;
}

void plan_use(struct plan *plan, unsigned role, int buffer)
{
    if (plan->failed || buffer == PLAN_NONE)
        return;
    const unsigned step = plan->steps_count - 1;
    struct plan_buffer *used = &plan->buffers[buffer];
    plan->steps[step].buffers[role] = buffer;
    if (used->first > step)
        used->first = step;
    if (used->last < step)
        used->last = step;
}

static int add_buffer(struct plan *plan, const struct plan_buffer *buffer)
{
    if (!grow(plan, (void **)&plan->buffers, plan->buffers_count, &plan->buffers_room, sizeof *plan->buffers))
        return PLAN_NONE;
    plan->buffers[plan->buffers_count] = *buffer;
    plan->buffers[plan->buffers_count].first = ~0U;
    return (int)plan->buffers_count++;
}

int plan_matrix(struct plan *plan, uint64_t tokens, uint64_t columns, bool rows)
{
    return add_buffer(plan, &(struct plan_buffer){.tokens = tokens, .columns = columns, .rows = rows});
}

int plan_scratch(struct plan *plan, uint64_t floats)
{
    return add_buffer(plan, &(struct plan_buffer){.fixed_floats = floats});
}

static int add_slab(struct plan *plan, enum plan_place place, unsigned tensor, const struct plan_value *value)
{
    return add_buffer(
        plan, &(struct plan_buffer){
                  .place = place, .tensor = tensor, .rows = true, .tokens = value->tokens, .columns = value->columns});
}

/* --- rows of 16 bits ------------------------------------------------------------------------------------------------
 */

static bool is_short(uint32_t dtype)
{
    return dtype == DTYPE_FLOAT16 || dtype == DTYPE_BFLOAT16;
}

static struct rows_short short_rows(const struct plan_run *run, const struct plan_step *step, unsigned role)
{
    const struct plan_buffer *buffer = plan_buffer_of(run, step, role);
    const struct plan_rows *rows = buffer->place == PLAN_INPUT ? run->inputs : run->results;
    return (struct rows_short){.buffer = rows[buffer->tensor].buffer,
                               .offset_bytes = rows[buffer->tensor].offset_bytes,
                               .brain = step->flags == DTYPE_BFLOAT16};
}

static int launch_widen(const struct plan_run *run, const struct plan_step *step)
{
    const struct rows_short from = short_rows(run, step, 0);
    const struct kernel_view to = plan_view(run, step, 1);
    return rows_widen(run->device, plan_view_rows(run, step, 1), (cl_int)plan_buffer_of(run, step, 1)->columns, &from,
                      &to);
}

static int launch_narrow(const struct plan_run *run, const struct plan_step *step)
{
    const struct kernel_view from = plan_view(run, step, 0);
    const struct rows_short to = short_rows(run, step, 1);
    return rows_narrow(run->device, plan_view_rows(run, step, 0), (cl_int)plan_buffer_of(run, step, 0)->columns, &from,
                       &to);
}

static void convert(struct plan *plan, plan_launch *launch, uint32_t dtype, int from, int to)
{
    plan_add(plan, launch)->flags = dtype;
    plan_use(plan, 0, from);
    plan_use(plan, 1, to);
}

/* Rows that a client sent, as floats. */
static int add_input(struct plan *plan, unsigned tensor, uint32_t dtype, const struct plan_value *v, bool packed)
{
    const int slab = add_slab(plan, PLAN_INPUT, tensor, v);
    if (!is_short(dtype))
        return slab;
    const int wide = plan_matrix(plan, v->tokens, v->columns, !packed);
    convert(plan, launch_widen, dtype, slab, wide);
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

/* ------------------------------------------------------------------------------------------------------------------ */

static int launch_pack(const struct plan_run *run, const struct plan_step *step)
{
    const struct device_rows from = plan_rows_of(run, step, 0), to = plan_rows_of(run, step, 1);
    const struct plan_buffer *buffer = plan_buffer_of(run, step, 0);
    return rows_pack(run->device, plan_view_rows(run, step, 0), (cl_int)buffer->columns, &from, &to);
}

int plan_packed(struct plan *plan, int buffer)
{
    if (plan->failed || buffer == PLAN_NONE || !plan->buffers[buffer].rows)
        return buffer;
    const int packed = plan_matrix(plan, plan->buffers[buffer].tokens, plan->buffers[buffer].columns, false);
    plan_add(plan, launch_pack);
    plan_use(plan, 0, buffer);
    plan_use(plan, 1, packed);
    return packed;
}

void plan_note_product(struct plan *plan, uint64_t n, uint64_t k)
{
    for (unsigned i = 0; i < plan->sizes_count; i++) {
        if (plan->sizes[i].n == n && plan->sizes[i].k == k)
            return;
    }
    if (grow(plan, (void **)&plan->sizes, plan->sizes_count, &plan->sizes_room, sizeof *plan->sizes))
        plan->sizes[plan->sizes_count++] = (struct linear_size){.n = n, .k = k};
}

/* --- values ------------------------------------------------------------------------------------------------------- */

int plan_read(struct plan *plan, unsigned value)
{
    struct plan_value *v = &plan->values[value];
    if (v->packed == PLAN_NONE && v->by_rows == PLAN_NONE && v->input != PLAN_NONE) {
        const bool packed = is_short(input_dtype(v)) && v->needed_packed;
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
        v->by_rows = v->output != PLAN_NONE && !is_short(output_dtype(plan, v))
                         ? add_slab(plan, PLAN_RESULT, (unsigned)v->output, v)
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
    return v->input != PLAN_NONE && !is_short(input_dtype(v));
}

/* Where the last contribution goes. */
static int last_place(struct plan *plan, const struct plan_value *v)
{
    return goes_to_client(v) ? add_slab(plan, PLAN_RESULT, (unsigned)v->input, v)
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
    elementwise_add_step(plan, v->gradient != PLAN_NONE ? LINEAR_ADD : 0, gradient, v->gradient, sum);
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
        if (is_short(output_dtype(plan, v)))
            convert(plan, launch_narrow, output_dtype(plan, v), v->by_rows,
                    add_slab(plan, PLAN_RESULT, (unsigned)v->output, v));
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
        if (v->gradient != PLAN_NONE && is_short(input_dtype(v)))
            convert(plan, launch_narrow, input_dtype(v), v->gradient,
                    add_slab(plan, PLAN_RESULT, (unsigned)v->input, v));
    }
}

static void need_operands(struct plan *plan, const struct plan_layer *layer)
{
    for (unsigned i = 0; i < layer->operands_count; i++)
        plan_need(plan, layer->operands[i], false);
    if (layer->second != PLAN_NONE)
        plan_need(plan, (unsigned)layer->second, false);
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
    plan->gradient_floats = plan->backward && plan->trains ? plan->parameters->primary_floats : 0;
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

/* --- running ------------------------------------------------------------------------------------------------------ */

const struct plan_buffer *plan_buffer_of(const struct plan_run *run, const struct plan_step *step, unsigned role)
{
    return step->buffers[role] == PLAN_NONE ? NULL : &run->plan->buffers[step->buffers[role]];
}

cl_int plan_view_rows(const struct plan_run *run, const struct plan_step *step, unsigned role)
{
    return run->rows * (cl_int)plan_buffer_of(run, step, role)->tokens;
}

struct device_rows plan_rows_of(const struct plan_run *run, const struct plan_step *step, unsigned role)
{
    const struct plan_buffer *buffer = plan_buffer_of(run, step, role);
    if (buffer->place == PLAN_WORKSPACE)
        return (struct device_rows){.buffer = run->device->workspace, .offset = buffer->offset};
    const struct plan_rows *rows = buffer->place == PLAN_INPUT ? run->inputs : run->results;
    return (struct device_rows){.buffer = rows[buffer->tensor].buffer,
                                .offset = rows[buffer->tensor].offset_bytes / sizeof(float)};
}

struct kernel_view plan_view(const struct plan_run *run, const struct plan_step *step, unsigned role)
{
    const struct plan_buffer *buffer = plan_buffer_of(run, step, role);
    if (buffer == NULL)
        return (struct kernel_view){0};
    const struct device_rows at = plan_rows_of(run, step, role);
    return buffer->rows
               ? kernel_view_rows(run->plan->shape, at.buffer, at.offset, buffer->columns)
               : kernel_view_packed(run->plan->shape, at.buffer, at.offset, (uint64_t)run->rows * buffer->tokens);
}

cl_mem plan_workspace(const struct plan_run *run)
{
    return run->device->workspace;
}

uint64_t plan_padded(const struct plan_run *run, uint64_t columns)
{
    return kernel_packed_floats(run->plan->shape, 1, columns);
}

cl_ulong plan_parameter_gradient(const struct plan_run *run, const struct plan_step *step, unsigned which)
{
    return run->parameters->items[step->parameters[which]].offset;
}

const struct parameter *plan_parameter(const struct plan_run *run, const struct plan_step *step, unsigned which)
{
    return &run->parameters->items[step->parameters[which]];
}

int plan_enqueue(const struct plan_run *run)
{
    int result = 0;
    for (unsigned i = 0; i < run->plan->steps_count && result == 0; i++)
        result = run->plan->steps[i].launch(run, &run->plan->steps[i]);
    return result;
}
