/* The numbers of calls in flight that `bench` goes through. */
#ifndef EXPERTD_CLIENT_SWEEP_H
#define EXPERTD_CLIENT_SWEEP_H

#include <stddef.h>
#include <stdint.h>

enum { SWEEP_MAX_LEVELS = 64, SWEEP_MAX_CONCURRENCY = 1000 };

struct sweep {
    uint32_t levels[SWEEP_MAX_LEVELS];
    size_t count;
};

/* "4", "1,2,8", "1:16" (doubled each time, and 16 in any case) or "4:20:8" (4, 12, 20), each 1 to
 * SWEEP_MAX_CONCURRENCY. 0; -EINVAL: it is none of these, or too many. */
int sweep_parse(struct sweep *sweep, const char *text);

#endif
