/* A moment on both clocks: the one that never steps, by which we wait, and the wall's, which heartbeats carry.
 * Whatever depends on time is handed one, so that tests can make their own. */
#ifndef EXPERTD_DHT_MOMENT_H
#define EXPERTD_DHT_MOMENT_H

#include "common/clock.h"

struct moment {
    uint64_t ns;      /* CLOCK_MONOTONIC */
    uint64_t wall_ms; /* since 1970 */
};

static inline struct moment moment_now(void)
{
    return (struct moment){clock_now_ns(), clock_wall_ns() / NS_PER_MS};
}

#endif
