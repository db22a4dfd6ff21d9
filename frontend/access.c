#include "frontend/access.h"

#include <string.h>

#include "frontend/local_client.h"

/* The least role that may use a method. */
static enum role needed(Expertd__Method method)
{
    switch ((int)method) {
    case EXPERTD__METHOD__PING:
    case EXPERTD__METHOD__LIST:
    case EXPERTD__METHOD__INFO:
    case EXPERTD__METHOD__FORWARD:
        return ROLE_READER;
    case EXPERTD__METHOD__BACKWARD:
    case EXPERTD__METHOD__STATS:
        return ROLE_TRAINER;
    default:
        return ROLE_OPERATOR;
    }
}

/* A peer is a routing id, which its client may choose: so the key is each message's. */
static enum role role_of(struct server *server, struct client_peer *peer)
{
    /* On this host: the kernel knows whose it is. */
    if (peer->local)
        return peer->local->owner ? ROLE_OPERATOR : ROLE_TRAINER;
    struct keyring *keyring = server->endpoint.guard.keyring;
    const char *key = zmq_msg_gets(&server->incoming.id, "User-Id");
    const uint64_t generation = keyring_generation(keyring);
    if (!key || !certificate_is_key(key))
        return ROLE_NONE;
    if (peer->role_generation != generation || strcmp(peer->key, key) != 0) {
        peer->role = keyring_role(keyring, key);
        peer->role_generation = generation;
        memcpy(peer->key, key, sizeof peer->key);
    }
    return peer->role;
}

bool access_allows(struct server *server, struct client_peer *peer, Expertd__Method method, const char **why,
                   bool *known)
{
    static const char *const refusals[] = {
        [ROLE_NONE] = "this client's key is not known here any more",
        [ROLE_READER] = "this client's key is a reader's: it may ask for forwards, and about experts",
        [ROLE_TRAINER] = "this client is a trainer: this method is an operator's",
        [ROLE_OPERATOR] = "",
    };
    *known = true;
    if (!guard_is_on(&server->endpoint.guard))
        return true;
    const enum role role = role_of(server, peer);
    *why = refusals[role];
    *known = role != ROLE_NONE;
    return role >= needed(method);
}
