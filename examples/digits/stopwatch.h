/* How long something took. */
#ifndef EXPERTD_EXAMPLES_DIGITS_STOPWATCH_H
#define EXPERTD_EXAMPLES_DIGITS_STOPWATCH_H

#include <stdint.h>

/* Of the monotonic clock. */
uint64_t stopwatch_ns(void);
double stopwatch_seconds(uint64_t since_ns);

#endif
