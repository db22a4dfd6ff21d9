/* The frontend, whole: its parts are made here, and unmade. (frontend/loop.h moves them.) */
#ifndef EXPERTD_FRONTEND_FRONTEND_H
#define EXPERTD_FRONTEND_FRONTEND_H

#include "frontend/server.h"

/* Binds, and attaches to what is there. Keeps config, and owner_fd, of owner_acquire. `whole` is what config is a part
 * of where there are several frontends, and else the same. 0 or -errno; logs why. */
int frontend_create(struct server **server, const struct config *config, const struct config *whole, int owner_fd);
void frontend_destroy(struct server **server);

#endif
