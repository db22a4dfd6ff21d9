/* Rings a doorbell when a batch is done on the device, so that the runtime's thread can sleep until that or new tasks,
 * whichever comes first.
 *
 * The driver rings from a thread of its own, maybe long after the batch is seen to be done, and nothing can make it
 * hurry or let it be. So what it is given lives until the last ring has come, and leads to the bell only until
 * completion_destroy: the bell's memory may go right after that. */
#ifndef EXPERTD_RUNTIME_COMPLETION_H
#define EXPERTD_RUNTIME_COMPLETION_H

#include "common/doorbell.h"
#include "runtime/device/opencl.h"

struct completion;

/* 0 or -ENOMEM. */
int completion_create(struct completion **completion, struct doorbell_word *bell);
/* The bell will ring once when the event is complete. 0, or -EIO: it will not, so wait for the event itself. There are
 * drivers that do not ring for one that failed: who sleeps has to look again now and then. */
int completion_watch(struct completion *completion, cl_event event);
/* No ring reaches the bell any more once this has returned, however many the driver still owes. Nulls. */
void completion_destroy(struct completion **completion);

#endif
