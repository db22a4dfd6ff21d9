/* The other frontends of the server that a client is connected to, as far as calls belong there: a client of each, made
 * when an answer first names its endpoint, and which experts are known to be where. One thread at a time, the client's.
 *
 * What a server says is not simply believed: only what is a tcp:// or ipc:// endpoint is followed (ipc:// if the server
 * is on this host itself), no more than SIBLINGS_MAX of them, and the other end has to prove the server's key. */
#ifndef EXPERTD_CLIENT_SIBLINGS_H
#define EXPERTD_CLIENT_SIBLINGS_H

#include "client/expertd.h"

enum { SIBLINGS_MAX = 64 };

struct sibling_route;
struct siblings {
    struct expertd_client *clients[SIBLINGS_MAX];
    size_t count;
    struct sibling_route *routes; /* NULL: none was learnt */
    struct expertd_client_options options;
    char *server_key, *key_file; /* of the options; NULL */
};

/* Copies the options of the client that they are siblings of. -ENOMEM; safe to clear then. */
int siblings_init(struct siblings *siblings, const struct expertd_client_options *options);
void siblings_clear(struct siblings *siblings);

/* The client of an endpoint that the server at `home` has named; made if there is none, within the ZeroMQ context.
 * NULL: it is not followed. *made: it is new. */
struct expertd_client *siblings_get(struct siblings *siblings, const char *home, const char *endpoint, void *context,
                                    bool *made);
/* Where an expert was the last time; NULL: at home, as far as is known. */
struct expertd_client *siblings_find(const struct siblings *siblings, uint64_t uid_hash);
/* client NULL: forgets it. */
void siblings_learn(struct siblings *siblings, uint64_t uid_hash, struct expertd_client *client);

#endif
