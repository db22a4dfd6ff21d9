/* What happened between two looks at a server's statistics. `before` may be NULL, and counters that went down are those
 * of a server that began anew: then nothing has happened. */
#ifndef EXPERTD_CLIENT_RATES_H
#define EXPERTD_CLIENT_RATES_H

#include <stdbool.h>

#include "client/expertd.h"

/* The value of the counter of that name; false, and *value stays, when there is none. */
bool rates_find(const struct expertd_stats *stats, const char *name, double *value);
/* The histogram of that name; NULL when there is none. */
const struct expertd_histogram *rates_find_histogram(const struct expertd_stats *stats, const char *name);
/* By how much it rose, per second. */
double rates_counter(const struct expertd_stats *before, const struct expertd_stats *now, const char *name,
                     double seconds);

/* The values that came into a histogram. */
struct rates_histogram {
    double count;
    double mean;
    double median, p99; /* within the bucket they are in, as if its values were evenly spread */
};
struct rates_histogram rates_histogram(const struct expertd_stats *before, const struct expertd_stats *now,
                                       const char *name);

#endif
