/* When which expert is saved: on an interval if it changed, when the frontend asks (the tickets of
 * pools/control_shared.h), and at the end. The runtime's thread only; files are written by
 * runtime/state/checkpoint_queue.h.
 *
 * A ticket is answered by checkpoint_errno and then checkpoint_served: 0 when the file is on the disk or the expert has
 * nothing to save; ENOTSUP when no folder for checkpoints is configured; else what went wrong. A file that cannot be
 * written is logged and counted, tried again at the next interval, and stops nothing. */
#ifndef EXPERTD_RUNTIME_CHECKPOINTER_H
#define EXPERTD_RUNTIME_CHECKPOINTER_H

#include <stdbool.h>
#include <stdint.h>

#include "pools/control.h"
#include "runtime/serve/backend.h"

struct checkpointer;

/* config, backends and control must outlive it (control: until checkpointer_detach). 0 or -errno. */
int checkpointer_create(struct checkpointer **checkpointer, const struct config_checkpoint *config,
                        struct backend *backends, uint32_t count, struct control *control);
void checkpointer_destroy(struct checkpointer **checkpointer);

/* Takes note of what was written, of tickets and of the time. True if it answered a ticket: ring the frontend. */
bool checkpointer_step(struct checkpointer *checkpointer, uint64_t now_ns);
/* Whether an expert is to be copied now: then drain the device and call checkpointer_copy, which copies one. -ENODEV:
 * the device is lost. */
bool checkpointer_wants_copy(const struct checkpointer *checkpointer);
int checkpointer_copy(struct checkpointer *checkpointer);
/* For the look between preparing to sleep and sleeping: whether step or copy has something to do. */
bool checkpointer_has_work(struct checkpointer *checkpointer);
/* When step has to be called at the latest. */
uint64_t checkpointer_next_ns(const struct checkpointer *checkpointer);

/* From now on there is no control segment: tickets are forgotten. */
void checkpointer_detach(struct checkpointer *checkpointer);
/* After checkpointer_detach: there is one again, with records of the backends. */
void checkpointer_attach(struct checkpointer *checkpointer, struct control *control);
/* Saves every expert that changed, and waits for the files; after the last batch. */
void checkpointer_finish(struct checkpointer *checkpointer);

#endif
