/* What follows the gradients of a backward batch, on the device and without a stop in between: their norm, the check
 * that they are finite, clipping, accumulation over batches, and the optimizer's step. */
#ifndef EXPERTD_RUNTIME_OPTIMIZER_STEP_H
#define EXPERTD_RUNTIME_OPTIMIZER_STEP_H

#include <stdbool.h>

#include "runtime/train/parameters.h"

/* Enqueues all of it. The batch's gradients lie in `gradient` in the primary layout. What came of it is in the
 * parameters after the batch's event; optimizer_step_finish tells. `dry`: changes nothing, for warming up. */
int optimizer_step_enqueue(const struct trainee *trainee, struct parameters *parameters, cl_mem gradient,
                           cl_ulong gradient_offset, bool dry);
/* After the batch of so many rows is done on the device: counts, and tells what it was and the gradients' norm. */
enum expert_step optimizer_step_finish(const struct trainee *trainee, const struct parameters *parameters,
                                       uint64_t rows, double *grad_norm);

#endif
