/* What the files of a pool share; nobody outside of pools/ (and its tests) includes it.
 *
 * A handle is one side's view. Each side keeps its own positions here and never reads back what it wrote to shared
 * memory; what the other side wrote is copied once, checked, and then used from the copy. */
#ifndef EXPERTD_POOLS_POOL_PRIVATE_H
#define EXPERTD_POOLS_POOL_PRIVATE_H

#include <errno.h>

#include "pools/applied.h"
#include "pools/pool.h"

/* Positions beyond this are no positions: no arithmetic on them may wrap. */
#define POOL_POSITION_MAX (UINT64_C(1) << 62)

enum {
    POOL_ROWS_MAX = 1 << 30,
    POOL_TASKS_MAX = 1 << 24,
    /* Runs of tasks that were completed without being run, behind batches that still run. A run lies between two such
     * batches, and a device has two of them in flight. */
    POOL_SKIPPED_RUNS = 4,
};

struct pool_producer {
    uint64_t committed, released;
    uint64_t next_result; /* of the next task whose result was not given yet */
    uint64_t done;        /* newest that was seen */
    uint64_t orphan_end;  /* tasks below are an earlier frontend's */
    uint64_t row_head;    /* end of the newest task's rows */
    uint64_t row_tail;    /* first row of the oldest held task */
    uint32_t committed_rows, committed_tasks;
    uint64_t *released_bits; /* by slot: released, but one before it is not. NULL before the first task */
    /* By slot, what was committed there, or was there at the beginning: nobody else may change it. Behind the bits. */
    struct pool_placed {
        uint64_t row_position;
        uint32_t rows;
    } * placed;
};

/* What the runtime knows of a task it has seen. */
struct pool_slot {
    uint32_t row, rows;
    uint32_t unwanted;
    uint64_t queued_ns;
};

struct pool_consumer {
    /* done <= applied <= taken <= scanned <= committed. Tasks in [taken, scanned) are the next batch so far. */
    uint64_t done, applied, taken, scanned, committed;
    uint64_t scanned_row_end;  /* row position at which the newest scanned task ends */
    uint32_t scanned_rows;     /* rows of the next batch so far */
    uint32_t scanned_next_row; /* the row that would continue it */
    uint32_t populated_rows, populated_tasks;
    uint32_t skipped_runs;
    struct {
        uint64_t first, end;
    } skipped[POOL_SKIPPED_RUNS];
    struct pool_slot *slots; /* by slot; NULL before the first task */
    struct applied *applied_table;
    /* Of pool_restore_applied, until the table is made with the first task; NULL: none. */
    struct applied_key *restored;
    uint32_t restored_count;
};

enum pool_side { POOL_PRODUCER, POOL_CONSUMER };

struct pool {
    struct pool_shared header; /* validated; its frontend and runtime parts are not used */
    struct pool_shared *shared;
    struct pool_task_shared *tasks;
    size_t mapped_bytes;
    size_t input_row_bytes[SCHEMA_MAX_TENSORS], output_row_bytes[SCHEMA_MAX_TENSORS];
    size_t row_bytes; /* of all tensors */
    uint32_t slot_mask;
    enum pool_side side;
    bool borrowed; /* the mapping is not this handle's to unmap */
    bool broken;   /* the other side broke an invariant: nothing but -EPROTO from now on */
    union {
        struct pool_producer producer;
        struct pool_consumer consumer;
    };
    char name[]; /* of the segment */
};

static inline uint32_t pool_slot_of(const struct pool *pool, uint64_t task)
{
    return (uint32_t)task & pool->slot_mask;
}

static inline struct pool_task_shared *pool_task_at(const struct pool *pool, uint64_t task)
{
    return &pool->tasks[pool_slot_of(pool, task)];
}

/* The invariant is broken, for good. */
static inline int pool_break(struct pool *pool)
{
    pool->broken = true;
    return -EPROTO;
}

/* One task's line 0, copied once. */
struct pool_task_copy {
    uint64_t row_position, queued_ns, deadline_ns;
    struct applied_key key;
    uint32_t row, rows;
    uint32_t unwanted;
    bool cancelled;
};
/* False if its rows are none, too many, wrapped, or its position is none. */
bool pool_copy_task(const struct pool *pool, uint64_t task, struct pool_task_copy *copy);

/* A handle over a mapping whose header was filled in. Checks the header as pool_attach does: -EPROTO, -ENOMEM. Takes
 * the mapping over unless `borrowed`; on failure it stays the caller's. */
int pool_open_view(struct pool **pool, void *mapping, size_t bytes, const char *name, enum pool_side side,
                   bool borrowed);
/* Writes a fresh header. -EINVAL. *bytes: of the segment. */
int pool_build_header(struct pool_shared *header, const struct pool_layout *layout, size_t *bytes);

/* Producer: rebuilds the books from shared memory and orphans what is held. -EPROTO, -ENOMEM. */
int pool_producer_begin(struct pool *pool);
void pool_producer_end(struct pool *pool);
/* Consumer: settles what an earlier runtime left (nothing, in a fresh pool). -EPROTO when positions are not sane. */
int pool_consumer_begin(struct pool *pool);
void pool_consumer_end(struct pool *pool);

#endif
