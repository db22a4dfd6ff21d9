#include "pools/control.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "pools/control_private.h"
#include "pools/pool.h"

/* --- reading --------------------------------------------------------------------------------------------------------
 */

struct control_shared *control_page(struct control *control)
{
    return control->shared;
}

uint64_t control_generation(const struct control *control)
{
    return control->generation;
}

uint32_t control_experts_count(const struct control *control)
{
    return control->experts_count;
}

struct control_expert_shared *control_expert(struct control *control, uint32_t e)
{
    return &control->experts[e];
}

void control_expert_uid(const struct control_expert_shared *expert, char uid[UID_SIZE])
{
    memcpy(uid, expert->uid, UID_SIZE);
    uid[UID_SIZE - 1] = 0;
}

bool control_retired(struct control *control)
{
    return atomic_load_explicit(&control->shared->runtime.state, memory_order_acquire) != CONTROL_READY;
}

/* --- asking for new ones ---------------------------------------------------------------------------------------------
 */

bool control_renewal_wanted(const struct control *control)
{
    return atomic_load_explicit(&control->shared->frontend.renewal_wanted, memory_order_acquire) == control->generation;
}

void control_begin_epoch(struct control *control)
{
    atomic_fetch_add_explicit(&control->shared->frontend.epoch, 1, memory_order_release);
}

void control_want_renewal(struct control *control)
{
    atomic_store_explicit(&control->shared->frontend.renewal_wanted, control->generation, memory_order_release);
    doorbell_ring(&control->shared->runtime_bell);
}

/* --- slots ----------------------------------------------------------------------------------------------------------
 */

bool control_slot_used(const struct control *control, uint32_t e)
{
    return atomic_load_explicit(&control->experts[e].runtime.slot, memory_order_seq_cst) == CONTROL_SLOT_USED;
}

void control_slot_set(struct control *control, uint32_t e, enum control_slot slot)
{
    atomic_store_explicit(&control->experts[e].runtime.slot, (uint32_t)slot, memory_order_seq_cst);
    atomic_fetch_add_explicit(&control->shared->runtime.slots_version, 1, memory_order_seq_cst);
}

uint64_t control_slots_version(const struct control *control)
{
    return atomic_load_explicit(&control->shared->runtime.slots_version, memory_order_seq_cst);
}

void control_expert_change_begin(struct control_expert_shared *record)
{
    atomic_fetch_add_explicit(&record->runtime.version, 1, memory_order_relaxed);
    /* Pairs with the fence in control_expert_copy: who reads something of the new sees the odd number. */
    atomic_thread_fence(memory_order_release);
}

void control_expert_change_end(struct control_expert_shared *record)
{
    atomic_fetch_add_explicit(&record->runtime.version, 1, memory_order_release);
}

int control_expert_copy(const struct control_expert_shared *record, struct control_expert_shared *copy)
{
    enum { TRIES = 1000 };
    for (int i = 0; i < TRIES; i++) {
        const uint64_t before = atomic_load_explicit(&record->runtime.version, memory_order_acquire);
        memcpy(copy, record, offsetof(struct control_expert_shared, runtime));
        atomic_thread_fence(memory_order_acquire);
        if (before % 2 == 0 && atomic_load_explicit(&record->runtime.version, memory_order_relaxed) == before)
            return 0;
    }
    return -EAGAIN;
}

/* --- changes --------------------------------------------------------------------------------------------------------
 */

static uint64_t change_word(uint64_t number, enum control_phase phase)
{
    return number << 2 | (uint64_t)phase;
}

void control_change_ask(struct control *control, uint64_t number, enum control_phase phase)
{
    atomic_store_explicit(&control->shared->frontend.change_wanted, change_word(number, phase), memory_order_release);
    doorbell_ring(&control->shared->runtime_bell);
}

bool control_change_answered(struct control *control, uint64_t number, enum control_phase phase, uint32_t *status,
                             char why[CONTROL_WHY_SIZE])
{
    struct control_shared *shared = control->shared;
    /* Pairs with the release in control_change_answer. */
    if (atomic_load_explicit(&shared->change.served, memory_order_acquire) != change_word(number, phase))
        return false;
    *status = atomic_load_explicit(&shared->change.status, memory_order_relaxed);
    memcpy(why, shared->change.why, CONTROL_WHY_SIZE);
    why[CONTROL_WHY_SIZE - 1] = 0;
    return true;
}

bool control_change_wanted(const struct control *control, uint64_t *number, enum control_phase *phase)
{
    const struct control_shared *shared = control->shared;
    const uint64_t wanted = atomic_load_explicit(&shared->frontend.change_wanted, memory_order_acquire);
    if (wanted == 0 || wanted == atomic_load_explicit(&shared->change.served, memory_order_relaxed))
        return false;
    *number = wanted >> 2;
    *phase = (enum control_phase)(wanted & 3);
    return true;
}

void control_change_answer(struct control *control, uint64_t number, enum control_phase phase, uint32_t status,
                           const char *why)
{
    struct control_shared *shared = control->shared;
    snprintf(shared->change.why, sizeof shared->change.why, "%s", why);
    atomic_store_explicit(&shared->change.status, status, memory_order_relaxed);
    atomic_store_explicit(&shared->change.served, change_word(number, phase), memory_order_release);
}

/* --- bitmaps and counters -------------------------------------------------------------------------------------------
 */

/* No look at the bit first to save the exchange: a bit that is seen set may just be taken, before our position is seen.
 */
static void mark(_Atomic uint64_t *bits, uint32_t pool)
{
    atomic_fetch_or_explicit(&bits[pool / 64], UINT64_C(1) << pool % 64, memory_order_release);
}

void control_prefetch_ready(const struct control *control, uint32_t pool)
{
    __builtin_prefetch(&control->ready[pool / 64], 1);
}

void control_mark_ready(struct control *control, uint32_t pool)
{
    mark(control->ready, pool);
}

void control_mark_done(struct control *control, uint32_t pool)
{
    mark(control->done, pool);
}

static void visit_all(const uint32_t *pools, uint32_t pools_count, control_visit *const *stages, unsigned count,
                      void *context)
{
    /* One alone is faster read than fetched first. */
    for (unsigned stage = pools_count > 1 ? 0 : count - 1; stage < count; stage++)
        for (uint32_t i = 0; i < pools_count; i++)
            stages[stage](pools[i], context);
}

static uint32_t take(_Atomic uint64_t *bits, const struct control *control, control_visit *const *stages,
                     unsigned count, void *context)
{
    uint32_t pools[CONTROL_TOGETHER], visited = 0, taken = 0;
    for (uint32_t word = 0; word < control->words; word++) {
        if (atomic_load_explicit(&bits[word], memory_order_relaxed) == 0)
            continue;
        /* Pairs with the release in mark(). */
        uint64_t set = atomic_exchange_explicit(&bits[word], 0, memory_order_acquire);
        for (; set != 0; set &= set - 1) {
            const uint32_t pool = word * 64 + (uint32_t)__builtin_ctzll(set);
            if (pool >= 2 * control->experts_count)
                break;
            if (taken == CONTROL_TOGETHER) {
                visit_all(pools, taken, stages, count, context);
                visited += taken;
                taken = 0;
            }
            pools[taken++] = pool;
        }
    }
    visit_all(pools, taken, stages, count, context);
    return visited + taken;
}

uint32_t control_take_ready(struct control *control, control_visit *const *stages, unsigned count, void *context)
{
    return take(control->ready, control, stages, count, context);
}

uint32_t control_take_done(struct control *control, control_visit *const *stages, unsigned count, void *context)
{
    return take(control->done, control, stages, count, context);
}

static bool any(_Atomic uint64_t *bits, const struct control *control)
{
    for (uint32_t word = 0; word < control->words; word++)
        if (atomic_load_explicit(&bits[word], memory_order_acquire) != 0)
            return true;
    return false;
}

bool control_any_ready(struct control *control)
{
    return any(control->ready, control);
}

bool control_any_done(struct control *control)
{
    return any(control->done, control);
}

void control_set(struct control *control, enum control_counter counter, uint64_t value)
{
    atomic_store_explicit(&control->shared->statistics.counters[counter], value, memory_order_relaxed);
}

void control_measure(struct control *control, enum pool_kind kind, enum control_histogram histogram, uint64_t value)
{
    histogram_add(&control->shared->statistics.histograms[kind][histogram],
                  histogram == CONTROL_BATCH_ROWS ? HISTOGRAM_ROWS : HISTOGRAM_TIME, value);
}

const char *control_histogram_name(enum control_histogram histogram)
{
    static const char *const names[CONTROL_HISTOGRAMS] = {
        [CONTROL_QUEUE_TIME] = "queue_seconds",
        [CONTROL_COMPUTE_TIME] = "compute_seconds",
        [CONTROL_BATCH_ROWS] = "batch_rows",
    };
    return (unsigned)histogram < CONTROL_HISTOGRAMS ? names[histogram] : "unknown";
}

const char *control_counter_name(enum control_counter counter)
{
    static const char *const names[CONTROL_COUNTERS] = {
        [CONTROL_BATCHES] = "batches",
        [CONTROL_TASKS] = "tasks",
        [CONTROL_ROWS] = "rows",
        [CONTROL_FAILED_TASKS] = "failed_tasks",
        [CONTROL_SKIPPED_TASKS] = "skipped_tasks",
        [CONTROL_STEPS] = "steps",
        [CONTROL_SKIPPED_STEPS] = "skipped_steps",
        [CONTROL_BUSY_NS] = "busy_ns",
        [CONTROL_CHECKPOINTS] = "checkpoints",
        [CONTROL_CHECKPOINT_ERRORS] = "checkpoint_errors",
        [CONTROL_SLEEPS] = "sleeps",
        [CONTROL_PAGE_FAULTS] = "page_faults",
        [CONTROL_CLOSED_FULL] = "closed_full",
        [CONTROL_CLOSED_ROWS] = "closed_rows",
        [CONTROL_CLOSED_TIMEOUT] = "closed_timeout",
        [CONTROL_CLOSED_FREE] = "closed_free",
        [CONTROL_CLOSED_PACE] = "closed_pace",
        [CONTROL_MEMORY_USED] = "memory_used",
        [CONTROL_MEMORY_LIMIT] = "memory_limit",
        [CONTROL_CHECKPOINT_TIME] = "checkpoint_time",
    };
    return (unsigned)counter < CONTROL_COUNTERS ? names[counter] : "unknown";
}

void control_count(struct control *control, enum control_counter counter, uint64_t amount)
{
    atomic_fetch_add_explicit(&control->shared->statistics.counters[counter], amount, memory_order_relaxed);
}

/* --- fingerprint ----------------------------------------------------------------------------------------------------
 */

static uint64_t chain_number(uint64_t chain, uint64_t number)
{
    const uint64_t pair[2] = {chain, number};
    return uid_hash(pair, sizeof pair);
}

static uint64_t chain_schema(uint64_t chain, const struct schema *schema)
{
    chain = chain_number(chain, schema->count);
    for (uint32_t i = 0; i < schema->count && i < SCHEMA_MAX_TENSORS; i++) {
        const struct tensor_desc *desc = &schema->tensors[i];
        chain = chain_number(chain, desc->dtype);
        chain = chain_number(chain, desc->ndim);
        for (uint32_t d = 0; d < desc->ndim && d < TENSOR_MAX_DIMS; d++)
            chain = chain_number(chain, desc->dims[d]);
        chain = chain_number(chain, uid_hash(desc->name, strnlen(desc->name, sizeof desc->name)));
    }
    return chain;
}

uint64_t control_fingerprint(uint64_t chain, const struct pool_layout *layout)
{
    chain = chain_number(chain, (uint64_t)POOL_VERSION << 32 | CONTROL_VERSION);
    chain = chain_number(chain, (uint64_t)layout->kind);
    chain = chain_number(chain, uid_hash(layout->uid, strlen(layout->uid)));
    chain = chain_schema(chain, &layout->inputs);
    chain = chain_schema(chain, &layout->outputs);
    chain = chain_number(chain, layout->max_batch_size);
    chain = chain_number(chain, layout->queue_rows);
    return chain_number(chain, layout->queue_tasks);
}
