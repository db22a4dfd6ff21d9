/* The queue between the runtime's thread, which takes a consistent copy of an expert between two batches, and a thread
 * of its own that writes the copies to files. So serving stalls for a copy of one expert and never for a disk; and the
 * memory for copies is bounded: CHECKPOINT_QUEUE_SLOTS of them, each as large as the largest expert that passed.
 *
 * All functions are for the runtime's thread. */
#ifndef EXPERTD_RUNTIME_CHECKPOINT_QUEUE_H
#define EXPERTD_RUNTIME_CHECKPOINT_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/state/checkpoint.h"

enum { CHECKPOINT_QUEUE_SLOTS = 2 };

struct checkpoint_queue;

struct checkpoint_result {
    uint32_t index; /* as given to checkpoint_queue_put */
    int error;      /* 0: written; -errno */
};

/* wake(context) is called from the writing thread after each file: it must end the sleep of the runtime's thread. dir
 * is kept, not copied. */
int checkpoint_queue_create(struct checkpoint_queue **queue, const char *dir, unsigned keep,
                            void (*wake)(void *context), void *context);
/* Waits until what is queued is written; results that were not fetched are lost. Nulls. */
void checkpoint_queue_destroy(struct checkpoint_queue **queue);

/* Copies the expert's state, of which no backward may be in flight, and its window (NULL: empty), and queues the copy;
 * uid must stay. -EAGAIN: no slot is free; -ENOMEM; or what expert_snapshot_take returns. The expert must live until
 * the result is fetched. */
int checkpoint_queue_put(struct checkpoint_queue *queue, uint32_t index, struct expert *expert, const char *uid,
                         const struct checkpoint_window *window);
/* Whether put would find a slot, and whether fetch would find a result. */
bool checkpoint_queue_has_room(struct checkpoint_queue *queue);
bool checkpoint_queue_has_result(struct checkpoint_queue *queue);
/* 1 and the next result, in the order of put; 0: none now. The slot is free again. */
int checkpoint_queue_fetch(struct checkpoint_queue *queue, struct checkpoint_result *result);
/* Waits until there is a result, or nothing to wait for (false). */
bool checkpoint_queue_wait(struct checkpoint_queue *queue);

#endif
