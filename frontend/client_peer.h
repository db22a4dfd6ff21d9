/* Peers: the clients that have, or lately had, a request here. A peer is known by its routing id, which the ROUTER
 * socket made for its connection. What a peer has not read yet is charged to it, so that one that does not read cannot
 * fill the memory. */
#ifndef EXPERTD_FRONTEND_CLIENT_PEER_H
#define EXPERTD_FRONTEND_CLIENT_PEER_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/certificate.h"
#include "common/keyring.h"

enum { CLIENT_PEER_ID_SIZE = 255 };

struct local_client;
struct client_peer {
    struct client_peer *chain;         /* in its hash bucket */
    struct client_peer *newer, *older; /* by last use */
    uint64_t hash;
    uint32_t references;        /* requests that point here */
    struct local_client *local; /* its connection on this host, while there is one (frontend/local.h) */
    int fd;                     /* of its connection (frontend/connections.h); -1: not known */
    /* By the key of its last message; "": none (frontend/access.h). */
    char key[CERTIFICATE_KEY_SIZE];
    enum role role;
    uint64_t role_generation;
    bool gone; /* its connection has ended, and it cannot come back */
    uint8_t id_size;
    unsigned char id[CLIENT_PEER_ID_SIZE];
    _Atomic size_t *unsent_total;
    alignas(64) _Atomic size_t unsent; /* bytes; credited by ZeroMQ's threads */
};

struct client_peers;

/* At most `keep` peers without connection and requests are remembered; unsent_max: bytes that all peers together may
 * leave unread. -ENOMEM. */
int client_peers_create(struct client_peers **peers, uint32_t keep, size_t unsent_max);
/* After the ZeroMQ context is gone, so that nothing is credited any more. */
void client_peers_destroy(struct client_peers **peers);

/* The peer of that routing id, with a reference for the caller. NULL: no memory, or no routing id. */
struct client_peer *client_peers_find(struct client_peers *peers, const void *id, size_t id_size);
/* Whether it is one connection's: its routing id is ZeroMQ's, not of its own choice. */
bool client_peer_is_one_connection(const struct client_peer *peer);
void client_peer_hold(struct client_peer *peer);
void client_peer_release(struct client_peer *peer);
size_t client_peers_unsent(const struct client_peers *peers);
uint32_t client_peers_count(const struct client_peers *peers);

/* Charges a reply of so many bytes. False: the peer leaves too much unread; the reply is to be dropped. A peer without
 * unsent bytes may always have one. */
bool client_peer_charge(struct client_peers *peers, struct client_peer *peer, size_t bytes);
void client_peer_credit(struct client_peer *peer, size_t bytes); /* any thread; the peer may be gone after it */

#endif
