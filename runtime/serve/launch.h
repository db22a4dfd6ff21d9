/* What is enqueued at once: a batch, or forwards of several experts that are kin, taken one after the other, which are
 * one launch of each of the block's products (expert_forward_group). The device's thread. */
#ifndef EXPERTD_RUNTIME_LAUNCH_H
#define EXPERTD_RUNTIME_LAUNCH_H

#include <stdbool.h>
#include <stdint.h>

#include "pools/pool.h"
#include "runtime/blocks/expert.h"

/* A batch on its way through the device. */
struct flight {
    uint32_t index; /* of its pool */
    struct pool_batch batch;
    struct expert_batch work;
    uint64_t started_ns;
    uint64_t queue_ns;  /* of all its tasks together */
    uint32_t place, of; /* it is number `place` of `of` batches that were enqueued together */
    bool watched;       /* its end rings the runtime's bell */
};

struct launch {
    struct flight flights[EXPERT_GROUP];
    uint32_t count;
    uint64_t rows;
    struct expert_group group; /* that the first one's expert is of; none, of a backward */
};

void launch_begin(struct launch *launch);
/* Whether there may be another one behind those. */
bool launch_has_room(const struct launch *launch);
/* Whether a batch of that pool, whose expert that is, may be it. */
bool launch_may_take(const struct launch *launch, uint32_t index, const struct expert *expert);
/* The batch behind those, whose expert that is, is one of them. */
void launch_add(struct launch *launch, const struct expert *expert);
/* How many of them can go together, from the first one on: only the last one can be one that does not. */
uint32_t launch_fitting(const struct launch *launch);

#endif
