#include "common/histogram.h"

#include <assert.h>

static const uint64_t bounds[HISTOGRAM_SCALES][HISTOGRAM_BOUNDS] = {
    [HISTOGRAM_TIME] = {100000, 200000, 500000, 1000000, 2000000, 5000000, 10000000, 20000000, 50000000, 100000000,
                        200000000, 500000000, 1000000000, 2000000000, 5000000000, 10000000000},
    [HISTOGRAM_ROWS] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768},
};
static const double units[HISTOGRAM_SCALES] = {[HISTOGRAM_TIME] = 1e9, [HISTOGRAM_ROWS] = 1};

/* One writer: a load and a store are enough, and cheaper than one atomic addition. */
static void bump(_Atomic uint64_t *counter, uint64_t amount)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + amount, memory_order_relaxed);
}

void histogram_add(struct histogram *histogram, enum histogram_scale scale, uint64_t value)
{
    unsigned bucket = 0;
    while (bucket < HISTOGRAM_BOUNDS && value > bounds[scale][bucket])
        bucket++;
    bump(&histogram->counts[bucket], 1);
    bump(&histogram->sum, value);
}

double histogram_bound(enum histogram_scale scale, unsigned i)
{
    assert(i < HISTOGRAM_BOUNDS);
    return (double)bounds[scale][i] / units[scale];
}

double histogram_sum(enum histogram_scale scale, uint64_t sum)
{
    return (double)sum / units[scale];
}
