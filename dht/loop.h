/* The process: an agent, the service that answers look-ups, and the watch on the frontend, in one poll. One thread;
 * OpenDHT and ZeroMQ have theirs, and reach this one through an eventfd and sockets. */
#ifndef EXPERTD_DHT_LOOP_H
#define EXPERTD_DHT_LOOP_H

#include "common/config.h"

struct loop;

/* Joins the DHT and binds the service. 0 or -errno, then a message was logged. */
int loop_create(struct loop **loop, const struct config *config);
/* Until a stop signal; then says farewell to the DHT (for a second at most). 0 or -errno. */
int loop_run(struct loop *loop);
void loop_destroy(struct loop **loop);

#endif
