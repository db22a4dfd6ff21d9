/* What the frontend counts, for STATS (PROTOCOL.md has the names). One thread. */
#ifndef EXPERTD_FRONTEND_COUNTERS_H
#define EXPERTD_FRONTEND_COUNTERS_H

#include <stdint.h>

#include "common/histogram.h"

enum { COUNTERS_METHODS = 12, COUNTERS_STATUSES = 16 };

struct counters {
    uint64_t requests[COUNTERS_METHODS];                    /* by number of the method; 0: other */
    uint64_t replies[COUNTERS_STATUSES];                    /* by number of the status */
    uint64_t outcomes[COUNTERS_METHODS][COUNTERS_STATUSES]; /* the same, by both */
    uint64_t parts;                                         /* of calls for many experts */
    uint64_t bytes_in, bytes_out;
    uint64_t peers_vanished, replies_dropped, results_dropped, requests_dropped;
    uint64_t repeats_answered, repeats_joined;
    uint64_t denied;          /* of clients whose key may not */
    uint64_t requests_waited; /* for room in their pool */
    uint64_t ended;           /* forwards and backwards that were answered, after they had waited for a device */
    uint64_t sleeps;
    struct histogram request_time[2]; /* of FORWARD and BACKWARD, from arrival to the reply */
};

#endif
