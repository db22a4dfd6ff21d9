/* Takes batches from the pools, in the scheduler's order, and has them computed: up to EXPERT_IN_FLIGHT of them are
 * enqueued on the device, so that the launch of one is hidden behind the other's work.
 *
 * A small batch is not taken beside one of the same expert: by waiting it grows, and ten tasks in one batch cost less
 * than in two; nor directly after one, if those who were answered are likely to come back at once
 * (runtime/serve/pace.h). One of PACE_FULL_ROWS rows is. (On a device with its own memory each is, since there a second
 * batch's upload is hidden too.)
 *
 * A batch that fails is answered INTERNAL with the device's message. A backward whose gradients are NaN or Inf has
 * changed nothing: its tasks are worked off one by one, so that only the bad ones are answered ABORTED. The runtime's
 * thread only. */
#ifndef EXPERTD_RUNTIME_EXECUTOR_H
#define EXPERTD_RUNTIME_EXECUTOR_H

#include <stdint.h>

#include "pools/control.h"
#include "runtime/serve/backend.h"

struct executor;

struct executor_setup {
    struct backend *backends; /* with open pools, or without an expert: a slot that is free */
    uint32_t count;
    struct control *control;
    struct device *device;
    const char *run_dir, *server; /* where the frontend's bell is */
};

/* All but the strings' storage must outlive it; setup itself is copied. Looks at every pool once, for tasks that were
 * queued before. 0 or -errno. */
int executor_create(struct executor **executor, const struct executor_setup *setup);
/* executor_drain comes first, unless the device is lost. */
void executor_destroy(struct executor **executor);

/* The backend in this slot is there now, or goes; executor_drain comes first. Or it has other limits. */
void executor_add(struct executor *executor, uint32_t slot);
void executor_remove(struct executor *executor, uint32_t slot);
void executor_limit(struct executor *executor, uint32_t slot);

/* Starts a batch or finishes one: 1; 0: nothing to do before *retry_ns (UINT64_MAX: ever) but what control_any_ready
 * tells; -ENODEV: the device is lost, and what was in flight stays taken, for the next runtime to adopt. */
int executor_step(struct executor *executor, uint64_t *retry_ns);
/* Whether a pool is damaged: see scheduler_broken. */
bool executor_broken(const struct executor *executor);
/* Finishes what is in flight. 0 or -ENODEV. */
int executor_drain(struct executor *executor);
/* After executor_drain, before the control segment goes: nothing of the device's touches it any more. Then there is
 * only executor_ring_always and executor_destroy. */
void executor_detach(struct executor *executor);
/* Says once more since when the device is busy, or that it is not: a word that somebody overwrote would make it look
 * hung for ever. */
void executor_tell_busy(struct executor *executor);
/* Wakes the frontend if it sleeps, for something else that it should look at. */
void executor_ring(struct executor *executor);
/* Wakes the frontend whether it says that it sleeps or not: it says so in the control segment, of which it does not
 * know yet, or which is gone. */
void executor_ring_always(struct executor *executor);

#endif
