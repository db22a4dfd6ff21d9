/* What a process of this host takes, as the system tells it: for the metrics that every Prometheus client has. */
#ifndef EXPERTD_HTTP_USAGE_H
#define EXPERTD_HTTP_USAGE_H

#include <stdbool.h>
#include <stdint.h>

struct usage {
    double cpu_seconds;        /* of all its threads, in user and system mode */
    double start_time_seconds; /* since 1970 */
    uint64_t resident_bytes, virtual_bytes;
    double open_fds; /* NaN: not ours to look at */
    double threads;
};

/* Of the process of that number, if it runs this program ("expertd-frontend"): false otherwise, also where it has ended
 * or is another user's. Any thread. */
bool usage_read(struct usage *usage, long pid, const char *program);

#endif
