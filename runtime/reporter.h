/* What a runtime did since the last time, in its log (server.stats_interval). The runtime's thread. */
#ifndef EXPERTD_RUNTIME_REPORTER_H
#define EXPERTD_RUNTIME_REPORTER_H

#include <stdint.h>

#include "pools/control.h"

struct reporter_counts {
    uint64_t batches[2], rows[2]; /* by enum pool_kind */
    uint64_t tasks, failed, skipped, steps, busy_ns;
};
struct reporter {
    uint64_t interval_ns; /* 0: never */
    uint64_t last_ns;
    struct reporter_counts before;
};

/* From now on; interval_s 0: never. */
void reporter_begin(struct reporter *reporter, double interval_s, struct control *control, uint64_t now_ns);
/* A line, if it is time for one. */
void reporter_look(struct reporter *reporter, struct control *control, uint64_t now_ns);

#endif
