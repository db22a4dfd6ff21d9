#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/failpoint.h"
#include "common/shm.h"
#include "pools/pool_private.h"

/* Pages are committed in doubling steps, so that their number stays small; not less than GROW_BYTES at once, so that
 * small rows do not begin with a dozen steps, and not more than GROW_BYTES_MAX beyond the need, so that no request
 * waits for the page faults of a gigabyte. */
enum {
    GROW_BYTES = 64 << 10,
    GROW_BYTES_MAX = 4 << 20,
    LAP_LOADS = 4, /* rows with pages over rows in use, from which on a lap ends early */
};

/* --- the books ------------------------------------------------------------------------------------------------------
 */

static int need_bits(struct pool *pool)
{
    struct pool_producer *p = &pool->producer;
    if (p->released_bits)
        return 0;
    const size_t words = (pool->header.capacity_tasks + 63) / 64;
    p->released_bits = calloc(1, words * sizeof p->released_bits[0] + pool->header.capacity_tasks * sizeof *p->placed);
    p->placed = (struct pool_placed *)(void *)(p->released_bits ? p->released_bits + words : NULL);
    return p->released_bits ? 0 : -ENOMEM;
}

/* A task's line as it was committed: one that was overwritten may be sane, and another's rows. */
static bool copy_placed(const struct pool *pool, uint64_t task, struct pool_task_copy *copy)
{
    const struct pool_placed *placed = &pool->producer.placed[pool_slot_of(pool, task)];
    return pool_copy_task(pool, task, copy) && copy->row_position == placed->row_position && copy->rows == placed->rows;
}

/* Walks what an earlier frontend left between released and committed: its rows must be where a frontend puts them. */
static int rebuild_rows(struct pool *pool)
{
    struct pool_producer *p = &pool->producer;
    uint64_t end = 0;
    for (uint64_t task = p->released; task < p->committed; task++) {
        struct pool_task_copy copy;
        if (!pool_copy_task(pool, task, &copy) || copy.row_position < end || copy.row + copy.rows > p->committed_rows)
            return -EPROTO;
        end = copy.row_position + copy.rows;
        if (task == p->released)
            p->row_tail = copy.row_position;
        if (end - p->row_tail > pool->header.capacity_rows)
            return -EPROTO;
    }
    /* It may have died after it moved row_position and before it moved committed: then the head is ahead of the last
     * task, which only looks like skipped rows. */
    if (p->released == p->committed)
        p->row_tail = p->row_head;
    return p->row_head >= end && p->row_head - p->row_tail <= pool->header.capacity_rows ? 0 : -EPROTO;
}

int pool_producer_begin(struct pool *pool)
{
    struct pool_producer *p = &pool->producer;
    struct pool_shared *shared = pool->shared;
    const struct pool_shared *header = &pool->header;
    p->released = atomic_load_explicit(&shared->frontend.released, memory_order_relaxed);
    p->done = atomic_load_explicit(&shared->runtime.done, memory_order_acquire);
    p->committed = atomic_load_explicit(&shared->frontend.committed, memory_order_relaxed);
    p->row_head = atomic_load_explicit(&shared->frontend.row_position, memory_order_relaxed);
    p->committed_rows = atomic_load_explicit(&shared->frontend.committed_rows, memory_order_relaxed);
    p->committed_tasks = atomic_load_explicit(&shared->frontend.committed_tasks, memory_order_relaxed);
    const uint64_t slots_used = p->committed < header->capacity_tasks ? p->committed : header->capacity_tasks;
    if (p->committed > POOL_POSITION_MAX || p->row_head > POOL_POSITION_MAX || p->released > p->done ||
        p->done > p->committed || p->committed - p->released > header->capacity_tasks ||
        p->committed_rows > header->capacity_rows || p->committed_tasks > header->capacity_tasks ||
        p->committed_tasks < slots_used)
        return -EPROTO;
    int rc = rebuild_rows(pool);
    if (rc == 0 && p->committed > p->released)
        rc = need_bits(pool);
    if (rc < 0)
        return rc;
    p->next_result = p->released;
    p->orphan_end = p->committed;
    for (uint64_t task = p->released; task < p->committed; task++) {
        struct pool_task_shared *held = pool_task_at(pool, task);
        p->placed[pool_slot_of(pool, task)] = (struct pool_placed){held->row_position, held->rows};
        atomic_store_explicit(&held->cancelled, 1, memory_order_relaxed);
    }
    return 0;
}

void pool_producer_end(struct pool *pool)
{
    free(pool->producer.released_bits);
    pool->producer.released_bits = NULL;
}

/* --- pages ----------------------------------------------------------------------------------------------------------
 */

static int commit_slabs(struct pool *pool, uint32_t rows)
{
    const struct pool_shared *header = &pool->header;
    const uint32_t inputs = header->inputs.count, slabs = inputs + header->outputs.count;
    for (uint32_t i = 0; i < slabs; i++) {
        const uint64_t slab = i < inputs ? header->input_offset[i] : header->output_offset[i - inputs];
        const size_t row_bytes = i < inputs ? pool->input_row_bytes[i] : pool->output_row_bytes[i - inputs];
        const size_t from = shm_round_up(pool->producer.committed_rows * row_bytes, POOL_PAGE);
        const size_t to = shm_round_up(rows * row_bytes, POOL_PAGE);
        const int rc = shm_commit(pool->name, pool->shared, slab + from, to - from);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* Gives back what a failed commit_slabs got for some slabs and could not get for others: pages that nobody would use
 * may be just what is missing. */
static void uncommit_slabs(struct pool *pool, uint32_t rows)
{
    const struct pool_shared *header = &pool->header;
    const uint32_t inputs = header->inputs.count, slabs = inputs + header->outputs.count;
    for (uint32_t i = 0; i < slabs; i++) {
        const uint64_t slab = i < inputs ? header->input_offset[i] : header->output_offset[i - inputs];
        const size_t row_bytes = i < inputs ? pool->input_row_bytes[i] : pool->output_row_bytes[i - inputs];
        const size_t from = shm_round_up(pool->producer.committed_rows * row_bytes, POOL_PAGE);
        const size_t to = shm_round_up(rows * row_bytes, POOL_PAGE);
        if (to > from)
            (void)madvise((char *)pool->shared + slab + from, to - from, MADV_REMOVE);
    }
}

static int grow_rows_to(struct pool *pool, uint32_t rows)
{
    const int rc = commit_slabs(pool, rows);
    if (rc < 0) {
        uncommit_slabs(pool, rows);
        return rc;
    }
    pool->producer.committed_rows = rows;
    /* Ordered before the task that needs it by the release of `committed`. */
    atomic_store_explicit(&pool->shared->frontend.committed_rows, rows, memory_order_relaxed);
    return 0;
}

static int grow_rows(struct pool *pool, uint32_t needed)
{
    const uint64_t committed = pool->producer.committed_rows;
    uint64_t wanted = 2 * committed;
    if (wanted < GROW_BYTES / pool->row_bytes)
        wanted = GROW_BYTES / pool->row_bytes;
    if (wanted > committed + GROW_BYTES_MAX / pool->row_bytes)
        wanted = committed + GROW_BYTES_MAX / pool->row_bytes;
    if (wanted < needed)
        wanted = needed;
    if (wanted > pool->header.capacity_rows)
        wanted = pool->header.capacity_rows;
    const int rc = grow_rows_to(pool, (uint32_t)wanted);
    return rc == -ENOSPC && wanted > needed ? grow_rows_to(pool, needed) : rc;
}

static int grow_tasks_to(struct pool *pool, uint32_t tasks)
{
    struct pool_producer *p = &pool->producer;
    const size_t from = shm_round_up(p->committed_tasks * sizeof(struct pool_task_shared), POOL_PAGE);
    const size_t to = shm_round_up(tasks * sizeof(struct pool_task_shared), POOL_PAGE);
    int rc = shm_commit(pool->name, pool->shared, pool->header.tasks_offset + from, to - from);
    if (rc == 0 && p->committed_tasks == 0 && pool->header.kind == POOL_BACKWARD)
        rc = shm_commit(pool->name, pool->shared, pool->header.applied_offset,
                        POOL_APPLIED_RECORDS * sizeof(struct pool_applied_shared));
    if (rc < 0)
        return rc;
    p->committed_tasks = tasks;
    atomic_store_explicit(&pool->shared->frontend.committed_tasks, tasks, memory_order_relaxed);
    return 0;
}

static int grow_tasks(struct pool *pool, uint32_t needed)
{
    const uint32_t a_page = POOL_PAGE / sizeof(struct pool_task_shared);
    uint32_t wanted = pool->producer.committed_tasks == 0 ? a_page : 2 * pool->producer.committed_tasks;
    if (wanted > pool->header.capacity_tasks)
        wanted = pool->header.capacity_tasks;
    const int rc = grow_tasks_to(pool, wanted);
    return rc == -ENOSPC && wanted > needed ? grow_tasks_to(pool, needed) : rc;
}

/* --- claim, commit, cancel ------------------------------------------------------------------------------------------
 */

static uint64_t round_up_position(uint64_t position, uint32_t unit)
{
    return (position + unit - 1) / unit * unit;
}

/* Where the next task's rows begin: behind the last one's; at row 0 when the pool is empty or the slab ends. Also at
 * row 0, where that is free, rather than on fresh pages, once the rows that have pages are many times those in use:
 * under a steady load a pool is seldom empty, and its tasks would wander through the whole slab, past every cache. A
 * gap ends a batch, so the lap must be long beside the load. UINT64_MAX: there is no room. */
static uint64_t place(const struct pool *pool, uint32_t rows)
{
    const struct pool_producer *p = &pool->producer;
    const uint32_t capacity = pool->header.capacity_rows;
    const uint64_t next_lap = round_up_position(p->row_head, capacity), row = p->row_head % capacity;
    if (p->committed == p->released)
        return next_lap;
    const uint64_t in_use = p->row_head - p->row_tail + rows;
    const bool next_fits = next_lap + rows - p->row_tail <= capacity;
    if (row + rows > capacity)
        return next_fits ? next_lap : UINT64_MAX;
    if (row + rows > p->committed_rows && p->committed_rows >= LAP_LOADS * in_use && next_fits)
        return next_lap;
    return in_use <= capacity ? p->row_head : UINT64_MAX;
}

int pool_claim(struct pool *pool, uint32_t rows, struct pool_claim *claim)
{
    struct pool_producer *p = &pool->producer;
    if (pool->broken)
        return -EPROTO;
    if (rows == 0 || rows > pool->header.max_batch_size)
        return -EINVAL;
    if (FAILPOINT("ring.claim"))
        return -ENOSPC;
    if (p->committed - p->released >= pool->header.capacity_tasks)
        return -EAGAIN;
    const uint64_t position = place(pool, rows);
    if (position == UINT64_MAX)
        return -EAGAIN;
    const uint32_t row = (uint32_t)(position % pool->header.capacity_rows), slot = pool_slot_of(pool, p->committed);
    int rc = need_bits(pool);
    if (rc == 0 && slot >= p->committed_tasks)
        rc = grow_tasks(pool, slot + 1);
    if (rc == 0 && row + rows > p->committed_rows)
        rc = grow_rows(pool, row + rows);
    if (rc < 0)
        return rc;
    *claim = (struct pool_claim){.task = p->committed, .row_position = position, .row = row, .rows = rows};
    /* What the commit writes comes while the rows are copied. */
    __builtin_prefetch(&pool_task_at(pool, claim->task)->row_position, 1);
    __builtin_prefetch(&pool->shared->frontend, 1);
    return 0;
}

void pool_commit(struct pool *pool, const struct pool_claim *claim, const struct pool_task *task)
{
    struct pool_producer *p = &pool->producer;
    assert(claim->task == p->committed);
    struct pool_task_shared *shared = pool_task_at(pool, claim->task);
    shared->row_position = claim->row_position;
    shared->queued_ns = task->queued_ns;
    shared->deadline_ns = task->deadline_ns;
    shared->client[0] = task->client[0];
    shared->client[1] = task->client[1];
    shared->request_id = task->request_id;
    shared->rows = claim->rows;
    shared->unwanted = task->unwanted;
    atomic_store_explicit(&shared->cancelled, 0, memory_order_relaxed);
    p->placed[pool_slot_of(pool, claim->task)] = (struct pool_placed){claim->row_position, claim->rows};

    if (p->committed == p->released)
        p->row_tail = claim->row_position;
    p->row_head = claim->row_position + claim->rows;
    p->committed++;
    /* In this order: a frontend that dies between the two leaves a head that is ahead, never one that is behind. */
    atomic_store_explicit(&pool->shared->frontend.row_position, p->row_head, memory_order_release);
    (void)FAILPOINT("ring.commit");
    /* Pairs with the acquire in the consumer's look(). */
    atomic_store_explicit(&pool->shared->frontend.committed, p->committed, memory_order_release);
}

int pool_queue_again(struct pool *pool, uint64_t task, uint64_t queued_ns, uint64_t *again)
{
    struct pool_task_copy copy;
    struct pool_claim claim;
    if (pool->broken || !copy_placed(pool, task, &copy) || copy.row + copy.rows > pool->producer.committed_rows)
        return pool_break(pool);
    const int rc = pool_claim(pool, copy.rows, &claim);
    if (rc < 0)
        return rc;
    for (uint32_t i = 0; i < pool->header.inputs.count; i++) {
        const size_t bytes = pool->input_row_bytes[i];
        char *slab = pool_input(pool, i);
        memcpy(slab + claim.row * bytes, slab + copy.row * bytes, copy.rows * bytes);
    }
    const struct pool_task same = {.queued_ns = queued_ns,
                                   .deadline_ns = copy.deadline_ns,
                                   .client = {copy.key.client[0], copy.key.client[1]},
                                   .request_id = copy.key.request_id,
                                   .unwanted = copy.unwanted};
    pool_commit(pool, &claim, &same);
    *again = claim.task;
    return 0;
}

void pool_cancel(struct pool *pool, uint64_t task)
{
    assert(task >= pool->producer.released && task < pool->producer.committed);
    atomic_store_explicit(&pool_task_at(pool, task)->cancelled, 1, memory_order_relaxed);
}

/* --- results --------------------------------------------------------------------------------------------------------
 */

static enum status known_status(uint32_t status)
{
    if (status == STATUS_OK)
        return STATUS_OK;
    return strcmp(status_name((enum status)status), "UNKNOWN") == 0 ? STATUS_INTERNAL : (enum status)status;
}

int pool_next_result(struct pool *pool, struct pool_result *result)
{
    struct pool_producer *p = &pool->producer;
    if (pool->broken)
        return -EPROTO;
    if (p->next_result == p->done) {
        /* Pairs with the release in the consumer's publish(). */
        const uint64_t done = atomic_load_explicit(&pool->shared->runtime.done, memory_order_acquire);
        if (done < p->done || done > p->committed)
            return pool_break(pool);
        p->done = done;
    }
    if (p->next_result == p->done)
        return 0;
    struct pool_task_copy copy;
    if (!copy_placed(pool, p->next_result, &copy) || copy.row_position < p->row_tail ||
        copy.row_position + copy.rows > p->row_head || copy.row + copy.rows > p->committed_rows)
        return pool_break(pool);
    const struct pool_task_shared *shared = pool_task_at(pool, p->next_result);
    result->task = p->next_result++;
    result->row = copy.row;
    result->rows = copy.rows;
    result->status = known_status(shared->status);
    result->orphan = result->task < p->orphan_end;
    memcpy(result->message, shared->message, POOL_MESSAGE_SIZE);
    result->message[POOL_MESSAGE_SIZE - 1] = 0;
    return 1;
}

static bool take_bit(struct pool *pool, uint64_t task)
{
    const uint32_t slot = pool_slot_of(pool, task);
    uint64_t *word = &pool->producer.released_bits[slot / 64];
    const uint64_t bit = UINT64_C(1) << slot % 64;
    const bool set = (*word & bit) != 0;
    *word &= ~bit;
    return set;
}

void pool_release(struct pool *pool, uint64_t task)
{
    struct pool_producer *p = &pool->producer;
    assert(task >= p->released && task < p->next_result);
    const uint32_t slot = pool_slot_of(pool, task);
    assert(!(p->released_bits[slot / 64] & UINT64_C(1) << slot % 64));
    p->released_bits[slot / 64] |= UINT64_C(1) << slot % 64;
    if (task != p->released)
        return;
    while (p->released < p->next_result && take_bit(pool, p->released))
        p->released++;
    struct pool_task_copy copy;
    if (p->released == p->committed) {
        p->row_tail = p->row_head;
    } else if (copy_placed(pool, p->released, &copy) && copy.row_position >= p->row_tail &&
               copy.row_position + copy.rows <= p->row_head) {
        p->row_tail = copy.row_position;
    } else {
        (void)pool_break(pool); /* the next claim or result says so */
    }
    atomic_store_explicit(&pool->shared->frontend.released, p->released, memory_order_release);
}

uint32_t pool_tasks_held(const struct pool *pool)
{
    return (uint32_t)(pool->producer.committed - pool->producer.released);
}
