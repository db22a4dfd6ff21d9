/* The input tensors of a task, as they lie in the frames of its message: checked, and ready to be copied into rows. */
#ifndef EXPERTD_FRONTEND_TASK_INPUTS_H
#define EXPERTD_FRONTEND_TASK_INPUTS_H

#include <stdint.h>

#include "pools/pool.h"
#include "proto/message.h"

struct task_inputs {
    struct {
        const void *data;
        uint64_t bytes;          /* of the frame */
        uint64_t elements, last; /* of an encoded one */
        uint32_t codec;
    } tensors[MESSAGE_MAX_TENSORS];
};

/* Into the rows of the claim, decoded. */
void task_inputs_copy(const struct task_inputs *inputs, struct pool *pool, const struct pool_claim *claim);

#endif
