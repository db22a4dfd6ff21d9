/* Which pool is next: the one whose oldest task waited longest. So no pool starves, whatever the others do.
 *
 * Pools with a task that may run now are in a binary heap ordered by the age of that task; pools that wait for
 * min_batch_size rows are in a second one, ordered by the time at which they have waited long enough. A pool in neither
 * is idle until scheduler_notice says that it got tasks. So a batch costs O(log pools), idle pools cost nothing, and
 * nothing is allocated after scheduler_create. The runtime's thread only. */
#ifndef EXPERTD_RUNTIME_SCHEDULER_H
#define EXPERTD_RUNTIME_SCHEDULER_H

#include <stdbool.h>
#include <stdint.h>

#include "pools/pool.h"

struct scheduler;

/* Tasks of a pool were completed without being run (expired, cancelled, repeated): its results are to be announced. */
typedef void scheduler_skipped(void *context, uint32_t index, uint32_t tasks);

/* For pools 0 .. pools_count - 1; of one that was not added nothing is noticed. 0 or -ENOMEM. */
int scheduler_create(struct scheduler **scheduler, uint32_t pools_count, scheduler_skipped *skipped, void *context);
void scheduler_destroy(struct scheduler **scheduler);
/* The pool is the caller's, and must outlive the scheduler. */
void scheduler_add(struct scheduler *scheduler, uint32_t index, struct pool *pool, const struct pool_limits *limits);
/* It is no longer; no batch of it is in flight. */
void scheduler_remove(struct scheduler *scheduler, uint32_t index);
/* Other limits, from the next batch on. */
void scheduler_limit(struct scheduler *scheduler, uint32_t index, const struct pool_limits *limits);

/* Before scheduler_notice, first the one and later the other: start fetching what it will read. */
void scheduler_prefetch_handle(const struct scheduler *scheduler, uint32_t index);
void scheduler_prefetch(const struct scheduler *scheduler, uint32_t index);
/* The pool may have new tasks to run: it got some, or one of its batches was completed, on which a repeated backward
 * waits. A pool that breaks its invariants (-EPROTO) is logged and never looked at again. */
void scheduler_notice(struct scheduler *scheduler, uint32_t index, uint64_t now_ns);
/* Whether there is such a pool: its tasks are not served, so all pools had better be made anew. */
bool scheduler_broken(const struct scheduler *scheduler);
/* No batch is taken of the pool until it is released. */
void scheduler_hold(struct scheduler *scheduler, uint32_t index);
void scheduler_release(struct scheduler *scheduler, uint32_t index, uint64_t now_ns);
/* 1 and *index of the pool whose turn it is; 0: no pool has a task to run now, and before *retry_ns (UINT64_MAX: ever)
 * only a notice changes that. It stays its turn until a batch is taken. */
int scheduler_next(struct scheduler *scheduler, uint64_t now_ns, uint32_t *index, uint64_t *retry_ns);
/* What the caller would rather wait for than take a smaller batch; all 0: nothing. A pool with a min_batch_size of its
 * own goes by that, unless the wish is for ever. */
struct scheduler_wish {
    uint32_t rows;     /* so many, or as many as the batch can ever get */
    uint64_t until_ns; /* UINT64_MAX: for ever */
};

/* Takes a batch of the pool that scheduler_next gave: 1 and *batch; 0: the pool waits for more rows. Then ask for the
 * next one; but if the wish is for ever, it stays that pool's turn. */
int scheduler_take(struct scheduler *scheduler, uint32_t index, const struct scheduler_wish *wish, uint64_t now_ns,
                   struct pool_batch *batch);

#endif
