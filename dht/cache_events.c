/* What the node says to the cache. */
#include <string.h>

#include "dht/cache.h"
#include "dht/seal.h"

/* Under which of the prefixes below that are kept the server says that it has something. */
static void follow_claims(struct cache *cache, const struct cache_entry *entry, const struct holding *holding,
                          struct moment now)
{
    for (struct cache_entry *child = entry->children; child; child = child->sibling) {
        if (!holding_claims(holding, child->coordinate))
            continue;
        if (child->want == CACHE_EXACT)
            fetch_want(&cache->fetcher, &holding->peer->fetch, now);
        /* Nobody waits for it there any more, and it would not be heard of otherwise. */
        if (child->level >= CACHE_COMPLETE && !child->fetch.listening)
            fetch_again(&cache->fetcher, &child->fetch, now);
    }
}

/* True if it says something new. */
static bool on_record(struct cache *cache, struct cache_entry *entry, const struct seal *seal, bool expired,
                      struct moment now)
{
    struct record record;
    size_t at;
    bool news = false;
    if (record_decode(&record, seal->payload, seal->size) != 0) {
        cache->counters.ignored_garbled++;
        return false;
    }
    struct holding *holding = cache_entry_holding(entry, seal->server_id, &at);
    if (strcmp(record.prefix, entry->prefix) != 0) {
        cache->counters.ignored_forged++;
    } else if (expired) {
        /* OpenDHT also says so when the peers that it heard of the record are gone. */
        if (holding && holding->sequence == record.sequence)
            holding->forgotten = true;
    } else if (!holding || holding_wants(holding, &record)) {
        if (!seal_valid(seal, SEAL_RECORD))
            cache->counters.ignored_forged++;
        else if (!holding && !(holding = cache_hold(cache, entry, seal->server_id, now)))
            cache->counters.ignored_overflow++;
        else if (holding_take(holding, &record) != 0)
            cache->counters.ignored_garbled++;
        else
            news = true;
        cache->change++;
    } else if (record.sequence == holding->sequence) {
        holding->forgotten = false;
    }
    if (news)
        follow_claims(cache, entry, holding, now);
    record_destroy(&record);
    return news;
}

/* True if it says something new. */
static bool on_heartbeat(struct cache *cache, struct peer *peer, const uint8_t *value, size_t size, struct moment now)
{
    const uint64_t change = peer->change;
    switch (peer_hear(peer, value, size, now)) {
    case PEER_GARBLED:
        cache->counters.ignored_garbled++;
        break;
    case PEER_FORGED:
        cache->counters.ignored_forged++;
        break;
    case PEER_TIME:
        cache->counters.ignored_time++;
        break;
    case PEER_TAKEN:
        /* A heartbeat that only says "still here" changes no view. */
        if (peer->change != change || peer_alive(peer, now) != peer->counted_alive)
            cache->change++;
        peer->counted_alive = peer_alive(peer, now);
        if (peer->alive_until_ns < cache->next_tick_ns)
            cache->next_tick_ns = peer->alive_until_ns;
        return true;
    case PEER_OLD:
        break;
    }
    return false;
}

void cache_on_value(struct cache *cache, uint64_t token, bool expired, const uint8_t *value, size_t size,
                    struct moment now)
{
    struct fetch *fetch = fetcher_find(&cache->fetcher, token);
    struct seal seal;
    bool news = false;
    if (!fetch || (expired && fetch->of_peer))
        return;
    cache->stirred = true;
    if (fetch->of_peer) {
        news = on_heartbeat(cache, fetch->owner, value, size, now);
    } else if (seal_decode(&seal, value, size) != 0) {
        cache->counters.ignored_garbled++;
    } else {
        news = on_record(cache, fetch->owner, &seal, expired, now);
        seal_destroy(&seal);
    }
    if (!expired)
        fetch_heard(&cache->fetcher, fetch, news, now);
}

void cache_on_own(struct cache *cache, const char *prefix, const uint8_t id[SERVER_ID_SIZE], const uint8_t *value,
                  size_t size, struct moment now)
{
    const struct cache_entry *entry = prefix ? table_find(&cache->entries, prefix, strlen(prefix)) : NULL;
    const struct peer *peer = prefix ? NULL : table_find(&cache->peers, id, SERVER_ID_SIZE);
    if (entry || peer)
        cache_on_value(cache, entry ? entry->fetch.token : peer->fetch.token, false, value, size, now);
}

void cache_set_alone(struct cache *cache, bool alone)
{
    cache->stirred |= cache->fetcher.alone != alone;
    cache->fetcher.alone = alone;
}

void cache_on_got(struct cache *cache, uint64_t token, bool ok, struct moment now)
{
    struct fetch *fetch = fetcher_find(&cache->fetcher, token);
    if (fetch)
        fetch_ended(&cache->fetcher, fetch, ok, now);
    cache->stirred = true;
}

void cache_on_connected(struct cache *cache, struct moment now)
{
    struct cache_entry *entry;
    struct peer *peer;
    for (size_t at = 0; (entry = table_next(&cache->entries, &at));) {
        if (entry->fetch.unconfirmed)
            cache_entry_doubt(entry);
        if (entry->fetch.unconfirmed || entry->fetch.state == FETCH_RETRYING)
            fetch_again(&cache->fetcher, &entry->fetch, now);
    }
    for (size_t at = 0; (peer = table_next(&cache->peers, &at));)
        if (peer->fetch.unconfirmed || peer->fetch.state == FETCH_RETRYING)
            fetch_again(&cache->fetcher, &peer->fetch, now);
    cache->stirred = true;
}
