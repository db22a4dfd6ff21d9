/* What moves the tasks of a dht on: answers, look-ups and time. One thread at a time, with its dht. */
#ifndef EXPERTD_CLIENT_REMOTE_PROGRESS_H
#define EXPERTD_CLIENT_REMOTE_PROGRESS_H

#include "client/dht.h"

/* Takes in all that there is, and waits for nothing. Afterwards nothing is left that would not wake
 * remote_progress_wait(). */
void remote_progress(struct expertd_dht *dht);
/* Nothing is in flight: neither a task nor a look-up. */
bool remote_progress_idle(const struct expertd_dht *dht);
/* Sleeps until there may be more, at most until end_ns (CLOCK_MONOTONIC). 0, or -EINTR. Right after
 * remote_progress(). */
int remote_progress_wait(struct expertd_dht *dht, uint64_t end_ns);
/* Forgets the look-ups that are on their way. No task may be in LOOKUP. */
void remote_progress_drop(struct expertd_dht *dht);

#endif
