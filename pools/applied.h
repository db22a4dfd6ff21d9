/* At most once: which backward tasks' steps were applied, and which are being computed. One thread of the runtime.
 *
 * The records of the newest POOL_APPLIED_RECORDS applied tasks live in the pool's segment, so that they outlive the
 * process; the index over them is private and rebuilt from them. Tasks in flight are in the same index by their slot,
 * so that a repeat that comes while the first one runs is noticed too. All calls but open are O(1) on average. */
#ifndef EXPERTD_POOLS_APPLIED_H
#define EXPERTD_POOLS_APPLIED_H

#include <stdbool.h>
#include <stdint.h>

#include "pools/pool_shared.h"

struct applied;

struct applied_key {
    uint64_t client[2], request_id;
};

/* Whether the client is known at all; all calls below treat an unknown one as never seen, and record nothing. */
static inline bool applied_key_known(const struct applied_key *key)
{
    return (key->client[0] | key->client[1]) != 0;
}

/* Builds the index from the records: those of the window before *newest, and one that an earlier runtime finished just
 * before it died. Others are ignored. The table keeps both pointers. -ENOMEM. */
int applied_open(struct applied **applied, struct pool_applied_shared *records, _Atomic uint64_t *newest,
                 const struct pool_task_shared *tasks, uint32_t capacity_tasks);
/* Adds keys, oldest first, that are older than all records: of a runtime that is gone with its segment. Those that have
 * a record are left out. They are kept in private memory. At most POOL_APPLIED_RECORDS, once. -ENOMEM. */
int applied_restore(struct applied *applied, const struct applied_key *keys, uint32_t count);
/* The newest applied ones, oldest first; their number, at most POOL_APPLIED_RECORDS. */
uint32_t applied_list(const struct applied *applied, struct applied_key keys[POOL_APPLIED_RECORDS]);
/* Frees and nulls. */
void applied_close(struct applied **applied);

/* The step of this task is in the window of applied ones. */
bool applied_done(const struct applied *applied, const struct applied_key *key);
/* A task between applied_begin and applied_forget or applied_record has this key. */
bool applied_running(const struct applied *applied, const struct applied_key *key);
/* The task in `slot` (its key is in its line 0) runs; the slot must not be running yet. */
void applied_begin(struct applied *applied, uint32_t slot, const struct applied_key *key);
/* The task in `slot` no longer runs; nothing if it did not. */
void applied_forget(struct applied *applied, uint32_t slot);
/* The step of the task in `slot` was applied: it no longer runs, and has the next record. Only for a slot that runs. */
void applied_record(struct applied *applied, uint32_t slot);

#endif
