/* A task pool's segment, byte for byte: "/expertd.<server>.<device>.<generation>.<pool index>".
 *
 *     page 0           struct pool_shared
 *     tasks_offset     struct pool_task_shared[capacity_tasks]
 *     applied_offset   struct pool_applied_shared[POOL_APPLIED_RECORDS]   (backward pools only)
 *     *_offset[]       one slab a tensor: capacity_rows dense rows; inputs first, then outputs; each page-aligned
 *
 * Who writes what. The frontend is the only producer, the runtime the only consumer.
 *   - The runtime creates the segment and fills in everything up to `frontend`; none of that changes afterwards. The
 * pool may be used once the device's control segment says CONTROL_READY (released there, acquired by whoever attaches).
 *   - `frontend` and line 0 of a task: the frontend only. `runtime`, line 1 of a task and the applied records: the
 * runtime.
 *   - [rows] Rows belong to the frontend until `committed` passes their task, then to the runtime until `done` does,
 * then to the frontend again until it lets go of them (`released`). So nobody writes what the other may read. Pairings:
 *   - committed: release by the frontend (after task line 0 and the input rows), acquire by the runtime.
 *   - done:      release by the runtime (after task line 1 and the output rows), acquire by the frontend.
 *   - applied:   release by the runtime, after the optimizer step and the output rows, before `done`. Only a restarted
 *                runtime reads it.
 *   - released is read by a restarted frontend only, taken by a restarted runtime only.
 * [order] Positions count tasks and only grow; a task's slot is position % capacity_tasks.
 *     released <= done <= applied <= taken <= committed <= released + capacity_tasks   (forward pools: applied follows
 * done) [places] A row position counts rows, and the rows skipped so that no task wraps; its row is position %
 * capacity_rows, and of the tasks that are held none has another's.
 *
 * [pages] Pages. The runtime commits page 0 when it creates the pool. The frontend commits the applied records, and in
 * growing steps the task slots and the first rows of all slabs (outputs too), before it claims them for the first time,
 * and raises committed_tasks and committed_rows; so neither side ever writes to a page that is not there, and a pool
 * that is never called costs one page.
 *
 * Death. [epoch] A frontend that dies between claim and commit leaves nothing visible. The next one starts a new epoch,
 * cancels what lies between released and committed, and reuses rows only when done has passed them. A runtime that dies
 * leaves taken ahead of done: the next one runs those forwards again; in a backward pool, [once] tasks below applied
 * are complete, and [outcome] tasks from applied to taken are answered UNAVAILABLE, since their step may have been lost
 * with the process.
 *
 * A word in brackets is a rule that an assertion of tests/models/ring.pml has for its name. */
#ifndef EXPERTD_POOLS_POOL_SHARED_H
#define EXPERTD_POOLS_POOL_SHARED_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "common/tensor.h"
#include "common/uid.h"

#define POOL_MAGIC UINT64_C(0x31306c6f6f707865) /* "expool01" */
enum {
    POOL_VERSION = 2,
    POOL_PAGE = 4096,
    POOL_LINE = 64,
    POOL_APPLIED_RECORDS = 1024, /* the window of at-most-once: applied tasks of one expert */
    POOL_MESSAGE_SIZE = 56,
};

enum pool_kind { POOL_FORWARD = 0, POOL_BACKWARD = 1 };

struct pool_task_shared {
    /* Line 0: the frontend, before the commit; `cancelled` also later. */
    alignas(POOL_LINE) uint64_t row_position;
    uint64_t queued_ns;   /* clock_now_ns() at arrival: the scheduler's age */
    uint64_t deadline_ns; /* 0: none */
    uint64_t client[2];   /* who asks, 128 random bits; 0, 0: unknown, and then no at-most-once */
    uint64_t request_id;  /* of that client */
    uint32_t rows;
    _Atomic uint32_t cancelled; /* 1: nobody waits for the answer any more (expired, or an earlier epoch's) */
    uint32_t unwanted;          /* outputs that the asker does not want, a bit each */
    /* Line 1: the runtime, before `done` passes. */
    alignas(POOL_LINE) uint32_t status; /* enum status */
    uint32_t reserved;
    char message[POOL_MESSAGE_SIZE]; /* for a person; NUL-terminated; empty when OK */
};

/* A backward task whose optimizer step was applied. Slot: sequence % POOL_APPLIED_RECORDS. Sequence 0 is an empty slot;
 * a record is invalidated (sequence 0) first and gets its sequence last (release). */
struct pool_applied_shared {
    alignas(32) uint64_t client[2];
    uint64_t request_id;
    _Atomic uint64_t sequence; /* 1, 2, ... */
};

struct pool_shared {
    uint64_t magic;
    uint32_t version;
    uint32_t kind; /* enum pool_kind */
    uint64_t segment_bytes;
    uint64_t generation; /* of the device's control segment */
    uint32_t index;      /* in the device's control segment */
    uint32_t capacity_rows;
    uint32_t capacity_tasks; /* a power of two */
    uint32_t max_batch_size; /* rows; a larger task is refused */
    uint64_t tasks_offset;
    uint64_t applied_offset; /* 0 in a forward pool */
    uint64_t input_offset[SCHEMA_MAX_TENSORS];
    uint64_t output_offset[SCHEMA_MAX_TENSORS];
    char uid[UID_SIZE];
    struct schema inputs; /* of a backward pool: the forward's inputs, then grad_outputs */
    struct schema outputs;

    struct {
        alignas(POOL_LINE) _Atomic uint64_t committed;
        _Atomic uint64_t released;
        _Atomic uint64_t row_position;    /* end of the newest committed task's rows: for the next frontend */
        _Atomic uint32_t committed_rows;  /* rows whose pages are there, in all slabs */
        _Atomic uint32_t committed_tasks; /* task slots whose pages are there (and then the applied records' are) */
    } frontend;
    struct {
        alignas(POOL_LINE) _Atomic uint64_t taken;
        _Atomic uint64_t applied;
        _Atomic uint64_t done;
        _Atomic uint64_t applied_sequence; /* of the newest applied record */
        /* For statistics, relaxed: batches that ended and their tasks; how long these waited for their batch, and how
         * long their batch took, each summed over the tasks. */
        _Atomic uint64_t batches, batch_tasks, queue_ns, compute_ns;
    } runtime;
};

_Static_assert(sizeof(struct pool_task_shared) == 2 * POOL_LINE, "a line per writer");
_Static_assert(sizeof(struct pool_applied_shared) == 32, "an applied record is 32 bytes");
_Static_assert(sizeof(struct pool_shared) <= POOL_PAGE, "the header is one page");
_Static_assert(offsetof(struct pool_shared, frontend) % POOL_LINE == 0, "the frontend's line");
_Static_assert(offsetof(struct pool_shared, runtime) % POOL_LINE == 0, "the runtime's line");

#endif
