#include "examples/digits/stopwatch.h"

#include <time.h>

uint64_t stopwatch_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

double stopwatch_seconds(uint64_t since_ns)
{
    return (double)(stopwatch_ns() - since_ns) / 1e9;
}
