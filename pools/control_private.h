/* A control segment from inside: for control_open.c, which makes, finds and leaves it, and control.c, which uses it. */
#ifndef EXPERTD_POOLS_CONTROL_PRIVATE_H
#define EXPERTD_POOLS_CONTROL_PRIVATE_H

#include <stddef.h>

#include "pools/control.h"

struct control {
    struct control_shared *shared;
    _Atomic uint64_t *ready, *done;
    struct control_expert_shared *experts;
    size_t mapped_bytes;
    uint64_t generation;
    uint32_t experts_count, words;
    int hold_fd; /* the runtime's, as long as it has the segment; else -1 */
    char server[CONTROL_NAME_SIZE], device[CONTROL_NAME_SIZE];
    unsigned char constants[offsetof(struct control_shared, runtime)]; /* as they were when it was opened */
};

#endif
