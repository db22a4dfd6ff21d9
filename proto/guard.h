/* What a server's configuration says of keys: its own, and its clients' (server.key_file, server.clients). */
#ifndef EXPERTD_PROTO_GUARD_H
#define EXPERTD_PROTO_GUARD_H

#include "common/certificate.h"
#include "common/config.h"
#include "common/keyring.h"
#include "proto/zap.h"

struct guard {
    struct certificate own;  /* "" in its keys: there are none, and all is plain */
    struct keyring *keyring; /* NULL then */
    struct zap *zap;
};

/* Reads the keys. 0; -errno, logged with the way out: a key cannot be read. Without a key_file nothing is done. */
int guard_open(struct guard *guard, const struct config_server *config);
bool guard_is_on(const struct guard *guard);
/* Begins to answer for the context, before its first guarded socket. Nothing where there are no keys. */
int guard_watch(struct guard *guard, void *context);
/* zap_guard() with the own key. Nothing where there are no keys. */
int guard_socket(const struct guard *guard, void *socket);
/* Makes a socket, before it connects, a client of this server's own others, with the server's key as its own. Nothing
 * where there are no keys. */
int guard_client_socket(const struct guard *guard, void *socket);
/* After the context was terminated. Nulls. */
void guard_close(struct guard *guard);

#endif
