/* What clients on this host ask (frontend/local.h): their requests go the way of all others from here on. */
#ifndef EXPERTD_FRONTEND_LOCAL_RECEIVE_H
#define EXPERTD_FRONTEND_LOCAL_RECEIVE_H

#include "frontend/server.h"

/* Takes in who comes, what they ask (a burst of it), and who goes. Whether there was anything. */
bool local_receive(struct server *server, uint64_t now_ns);

#endif
