/* A runtime from inside: for runtime.c, and for what it is made of below: slots.c, segments.c and changes.c. */
#ifndef EXPERTD_RUNTIME_RUNTIME_STATE_H
#define EXPERTD_RUNTIME_RUNTIME_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/config.h"
#include "pools/control.h"
#include "runtime/reporter.h"
#include "runtime/serve/backend.h"
#include "runtime/serve/executor.h"
#include "runtime/state/checkpointer.h"

struct changes;

struct runtime {
    const struct config *config; /* as the program was started */
    const struct config *live;   /* whose experts and blocks there are: the same, or a generation's */
    const struct config_device *entry;
    int owner_fd;
    struct device *device;
    struct backend *backends; /* slots, as in the control segment; expert NULL: free */
    uint32_t slots, made;     /* made: how many were made at the start, from the first slot on */
    struct control *control;
    struct executor *executor;
    struct checkpointer *checkpointer;
    struct checkpoint_owner *checkpoint_owner; /* NULL: no folder is configured */
    struct weights *weights;                   /* models that experts are made of */
    struct changes *changes;
    struct {
        uint64_t next_ns;
        uint64_t counted; /* of the process, up to which they are in the counter */
    } page_faults;
    struct {
        uint64_t next_ns;
        uint64_t seen, looking;        /* shm_changes: when all pools' names were good; and for the look that goes on */
        uint64_t changed_ns, begun_ns; /* when `looking` was first there, and when the look began */
        uint32_t next_pool;            /* of that look; 0: there is none */
    } names;
    struct reporter reporter;
    uint64_t completed_told; /* batches, when the supervisor was last told of progress */
    bool lost_role;          /* another process has it now */
};

static inline bool runtime_slot_used(const struct runtime *runtime, uint32_t slot)
{
    return runtime->backends[slot].expert != NULL;
}

#endif
