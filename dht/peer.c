#include "dht/peer.h"

#include <string.h>

#include "dht/prefix.h"
#include "dht/seal.h"

void peer_init(struct peer *peer, const uint8_t id[SERVER_ID_SIZE])
{
    *peer = (struct peer){0};
    memcpy(peer->id, id, SERVER_ID_SIZE);
    heartbeat_key(id, peer->key);
}

void peer_destroy(struct peer *peer)
{
    table_destroy(&peer->excluded);
    heartbeat_destroy(&peer->heartbeat);
}

bool peer_alive(const struct peer *peer, struct moment now)
{
    return now.ns < peer->alive_until_ns;
}

static uint64_t grace_end_ns(const struct peer *peer)
{
    return peer->fetch.news_ns + PEER_GRACE_MS * NS_PER_MS;
}

bool peer_known(const struct peer *peer, struct moment now)
{
    return peer->fetch.sure || (peer_alive(peer, now) && now.ns >= grace_end_ns(peer));
}

uint64_t peer_due_ns(const struct peer *peer, struct moment now)
{
    return peer_alive(peer, now) && !peer_known(peer, now) ? grace_end_ns(peer) : UINT64_MAX;
}

static bool same_exclusions(const struct heartbeat *a, const struct heartbeat *b)
{
    if (a->excluded_count != b->excluded_count)
        return false;
    for (size_t i = 0; i < a->excluded_count; i++)
        if (strcmp(a->excluded[i].prefix, b->excluded[i].prefix) != 0 ||
            !ranges_equal(&a->excluded[i].experts, &b->excluded[i].experts) ||
            !ranges_equal(&a->excluded[i].branches, &b->excluded[i].branches))
            return false;
    return true;
}

static enum peer_result index_exclusions(struct peer *peer)
{
    table_destroy(&peer->excluded);
    for (size_t i = 0; i < peer->heartbeat.excluded_count; i++) {
        struct exclusion *exclusion = &peer->heartbeat.excluded[i];
        const size_t length = strlen(exclusion->prefix);
        /* A server that names a prefix twice has only the first heeded: it hurts itself. */
        if (!table_find(&peer->excluded, exclusion->prefix, length) &&
            table_insert(&peer->excluded, exclusion->prefix, length, exclusion) != 0)
            return PEER_GARBLED;
    }
    return PEER_TAKEN;
}

/* By the wall's clock, and no longer than from now: see "Time" in PROTOCOL-dht.md. */
static uint64_t life_left_ns(const struct heartbeat *heartbeat, struct moment now)
{
    const uint64_t end_ms = heartbeat->published_ms + heartbeat->expiration_ms;
    if (end_ms <= now.wall_ms)
        return 0;
    const uint64_t left_ms = end_ms - now.wall_ms;
    return (left_ms < heartbeat->expiration_ms ? left_ms : heartbeat->expiration_ms) * NS_PER_MS;
}

static enum peer_result take(struct peer *peer, const struct seal *seal, struct moment now)
{
    struct heartbeat heartbeat;
    if (heartbeat_decode(&heartbeat, seal->payload, seal->size) != 0)
        return PEER_GARBLED;
    enum peer_result result = PEER_TAKEN;
    /* Cheap looks come before the signature's check, which costs a tenth of a millisecond. */
    if (peer->heard && heartbeat.sequence <= peer->heartbeat.sequence)
        result = PEER_OLD;
    else if (heartbeat.published_ms > now.wall_ms && heartbeat.published_ms - now.wall_ms > PEER_FUTURE_MS)
        result = PEER_TIME;
    else if (!seal_valid(seal, SEAL_HEARTBEAT))
        result = PEER_FORGED;
    if (result != PEER_TAKEN) {
        heartbeat_destroy(&heartbeat);
        return result;
    }
    if (!peer->heard || heartbeat.records_from != peer->heartbeat.records_from ||
        !same_exclusions(&heartbeat, &peer->heartbeat))
        peer->change++;
    heartbeat_destroy(&peer->heartbeat);
    peer->heartbeat = heartbeat;
    peer->heard = true;
    peer->life_ns = life_left_ns(&heartbeat, now);
    peer->alive_until_ns = peer->life_ns ? now.ns + peer->life_ns : 0;
    return index_exclusions(peer);
}

enum peer_result peer_hear(struct peer *peer, const uint8_t *value, size_t size, struct moment now)
{
    struct seal seal;
    if (seal_decode(&seal, value, size) != 0)
        return PEER_GARBLED;
    const enum peer_result result =
        memcmp(seal.server_id, peer->id, SERVER_ID_SIZE) == 0 ? take(peer, &seal, now) : PEER_FORGED;
    seal_destroy(&seal);
    return result;
}

const struct exclusion *peer_exclusion(const struct peer *peer, const char *prefix, bool *all)
{
    *all = false;
    if (peer->excluded.count == 0)
        return NULL;
    char above[UID_SIZE];
    uint32_t coordinate;
    memcpy(above, prefix, strlen(prefix) + 1);
    while (prefix_parent(above, above, &coordinate)) {
        const struct exclusion *exclusion = table_find(&peer->excluded, above, strlen(above));
        if (exclusion && ranges_contain(&exclusion->branches, coordinate))
            *all = true;
    }
    return table_find(&peer->excluded, prefix, strlen(prefix));
}
