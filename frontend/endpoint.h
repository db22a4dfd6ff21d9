/* The frontend's socket: made, set up and bound. */
#ifndef EXPERTD_FRONTEND_ENDPOINT_H
#define EXPERTD_FRONTEND_ENDPOINT_H

#include "common/config.h"

/* A context and a ROUTER socket that is bound to every endpoint of `listen`; each is logged as "listening on
 * <endpoint>", with the port that a `*` became. 0 or -errno, and then nothing is left; logs why. */
int endpoint_open(const struct config_frontend *config, void **context, void **socket);
/* Closes both; what clients have not read yet is sent for at most linger_ms. Nulls. */
void endpoint_close(void **context, void **socket, int linger_ms);

#endif
