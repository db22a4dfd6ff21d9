#include "runtime/blocks/ffn.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "runtime/blocks/blocks.h"
#include "runtime/compute/linear.h"
#include "runtime/compute/provider.h"
#include "runtime/train/optimizer_step.h"

enum { INNER_FACTOR = 4 };

static void one_tensor(struct schema *schema, const char *name, uint64_t hidden)
{
    memset(schema, 0, sizeof *schema);
    schema->count = 1;
    schema->tensors[0].dtype = DTYPE_FLOAT32;
    schema->tensors[0].ndim = 1;
    schema->tensors[0].dims[0] = hidden;
    snprintf(schema->tensors[0].name, sizeof schema->tensors[0].name, "%s", name);
}

static int ffn_schema(const struct config_expert *config, struct schema *inputs, struct schema *outputs)
{
    one_tensor(inputs, "input", config->hidden_dim);
    one_tensor(outputs, "output", config->hidden_dim);
    return 0;
}

static void layout(struct ffn *ffn, const struct device *device, const struct config_expert *config,
                   const struct optimizer_settings *optimizer)
{
    const uint64_t h = config->hidden_dim, inner = INNER_FACTOR * h;
    const struct parameter items[] = {
        [FFN_WEIGHT] = {.name = "ffn.weight", .out = inner, .in = h, .fan_in = h},
        [FFN_BIAS] = {.name = "ffn.bias", .out = inner, .fan_in = h},
        [FFN_OUTPUT_WEIGHT] = {.name = "ffn_output.weight", .out = h, .in = inner, .fan_in = inner},
        [FFN_OUTPUT_BIAS] = {.name = "ffn_output.bias", .out = h, .fan_in = inner},
        [FFN_NORM_WEIGHT] = {.name = "layer_norm.weight", .out = h, .init = PARAMETER_ONE},
        [FFN_NORM_BIAS] = {.name = "layer_norm.bias", .out = h, .init = PARAMETER_ZERO},
    };
    ffn->hidden = (cl_int)h;
    ffn->inner = (cl_int)inner;
    ffn->chunk_rows = (unsigned)(config->max_batch_size < device->config->chunk_rows ? config->max_batch_size
                                                                                     : device->config->chunk_rows);
    for (size_t i = 0; i < sizeof items / sizeof items[0]; i++)
        parameters_add(&ffn->parameters, &items[i]);
    parameters_layout(&ffn->parameters, provider_shape(device), optimizer);
}

void ffn_workspace_layout(const struct ffn *ffn, struct ffn_workspace *workspace)
{
    const struct kernel_shape *shape = &ffn->parameters.shape;
    const uint64_t rows = ffn->chunk_rows;
    const uint64_t narrow = kernel_packed_floats(shape, rows, (uint64_t)ffn->hidden);
    const uint64_t wide = kernel_packed_floats(shape, rows, (uint64_t)ffn->inner);
    const bool trains = ffn->parameters.trains;
    uint64_t at = 0;
    workspace->gradient = at;
    at += trains ? ffn->parameters.primary_floats : 0;
    workspace->x = at; /* packed, for W1's gradient */
    at += trains ? narrow : 0;
    workspace->preact = at;
    at += wide;
    workspace->act = at;
    at += wide;
    workspace->sum = at;
    at += narrow;
    workspace->grad_sum = at;
    at += narrow;
    workspace->stats = at;
    at += 2 * rows;
    workspace->floats = at;
}

/* A backward's: inputs, grad_outputs and grad_inputs. */
static size_t staging_bytes(const struct config_expert *config)
{
    return 3 * (config->max_batch_size * config->hidden_dim * sizeof(float) + 256);
}

enum { SIZES = 2 };

static void linear_sizes(const struct config_expert *config, struct linear_size sizes[SIZES])
{
    const uint64_t h = config->hidden_dim;
    sizes[0] = (struct linear_size){.n = INNER_FACTOR * h, .k = h};
    sizes[1] = (struct linear_size){.n = h, .k = INNER_FACTOR * h};
}

static void ffn_memory(const struct device *device, const struct config_expert *config, uint64_t *own,
                       uint64_t *workspace)
{
    struct ffn ffn = {0};
    struct ffn_workspace offsets;
    struct optimizer_settings optimizer;
    struct linear_size sizes[SIZES];
    *own = *workspace = 0;
    if (optimizer_settings_parse(&optimizer, config) != 0)
        return;
    layout(&ffn, device, config, &optimizer);
    ffn_workspace_layout(&ffn, &offsets);
    *own = parameters_bytes(&ffn.parameters);
    linear_sizes(config, sizes);
    *workspace = offsets.floats * sizeof(float) + device_staging_memory(device, staging_bytes(config)) +
                 linear_layer_memory(device, ffn.chunk_rows, sizes, SIZES);
}

static void ffn_destroy(struct expert **expert)
{
    struct ffn *ffn = (struct ffn *)*expert;
    parameters_destroy(&ffn->parameters);
    free(ffn);
    *expert = NULL;
}

static int ffn_create(struct expert **out, struct device *device, const struct config_expert *config, uint64_t seed)
{
    struct ffn *ffn = calloc(1, sizeof *ffn);
    struct ffn_workspace offsets;
    *out = NULL;
    if (ffn == NULL)
        return -ENOMEM;
    struct expert *expert = &ffn->base;
    int result = expert_prepare(expert, &expert_ffn, device, config);
    if (result == 0) {
        layout(ffn, device, config, &expert->optimizer);
        ffn_workspace_layout(ffn, &offsets);
        result = device_reserve_workspace(device, offsets.floats * sizeof(float));
    }
    if (result == 0)
        result = device_reserve_staging(device, staging_bytes(config));
    if (result == 0) {
        struct linear_size sizes[SIZES];
        linear_sizes(config, sizes);
        result = linear_layer_prepare(device, ffn->chunk_rows, sizes, SIZES);
    }
    if (result == 0)
        result = parameters_create(&ffn->parameters, device, seed);
    if (result != 0) {
        ffn_destroy(&expert);
        return result;
    }
    *out = expert;
    return 0;
}

/* Rows of a slab as bytes. */
struct span {
    size_t offset, bytes;
};

static struct span span_of(const struct ffn *ffn, const struct expert_batch *batch)
{
    const size_t row_bytes = (size_t)ffn->hidden * sizeof(float);
    return (struct span){batch->first_row * row_bytes, batch->rows * row_bytes};
}

/* It is as large as it was when the expert was made, unless there was no memory to make it so again. */
static int have_workspace(const struct ffn *ffn)
{
    struct ffn_workspace offsets;
    ffn_workspace_layout(ffn, &offsets);
    return device_reserve_workspace(ffn->base.device, offsets.floats * sizeof(float));
}

static int ffn_forward(struct expert *expert, struct expert_batch *batch)
{
    struct ffn *ffn = (struct ffn *)expert;
    struct device *device = expert->device;
    const struct span span = span_of(ffn, batch);
    struct device_rows in, out;
    int result = have_workspace(ffn);
    if (result == 0)
        result = device_staging_begin(device, &batch->staging);
    if (result != 0)
        return result;
    result = device_rows_in(device, batch->staging, &batch->inputs[0], span.offset, span.bytes, &in);
    if (result == 0)
        result = device_rows_out(device, batch->staging, &batch->outputs[0], span.offset, span.bytes, &out);
    if (result == 0)
        result = ffn_enqueue_forward(ffn, batch->rows, &in, &out);
    if (result == 0)
        result = device_rows_done(device, &batch->outputs[0], span.offset, span.bytes, &out);
    if (result == 0)
        result = device_mark(device, &batch->done);
    if (result != 0)
        device_staging_abort(device, batch->staging);
    return result;
}

static int enqueue_backward(struct ffn *ffn, struct expert_batch *batch, bool dry)
{
    struct expert *expert = &ffn->base;
    struct device *device = expert->device;
    const struct span span = span_of(ffn, batch);
    struct ffn_workspace at;
    struct device_rows in, grad_output, grad_input;
    int result = device_rows_in(device, batch->staging, &batch->inputs[0], span.offset, span.bytes, &in);
    if (result == 0)
        result = device_rows_in(device, batch->staging, &batch->inputs[1], span.offset, span.bytes, &grad_output);
    if (result == 0)
        result = device_rows_out(device, batch->staging, &batch->outputs[0], span.offset, span.bytes, &grad_input);
    if (result == 0)
        result = ffn_enqueue_backward(ffn, batch->rows, &in, &grad_output, &grad_input);
    if (result == 0)
        result = device_rows_done(device, &batch->outputs[0], span.offset, span.bytes, &grad_input);
    ffn_workspace_layout(ffn, &at);
    const struct trainee trainee = expert_trainee(expert);
    if (result == 0 && expert->optimizer.kind != OPTIMIZER_NONE)
        result = optimizer_step_enqueue(&trainee, &ffn->parameters, device->workspace, at.gradient, dry);
    return result == 0 ? device_mark(device, &batch->done) : result;
}

static int backward(struct expert *expert, struct expert_batch *batch, bool dry)
{
    int result = have_workspace((struct ffn *)expert);
    if (result == 0)
        result = device_staging_begin(expert->device, &batch->staging);
    if (result != 0)
        return result;
    result = enqueue_backward((struct ffn *)expert, batch, dry);
    if (result != 0)
        device_staging_abort(expert->device, batch->staging);
    return result;
}

static int ffn_backward(struct expert *expert, struct expert_batch *batch)
{
    return backward(expert, batch, false);
}

static int ffn_finish(struct expert *expert, struct expert_batch *batch)
{
    const int result = device_wait(expert->device, &batch->done);
    device_staging_end(expert->device, batch->staging);
    if (result != 0 || !batch->backward)
        return result;
    const struct trainee trainee = expert_trainee(expert);
    if (expert->optimizer.kind != OPTIMIZER_NONE)
        batch->step =
            optimizer_step_finish(&trainee, &((struct ffn *)expert)->parameters, batch->rows, &batch->grad_norm);
    else
        expert->counters.examples += batch->rows;
    return 0;
}

/* One row through all kernels: PoCL compiles a kernel when it is first launched. */
static int ffn_warm(struct expert *expert)
{
    const size_t bytes = tensor_row_bytes(&expert->inputs.tensors[0]);
    struct device_slab slabs[3];
    char *memory = calloc(3, bytes);
    if (memory == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < 3; i++)
        device_slab_wrap(&slabs[i], memory + i * bytes, bytes);
    struct expert_batch batch = {.rows = 1, .inputs = slabs, .outputs = &slabs[2]};
    int result = ffn_forward(expert, &batch);
    if (result == 0)
        result = ffn_finish(expert, &batch);
    if (result == 0)
        result = backward(expert, &batch, true);
    if (result == 0)
        result = ffn_finish(expert, &batch);
    for (unsigned i = 0; i < 3; i++)
        device_slab_unwrap(&slabs[i]);
    free(memory);
    return result;
}

static struct parameters *ffn_parameters(struct expert *expert)
{
    return &((struct ffn *)expert)->parameters;
}

const struct expert_ops expert_ffn = {
    .name = "ffn",
    .schema = ffn_schema,
    .memory = ffn_memory,
    .create = ffn_create,
    .warm = ffn_warm,
    .forward = ffn_forward,
    .backward = ffn_backward,
    .finish = ffn_finish,
    .parameters = ffn_parameters,
    .destroy = ffn_destroy,
};
