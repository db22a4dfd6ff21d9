/* The frontend's loop: what comes in, what is done, what is due, who is there; and its sleep. */
#ifndef EXPERTD_FRONTEND_LOOP_H
#define EXPERTD_FRONTEND_LOOP_H

#include "frontend/server.h"

/* Serves until a stop signal; then answers what waits with UNAVAILABLE. 0 or -errno. */
int loop_run(struct server *server);

#endif
