/* Whether it pays to wait a little before a pool's next batch is taken.
 *
 * Clients that call in a loop come back when they have their answers. If a batch is taken whenever the device is free,
 * they fall into two groups that never meet again: one is computed while the other one queues. But a small batch costs
 * nearly the same with twice the rows, since it reads all of the weights, or waits for launches. So after a batch that
 * was smaller than PACE_FULL_ROWS a pool waits until as many rows are queued as were in it and behind it: for half the
 * time that the batch took at most, and if they do not come, it skips the next few waits, twice as many each time.
 *
 * No clock and no pool in here: times are clock_now_ns(). The runtime's thread only. */
#ifndef EXPERTD_RUNTIME_PACE_H
#define EXPERTD_RUNTIME_PACE_H

#include <stdbool.h>
#include <stdint.h>

enum {
    PACE_FULL_ROWS = 128,     /* from here on a batch costs by the row: more of them in one batch make none faster */
    PACE_LEAST_NS = 30000,    /* shorter waits cost more than they give */
    PACE_LONGEST_NS = 2000000 /* whatever the batch took */
};

struct pace {
    uint64_t until_ns; /* what waits is taken then at the latest; 0: it does not wait */
    uint32_t rows;     /* what it waits for */
    uint32_t skips, next_skips;
};

/* A batch of `rows` rows was answered after took_ns, and queued_rows (about) are there for the next one. */
void pace_completed(struct pace *pace, uint32_t rows, uint32_t queued_rows, uint64_t took_ns, uint64_t now_ns);
/* The next batch was taken, with so many rows. Whether there had been a wait for it. */
bool pace_took(struct pace *pace, uint32_t rows);

#endif
