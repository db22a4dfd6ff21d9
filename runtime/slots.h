/* The experts of a runtime, by their slots: made at the start of what is live, and how others see one. The runtime's
 * thread only. */
#ifndef EXPERTD_RUNTIME_SLOTS_H
#define EXPERTD_RUNTIME_SLOTS_H

#include <stdint.h>

#include "runtime/state/checkpointer.h"

struct runtime;

/* Makes the experts that runtime->live puts on the device, from the first slot on, with their newest checkpoints, and
 * spare slots behind them. 0 or -errno, logged; -EINTR: a stop signal came meanwhile. */
int slots_fill(struct runtime *runtime);
/* After a slots_fill that failed, too. */
void slots_destroy(struct runtime *runtime);

/* What the checkpointer has to know of the slot; and of all of them, malloc'd (NULL: no memory). */
struct checkpointer_expert slots_checkpointer_expert(const struct runtime *runtime, uint32_t slot);
struct checkpointer_expert *slots_checkpointer_experts(const struct runtime *runtime);

#endif
