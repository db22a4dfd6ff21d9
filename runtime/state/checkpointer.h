/* When which expert is saved: on an interval if it has learned something, when the frontend asks (the tickets of
 * pools/control_shared.h), and at the end. What does not train is never written. The runtime's thread only; files are
 * written by runtime/state/checkpoint_queue.h.
 *
 * A ticket is answered by checkpoint_errno and then checkpoint_served: 0 when the file is on the disk or the expert has
 * nothing to save; ENOTSUP when no folder for checkpoints is configured; else what went wrong. A file that cannot be
 * written is logged and counted, tried again at the next interval, and stops nothing. */
#ifndef EXPERTD_RUNTIME_CHECKPOINTER_H
#define EXPERTD_RUNTIME_CHECKPOINTER_H

#include <stdbool.h>
#include <stdint.h>

#include "pools/control.h"
#include "pools/pool.h"
#include "runtime/state/checkpoint_owner.h"
#include "runtime/blocks/expert.h"

struct checkpointer;

/* An expert as it was loaded or made: what it has learned from here on is to be saved. */
struct checkpointer_expert {
    const char *uid;
    struct expert *expert;                /* NULL: this slot is free, and the rest does not count */
    struct control_expert_shared *record; /* for tickets */
    struct pool *backward;                /* for the window of at-most-once; NULL: none is kept */
};

/* The experts' array is copied; what it points to, config, owner and control must outlive the checkpointer (records,
 * pools and control: until checkpointer_detach). owner: NULL where no folder is configured. 0 or -errno. */
int checkpointer_create(struct checkpointer **checkpointer, const struct config_checkpoint *config,
                        struct checkpoint_owner *owner, const struct checkpointer_expert *experts, uint32_t count,
                        struct control *control);
void checkpointer_destroy(struct checkpointer **checkpointer);

/* Takes note of what was written, of tickets and of the time. True if it answered a ticket: ring the frontend. */
bool checkpointer_step(struct checkpointer *checkpointer, uint64_t now_ns);
/* Whether an expert is to be copied now: then drain the device and call checkpointer_copy, which copies one. -ENODEV:
 * the device is lost. */
bool checkpointer_wants_copy(const struct checkpointer *checkpointer);
int checkpointer_copy(struct checkpointer *checkpointer);
/* An expert in a slot that was free. */
void checkpointer_add(struct checkpointer *checkpointer, uint32_t slot, const struct checkpointer_expert *expert);
/* For an expert that is to go: 1: all that it has learned is saved, or needs not to be, and no copy of it is being
 * written; 0: not yet, ask again after the next copies and steps; -errno: it could not be written (logged), now
 * nothing is being tried. */
int checkpointer_settle(struct checkpointer *checkpointer, uint32_t slot);
/* After checkpointer_settle gave 1 or an error: the slot is free. */
void checkpointer_remove(struct checkpointer *checkpointer, uint32_t slot);

/* For the look between preparing to sleep and sleeping: whether step or copy has something to do. */
bool checkpointer_has_work(struct checkpointer *checkpointer);
/* When step has to be called at the latest. */
uint64_t checkpointer_next_ns(const struct checkpointer *checkpointer);

/* From now on there are neither pools nor a control segment: the windows of what changed are copied, tickets forgotten.
 */
void checkpointer_detach(struct checkpointer *checkpointer);
/* After checkpointer_detach: there are others. The same experts, with their new records and pools. */
void checkpointer_attach(struct checkpointer *checkpointer, const struct checkpointer_expert *experts,
                         struct control *control);
/* Saves every expert that changed, and waits for the files; after the last batch. What could not be saved is logged by
 * name, as by checkpointer_report_lost. The number of experts of whose training something is lost: 0 is what is hoped
 * for, and also where no folder is configured. */
uint32_t checkpointer_finish(struct checkpointer *checkpointer);
/* Logs what would be lost if this process ended now, by name; the number of such experts. */
uint32_t checkpointer_report_lost(const struct checkpointer *checkpointer);

#endif
