/* The other frontends of the server that a client is connected to, as far as calls belong there: a client of each, made
 * when an answer first names its endpoint, and which experts are known to be where. One thread at a time, the client's.
 *
 * What a server says is not simply believed: only what is a tcp:// or ipc:// endpoint is followed (ipc:// if the server
 * is on this host itself), no more than SIBLINGS_MAX of them, and the other end has to prove the server's key. */
#ifndef EXPERTD_CLIENT_SIBLINGS_H
#define EXPERTD_CLIENT_SIBLINGS_H

#include <stdbool.h>

#include "client/expertd.h"

enum { SIBLINGS_MAX = 64 };

struct sibling_route;
struct siblings {
    struct expertd_client *clients[SIBLINGS_MAX];
    const char *endpoints[SIBLINGS_MAX]; /* the clients' own */
    size_t count;
    struct sibling_route *routes; /* NULL: none was learnt */
    struct expertd_client_options options;
    char *server_key, *key_file; /* of the options; NULL */
};

/* Copies the options of the client that they are siblings of. -ENOMEM; safe to clear then. */
int siblings_init(struct siblings *siblings, const struct expertd_client_options *options);
void siblings_clear(struct siblings *siblings); /* after the clients were destroyed */

/* The client of an endpoint; NULL. */
struct expertd_client *siblings_at(const struct siblings *siblings, const char *endpoint);
/* Whether there may be one of an endpoint that the server at `home` has named: else it is not followed. */
bool siblings_may_add(const struct siblings *siblings, const char *home, const char *endpoint);
/* One that was made with the options here; its endpoint is the client's own text. */
void siblings_add(struct siblings *siblings, struct expertd_client *client, const char *endpoint);
/* Where an expert was the last time; NULL: at home, as far as is known. */
struct expertd_client *siblings_find(const struct siblings *siblings, uint64_t uid_hash);
/* client NULL: forgets it. */
void siblings_learn(struct siblings *siblings, uint64_t uid_hash, struct expertd_client *client);

#endif
