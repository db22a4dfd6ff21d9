/* The frontend's socket: made, set up and bound. */
#ifndef EXPERTD_FRONTEND_ENDPOINT_H
#define EXPERTD_FRONTEND_ENDPOINT_H

#include "common/config.h"
#include "proto/binding.h"
#include "proto/guard.h"

struct connections;
struct endpoint {
    void *context, *socket;
    struct connections *connections;
    struct bindings bindings;
    struct guard guard; /* who may connect; its address stays */
};

/* A context and a ROUTER socket that is bound to every endpoint of `listen`, with its connections; each is logged as
 * "listening on <endpoint>", with the port that a `*` became. frame_max: bytes. With a key of the
 * server it takes encrypted connections of known clients alone. 0 or -errno, and then nothing is left;
 * logs why. */
int endpoint_open(struct endpoint *endpoint, const struct config *config, uint64_t frame_max);
/* One more to listen on, without a line in the log. 0 or -errno. */
int endpoint_listen(struct endpoint *endpoint, const char *where);
/* Now and then: UNIX sockets whose names were removed are made anew. */
void endpoint_keep(struct endpoint *endpoint);
/* Closes all; what clients have not read yet is sent for at most linger_ms. Nulls. */
void endpoint_close(struct endpoint *endpoint, int linger_ms);

#endif
