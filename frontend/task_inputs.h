/* The input tensors of a task, as they lie in the frames of its message: checked, and ready to be copied into rows. */
#ifndef EXPERTD_FRONTEND_TASK_INPUTS_H
#define EXPERTD_FRONTEND_TASK_INPUTS_H

#include <stdbool.h>
#include <stdint.h>
#include <zmq.h>

#include "common/copier.h"
#include "pools/pool.h"
#include "proto/message.h"

struct task_inputs {
    struct {
        const void *data;        /* the task's rows, or, if they are encoded, the frame that has them */
        uint64_t bytes;          /* of data */
        uint64_t elements, last; /* of an encoded frame */
        uint64_t first, count;   /* of its elements, those that are the task's */
        uint32_t codec;
    } tensors[MESSAGE_MAX_TENSORS];
};

/* Into the rows of the claim, decoded. copier: for large tensors; NULL. */
void task_inputs_copy(const struct task_inputs *inputs, struct pool *pool, const struct pool_claim *claim,
                      struct copier *copier);
/* A copy of one tensor, of which the inputs, but not their data, tell from then on: of an encoded frame that has other
 * rows too, the task's own, decoded. False: no memory; there is no message then. */
bool task_inputs_keep(struct task_inputs *inputs, uint32_t tensor, zmq_msg_t *kept);
/* What such copies take. */
uint64_t task_inputs_bytes(const struct task_inputs *inputs, uint32_t count);

#endif
