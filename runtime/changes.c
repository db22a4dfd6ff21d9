#include "runtime/changes.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_diff.h"
#include "common/config_live.h"
#include "common/log.h"
#include "common/status.h"
#include "runtime/runtime_state.h"
#include "runtime/segments.h"
#include "runtime/slots.h"

/* A configuration that was live, and has experts that are made of it. */
struct config_generation {
    struct config config;
    uint32_t users; /* experts that were made of it, or have its settings; and it being live, or proposed */
};

enum stage {
    STAGE_IDLE,
    STAGE_SAVING,   /* what goes */
    STAGE_MAKING,   /* what comes */
    STAGE_PREPARED, /* waits for COMMIT or ABORT */
    STAGE_SETTLING, /* COMMIT: what goes may have been asked to be saved once more */
};

/* What a slot's expert rests on. */
struct roots {
    struct config_generation *made, *set; /* NULL: the configuration of the start */
};

struct changes {
    struct runtime *runtime;
    struct roots *roots;               /* by slot */
    struct config_generation *current; /* NULL: the configuration of the start */
    struct config_generation *next;
    struct config_diff diff;
    uint32_t *slots; /* that were taken for each item of the diff; NO_SLOT */
    size_t at;       /* the item that is next */
    enum stage stage;
    uint64_t number, epoch; /* of the change, and of the frontend that wants it */
    char why[CONTROL_WHY_SIZE];
};

static const uint32_t no_slot = UINT32_MAX;

static void let_go(struct config_generation **generation)
{
    struct config_generation *old = *generation;
    *generation = NULL;
    if (!old || --old->users > 0)
        return;
    config_destroy(&old->config);
    free(old);
}

static struct config_generation *hold(struct config_generation *generation)
{
    if (generation)
        generation->users++;
    return generation;
}

int changes_create(struct changes **changes, struct runtime *runtime)
{
    struct changes *c = *changes = calloc(1, sizeof *c);
    struct config_generation *found = calloc(1, sizeof *found);
    if (!c || !found) {
        free(c);
        free(found);
        *changes = NULL;
        return -ENOMEM;
    }
    c->runtime = runtime;
    if (config_live_read(&found->config, runtime->config) == 1) {
        c->current = hold(found);
        runtime->live = &found->config;
        log_info("the experts are as they were changed last while the server ran (expertctl reload: as the "
                 "configuration says)");
    } else {
        free(found);
    }
    return 0;
}

void changes_begin(struct changes *changes)
{
    struct runtime *runtime = changes->runtime;
    changes->roots = calloc((size_t)runtime->slots + 1, sizeof *changes->roots);
    for (uint32_t slot = 0; changes->roots && slot < runtime->slots; slot++)
        if (runtime_slot_used(runtime, slot))
            changes->roots[slot].made = hold(changes->current);
}

void changes_destroy(struct changes **changes)
{
    struct changes *c = *changes;
    *changes = NULL;
    if (!c)
        return;
    for (uint32_t slot = 0; c->roots && slot < c->runtime->slots; slot++) {
        let_go(&c->roots[slot].made);
        let_go(&c->roots[slot].set);
    }
    config_diff_free(&c->diff);
    let_go(&c->next);
    let_go(&c->current);
    free(c->slots);
    free(c->roots);
    free(c);
}

/* --- slots -----------------------------------------------------------------------------------------------------------
 */

static uint64_t epoch_of(const struct changes *changes)
{
    return atomic_load_explicit(&control_page(changes->runtime->control)->frontend.epoch, memory_order_seq_cst);
}

static uint32_t find_slot(const struct runtime *runtime, const char *uid)
{
    for (uint32_t slot = 0; slot < runtime->slots; slot++)
        if (runtime_slot_used(runtime, slot) && strcmp(runtime->backends[slot].uid, uid) == 0)
            return slot;
    return no_slot;
}

static uint32_t find_free(const struct runtime *runtime)
{
    uint32_t slot = 0;
    while (slot < runtime->slots && runtime_slot_used(runtime, slot))
        slot++;
    return slot < runtime->slots ? slot : no_slot;
}

static bool goes(const struct config_diff_item *item)
{
    return item->difference == CONFIG_REMOVED || item->difference == CONFIG_REPLACED;
}

static bool comes(const struct config_diff_item *item)
{
    return item->difference == CONFIG_ADDED || item->difference == CONFIG_REPLACED;
}

/* The slot of the expert that is there before the change: not of the one that was made to replace it. */
static uint32_t old_slot(const struct changes *changes, const struct config_diff_item *item)
{
    const struct runtime *runtime = changes->runtime;
    const uint32_t made = changes->slots ? changes->slots[item - changes->diff.items] : no_slot;
    for (uint32_t slot = 0; slot < runtime->slots; slot++)
        if (slot != made && runtime_slot_used(runtime, slot) && strcmp(runtime->backends[slot].uid, item->uid) == 0)
            return slot;
    return no_slot;
}

static void empty_slot(struct changes *changes, uint32_t slot)
{
    struct runtime *runtime = changes->runtime;
    const struct backend_place place = segments_place(runtime);
    backend_destroy(&runtime->backends[slot]);
    memset(&runtime->backends[slot], 0, sizeof runtime->backends[slot]);
    (void)pool_remove(place.server, place.device, place.generation, 2 * slot);
    (void)pool_remove(place.server, place.device, place.generation, 2 * slot + 1);
    let_go(&changes->roots[slot].made);
    let_go(&changes->roots[slot].set);
}

/* --- prepare ---------------------------------------------------------------------------------------------------------
 */

static void end(struct changes *changes)
{
    changes->stage = STAGE_IDLE;
    config_diff_free(&changes->diff);
    let_go(&changes->next);
    free(changes->slots);
    changes->slots = NULL;
}

static void undo(struct changes *changes)
{
    for (size_t i = 0; changes->slots && i < changes->diff.count; i++) {
        const struct config_diff_item *item = &changes->diff.items[i];
        if (changes->slots[i] == no_slot)
            continue;
        empty_slot(changes, changes->slots[i]);
        if (item->difference == CONFIG_ADDED && changes->runtime->checkpoint_owner)
            checkpoint_owner_release(changes->runtime->checkpoint_owner, item->uid);
    }
    end(changes);
}

static void answer(struct changes *changes, enum control_phase phase, enum status status)
{
    control_change_answer(changes->runtime->control, changes->number, phase, (uint32_t)status,
                          status == STATUS_OK ? "" : changes->why);
    executor_ring_always(changes->runtime->executor);
}

static void refuse(struct changes *changes, enum status status, const char *why)
{
    if (!changes->why[0])
        snprintf(changes->why, sizeof changes->why, "%s", why);
    if (changes->stage != STAGE_IDLE)
        undo(changes);
    answer(changes, CONTROL_PREPARE, status);
}

static int read_proposal(struct changes *changes)
{
    struct runtime *runtime = changes->runtime;
    struct config_generation *next = calloc(1, sizeof *next);
    if (!next)
        return -ENOMEM;
    int rc = config_live_read_proposal(&next->config, runtime->config);
    if (rc < 0) {
        free(next);
        return rc;
    }
    changes->next = hold(next);
    rc = config_diff_make(&changes->diff, runtime->live, &next->config, runtime->entry->name);
    if (rc == 0) {
        changes->slots = malloc((changes->diff.count + 1) * sizeof *changes->slots);
        rc = changes->slots ? 0 : -ENOMEM;
    }
    for (size_t i = 0; changes->slots && i < changes->diff.count; i++)
        changes->slots[i] = no_slot;
    if (rc < 0)
        end(changes);
    return rc;
}

static enum status status_of(int error)
{
    return error == -ENOMEM || error == -ENOSPC ? STATUS_RESOURCE_EXHAUSTED
           : error == -EINVAL || error == -ENOENT || error == -EBUSY || error == -EPROTO || error == -EBADMSG
               ? STATUS_INVALID_ARGUMENT
               : STATUS_INTERNAL;
}

static void prepare(struct changes *changes, uint64_t number)
{
    changes->number = number;
    changes->epoch = epoch_of(changes);
    if (changes->stage != STAGE_IDLE)
        undo(changes);
    log_divert(changes->why, sizeof changes->why);
    const int rc = read_proposal(changes);
    log_divert(NULL, 0);
    if (rc < 0) {
        refuse(changes, status_of(rc), strerror(-rc));
        return;
    }
    changes->stage = STAGE_SAVING;
    changes->at = 0;
}

/* Waits for the files of what goes. */
static bool save(struct changes *changes)
{
    for (; changes->at < changes->diff.count; changes->at++) {
        const struct config_diff_item *item = &changes->diff.items[changes->at];
        const uint32_t slot = goes(item) ? old_slot(changes, item) : no_slot;
        if (slot == no_slot)
            continue;
        const int rc = checkpointer_settle(changes->runtime->checkpointer, slot);
        if (rc == 0)
            return false;
        if (rc < 0) {
            snprintf(changes->why, sizeof changes->why, "what '%.100s' has learned cannot be saved: %s", item->uid,
                     strerror(-rc));
            refuse(changes, STATUS_INTERNAL, "");
            return true;
        }
    }
    changes->stage = STAGE_MAKING;
    changes->at = 0;
    return true;
}

static int make_pools(struct changes *changes, uint32_t slot)
{
    struct runtime *runtime = changes->runtime;
    struct backend *backend = &runtime->backends[slot];
    const struct backend_place place = segments_place(runtime);
    (void)pool_remove(place.server, place.device, place.generation, 2 * slot);
    (void)pool_remove(place.server, place.device, place.generation, 2 * slot + 1);
    const int rc = backend_open_pools(backend, &place, slot, false);
    if (rc < 0)
        log_error("cannot make the task pools of '%s': %s%s", backend->uid, strerror(-rc),
                  rc == -ENOSPC ? " (is /dev/shm large enough?)" : "");
    else
        backend_set_record(backend, control_expert(runtime->control, slot), false);
    return rc;
}

static int make_expert(struct changes *changes, const struct config_diff_item *item)
{
    struct runtime *runtime = changes->runtime;
    const uint32_t slot = find_free(runtime);
    if (slot == no_slot) {
        log_error("device '%s' has room for %" PRIu32 " experts, and all of it is taken (spare_experts in its entry)",
                  runtime->entry->name, runtime->slots);
        return -ENOSPC;
    }
    struct backend *backend = &runtime->backends[slot];
    int rc = backend_create(backend, runtime->device, item->new, item->uid, &runtime->config->checkpoint,
                            runtime->checkpoint_owner, runtime->weights);
    weights_close(runtime->weights);
    if (rc < 0) {
        memset(backend, 0, sizeof *backend);
        if (item->difference == CONFIG_ADDED && runtime->checkpoint_owner && rc != -EBUSY)
            checkpoint_owner_release(runtime->checkpoint_owner, item->uid);
        return rc;
    }
    changes->roots[slot].made = hold(changes->next);
    changes->slots[changes->at] = slot;
    return make_pools(changes, slot);
}

/* One at a time. */
static bool make(struct changes *changes, int *error)
{
    while (changes->at < changes->diff.count && !comes(&changes->diff.items[changes->at]))
        changes->at++;
    if (changes->at == changes->diff.count) {
        changes->stage = STAGE_PREPARED;
        answer(changes, CONTROL_PREPARE, STATUS_OK);
        return true;
    }
    /* Its kernels are run once, and its values written: not among a batch's. */
    *error = executor_drain(changes->runtime->executor);
    if (*error < 0)
        return false;
    log_divert(changes->why, sizeof changes->why);
    const int rc = make_expert(changes, &changes->diff.items[changes->at]);
    log_divert(NULL, 0);
    if (rc < 0)
        refuse(changes, status_of(rc), strerror(-rc));
    else
        changes->at++;
    return true;
}

/* --- commit ----------------------------------------------------------------------------------------------------------
 */

static void free_old(const struct changes *changes, enum control_slot slot)
{
    for (size_t i = 0; i < changes->diff.count; i++) {
        const uint32_t old = goes(&changes->diff.items[i]) ? old_slot(changes, &changes->diff.items[i]) : no_slot;
        if (old != no_slot)
            control_slot_set(changes->runtime->control, old, slot);
    }
}

static void remove_old(struct changes *changes, const struct config_diff_item *item)
{
    struct runtime *runtime = changes->runtime;
    const uint32_t slot = old_slot(changes, item);
    if (slot == no_slot)
        return;
    executor_remove(runtime->executor, slot);
    checkpointer_remove(runtime->checkpointer, slot);
    empty_slot(changes, slot);
    if (item->difference == CONFIG_REMOVED && runtime->checkpoint_owner)
        checkpoint_owner_release(runtime->checkpoint_owner, item->uid);
}

static void begin_new(struct changes *changes, uint32_t slot)
{
    struct runtime *runtime = changes->runtime;
    const struct checkpointer_expert expert = slots_checkpointer_expert(runtime, slot);
    executor_add(runtime->executor, slot);
    checkpointer_add(runtime->checkpointer, slot, &expert);
    control_slot_set(runtime->control, slot, CONTROL_SLOT_USED);
}

static void set_living(struct changes *changes, const struct config_diff_item *item)
{
    struct runtime *runtime = changes->runtime;
    const uint32_t slot = find_slot(runtime, item->uid);
    if (slot == no_slot)
        return;
    let_go(&changes->roots[slot].set);
    changes->roots[slot].set = hold(changes->next);
    backend_set(&runtime->backends[slot], item->new);
    executor_limit(runtime->executor, slot);
}

static void commit(struct changes *changes)
{
    struct runtime *runtime = changes->runtime;
    uint32_t counts[CONFIG_REPLACED + 1] = {0};
    free_old(changes, CONTROL_SLOT_FREE);
    if (epoch_of(changes) != changes->epoch) { /* another frontend, which may hold them: it will ask again */
        free_old(changes, CONTROL_SLOT_USED);
        undo(changes);
        snprintf(changes->why, sizeof changes->why, "the frontend was restarted");
        answer(changes, CONTROL_COMMIT, STATUS_UNAVAILABLE);
        return;
    }
    for (size_t i = 0; i < changes->diff.count; i++) {
        const struct config_diff_item *item = &changes->diff.items[i];
        counts[item->difference]++;
        if (goes(item))
            remove_old(changes, item);
        if (comes(item))
            begin_new(changes, changes->slots[i]);
        if (item->difference == CONFIG_SET)
            set_living(changes, item);
        changes->slots[i] = no_slot;
    }
    let_go(&changes->current);
    changes->current = hold(changes->next);
    /* What was not touched still has the entries of the generation before, of which it is a user. */
    runtime->live = &changes->current->config;
    atomic_store_explicit(&control_page(runtime->control)->runtime.config, config_diff_fingerprint(runtime->live),
                          memory_order_release);
    end(changes);
    log_info("experts were changed while the server runs: %" PRIu32 " added, %" PRIu32 " removed, %" PRIu32
             " replaced, %" PRIu32 " with other settings",
             counts[CONFIG_ADDED], counts[CONFIG_REMOVED], counts[CONFIG_REPLACED], counts[CONFIG_SET]);
    answer(changes, CONTROL_COMMIT, STATUS_OK);
}

/* An error here is of what was learned since PREPARE has saved it, which its frontend does not let happen. */
static bool settle(struct changes *changes, int *error)
{
    for (size_t i = 0; i < changes->diff.count; i++) {
        const struct config_diff_item *item = &changes->diff.items[i];
        const uint32_t slot = goes(item) ? old_slot(changes, item) : no_slot;
        if (slot != no_slot && checkpointer_settle(changes->runtime->checkpointer, slot) == 0)
            return false;
    }
    *error = executor_drain(changes->runtime->executor);
    if (*error == 0)
        commit(changes);
    return *error == 0;
}

/* --- steps -----------------------------------------------------------------------------------------------------------
 */

bool changes_wanted(const struct changes *changes)
{
    uint64_t number;
    enum control_phase phase;
    return changes->runtime->control && control_change_wanted(changes->runtime->control, &number, &phase) &&
           (changes->stage == STAGE_IDLE || changes->stage == STAGE_PREPARED || number != changes->number);
}

void changes_abort(struct changes *changes)
{
    if (changes->stage != STAGE_IDLE)
        undo(changes);
}

/* One that was restarted since has read it as it began. */
static bool has_what_is_live(const struct changes *changes)
{
    struct config live;
    if (config_live_read(&live, changes->runtime->config) != 1)
        return false;
    const bool same = config_diff_fingerprint(&live) == config_diff_fingerprint(changes->runtime->live);
    config_destroy(&live);
    return same;
}

static bool hear(struct changes *changes, uint64_t number, enum control_phase phase)
{
    changes->why[0] = 0;
    if (phase == CONTROL_PREPARE) {
        prepare(changes, number);
        return true;
    }
    const bool prepared = changes->stage == STAGE_PREPARED && number == changes->number;
    if (phase == CONTROL_COMMIT && prepared) {
        changes->stage = STAGE_SETTLING;
        return true;
    }
    changes_abort(changes);
    changes->number = number;
    snprintf(changes->why, sizeof changes->why, "nothing is prepared for it (was the runtime restarted?)");
    answer(changes, phase, phase == CONTROL_ABORT || has_what_is_live(changes) ? STATUS_OK : STATUS_UNAVAILABLE);
    return true;
}

bool changes_step(struct changes *changes, int *error)
{
    uint64_t number;
    enum control_phase phase;
    *error = 0;
    if (!changes->roots)
        return false;
    if (changes->stage != STAGE_IDLE && epoch_of(changes) != changes->epoch && changes->stage != STAGE_SETTLING)
        changes_abort(changes); /* who wanted it has gone */
    const bool wanted = control_change_wanted(changes->runtime->control, &number, &phase);
    if (wanted && (number != changes->number || changes->stage == STAGE_IDLE || changes->stage == STAGE_PREPARED ||
                   phase == CONTROL_ABORT))
        return hear(changes, number, phase);
    switch (changes->stage) {
    case STAGE_SAVING:
        return save(changes);
    case STAGE_MAKING:
        return make(changes, error);
    case STAGE_SETTLING:
        return settle(changes, error);
    default:
        return false;
    }
}
