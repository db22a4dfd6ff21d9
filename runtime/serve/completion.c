#include "runtime/serve/completion.h"

#include <errno.h>
#include <sched.h>

#include "common/clock.h"

static void CL_CALLBACK ring(cl_event event, cl_int status, void *context)
{
    struct completion *completion = context;
    (void)event;
    (void)status;
    doorbell_ring(completion->bell);
    atomic_fetch_sub_explicit(&completion->pending, 1, memory_order_release);
}

int completion_watch(struct completion *completion, cl_event event)
{
    atomic_fetch_add_explicit(&completion->pending, 1, memory_order_relaxed);
    if (clSetEventCallback(event, CL_COMPLETE, ring, completion) == CL_SUCCESS)
        return 0;
    atomic_fetch_sub_explicit(&completion->pending, 1, memory_order_relaxed);
    return -EIO;
}

int completion_drain(struct completion *completion)
{
    const uint64_t end_ns = clock_now_ns() + NS_PER_S;
    while (atomic_load_explicit(&completion->pending, memory_order_acquire) > 0) {
        if (clock_now_ns() >= end_ns)
            return -ETIMEDOUT;
        sched_yield();
    }
    return 0;
}
