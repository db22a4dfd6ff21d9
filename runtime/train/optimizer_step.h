/* What follows the gradients of a backward batch, on the device and without a stop in between: their norm, the check
 * that they are finite, clipping, accumulation over batches, and the optimizer's step. */
#ifndef EXPERTD_RUNTIME_OPTIMIZER_STEP_H
#define EXPERTD_RUNTIME_OPTIMIZER_STEP_H

#include <stdbool.h>

#include "runtime/blocks/expert.h"
#include "runtime/train/parameters.h"

/* Enqueues all of it. The batch's gradients lie in `gradient` in the primary layout. What came of it is in the
 * expert's parameters after the batch's event; optimizer_step_finish tells. `dry`: changes nothing, for warming up. */
int optimizer_step_enqueue(struct expert *expert, struct parameters *parameters, cl_mem gradient,
                           cl_ulong gradient_offset, bool dry);
/* After the batch is done on the device: fills batch->step and grad_norm, and counts. */
void optimizer_step_finish(struct expert *expert, const struct parameters *parameters, struct expert_batch *batch);

#endif
