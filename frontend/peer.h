/* Peers: the clients that have, or lately had, a request here. A peer is known by its routing id, which the ROUTER
 * socket made for its connection. What a peer has not read yet is charged to it, so that one that does not read cannot
 * fill the memory. */
#ifndef EXPERTD_FRONTEND_PEER_H
#define EXPERTD_FRONTEND_PEER_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PEER_ID_SIZE = 255 };

struct peer {
    struct peer *chain;         /* in its hash bucket */
    struct peer *newer, *older; /* by last use */
    uint64_t hash;
    uint32_t references; /* requests that point here */
    uint8_t id_size;
    unsigned char id[PEER_ID_SIZE];
    _Atomic size_t *unsent_total;
    alignas(64) _Atomic size_t unsent; /* bytes; credited by ZeroMQ's threads */
};

struct peers;

/* At most `keep` idle peers are remembered; unsent_max: bytes that all peers together may leave unread. -ENOMEM. */
int peers_create(struct peers **peers, uint32_t keep, size_t unsent_max);
/* After the ZeroMQ context is gone, so that nothing is credited any more. */
void peers_destroy(struct peers **peers);

/* The peer of that routing id, with a reference for the caller. NULL: no memory, or no routing id. */
struct peer *peers_find(struct peers *peers, const void *id, size_t id_size);
void peer_hold(struct peer *peer);
void peer_release(struct peer *peer);
size_t peers_unsent(const struct peers *peers);
uint32_t peers_count(const struct peers *peers);

/* Charges a reply of so many bytes. False: the peer leaves too much unread; the reply is to be dropped. A peer without
 * unsent bytes may always have one. */
bool peer_charge(struct peers *peers, struct peer *peer, size_t bytes);
void peer_credit(struct peer *peer, size_t bytes); /* any thread; the peer may be gone after it */

#endif
