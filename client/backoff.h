/* The pause before a server that was full is asked for the same again. */
#ifndef EXPERTD_CLIENT_BACKOFF_H
#define EXPERTD_CLIENT_BACKOFF_H

#include <stdint.h>

/* Nanoseconds: never less than the server's hint (retry_after_ms); twice as long after each further refusal, up to a
 * second or the hint, and up to as much again, drawn from *random, so that clients that were refused together do not
 * come back together. Any value of *random will do to begin with; it moves on. Pure else. */
uint64_t backoff_ns(uint32_t hint_ms, uint32_t refusals, uint64_t *random);

#endif
