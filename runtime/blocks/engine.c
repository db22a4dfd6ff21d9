#include "runtime/blocks/engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "runtime/blocks/blocks.h"
#include "runtime/blocks/declaration.h"
#include "runtime/blocks/own_expert.h"
#include "runtime/compute/linear.h"
#include "runtime/compute/provider.h"
#include "runtime/device/device_private.h"
#include "runtime/layers/layer.h"
#include "runtime/train/optimizer_step.h"

/* --- what experts of an entry share ------------------------------------------------------------------------------- */

static struct engine_model *models; /* those that have users */

/* A kind may be one whose kernels this program has not. */
static int check_kinds(const struct config_expert *config, const struct block_graph *graph)
{
    for (unsigned i = 0; i < graph->nodes_count; i++) {
        const struct block_kind *kind = graph->nodes[i].kind;
        if (kind->implementation == NULL && layer_kind_find(kind->name) == NULL) {
            log_error("experts: uid %s: this program has no kernels for a %s layer", config->uid, kind->name);
            return -EINVAL;
        }
    }
    return 0;
}

/* Of the plans that there are, the one that takes the most. */
static struct plan *largest_plan(struct engine_model *model)
{
    return model->parameters.forward_only ? &model->forward : &model->backward;
}

/* Bytes of a chunk of so many rows, but for the gradients of parameters, which no chunk makes smaller. */
static uint64_t chunk_bytes(struct engine_model *model, uint64_t rows)
{
    struct plan *plan = largest_plan(model);
    return (plan_place(plan, rows) - plan->gradient_floats) * sizeof(float);
}

/* Rows of a chunk. They count in rows of matrices, so that a row of many tokens is as many: no more than chunk_rows,
 * or, where that is left to us, than let what one step writes stay in the device's cache until the next ones read it;
 * but as many as a product needs to be bound by its operations, not by reading the weights. And no more than leave an
 * eighth of the device's memory to the workspace. */
static uint64_t chunk_rows(struct engine_model *model)
{
    enum { LEAST = 256, MOST = 1024 };
    const struct device *device = model->device;
    const uint64_t tokens = plan_tokens(largest_plan(model)), given = device->config->chunk_rows;
    const uint64_t limit = given > 0 ? given : MOST, most = model->config->max_batch_size;
    const uint64_t memory = device_memory_budget(device) / 8, cache = given > 0 ? 0 : device->info.cache_bytes;
    uint64_t rows = limit / tokens > 0 ? limit / tokens : 1;
    rows = rows < most ? rows : most;
    while (cache > 0 && rows * tokens >= 2 * LEAST && chunk_bytes(model, rows) > cache)
        rows /= 2;
    while (rows > 1 && chunk_bytes(model, rows) > memory)
        rows /= 2;
    return rows;
}

/* A backward's: inputs, grad_outputs and grad_inputs. Of a forward alone: inputs and outputs. */
static uint64_t staging_bytes(const struct engine_model *model)
{
    uint64_t bytes = 0;
    const struct block_graph *graph = model->graph;
    for (unsigned i = 0; i < graph->inputs.count + graph->outputs.count; i++) {
        const bool input = i < graph->inputs.count;
        const struct tensor_desc *desc =
            input ? &graph->inputs.tensors[i] : &graph->outputs.tensors[i - graph->inputs.count];
        const bool gradient = input && dtype_is_float(desc->dtype) && !model->parameters.forward_only;
        const uint64_t copies = gradient ? 2 : 1;
        bytes += copies * (model->config->max_batch_size * tensor_row_bytes(desc) + 256);
    }
    return bytes;
}

static bool has_own_kinds(const struct engine_model *model)
{
    return model->graph != NULL && model->graph->block->kinds != NULL;
}

/* What keeps weights in a few bits multiplies with them, and that is all. */
static int check_quantized(const struct engine_model *model)
{
    const struct config_device *device = model->device->config;
    if (provider_shape(model->device)->quantized == NULL || model->parameters.count == 0)
        return 0;
    if (model->parameters.trains)
        log_error("experts: uid %s: on device %s weights are kept in %s, in which nothing trains: set optimizer: none, "
                  "or another precision",
                  model->config->uid, device->name, device->precision);
    else if (has_own_kinds(model))
        log_error("experts: uid %s: on device %s weights are kept in %s, which the kernels of block %s do not read: "
                  "set another precision",
                  model->config->uid, device->name, device->precision, model->graph->block->name);
    else
        return 0;
    return -EINVAL;
}

static void model_free(struct engine_model *model)
{
    if (has_own_kinds(model))
        own_programs_drop(model->device);
    plan_free(&model->forward);
    plan_free(&model->backward);
    free(model->graph);
    free(model);
}

/* Experts of which a launch reads so much in the time of many of what is between two launches, and no more: a launch of
 * several milliseconds has others on the same cores, whose turn comes meanwhile, and then it waits for each of its
 * threads; and what comes next waits for it. Many rows take as long as several experts.
 *
 * On a device with memory of its own each batch has a slot for its rows, of which there are two; own kernels know
 * nothing of groups. */
static struct expert_group group_of(const struct engine_model *model)
{
    enum { CORE_BYTES = 4 << 20, ROWS_EACH = 16 };
    const struct device *device = model->device;
    const uint64_t bytes = parameters_bytes(&model->parameters),
                   launch = CORE_BYTES * (uint64_t)device->info.compute_units;
    const uint64_t fit = launch / (bytes > 0 ? bytes : 1), count = fit < EXPERT_GROUP ? fit : EXPERT_GROUP;
    const bool can = linear_layer_groups(device) && !device_stages_rows(device) && plan_groups(&model->forward) &&
                     !has_own_kinds(model);
    const uint64_t rows = count * ROWS_EACH < model->chunk_rows ? count * ROWS_EACH : model->chunk_rows;
    return can && count > 1 ? (struct expert_group){model, rows, (unsigned)count} : (struct expert_group){0};
}

static int model_make(struct engine_model **out, struct device *device, const struct config_expert *config)
{
    struct optimizer_settings optimizer;
    struct engine_model *model = *out = calloc(1, sizeof *model);
    if (model == NULL)
        return -ENOMEM;
    model->device = device;
    model->config = config;
    model->parameters.trains = false;
    model->parameters.forward_only = !config->backward;
    int result = optimizer_settings_parse(&optimizer, config);
    if (result == 0)
        result = declaration_graph(config, &model->graph);
    if (result == 0)
        result = check_kinds(config, model->graph);
    if (has_own_kinds(model))
        own_programs_use(model->device);
    if (result == 0) {
        model->parameters.trains = optimizer.kind != OPTIMIZER_NONE;
        result = plan_make(&model->forward, model->graph, provider_shape(device), &model->parameters, false);
    }
    model->parameters.trains = model->parameters.trains && parameters_trained(&model->parameters) > 0;
    if (result == 0)
        result = check_quantized(model);
    if (result == 0 && !model->parameters.forward_only)
        result = plan_make(&model->backward, model->graph, provider_shape(device), &model->parameters, true);
    if (result != 0) {
        model_free(model);
        *out = NULL;
        return result;
    }
    if (parameters_trained(&model->parameters) == 0)
        optimizer.kind = OPTIMIZER_NONE;
    parameters_layout(&model->parameters, provider_shape(device), &optimizer);
    model->chunk_rows = chunk_rows(model);
    const uint64_t forward = plan_place(&model->forward, model->chunk_rows);
    const uint64_t backward = plan_place(largest_plan(model), model->chunk_rows);
    model->workspace_floats = forward > backward ? forward : backward;
    model->staging_bytes = staging_bytes(model);
    model->group = group_of(model);
    return 0;
}

static int model_take(struct engine_model **out, struct device *device, const struct config_expert *config)
{
    for (*out = models; *out != NULL; *out = (*out)->next) {
        if ((*out)->device == device && (*out)->config == config) {
            (*out)->users++;
            return 0;
        }
    }
    const int result = model_make(out, device, config);
    if (result != 0)
        return result;
    (*out)->users = 1;
    (*out)->next = models;
    models = *out;
    return 0;
}

static void model_give(struct engine_model *model)
{
    struct engine_model **link = &models;
    if (model == NULL || --model->users > 0)
        return;
    while (*link != model)
        link = &(*link)->next;
    *link = model->next;
    model_free(model);
}

/* --- life --------------------------------------------------------------------------------------------------------- */

static uint64_t products_memory(const struct device *device, struct engine_model *model)
{
    const struct plan *plan = largest_plan(model);
    return linear_layer_memory(device, model->chunk_rows * plan_tokens(plan), plan->sizes, plan->sizes_count);
}

static int engine_memory(const struct device *device, const struct config_expert *config, uint64_t *own,
                         uint64_t *workspace)
{
    struct engine_model *model;
    *own = *workspace = 0;
    /* Nothing is changed on the device by making one; it only names it. */
    const int result = model_make(&model, (struct device *)(uintptr_t)device, config);
    if (result != 0)
        return result;
    *own = parameters_bytes(&model->parameters);
    *workspace = model->workspace_floats * sizeof(float) + device_staging_memory(device, model->staging_bytes) +
                 products_memory(device, model);
    model_free(model);
    return 0;
}

static void engine_destroy(struct expert **expert)
{
    struct engine_expert *engine = (struct engine_expert *)*expert;
    parameters_destroy(&engine->parameters);
    model_give(engine->model);
    free(engine);
    *expert = NULL;
}

static int prepare_device(struct device *device, struct engine_model *model)
{
    const struct plan *plan = largest_plan(model);
    int result = device_reserve_workspace(device, model->workspace_floats * sizeof(float));
    if (result == 0)
        result = device_reserve_staging(device, model->staging_bytes);
    return result == 0
               ? linear_layer_prepare(device, model->chunk_rows * plan_tokens(plan), plan->sizes, plan->sizes_count)
               : result;
}

static int engine_create(struct expert **out, struct device *device, const struct config_expert *config, uint64_t seed)
{
    struct engine_expert *engine = calloc(1, sizeof *engine);
    *out = NULL;
    if (engine == NULL)
        return -ENOMEM;
    struct expert *expert = &engine->base;
    int result = blocks_prepare(expert, &expert_engine, device, config);
    if (result == 0)
        result = model_take(&engine->model, device, config);
    if (result == 0)
        result = prepare_device(device, engine->model);
    if (result == 0) {
        engine->parameters = engine->model->parameters;
        if (!engine->parameters.trains)
            expert->optimizer.kind = OPTIMIZER_NONE;
        result = parameters_create(&engine->parameters, device);
    }
    /* What its entry's weights, or a checkpoint before them, give, all of it, need not be drawn first. */
    if (result == 0 && !(config->weights != NULL && *config->weights))
        result = parameters_initialise(&engine->parameters, seed);
    if (result != 0) {
        engine_destroy(&expert);
        return result;
    }
    *out = expert;
    return 0;
}

/* --- batches ------------------------------------------------------------------------------------------------------ */

/* Of a tensor that goes in: the inputs, then what a backward has besides. */
static size_t row_bytes(const struct engine_model *model, unsigned tensor)
{
    const struct block_graph *graph = model->graph;
    return tensor_row_bytes(tensor < graph->inputs.count ? &graph->inputs.tensors[tensor]
                                                         : &graph->outputs.tensors[tensor - graph->inputs.count]);
}

static const struct tensor_desc *result_desc(const struct engine_model *model, bool backward, unsigned tensor)
{
    return backward ? &model->graph->inputs.tensors[tensor] : &model->graph->outputs.tensors[tensor];
}

static int enqueue_wanted(struct engine_expert *expert, bool backward, uint64_t rows, uint32_t unwanted,
                          const struct plan_rows *inputs, const struct plan_rows *results)
{
    const struct engine_model *model = expert->model;
    const unsigned inputs_count = model->graph->inputs.count + (backward ? model->graph->outputs.count : 0);
    const unsigned results_count = backward ? model->graph->inputs.count : model->graph->outputs.count;
    struct plan_run run = {
        .device = expert->base.device,
        .plan = backward ? &model->backward : &model->forward,
        .parameters = &expert->parameters,
        .unwanted = unwanted & ~PLAN_ALWAYS,
    };
    int result = 0;
    for (uint64_t row = 0; row < rows && result == 0; row += model->chunk_rows) {
        run.rows = (cl_int)(rows - row < model->chunk_rows ? rows - row : model->chunk_rows);
        run.accumulate = row > 0;
        for (unsigned i = 0; i < inputs_count; i++)
            run.inputs[i] = (struct plan_rows){inputs[i].buffer, inputs[i].offset_bytes + row * row_bytes(model, i)};
        for (unsigned i = 0; i < results_count; i++)
            run.results[i] = (struct plan_rows){
                results[i].buffer, results[i].offset_bytes + row * tensor_row_bytes(result_desc(model, backward, i))};
        result = plan_enqueue(&run);
    }
    return result;
}

int engine_enqueue(struct engine_expert *expert, bool backward, uint64_t rows, const struct plan_rows *inputs,
                   const struct plan_rows *results)
{
    return enqueue_wanted(expert, backward, rows, 0, inputs, results);
}

static struct plan_rows reach(const struct device_rows *rows)
{
    return (struct plan_rows){rows->buffer, rows->offset_bytes};
}

/* What has no gradient gets zeros: the host writes them, as no kernel does. */
static void zero_rows(const struct expert_batch *batch, unsigned tensor, size_t bytes)
{
    memset((char *)batch->outputs[tensor].mapping + batch->first_row * bytes, 0, batch->rows * bytes);
}

static bool has_gradient(const struct tensor_desc *desc)
{
    return dtype_is_float(desc->dtype);
}

static bool is_wanted(const struct expert_batch *batch, unsigned tensor)
{
    return (batch->unwanted >> tensor & 1) == 0;
}

static int take_rows(struct engine_expert *engine, struct expert_batch *batch, bool backward, struct plan_rows *inputs,
                     struct device_rows *rows, struct plan_rows *results)
{
    struct device *device = engine->base.device;
    const struct engine_model *model = engine->model;
    const unsigned inputs_count = model->graph->inputs.count + (backward ? model->graph->outputs.count : 0);
    const unsigned results_count = backward ? model->graph->inputs.count : model->graph->outputs.count;
    int result = 0;
    for (unsigned i = 0; i < inputs_count && result == 0; i++) {
        struct device_rows in;
        const size_t bytes = row_bytes(model, i), offset = batch->first_row * bytes;
        result = device_rows_in(device, batch->staging, &batch->inputs[i], offset, batch->rows * bytes, &in);
        if (result == 0)
            inputs[i] = reach(&in);
    }
    for (unsigned i = 0; i < results_count && result == 0; i++) {
        const struct tensor_desc *desc = result_desc(model, backward, i);
        const size_t bytes = tensor_row_bytes(desc), offset = batch->first_row * bytes;
        if (!has_gradient(desc)) {
            if (is_wanted(batch, i))
                zero_rows(batch, i, bytes);
            results[i] = (struct plan_rows){0};
            continue;
        }
        result = device_rows_out(device, batch->staging, &batch->outputs[i], offset, batch->rows * bytes, &rows[i]);
        if (result == 0)
            results[i] = reach(&rows[i]);
    }
    return result;
}

static int return_rows(struct engine_expert *engine, struct expert_batch *batch, bool backward,
                       const struct device_rows *rows)
{
    const struct engine_model *model = engine->model;
    const unsigned count = backward ? model->graph->inputs.count : model->graph->outputs.count;
    int result = 0;
    for (unsigned i = 0; i < count && result == 0; i++) {
        const struct tensor_desc *desc = result_desc(model, backward, i);
        const size_t bytes = tensor_row_bytes(desc);
        if (has_gradient(desc) && is_wanted(batch, i))
            result = device_rows_done(engine->base.device, &batch->outputs[i], batch->first_row * bytes,
                                      batch->rows * bytes, &rows[i]);
    }
    return result;
}

static int enqueue(struct engine_expert *engine, struct expert_batch *batch, bool backward, bool dry)
{
    struct expert *expert = &engine->base;
    struct device *device = expert->device;
    struct plan_rows inputs[PLAN_TENSORS_MAX] = {0}, results[PLAN_TENSORS_MAX] = {0};
    struct device_rows rows[PLAN_TENSORS_MAX];
    const struct trainee trainee = expert_trainee(expert);
    int result = take_rows(engine, batch, backward, inputs, rows, results);
    if (result == 0)
        result = enqueue_wanted(engine, backward, batch->rows, batch->unwanted, inputs, results);
    if (result == 0)
        result = return_rows(engine, batch, backward, rows);
    if (result == 0 && backward && expert->optimizer.kind != OPTIMIZER_NONE)
        result = optimizer_step_enqueue(&trainee, &engine->parameters, device->workspace, 0, dry);
    return result == 0 ? device_mark(device, &batch->done) : result;
}

static int begin(struct engine_expert *engine, struct expert_batch *batch, bool backward, bool dry)
{
    struct device *device = engine->base.device;
    /* It is as large as it was when the expert was made, unless there was no memory to make it so again. */
    int result = device_reserve_workspace(device, engine->model->workspace_floats * sizeof(float));
    if (result == 0)
        result = device_staging_begin(device, &batch->staging);
    if (result != 0)
        return result;
    result = enqueue(engine, batch, backward, dry);
    if (result != 0)
        device_staging_abort(device, batch->staging);
    return result;
}

static int engine_forward(struct expert *expert, struct expert_batch *batch)
{
    return begin((struct engine_expert *)expert, batch, false, false);
}

/* Rows of a group are in the workspace together: no more than of a chunk. */
static struct expert_group engine_group_of(const struct expert *expert)
{
    return ((const struct engine_expert *)expert)->model->group;
}

_Static_assert((int)EXPERT_GROUP <= (int)PLAN_GROUP, "a group of batches is one of runs");

static int enqueue_group(struct expert *const *experts, struct expert_batch *const *batches, unsigned count)
{
    struct plan_run runs[EXPERT_GROUP] = {{0}};
    struct device_rows rows[EXPERT_GROUP][PLAN_TENSORS_MAX];
    uint64_t first_row = 0;
    int result = 0;
    for (unsigned i = 0; i < count && result == 0; i++) {
        struct engine_expert *engine = (struct engine_expert *)experts[i];
        runs[i].device = experts[i]->device;
        runs[i].plan = &engine->model->forward;
        runs[i].parameters = &engine->parameters;
        runs[i].rows = (cl_int)batches[i]->rows;
        runs[i].first_row = first_row;
        first_row += batches[i]->rows;
        result = take_rows(engine, batches[i], false, runs[i].inputs, rows[i], runs[i].results);
    }
    if (result == 0)
        result = plan_enqueue_group(runs, count);
    for (unsigned i = 0; i < count && result == 0; i++)
        result = return_rows((struct engine_expert *)experts[i], batches[i], false, rows[i]);
    return result;
}

static int engine_forward_group(struct expert *const *experts, struct expert_batch *const *batches, unsigned count)
{
    struct device *device = experts[0]->device;
    const struct engine_model *model = ((const struct engine_expert *)experts[0])->model;
    int result = device_reserve_workspace(device, model->workspace_floats * sizeof(float));
    if (result == 0)
        result = enqueue_group(experts, batches, count);
    if (result == 0)
        result = device_mark(device, &batches[0]->done);
    for (unsigned i = 1; i < count && result == 0; i++) {
        batches[i]->done = batches[0]->done;
        clRetainEvent(batches[i]->done);
    }
    return result;
}

static int engine_backward(struct expert *expert, struct expert_batch *batch)
{
    if (((struct engine_expert *)expert)->parameters.forward_only) /* nobody asks: the frontend refuses */
        return device_complain(expert->device, -EOPNOTSUPP, "a backward of an expert with backward: false");
    return begin((struct engine_expert *)expert, batch, true, false);
}

static int engine_finish(struct expert *expert, struct expert_batch *batch)
{
    const struct trainee trainee = expert_trainee(expert);
    const int result = device_wait(expert->device, &batch->done);
    device_staging_end(expert->device, batch->staging);
    if (result != 0 || !batch->backward)
        return result;
    if (expert->optimizer.kind != OPTIMIZER_NONE)
        batch->step = optimizer_step_finish(&trainee, &((struct engine_expert *)expert)->parameters, batch->rows,
                                            &batch->grad_norm);
    else
        expert->counters.examples += batch->rows;
    return 0;
}

/* --- warming up: one row through all kernels, as PoCL compiles a kernel when it is first launched --------------------
 */

static int warm_slabs(const struct engine_expert *engine, struct device_slab *slabs, unsigned *count)
{
    const struct block_graph *graph = engine->model->graph;
    const unsigned inputs = graph->inputs.count, outputs = graph->outputs.count;
    /* Inputs, grad_outputs, then room for the outputs and for the grad_inputs. */
    for (*count = 0; *count < 2 * (inputs + outputs); (*count)++) {
        const size_t bytes = row_bytes(engine->model, *count % (inputs + outputs));
        void *memory = calloc(1, bytes);
        if (memory == NULL)
            return -ENOMEM;
        device_slab_wrap(&slabs[*count], memory, bytes);
    }
    return 0;
}

static int engine_warm(struct expert *expert)
{
    struct engine_expert *engine = (struct engine_expert *)expert;
    const struct block_graph *graph = engine->model->graph;
    const unsigned tensors = graph->inputs.count + graph->outputs.count;
    struct device_slab slabs[2 * PLAN_TENSORS_MAX];
    unsigned count;
    int result = warm_slabs(engine, slabs, &count);
    const unsigned directions = engine->parameters.forward_only ? 1 : 2;
    for (unsigned backward = 0; backward < directions && result == 0; backward++) {
        struct expert_batch batch = {
            .rows = 1, .inputs = slabs, .outputs = &slabs[tensors + (backward ? 0 : graph->inputs.count)]};
        result = begin(engine, &batch, backward != 0, true);
        if (result == 0)
            result = engine_finish(expert, &batch); /* batch.backward is not set: nothing is counted */
    }
    for (unsigned i = 0; i < count; i++) {
        void *memory = slabs[i].mapping;
        device_slab_unwrap(&slabs[i]);
        free(memory);
    }
    return result;
}

static struct parameters *engine_parameters(struct expert *expert)
{
    struct parameters *parameters = &((struct engine_expert *)expert)->parameters;
    return parameters->count > 0 ? parameters : NULL;
}

const struct expert_ops expert_engine = {
    .name = "declared",
    .schema = declaration_schema,
    .memory = engine_memory,
    .create = engine_create,
    .warm = engine_warm,
    .forward = engine_forward,
    .group_of = engine_group_of,
    .forward_group = engine_forward_group,
    .backward = engine_backward,
    .finish = engine_finish,
    .parameters = engine_parameters,
    .destroy = engine_destroy,
};
