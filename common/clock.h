/* Time. All deadlines and ages inside a server are CLOCK_MONOTONIC nanoseconds, which every process of one box shares.
 */
#ifndef EXPERTD_COMMON_CLOCK_H
#define EXPERTD_COMMON_CLOCK_H

#include <stdint.h>
#include <time.h>

#define NS_PER_US UINT64_C(1000)
#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)

/* Now, on the clock that never steps. Any thread. */
static inline uint64_t clock_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

/* Now, since 1970: only for what leaves the box (DHT records, checkpoint names). Any thread. */
static inline uint64_t clock_wall_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

#endif
