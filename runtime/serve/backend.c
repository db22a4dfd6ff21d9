#include "runtime/serve/backend.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"

/* Every expert starts from values of its own, the same at every start. */
static uint64_t seed_of(const struct config_expert *config, const char *uid)
{
    const uint64_t parts[2] = {config->seed, uid_hash(uid, strlen(uid))};
    return uid_hash(parts, sizeof parts);
}

/* 1: there is one, and it is loaded; 0: there is none; -errno, logged. */
static int load_checkpoint(struct backend *backend, const struct config_checkpoint *checkpoint,
                           struct checkpoint_owner *owner)
{
    struct expert *expert = backend->expert;
    if (!owner)
        return 0;
    int rc = expert->optimizer.kind == OPTIMIZER_NONE ? 0 : checkpoint_owner_take(owner, backend->uid);
    if (rc < 0)
        return rc;
    backend->window = malloc(sizeof *backend->window);
    if (!backend->window)
        return -ENOMEM;
    rc = checkpoint_load(expert, checkpoint->dir, backend->uid, checkpoint->start_anew, backend->window);
    if (backend->window->count == 0) {
        free(backend->window);
        backend->window = NULL;
    }
    return rc;
}

static int load_weights(struct backend *backend, struct weights *weights)
{
    struct weights *own = NULL;
    int rc = weights ? 0 : weights_create(&own);
    if (rc == 0)
        rc = weights_load(weights ? weights : own, backend->expert, backend->uid);
    weights_destroy(&own);
    return rc;
}

static int load_state(struct backend *backend, const struct config_checkpoint *checkpoint,
                      struct checkpoint_owner *owner, struct weights *weights)
{
    if (expert_tensors(backend->expert) == 0) {
        backend->origin = BACKEND_OF_NOTHING;
        return 0;
    }
    int rc = load_checkpoint(backend, checkpoint, owner);
    backend->origin = rc == 1 ? BACKEND_OF_CHECKPOINT : BACKEND_OF_SEED;
    if (rc != 0 || !*backend->config->weights)
        return rc < 0 ? rc : 0;
    rc = load_weights(backend, weights);
    backend->origin =
        rc == 1 && backend->expert->optimizer.kind != OPTIMIZER_NONE ? BACKEND_OF_MODEL : BACKEND_OF_WEIGHTS;
    return rc < 0 ? rc : 0;
}

static void take_limits(struct backend *backend, const struct config_expert *config)
{
    backend->config = config;
    backend->limits.min_batch_size = (uint32_t)config->min_batch_size;
    backend->limits.batch_timeout_ns = (uint64_t)(config->batch_timeout * (double)NS_PER_MS);
}

int backend_create(struct backend *backend, struct device *device, const struct config_expert *config, const char *uid,
                   const struct config_checkpoint *checkpoint, struct checkpoint_owner *owner, struct weights *weights)
{
    memset(backend, 0, sizeof *backend);
    snprintf(backend->uid, sizeof backend->uid, "%s", uid);
    take_limits(backend, config);
    int rc = expert_create(&backend->expert, device, config, seed_of(config, uid));
    if (rc < 0)
        log_error("cannot create expert '%s': %s", uid, *device_error(device) ? device_error(device) : strerror(-rc));
    else
        rc = load_state(backend, checkpoint, owner, weights);
    if (rc < 0)
        backend_destroy(backend);
    return rc;
}

void backend_destroy(struct backend *backend)
{
    backend_close_pools(backend);
    if (backend->expert)
        expert_destroy(&backend->expert);
    free(backend->window);
    backend->window = NULL;
}

/* --- pools -----------------------------------------------------------------------------------------------------------
 */

static int make_layout(const struct backend *backend, const struct backend_place *place, uint32_t index,
                       enum pool_kind kind, struct pool_layout *layout)
{
    const struct config_expert *config = backend->config;
    const struct expert *expert = backend->expert;
    const uint64_t wanted_rows = config->queue_rows ? config->queue_rows : 2 * config->max_batch_size;
    *layout = (struct pool_layout){
        .server = place->server,
        .device = place->device,
        .generation = place->generation,
        .index = 2 * index + (uint32_t)kind,
        .kind = kind,
        .uid = backend->uid,
        .max_batch_size = (uint32_t)config->max_batch_size,
        .queue_rows = (uint32_t)(wanted_rows > config->max_batch_size ? wanted_rows : config->max_batch_size),
        .queue_tasks = (uint32_t)config->queue_tasks,
    };
    layout->inputs = expert->inputs;
    layout->outputs = kind == POOL_FORWARD ? expert->outputs : expert->inputs;
    if (kind == POOL_FORWARD)
        return 0;
    struct schema grad_outputs;
    schema_gradients(&grad_outputs, &expert->outputs);
    return schema_concat(&layout->inputs, &expert->inputs, &grad_outputs);
}

static void fill_constants(const struct backend *backend, struct control_expert_shared *record)
{
    const struct config_expert *config = backend->config;
    const struct expert *expert = backend->expert;
    const bool trained = expert->optimizer.kind != OPTIMIZER_NONE;
    memset(record, 0, offsetof(struct control_expert_shared, runtime));
    snprintf(record->uid, sizeof record->uid, "%s", backend->uid);
    snprintf(record->block, sizeof record->block, "%s", expert->block);
    snprintf(record->optimizer, sizeof record->optimizer, "%s", trained ? config->optimizer : "none");
    snprintf(record->schedule, sizeof record->schedule, "%s", config->schedule);
    record->hidden_dim = config->hidden_dim;
    record->max_batch_size = config->max_batch_size;
    record->learning_rate = config->learning_rate;
    record->beta1 = config->beta1;
    record->beta2 = config->beta2;
    record->epsilon = config->epsilon;
    record->momentum = config->momentum;
    record->clip_norm = config->clip_norm;
    record->warmup_steps = config->warmup_steps;
    record->total_steps = config->total_steps;
    record->grad_accumulation = config->grad_accumulation;
    record->forward_only = !config->backward;
    record->arguments_count = expert->arguments_count;
    for (unsigned i = 0; i < expert->arguments_count; i++) {
        snprintf(record->arguments[i].name, sizeof record->arguments[i].name, "%s", expert->arguments[i].name);
        record->arguments[i].value = expert->arguments[i].value;
        memcpy(record->arguments[i].text, expert->arguments[i].text, sizeof record->arguments[i].text);
    }
    record->inputs = expert->inputs;
    record->outputs = expert->outputs;
}

uint64_t backend_fingerprint(const struct backend *backend, uint64_t chain)
{
    static const struct backend_place nowhere = {.server = "", .device = ""};
    struct control_expert_shared record;
    fill_constants(backend, &record);
    /* The frontend reads the record once, so another learning rate must reach it too. Behind the arguments that there
     * are nothing counts; the schemas, of which bytes may be undefined, count with the layouts. */
    const size_t counted =
        offsetof(struct control_expert_shared, arguments) + record.arguments_count * sizeof record.arguments[0];
    const uint64_t parts[2] = {chain, uid_hash(&record, counted)};
    chain = uid_hash(parts, sizeof parts);
    for (int kind = POOL_FORWARD; kind <= POOL_BACKWARD; kind++) {
        struct pool_layout layout;
        if (make_layout(backend, &nowhere, 0, (enum pool_kind)kind, &layout) == 0)
            chain = control_fingerprint(chain, &layout);
    }
    return chain;
}

static void wrap_slabs(struct backend_pool *side)
{
    const struct pool_shared *header = pool_header(side->pool);
    for (uint32_t i = 0; i < header->inputs.count; i++)
        device_slab_wrap(&side->inputs[i], pool_input(side->pool, i), pool_input_slab_bytes(side->pool, i));
    for (uint32_t i = 0; i < header->outputs.count; i++)
        device_slab_wrap(&side->outputs[i], pool_output(side->pool, i), pool_output_slab_bytes(side->pool, i));
}

int backend_open_pools(struct backend *backend, const struct backend_place *place, uint32_t index, bool adopt)
{
    for (int kind = POOL_FORWARD; kind <= POOL_BACKWARD; kind++) {
        struct pool_layout layout;
        struct backend_pool *side = &backend->pools[kind];
        int rc = make_layout(backend, place, index, (enum pool_kind)kind, &layout);
        if (rc == 0)
            rc = adopt ? pool_adopt(&side->pool, &layout) : pool_create(&side->pool, &layout);
        if (rc == 0 && kind == POOL_BACKWARD && backend->window)
            rc = pool_restore_applied(side->pool, backend->window->keys, backend->window->count);
        if (rc < 0) {
            backend_close_pools(backend);
            return rc;
        }
        wrap_slabs(side);
    }
    return 0;
}

bool backend_pools_named(const struct backend *backend)
{
    return pool_named(backend->pools[POOL_FORWARD].pool) && pool_named(backend->pools[POOL_BACKWARD].pool);
}

/* For the pools that may follow these. */
static void keep_window(struct backend *backend)
{
    const struct pool *pool = backend->pools[POOL_BACKWARD].pool;
    if (!backend->window)
        backend->window = malloc(sizeof *backend->window);
    if (!backend->window)
        return;
    backend->window->count = pool_list_applied(pool, backend->window->keys);
    if (backend->window->count == 0) {
        free(backend->window);
        backend->window = NULL;
    }
}

void backend_close_pools(struct backend *backend)
{
    if (backend->pools[POOL_BACKWARD].pool)
        keep_window(backend);
    for (int kind = POOL_FORWARD; kind <= POOL_BACKWARD; kind++) {
        struct backend_pool *side = &backend->pools[kind];
        if (!side->pool)
            continue;
        const struct pool_shared *header = pool_header(side->pool);
        for (uint32_t i = 0; i < header->inputs.count; i++)
            device_slab_unwrap(&side->inputs[i]);
        for (uint32_t i = 0; i < header->outputs.count; i++)
            device_slab_unwrap(&side->outputs[i]);
        pool_detach(&side->pool);
    }
}

/* --- the record ------------------------------------------------------------------------------------------------------
 */

void backend_set_record(struct backend *backend, struct control_expert_shared *record, bool adopted)
{
    if (!adopted)
        fill_constants(backend, record);
    backend->record = record;
    atomic_store_explicit(&record->runtime.fingerprint, backend_fingerprint(backend, 0), memory_order_relaxed);
    free(backend->window); /* the pools have it */
    backend->window = NULL;
    backend_update_record(backend);
}

void backend_set(struct backend *backend, const struct config_expert *config)
{
    struct expert *expert = backend->expert;
    take_limits(backend, config);
    if (expert->optimizer.kind != OPTIMIZER_NONE)
        (void)optimizer_settings_parse(&expert->optimizer, config); /* of a configuration that was checked */
    control_expert_change_begin(backend->record);
    fill_constants(backend, backend->record);
    control_expert_change_end(backend->record);
    atomic_store_explicit(&backend->record->runtime.fingerprint, backend_fingerprint(backend, 0), memory_order_relaxed);
}

void backend_update_record(struct backend *backend)
{
    const struct expert_counters *counters = &backend->expert->counters;
    struct control_expert_shared *record = backend->record;
    atomic_store_explicit(&record->runtime.updates, counters->updates, memory_order_relaxed);
    atomic_store_explicit(&record->runtime.examples, counters->examples, memory_order_relaxed);
    atomic_store_explicit(&record->runtime.skipped_steps, counters->skipped, memory_order_relaxed);
}
