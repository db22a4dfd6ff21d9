/* A task pool: this process's view of one pool's segment (pools/pool_shared.h has the layout and the argument for it).
 *
 * The queued tasks lie one behind the other in the slabs, so a batch is a slice of them: no gather, no scatter. One
 * thread of the frontend calls the producer's half, one thread of the runtime the consumer's half; neither locks, nor
 * calls the system but to commit fresh pages. What is read from shared memory is copied once and validated: a position
 * or a task that breaks the invariants gives -EPROTO, and the pool is then unusable for that side (its caller retires
 * it). */
#ifndef EXPERTD_POOLS_POOL_H
#define EXPERTD_POOLS_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "pools/applied.h"
#include "pools/pool_shared.h"

struct pool;

/* --- making, finding ------------------------------------------------------------------------------------------------
 */

struct pool_layout {
    const char *server, *device;
    uint64_t generation;
    uint32_t index;
    enum pool_kind kind;
    const char *uid;
    struct schema inputs, outputs;
    uint32_t max_batch_size; /* rows */
    uint32_t queue_rows;     /* capacity; at least max_batch_size */
    uint32_t queue_tasks;    /* rounded up to a power of two */
};

/* Runtime. Creates the segment (-EEXIST if there is one). -EINVAL for a layout that is not valid; -ENOSPC, -ENOMEM. */
int pool_create(struct pool **pool, const struct pool_layout *layout);
/* Runtime, after a restart. Takes the segment over when it fits the layout exactly and its positions are sane; -ESTALE
 * when not (then make a new generation), -ENOENT. Tasks of a forward pool that ran when the last runtime died are
 * queued again; those of a backward pool are completed, OK below applied and UNAVAILABLE above (the caller marks every
 * pool done). */
int pool_adopt(struct pool **pool, const struct pool_layout *layout);
/* Frontend. Attaches to a segment of the control segment of that generation. -ENOENT, -EPROTO. All that an earlier
 * frontend left is orphaned: cancelled, never answered, and released when the runtime is done with it. */
int pool_attach(struct pool **pool, const char *server, const char *device, uint64_t generation, uint32_t index);
/* Unmaps; the segment stays. Nulls *pool. */
void pool_detach(struct pool **pool);
/* Whether its name still leads to a segment of its size. */
bool pool_named(const struct pool *pool);
/* Runtime. Removes a segment by name; 0 or -errno. */
int pool_remove(const char *server, const char *device, uint64_t generation, uint32_t index);

/* Start fetching into the cache what the side's next look at the pool reads: the handle; and, when that has come, what
 * it points to. */
void pool_prefetch_handle(const struct pool *pool);
void pool_prefetch_shared(const struct pool *pool);

/* What does not change: uid, schemas, capacities. This process's validated copy, not the shared one. */
const struct pool_shared *pool_header(const struct pool *pool);
/* First byte of the slab of input or output tensor i; row r lies r * row_bytes further. */
void *pool_input(const struct pool *pool, uint32_t i);
void *pool_output(const struct pool *pool, uint32_t i);
size_t pool_input_row_bytes(const struct pool *pool, uint32_t i);
size_t pool_output_row_bytes(const struct pool *pool, uint32_t i);
size_t pool_input_slab_bytes(const struct pool *pool, uint32_t i); /* a multiple of POOL_PAGE */
size_t pool_output_slab_bytes(const struct pool *pool, uint32_t i);

/* How long tasks took, since the segment was made. Either side. */
struct pool_measures {
    uint64_t batches, tasks;       /* that ended, however */
    uint64_t queue_ns, compute_ns; /* each task's wait for its batch, and that batch's time on the device: their sums */
};
struct pool_measures pool_measured(const struct pool *pool);
/* Runtime. Counts a batch of so many tasks, which waited so long all together. */
void pool_measure(struct pool *pool, uint32_t tasks, uint64_t queue_ns, uint64_t compute_ns);

/* --- producer: the frontend ------------------------------------------------------------------------------------------
 */

struct pool_claim {
    uint64_t task;         /* position; also the task's name until it is released */
    uint64_t row_position; /* of its first row */
    uint32_t row;          /* first row in the slabs */
    uint32_t rows;
};

struct pool_task {
    uint64_t queued_ns, deadline_ns;
    uint64_t client[2], request_id;
    uint32_t unwanted; /* outputs that the runtime need not compute for it, a bit each: they are anything then */
};

/* Claims `rows` consecutive rows for the next task. Nothing is visible to the runtime until pool_commit; a claim may be
 * forgotten, and then nothing happened. One claim at a time.
 * 0; -EINVAL: rows is 0 or above max_batch_size; -EAGAIN: no room now; -ENOSPC: /dev/shm is full (both
 * RESOURCE_EXHAUSTED); -EPROTO; another -errno when pages could not be committed (-ENOENT: the segment was removed).
 * When the pool is empty the next task begins at row 0, so that a lightly loaded pool stays in
 * cache and costs few pages. */
int pool_claim(struct pool *pool, uint32_t rows, struct pool_claim *claim);
/* Publishes the claim after its input rows are written. The caller then marks the pool ready in the control segment and
 * rings the runtime. */
void pool_commit(struct pool *pool, const struct pool_claim *claim, const struct pool_task *task);
/* Queues a held task, not yet released, once more behind all others, with its rows and ids: pool_claim, a copy and
 * pool_commit; the first one stays as it is. 0 or an error of pool_claim. */
int pool_queue_again(struct pool *pool, uint64_t task, uint64_t queued_ns, uint64_t *again);
/* Nobody waits for this task any more. It may still be computed. */
void pool_cancel(struct pool *pool, uint64_t task);

struct pool_result {
    uint64_t task;
    uint32_t row, rows;
    enum status status;
    bool orphan; /* an earlier frontend's: release it, answer nobody */
    char message[POOL_MESSAGE_SIZE];
};

/* The next task, in order, that the runtime is done with: 1 and *result; 0: none now; -EPROTO. Each is given once; its
 * rows stay until it is released. */
int pool_next_result(struct pool *pool, struct pool_result *result);
/* Lets go of a task's rows. In any order; the space comes back when all before it are released too. */
void pool_release(struct pool *pool, uint64_t task);
/* Tasks committed and not yet released (queued, running, or held). */
uint32_t pool_tasks_held(const struct pool *pool);

/* --- consumer: the runtime -------------------------------------------------------------------------------------------
 */

struct pool_limits {
    uint32_t min_batch_size;   /* rows; 0 and 1: take what is there */
    uint64_t batch_timeout_ns; /* longest wait of the oldest task for min_batch_size rows */
};

/* Why a batch was taken as it was. */
enum pool_closed {
    POOL_CLOSED_FULL,    /* what is queued behind cannot join it, or it has max_batch_size rows */
    POOL_CLOSED_ROWS,    /* min_batch_size rows are there */
    POOL_CLOSED_TIMEOUT, /* they are not, but the wait is over */
    POOL_CLOSED_FREE,    /* it waits for nothing */
};

struct pool_batch {
    uint64_t first_task;
    uint32_t tasks;
    uint32_t row; /* first row in the slabs; the batch is `rows` consecutive ones */
    uint32_t rows;
    enum pool_closed closed;
};

/* queued_ns of the oldest task that wants to run: 1; 0: there is none; -EPROTO, -ENOMEM. Tasks at the head that are not
 * to run (see pool_take) are completed on the way; then *completed is set to their number, else to 0, and the caller
 * marks the pool done. The answer is also 0 when the head repeats a backward that is in flight: whether it may run is
 * known after that one's pool_complete, so look again then. */
int pool_oldest(struct pool *pool, uint64_t now_ns, uint64_t *queued_ns, uint32_t *completed);
/* Takes the next batch: whole tasks, in order, consecutive rows, at most max_batch_size of them. It ends before a gap
 * (where rows were skipped at the slab's end); in a backward pool also before a task that must not step: cancelled,
 * expired, applied before, or already in this batch. 1 and *batch; 0: not yet: no task, or min_batch_size rows are not
 * there before the timeout, and *retry_ns is when to look again (UINT64_MAX: only new tasks, or the completion of
 * batches that are in flight, change that); -EPROTO, -ENOMEM. min_batch_size is not waited for when the tasks behind
 * cannot join the batch anyway. A task at the head that is cancelled or expired is completed with DEADLINE_EXCEEDED, a
 * repeated backward with ALREADY_EXISTS; *completed as above. Several batches of a pool may be taken before the first
 * is completed; they are completed in order. */
int pool_take(struct pool *pool, const struct pool_limits *limits, uint64_t now_ns, struct pool_batch *batch,
              uint64_t *retry_ns, uint32_t *completed);
/* Task i of a batch that was taken: its first row, relative to the batch's, and its rows. */
void pool_batch_task(const struct pool *pool, const struct pool_batch *batch, uint32_t i, uint32_t *row,
                     uint32_t *rows);
/* Outputs that none of the batch's tasks wants, a bit each. */
uint32_t pool_batch_unwanted(const struct pool *pool, const struct pool_batch *batch);
/* When it was queued, as its producer said. */
uint64_t pool_batch_queued_ns(const struct pool *pool, const struct pool_batch *batch, uint32_t i);
/* Backward, when the outputs are in the slabs and the gradients are applied (or accumulated): records the batch's tasks
 * as applied. Call before pool_complete. A batch whose step was skipped is not recorded: its clients may try again. */
void pool_applied(struct pool *pool, const struct pool_batch *batch);
/* Backward: what a runtime that is gone with its segment had applied, from the checkpoint that is loaded; oldest first,
 * at most POOL_APPLIED_RECORDS, copied. Once, before the first task is looked at. They count as recorded, and take
 * nothing of the segment. -ENOMEM. */
int pool_restore_applied(struct pool *pool, const struct applied_key *keys, uint32_t count);
/* The newest applied ones, oldest first; their number. */
uint32_t pool_list_applied(const struct pool *pool, struct applied_key keys[POOL_APPLIED_RECORDS]);
/* The outputs are in the slabs (OK), or the batch failed: its tasks get status and message (NULL: none). Moves done.
 * The caller then marks the pool done in the control segment and rings the frontend. */
void pool_complete(struct pool *pool, const struct pool_batch *batch, enum status status, const char *message);
/* Splits the first task off a batch, as a batch of its own: for a batch that is worked off task by task. The two are
 * then completed in order like any other. */
void pool_batch_split_first(const struct pool *pool, struct pool_batch *batch, struct pool_batch *first);
/* Tasks committed and not yet taken. */
uint32_t pool_tasks_queued(const struct pool *pool);

#endif
