/* What experts a runtime has, changed while it serves: its part in what pools/control_shared.h describes. One expert is
 * made or saved at a time, between batches. The runtime's thread only. */
#ifndef EXPERTD_RUNTIME_CHANGES_H
#define EXPERTD_RUNTIME_CHANGES_H

#include <stdbool.h>
#include <stdint.h>

struct changes;
struct runtime;

/* Before the experts are made: reads what is live beside the configuration, and sets runtime->live. 0 or -ENOMEM. */
int changes_create(struct changes **changes, struct runtime *runtime);
/* After the backends, whose configurations it has. Nulls. */
void changes_destroy(struct changes **changes);
/* After the backends were made: they are of what is live. */
void changes_begin(struct changes *changes);

/* Whether there is something to do: for the look between preparing to sleep and sleeping. */
bool changes_wanted(const struct changes *changes);
/* Does a part of it, of one expert at most. True: there is more to do at once, so do not sleep. -ENODEV in *error: the
 * device is lost. */
bool changes_step(struct changes *changes, int *error);
/* The segments go, or the runtime ends: what was prepared is undone. */
void changes_abort(struct changes *changes);

#endif
