#include "frontend/client_peer.h"

#include <errno.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

#include "common/uid.h"

enum { BUCKETS = 4096 };

struct client_peers {
    struct client_peer *buckets[BUCKETS];
    struct client_peer *newest, *oldest;
    uint32_t count, keep;
    size_t unsent_max;
    alignas(64) _Atomic size_t unsent;
};

int client_peers_create(struct client_peers **peers, uint32_t keep, size_t unsent_max)
{
    *peers = aligned_alloc(64, sizeof **peers);
    if (!*peers)
        return -ENOMEM;
    memset(*peers, 0, sizeof **peers);
    (*peers)->keep = keep;
    (*peers)->unsent_max = unsent_max;
    return 0;
}

void client_peers_destroy(struct client_peers **peers)
{
    if (!*peers)
        return;
    for (struct client_peer *peer = (*peers)->newest, *older; peer; peer = older) {
        older = peer->older;
        free(peer);
    }
    free(*peers);
    *peers = NULL;
}

static void unlink_age(struct client_peers *peers, struct client_peer *peer)
{
    if (peer->newer)
        peer->newer->older = peer->older;
    else
        peers->newest = peer->older;
    if (peer->older)
        peer->older->newer = peer->newer;
    else
        peers->oldest = peer->newer;
}

static void link_newest(struct client_peers *peers, struct client_peer *peer)
{
    peer->newer = NULL;
    peer->older = peers->newest;
    if (peers->newest)
        peers->newest->newer = peer;
    else
        peers->oldest = peer;
    peers->newest = peer;
}

/* Forgets the oldest peers beyond `keep`, as far as nothing points to them. A few looks a call bound the work. */
static void forget_idle(struct client_peers *peers)
{
    for (int looks = 0; looks < 4 && peers->oldest && peers->count > peers->keep; looks++) {
        struct client_peer *peer = peers->oldest;
        unlink_age(peers, peer);
        /* Acquire: pairs with the release in client_peer_credit, after which that thread does not touch the peer. */
        if (peer->references || peer->fd >= 0 || atomic_load_explicit(&peer->unsent, memory_order_acquire)) {
            link_newest(peers, peer);
            continue;
        }
        struct client_peer **link = &peers->buckets[peer->hash % BUCKETS];
        while (*link != peer)
            link = &(*link)->chain;
        *link = peer->chain;
        free(peer);
        peers->count--;
    }
}

struct client_peer *client_peers_find(struct client_peers *peers, const void *id, size_t id_size)
{
    if (id_size == 0 || id_size > CLIENT_PEER_ID_SIZE)
        return NULL;
    const uint64_t hash = uid_hash(id, id_size);
    struct client_peer *peer = peers->buckets[hash % BUCKETS];
    while (peer && (peer->hash != hash || peer->id_size != id_size || memcmp(peer->id, id, id_size) != 0))
        peer = peer->chain;
    if (peer) {
        if (peer != peers->newest) {
            unlink_age(peers, peer);
            link_newest(peers, peer);
        }
        peer->references++;
        return peer;
    }
    peer = aligned_alloc(64, sizeof *peer);
    if (!peer)
        return NULL;
    memset(peer, 0, sizeof *peer);
    peer->hash = hash;
    peer->id_size = (uint8_t)id_size;
    memcpy(peer->id, id, id_size);
    peer->unsent_total = &peers->unsent;
    peer->references = 1;
    peer->fd = -1;
    peer->chain = peers->buckets[hash % BUCKETS];
    peers->buckets[hash % BUCKETS] = peer;
    link_newest(peers, peer);
    peers->count++;
    forget_idle(peers);
    return peer;
}

bool client_peer_is_one_connection(const struct client_peer *peer)
{
    return peer->id_size == 5 && peer->id[0] == 0;
}

void client_peer_hold(struct client_peer *peer)
{
    peer->references++;
}

void client_peer_release(struct client_peer *peer)
{
    peer->references--;
}

size_t client_peers_unsent(const struct client_peers *peers)
{
    return atomic_load_explicit(&peers->unsent, memory_order_relaxed);
}

uint32_t client_peers_count(const struct client_peers *peers)
{
    return peers->count;
}

bool client_peer_charge(struct client_peers *peers, struct client_peer *peer, size_t bytes)
{
    const size_t own = atomic_load_explicit(&peer->unsent, memory_order_relaxed);
    const size_t total = atomic_load_explicit(&peers->unsent, memory_order_relaxed);
    /* A peer may have a quarter of what is still free: one that does not read ends at a fifth of the bound, and the
     * more of them there are, the less each gets, while something is left for everyone who reads. */
    const size_t allowed = total < peers->unsent_max ? (peers->unsent_max - total) / 4 : 0;
    if (own && own + bytes > allowed)
        return false;
    atomic_fetch_add_explicit(&peer->unsent, bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&peers->unsent, bytes, memory_order_relaxed);
    return true;
}

void client_peer_credit(struct client_peer *peer, size_t bytes)
{
    atomic_fetch_sub_explicit(peer->unsent_total, bytes, memory_order_relaxed);
    atomic_fetch_sub_explicit(&peer->unsent, bytes, memory_order_release);
}
