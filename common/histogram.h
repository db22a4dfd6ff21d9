/* Histograms in shared memory: one process writes, any reads. Two scales, whose bounds never change, so that figures of
 * different processes and versions add up: times (1-2-5 steps from 100 us to 10 s) and rows (powers of two). */
#ifndef EXPERTD_COMMON_HISTOGRAM_H
#define EXPERTD_COMMON_HISTOGRAM_H

#include <stdatomic.h>
#include <stdint.h>

enum {
    HISTOGRAM_BOUNDS = 16,
    HISTOGRAM_BUCKETS, /* the last one: above all bounds */
};

enum histogram_scale {
    HISTOGRAM_TIME, /* values in ns; bounds in s */
    HISTOGRAM_ROWS, /* values and bounds in rows */
    HISTOGRAM_SCALES,
};

/* All zero is empty. */
struct histogram {
    _Atomic uint64_t counts[HISTOGRAM_BUCKETS]; /* of the values above the bound before, up to this bound */
    _Atomic uint64_t sum;                       /* of the values: ns, or rows */
};

/* The only writer. Some nanoseconds. */
void histogram_add(struct histogram *histogram, enum histogram_scale scale, uint64_t value);

/* The inclusive upper bound of bucket i < HISTOGRAM_BOUNDS, in the scale's unit (s, rows); ascending. */
double histogram_bound(enum histogram_scale scale, unsigned i);
/* A sum in the scale's unit. */
double histogram_sum(enum histogram_scale scale, uint64_t sum);

#endif
