/* The process: an agent, the service that answers look-ups, and the watch on the frontend, in one poll. One thread;
 * libtorrent and ZeroMQ have theirs, and reach this one through an eventfd and sockets. */
#ifndef EXPERTD_DHT_LOOP_H
#define EXPERTD_DHT_LOOP_H

#include "common/config.h"

struct loop;

/* Joins the DHT and binds the service. Keeps config; owner_fd is of the role's lock, whose name is looked after from
 * then on. 0 or -errno, then a message was logged. */
int loop_create(struct loop **loop, const struct config *config, int owner_fd);
/* Until a stop signal; then says farewell to those who know this server. 0; or -errno, logged, such as -EBUSY: another
 * process has the role by now. */
int loop_run(struct loop *loop);
void loop_destroy(struct loop **loop);

#endif
