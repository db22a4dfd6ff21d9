/* Rings a doorbell when a batch is done on the device, so that the runtime's thread can sleep until that or new tasks,
 * whichever comes first.
 *
 * The driver rings from a thread of its own, maybe a moment after the batch is seen to be done: the bell must not go
 * away before completion_drain. */
#ifndef EXPERTD_RUNTIME_COMPLETION_H
#define EXPERTD_RUNTIME_COMPLETION_H

#include <stdatomic.h>
#include <stdint.h>

#include "common/doorbell.h"
#include "runtime/device/opencl.h"

struct completion {
    struct doorbell_word *bell;
    _Atomic uint32_t pending; /* rings that are still to come */
};

/* The bell will ring once when the event is complete. 0, or -EIO: it will not, so wait for the event itself. There are
 * drivers that do not ring for one that failed: who sleeps has to look again now and then. */
int completion_watch(struct completion *completion, cl_event event);
/* Waits, a second at most, until all rings have come; the events must be complete. 0 or -ETIMEDOUT. */
int completion_drain(struct completion *completion);

#endif
