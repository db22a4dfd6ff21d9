/* Results out: from what a pool's runtime is done with to the replies. */
#ifndef EXPERTD_FRONTEND_RESULTS_H
#define EXPERTD_FRONTEND_RESULTS_H

#include "frontend/server.h"

/* Takes the results of the pools that the device's runtime marked done, and answers their requests. Returns how many
 * there were. */
uint32_t results_take(struct server *server, struct device_link *device);
/* The same for all its pools, marked or not: before it is detached, since the runtime finished what it had before it
 * left. */
void results_take_last(struct server *server, struct device_link *device);

#endif
