#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/failpoint.h"
#include "common/shm.h"
#include "pools/pool_private.h"

/* --- beginning and end ----------------------------------------------------------------------------------------------
 */

static void write_outcome(struct pool *pool, uint64_t task, enum status status, const char *message)
{
    struct pool_task_shared *shared = pool_task_at(pool, task);
    size_t length = message ? strnlen(message, POOL_MESSAGE_SIZE) : 0;
    if (length == POOL_MESSAGE_SIZE)
        /* Cut, but never inside a UTF-8 sequence: protobuf would refuse the whole reply. */
        for (length--; length > 0 && ((unsigned char)message[length] & 0xc0) == 0x80; length--)
            ;
    shared->status = (uint32_t)status;
    memcpy(shared->message, message ? message : "", length);
    shared->message[length] = 0;
}

/* Every position only after what it speaks for, in the order of the invariant: a runtime may die between any two. */
static void publish(struct pool *pool)
{
    const struct pool_consumer *c = &pool->consumer;
    atomic_store_explicit(&pool->shared->runtime.taken, c->taken, memory_order_release);
    atomic_store_explicit(&pool->shared->runtime.applied, c->applied, memory_order_release);
    /* Pairs with the acquire in pool_next_result. */
    atomic_store_explicit(&pool->shared->runtime.done, c->done, memory_order_release);
}

/* Forward: what ran runs again, so back to done. Backward: the outcomes below applied were written before it moved; the
 * others' steps may have been lost with the process. */
static void settle_interrupted(struct pool *pool)
{
    struct pool_consumer *c = &pool->consumer;
    if (pool->header.kind == POOL_FORWARD) {
        c->taken = c->applied = c->done;
        /* Killed in publish(), it may be ahead of done: back it goes before `taken` does. */
        atomic_store_explicit(&pool->shared->runtime.applied, c->applied, memory_order_release);
        return;
    }
    for (uint64_t task = c->applied; task < c->taken; task++)
        write_outcome(pool, task, STATUS_UNAVAILABLE, "the runtime was restarted during this step");
    c->done = c->applied = c->taken;
}

int pool_consumer_begin(struct pool *pool)
{
    struct pool_consumer *c = &pool->consumer;
    struct pool_shared *shared = pool->shared;
    const uint32_t capacity = pool->header.capacity_tasks;
    /* The frontend may be at work: committed before released, so that their distance is never too large. */
    c->committed = atomic_load_explicit(&shared->frontend.committed, memory_order_acquire);
    const uint64_t released = atomic_load_explicit(&shared->frontend.released, memory_order_acquire);
    const uint32_t slots = atomic_load_explicit(&shared->frontend.committed_tasks, memory_order_relaxed);
    c->done = atomic_load_explicit(&shared->runtime.done, memory_order_relaxed);
    c->applied = atomic_load_explicit(&shared->runtime.applied, memory_order_relaxed);
    c->taken = atomic_load_explicit(&shared->runtime.taken, memory_order_relaxed);
    if (c->committed > POOL_POSITION_MAX || released > c->done || c->done > c->applied || c->applied > c->taken ||
        c->taken > c->committed || c->committed - released > capacity || slots > capacity ||
        (slots < capacity && c->committed > slots))
        return -EPROTO;
    settle_interrupted(pool);
    c->scanned = c->taken;
    publish(pool);
    return 0;
}

void pool_consumer_end(struct pool *pool)
{
    free(pool->consumer.slots);
    pool->consumer.slots = NULL;
    applied_close(&pool->consumer.applied_table);
    free(pool->consumer.restored);
    pool->consumer.restored = NULL;
}

/* --- looking at what is queued --------------------------------------------------------------------------------------
 */

static int need_tables(struct pool *pool)
{
    struct pool_consumer *c = &pool->consumer;
    const struct pool_shared *header = &pool->header;
    if (header->kind == POOL_BACKWARD && !c->applied_table) {
        void *records = (char *)pool->shared + header->applied_offset;
        const int rc = applied_open(&c->applied_table, records, &pool->shared->runtime.applied_sequence, pool->tasks,
                                    header->capacity_tasks);
        if (rc < 0)
            return rc;
    }
    if (c->restored) {
        const int rc = applied_restore(c->applied_table, c->restored, c->restored_count);
        if (rc < 0)
            return rc;
        free(c->restored);
        c->restored = NULL;
    }
    if (!c->slots)
        c->slots = calloc(header->capacity_tasks, sizeof c->slots[0]);
    return c->slots ? 0 : -ENOMEM;
}

/* Sees what was committed since. Task pages that the frontend has committed get into our page tables a range at a time,
 * not a fault at a time. */
static int look(struct pool *pool)
{
    struct pool_consumer *c = &pool->consumer;
    if (pool->broken)
        return -EPROTO;
    /* Pairs with the release in pool_commit. */
    const uint64_t committed = atomic_load_explicit(&pool->shared->frontend.committed, memory_order_acquire);
    if (committed == c->committed && c->slots)
        return 0;
    const uint32_t capacity = pool->header.capacity_tasks;
    const uint32_t slots = atomic_load_explicit(&pool->shared->frontend.committed_tasks, memory_order_relaxed);
    if (committed < c->committed || committed > POOL_POSITION_MAX || committed - c->done > capacity ||
        slots > capacity || slots < c->populated_tasks || (slots < capacity && committed > slots))
        return pool_break(pool);
    c->committed = committed;
    if (slots > c->populated_tasks) {
        const size_t from = c->populated_tasks * sizeof(struct pool_task_shared);
        shm_populate(pool->shared, pool->header.tasks_offset + from, slots * sizeof(struct pool_task_shared) - from);
        c->populated_tasks = slots;
    }
    return c->taken == committed ? 0 : need_tables(pool);
}

static void populate_rows(struct pool *pool, uint32_t rows)
{
    struct pool_consumer *c = &pool->consumer;
    const struct pool_shared *header = &pool->header;
    const uint32_t inputs = header->inputs.count, slabs = inputs + header->outputs.count;
    for (uint32_t i = 0; i < slabs; i++) {
        const uint64_t slab = i < inputs ? header->input_offset[i] : header->output_offset[i - inputs];
        const size_t row_bytes = i < inputs ? pool->input_row_bytes[i] : pool->output_row_bytes[i - inputs];
        shm_populate(pool->shared, slab + c->populated_rows * row_bytes, (rows - c->populated_rows) * row_bytes);
    }
    c->populated_rows = rows;
}

/* Where rows are small a batch takes hardly longer than to fetch its first one. */
static void prefetch_row(const struct pool *pool, uint32_t row)
{
    const char *input = (const char *)pool->shared + pool->header.input_offset[0] + row * pool->input_row_bytes[0];
    const size_t bytes = pool->input_row_bytes[0] < POOL_PAGE ? pool->input_row_bytes[0] : POOL_PAGE;
    for (size_t at = 0; at < bytes; at += POOL_LINE)
        __builtin_prefetch(input + at, 0, 2);
}

/* The next task that was not scanned yet: 1: it joined the batch; 0: it does not fit behind it; -EPROTO. */
static int scan_one(struct pool *pool)
{
    struct pool_consumer *c = &pool->consumer;
    struct pool_task_copy copy;
    const uint32_t rows_there = atomic_load_explicit(&pool->shared->frontend.committed_rows, memory_order_relaxed);
    if (!pool_copy_task(pool, c->scanned, &copy) || copy.row_position < c->scanned_row_end ||
        rows_there > pool->header.capacity_rows || copy.row + copy.rows > rows_there)
        return pool_break(pool);
    if (c->scanned_rows > 0 && (copy.row_position != c->scanned_row_end || copy.row != c->scanned_next_row ||
                                copy.rows > pool->header.max_batch_size - c->scanned_rows))
        return 0;
    if (rows_there > c->populated_rows)
        populate_rows(pool, rows_there);
    if (c->scanned_rows == 0)
        prefetch_row(pool, copy.row);
    c->slots[pool_slot_of(pool, c->scanned)] =
        (struct pool_slot){.row = copy.row, .rows = copy.rows, .unwanted = copy.unwanted, .queued_ns = copy.queued_ns};
    c->scanned++;
    c->scanned_rows += copy.rows;
    c->scanned_row_end = copy.row_position + copy.rows;
    c->scanned_next_row = copy.row + copy.rows;
    return 1;
}

/* --- what must not run ----------------------------------------------------------------------------------------------
 */

enum verdict { RUN, WAIT, EXPIRED, REPEATED };

static enum verdict judge(const struct pool *pool, const struct pool_task_copy *task, uint64_t now_ns)
{
    const struct applied *table = pool->consumer.applied_table;
    if (task->cancelled || (task->deadline_ns != 0 && now_ns >= task->deadline_ns))
        return EXPIRED;
    if (pool->header.kind == POOL_FORWARD)
        return RUN;
    if (applied_done(table, &task->key))
        return REPEATED;
    /* Whether its first one's step will be applied is not known yet. */
    return applied_running(table, &task->key) ? WAIT : RUN;
}

/* Completes the head without running it. Behind batches that run it cannot be done yet; it is when they are. False if
 * there are too many such runs of tasks: then it waits for the batches. */
static bool skip_head(struct pool *pool, enum verdict verdict)
{
    struct pool_consumer *c = &pool->consumer;
    const uint64_t head = c->taken;
    const bool in_flight = c->done != c->taken;
    const bool extends = c->skipped_runs > 0 && c->skipped[c->skipped_runs - 1].end == head;
    if (in_flight && !extends && c->skipped_runs == POOL_SKIPPED_RUNS)
        return false;
    if (verdict == REPEATED)
        write_outcome(pool, head, STATUS_ALREADY_EXISTS, "this backward was applied before");
    else
        write_outcome(pool, head, STATUS_DEADLINE_EXCEEDED, "expired or cancelled before it ran");
    c->scanned_rows -= c->slots[pool_slot_of(pool, head)].rows;
    c->taken++;
    if (!in_flight) {
        c->done = c->applied = c->taken;
    } else if (extends) {
        c->skipped[c->skipped_runs - 1].end = c->taken;
    } else {
        c->skipped[c->skipped_runs].first = head;
        c->skipped[c->skipped_runs].end = c->taken;
        c->skipped_runs++;
    }
    publish(pool);
    return true;
}

/* The end of the runs of skipped tasks that follow `position` without a gap. */
static uint64_t past_skipped(const struct pool_consumer *c, uint64_t position)
{
    for (uint32_t i = 0; i < c->skipped_runs; i++)
        if (c->skipped[i].first == position)
            position = c->skipped[i].end;
    return position;
}

/* 1: the head, in *head, wants to run; 0: none does; -errno. */
static int settle_head(struct pool *pool, uint64_t now_ns, struct pool_task_copy *head, uint32_t *completed)
{
    struct pool_consumer *c = &pool->consumer;
    *completed = 0;
    int rc = look(pool);
    while (rc >= 0 && c->taken < c->committed) {
        if (c->scanned == c->taken)
            rc = scan_one(pool);
        if (rc < 0)
            break;
        (void)pool_copy_task(pool, c->taken, head); /* its rows were checked, and are used from the slot */
        const enum verdict verdict = judge(pool, head, now_ns);
        if (verdict == RUN) {
            if (head->queued_ns > now_ns)
                head->queued_ns = now_ns;
            return 1;
        }
        if (verdict == WAIT || !skip_head(pool, verdict))
            return 0;
        ++*completed;
    }
    return rc < 0 ? rc : 0;
}

int pool_oldest(struct pool *pool, uint64_t now_ns, uint64_t *queued_ns, uint32_t *completed)
{
    struct pool_task_copy head;
    const int rc = settle_head(pool, now_ns, &head, completed);
    if (rc == 1)
        *queued_ns = head.queued_ns;
    return rc;
}

/* --- taking ---------------------------------------------------------------------------------------------------------
 */

/* A backward batch ends before a task that must not step; the others are now running. Each task is judged once per
 * batch that it is in, or ends. */
static void take_backward(struct pool *pool, uint64_t now_ns, struct pool_batch *batch)
{
    struct pool_consumer *c = &pool->consumer;
    batch->rows = batch->tasks = 0;
    for (uint64_t task = batch->first_task; task < c->scanned; task++) {
        struct pool_task_copy copy;
        (void)pool_copy_task(pool, task, &copy);
        if (task > batch->first_task && judge(pool, &copy, now_ns) != RUN)
            break;
        const uint32_t slot = pool_slot_of(pool, task);
        applied_begin(c->applied_table, slot, &copy.key);
        batch->rows += c->slots[slot].rows;
        batch->tasks++;
    }
}

int pool_take(struct pool *pool, const struct pool_limits *limits, uint64_t now_ns, struct pool_batch *batch,
              uint64_t *retry_ns, uint32_t *completed)
{
    struct pool_consumer *c = &pool->consumer;
    struct pool_task_copy head;
    *retry_ns = UINT64_MAX;
    int rc = settle_head(pool, now_ns, &head, completed);
    if (rc <= 0)
        return rc;
    while (rc == 1 && c->scanned < c->committed)
        rc = scan_one(pool);
    if (rc < 0)
        return rc;

    /* rc 0: something is queued behind, but not right behind: waiting would not make this batch larger. */
    const bool full = rc == 0 || c->scanned_rows >= pool->header.max_batch_size;
    const uint64_t due_ns =
        limits->batch_timeout_ns < UINT64_MAX - head.queued_ns ? head.queued_ns + limits->batch_timeout_ns : UINT64_MAX;
    if (!full && c->scanned_rows < limits->min_batch_size && now_ns < due_ns) {
        *retry_ns = due_ns;
        return 0;
    }
    *batch = (struct pool_batch){.first_task = c->taken,
                                 .tasks = (uint32_t)(c->scanned - c->taken),
                                 .row = c->slots[pool_slot_of(pool, c->taken)].row,
                                 .rows = c->scanned_rows,
                                 .closed = full                                        ? POOL_CLOSED_FULL
                                           : limits->min_batch_size <= 1               ? POOL_CLOSED_FREE
                                           : c->scanned_rows >= limits->min_batch_size ? POOL_CLOSED_ROWS
                                                                                       : POOL_CLOSED_TIMEOUT};
    if (pool->header.kind == POOL_BACKWARD)
        take_backward(pool, now_ns, batch);
    c->taken += batch->tasks;
    c->scanned_rows -= batch->rows;
    publish(pool);
    (void)FAILPOINT("ring.take");
    return 1;
}

void pool_batch_task(const struct pool *pool, const struct pool_batch *batch, uint32_t i, uint32_t *row, uint32_t *rows)
{
    assert(i < batch->tasks);
    const struct pool_slot *slot = &pool->consumer.slots[pool_slot_of(pool, batch->first_task + i)];
    *row = slot->row - batch->row;
    *rows = slot->rows;
}

uint64_t pool_batch_queued_ns(const struct pool *pool, const struct pool_batch *batch, uint32_t i)
{
    assert(i < batch->tasks);
    return pool->consumer.slots[pool_slot_of(pool, batch->first_task + i)].queued_ns;
}

uint32_t pool_batch_unwanted(const struct pool *pool, const struct pool_batch *batch)
{
    uint32_t unwanted = UINT32_MAX;
    for (uint32_t i = 0; i < batch->tasks; i++)
        unwanted &= pool->consumer.slots[pool_slot_of(pool, batch->first_task + i)].unwanted;
    return unwanted;
}

void pool_batch_split_first(const struct pool *pool, struct pool_batch *batch, struct pool_batch *first)
{
    uint32_t row;
    *first = *batch;
    first->tasks = 1;
    pool_batch_task(pool, batch, 0, &row, &first->rows);
    batch->first_task++;
    batch->tasks--;
    batch->row += first->rows;
    batch->rows -= first->rows;
}

/* --- completing -----------------------------------------------------------------------------------------------------
 */

int pool_restore_applied(struct pool *pool, const struct applied_key *keys, uint32_t count)
{
    struct pool_consumer *c = &pool->consumer;
    assert(pool->header.kind == POOL_BACKWARD && !c->applied_table && !c->restored && count <= POOL_APPLIED_RECORDS);
    if (count == 0)
        return 0;
    c->restored = malloc(count * sizeof *keys);
    if (!c->restored)
        return -ENOMEM;
    memcpy(c->restored, keys, count * sizeof *keys);
    c->restored_count = count;
    return 0;
}

uint32_t pool_list_applied(const struct pool *pool, struct applied_key keys[POOL_APPLIED_RECORDS])
{
    const struct pool_consumer *c = &pool->consumer;
    uint32_t count = c->applied_table ? applied_list(c->applied_table, keys) : 0;
    for (uint32_t i = 0; c->restored && i < c->restored_count; i++)
        keys[count++] = c->restored[i];
    return count;
}

void pool_applied(struct pool *pool, const struct pool_batch *batch)
{
    struct pool_consumer *c = &pool->consumer;
    assert(pool->header.kind == POOL_BACKWARD && batch->first_task >= c->applied);
    (void)FAILPOINT("ring.apply"); /* the step is made, and nobody knows */
    for (uint32_t i = 0; i < batch->tasks; i++) {
        write_outcome(pool, batch->first_task + i, STATUS_OK, NULL);
        applied_record(c->applied_table, pool_slot_of(pool, batch->first_task + i));
    }
    /* A batch before this one that is not settled keeps `applied` where it is; pool_complete catches up. */
    if (past_skipped(c, c->applied) == batch->first_task) {
        c->applied = batch->first_task + batch->tasks;
        publish(pool);
    }
}

void pool_complete(struct pool *pool, const struct pool_batch *batch, enum status status, const char *message)
{
    struct pool_consumer *c = &pool->consumer;
    assert(batch->first_task == c->done && batch->first_task + batch->tasks <= c->taken);
    for (uint32_t i = 0; i < batch->tasks; i++) {
        write_outcome(pool, batch->first_task + i, status, message);
        if (c->applied_table)
            applied_forget(c->applied_table, pool_slot_of(pool, batch->first_task + i));
    }
    c->done = past_skipped(c, batch->first_task + batch->tasks);
    if (c->applied < c->done)
        c->applied = c->done;
    uint32_t settled = 0;
    while (settled < c->skipped_runs && c->skipped[settled].end <= c->done)
        settled++;
    c->skipped_runs -= settled;
    memmove(c->skipped, c->skipped + settled, c->skipped_runs * sizeof c->skipped[0]);
    (void)FAILPOINT("ring.done");
    publish(pool);
}

/* This side alone writes it. */
static void count(_Atomic uint64_t *counter, uint64_t more)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + more, memory_order_relaxed);
}

void pool_measure(struct pool *pool, uint32_t tasks, uint64_t queue_ns, uint64_t compute_ns)
{
    count(&pool->shared->runtime.batches, 1);
    count(&pool->shared->runtime.batch_tasks, tasks);
    count(&pool->shared->runtime.queue_ns, queue_ns);
    count(&pool->shared->runtime.compute_ns, compute_ns * tasks);
}

struct pool_measures pool_measured(const struct pool *pool)
{
    return (struct pool_measures){
        .batches = atomic_load_explicit(&pool->shared->runtime.batches, memory_order_relaxed),
        .tasks = atomic_load_explicit(&pool->shared->runtime.batch_tasks, memory_order_relaxed),
        .queue_ns = atomic_load_explicit(&pool->shared->runtime.queue_ns, memory_order_relaxed),
        .compute_ns = atomic_load_explicit(&pool->shared->runtime.compute_ns, memory_order_relaxed),
    };
}

uint32_t pool_tasks_queued(const struct pool *pool)
{
    const uint64_t committed = atomic_load_explicit(&pool->shared->frontend.committed, memory_order_relaxed);
    const uint64_t queued = committed - pool->consumer.taken;
    return queued <= pool->header.capacity_tasks ? (uint32_t)queued : 0;
}
