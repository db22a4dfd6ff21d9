#include "dht/cache.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dht/prefix.h"
#include "dht/seal.h"

static const uint64_t sweep_ns = NS_PER_S;

void cache_init(struct cache *cache, const struct fetch_engine *engine, uint64_t tokens_tag, size_t max_keys)
{
    *cache = (struct cache){.max_keys = max_keys};
    fetcher_init(&cache->fetcher, engine, tokens_tag);
}

/* What this node itself has to say about a new key. */
static void ask_local(const struct cache *cache, const struct fetch *fetch, struct moment now)
{
    const struct fetch_engine *engine = &cache->fetcher.engine;
    if (engine->local)
        engine->local(engine->context, fetch->key, now);
}

/* ---- peers ---------------------------------------------------------------------------------------------------------
 */

static void remove_peer(struct cache *cache, struct peer *peer)
{
    table_remove(&cache->peers, peer->id, SERVER_ID_SIZE);
    fetch_stop(&cache->fetcher, &peer->fetch);
    peer_destroy(peer);
    free(peer);
}

static void remove_holding(struct cache *cache, struct holding *holding)
{
    struct peer *peer = holding->peer;
    cache->records--;
    holding_destroy(&holding);
    if (!peer->holdings)
        remove_peer(cache, peer);
}

static struct peer *add_peer(struct cache *cache, const uint8_t id[SERVER_ID_SIZE], struct moment now)
{
    struct peer *peer = malloc(sizeof *peer);
    if (!peer)
        return NULL;
    peer_init(peer, id);
    if (table_insert(&cache->peers, peer->id, SERVER_ID_SIZE, peer) != 0) {
        free(peer);
        return NULL;
    }
    peer->fetch.owner = peer;
    peer->fetch.of_peer = true;
    if (fetch_start(&cache->fetcher, &peer->fetch, peer->key, now) != 0) {
        table_remove(&cache->peers, peer->id, SERVER_ID_SIZE);
        free(peer);
        return NULL;
    }
    cache->next_tick_ns = 0; /* the tick starts what is queued */
    return peer;
}

/* ---- entries -------------------------------------------------------------------------------------------------------
 */

static void unlink_entry(struct cache *cache, struct cache_entry *entry)
{
    *(entry->newer ? &entry->newer->older : &cache->newest) = entry->older;
    *(entry->older ? &entry->older->newer : &cache->oldest) = entry->newer;
}

static void link_newest(struct cache *cache, struct cache_entry *entry)
{
    entry->newer = NULL;
    entry->older = cache->newest;
    *(cache->newest ? &cache->newest->newer : &cache->oldest) = entry;
    cache->newest = entry;
}

static void free_entry(struct cache_entry *entry)
{
    free(entry->holdings);
    ranges_destroy(&entry->experts);
    ranges_destroy(&entry->branches);
    free(entry);
}

static void remove_entry(struct cache *cache, struct cache_entry *entry)
{
    unlink_entry(cache, entry);
    table_remove(&cache->entries, entry->prefix, strlen(entry->prefix));
    fetch_stop(&cache->fetcher, &entry->fetch);
    for (size_t i = 0; i < entry->holdings_count; i++)
        remove_holding(cache, entry->holdings[i]);
    free_entry(entry);
}

void cache_destroy(struct cache *cache)
{
    while (cache->newest)
        remove_entry(cache, cache->newest);
    table_destroy(&cache->entries);
    table_destroy(&cache->peers);
    fetcher_destroy(&cache->fetcher);
}

/* Room for one more key, but not at the cost of `keep`. */
static bool make_room(struct cache *cache, const struct cache_entry *keep)
{
    struct cache_entry *entry = cache->oldest;
    while (cache->entries.count + cache->peers.count >= cache->max_keys) {
        while (entry && (entry->waiters || entry == keep))
            entry = entry->newer;
        if (!entry)
            return false;
        struct cache_entry *victim = entry;
        entry = entry->newer;
        remove_entry(cache, victim);
        cache->counters.evictions++;
    }
    return true;
}

static struct cache_entry *add_entry(struct cache *cache, const char *prefix, struct moment now)
{
    struct cache_entry *entry = calloc(1, sizeof *entry);
    const size_t length = strlen(prefix);
    if (!entry)
        return NULL;
    memcpy(entry->prefix, prefix, length + 1);
    entry->fetch.owner = entry;
    if (table_insert(&cache->entries, entry->prefix, length, entry) != 0) {
        free(entry);
        return NULL;
    }
    if (fetch_start(&cache->fetcher, &entry->fetch, entry->prefix, now) != 0) {
        table_remove(&cache->entries, entry->prefix, length);
        free(entry);
        return NULL;
    }
    link_newest(cache, entry);
    return entry;
}

/* Known with everything that its answer depends on. */
static bool entry_known(struct cache_entry *entry)
{
    if (entry->settled || !entry->fetch.known)
        return entry->settled;
    for (size_t i = 0; i < entry->holdings_count; i++)
        if (!entry->holdings[i]->peer->fetch.known)
            return false;
    entry->settled = true;
    return true;
}

static void wake_if_known(struct cache_entry *entry)
{
    if (!entry->waiters || !entry_known(entry))
        return;
    struct cache_waiter *waiter = entry->waiters;
    entry->waiters = NULL;
    for (struct cache_waiter *next; waiter; waiter = next) {
        next = waiter->next;
        waiter->at = NULL;
        waiter->wake(waiter);
    }
}

int cache_look(struct cache *cache, struct cache_entry *entry, struct moment now)
{
    if (entry->view_change == cache->change + 1)
        return 0;
    ranges_clear(&entry->experts);
    ranges_clear(&entry->branches);
    for (size_t i = 0; i < entry->holdings_count; i++) {
        struct holding *holding = entry->holdings[i];
        if (!peer_alive(holding->peer, now))
            continue;
        if (holding_update(holding) != 0 || ranges_append_all(&entry->experts, &holding->experts) != 0 ||
            ranges_append_all(&entry->branches, &holding->branches) != 0)
            return -ENOMEM;
    }
    ranges_normalize(&entry->experts);
    ranges_normalize(&entry->branches);
    entry->view_change = cache->change + 1; /* 0 is "never" */
    return 0;
}

int cache_find(struct cache *cache, const char *prefix, bool counted, struct moment now, struct cache_entry **entry)
{
    struct cache_entry *found = table_find(&cache->entries, prefix, strlen(prefix));
    if (!found) {
        if (!make_room(cache, NULL))
            return -ENOSPC;
        found = add_entry(cache, prefix, now);
        if (!found)
            return -ENOMEM;
        ask_local(cache, &found->fetch, now);
    } else if (found != cache->newest) {
        unlink_entry(cache, found);
        link_newest(cache, found);
    }
    found->used_ns = now.ns;
    *entry = found;
    if (now.ns >= cache->next_tick_ns)
        cache_tick(cache, now); /* so that nobody dead is taken for alive; it never removes the newest */
    const bool known = entry_known(found);
    if (counted)
        *(known ? &cache->counters.hits : &cache->counters.misses) += 1;
    if (!known) {
        fetcher_step(&cache->fetcher, now);
        return 0;
    }
    const int rc = cache_look(cache, found, now);
    return rc != 0 ? rc : 1;
}

void cache_wait(struct cache_entry *entry, struct cache_waiter *waiter)
{
    waiter->next = entry->waiters;
    waiter->at = &entry->waiters;
    if (waiter->next)
        waiter->next->at = &waiter->next;
    entry->waiters = waiter;
}

void cache_unwait(struct cache_waiter *waiter)
{
    if (!waiter->at)
        return;
    *waiter->at = waiter->next;
    if (waiter->next)
        waiter->next->at = waiter->at;
    waiter->at = NULL;
}

const struct peer *cache_replica(const struct cache_entry *entry, uint32_t coordinate, struct moment now, size_t *at)
{
    while (*at < entry->holdings_count) {
        const struct holding *holding = entry->holdings[(*at)++];
        if (peer_alive(holding->peer, now) && ranges_contain(&holding->experts, coordinate))
            return holding->peer;
    }
    return NULL;
}

/* ---- events --------------------------------------------------------------------------------------------------------
 */

static struct holding *find_holding(const struct cache_entry *entry, const uint8_t id[SERVER_ID_SIZE], size_t *at)
{
    for (*at = 0; *at < entry->holdings_count; ++*at)
        if (memcmp(entry->holdings[*at]->peer->id, id, SERVER_ID_SIZE) == 0)
            return entry->holdings[*at];
    return NULL;
}

static struct holding *add_holding(struct cache *cache, struct cache_entry *entry, const uint8_t id[SERVER_ID_SIZE],
                                   struct moment now)
{
    if (entry->holdings_count == CACHE_HOLDINGS_MAX)
        return NULL;
    if (entry->holdings_count == entry->holdings_capacity) {
        const size_t capacity = entry->holdings_capacity ? 2 * entry->holdings_capacity : 4;
        struct holding **holdings = realloc(entry->holdings, capacity * sizeof(struct holding *));
        if (!holdings)
            return NULL;
        entry->holdings = holdings;
        entry->holdings_capacity = capacity;
    }
    struct peer *peer = table_find(&cache->peers, id, SERVER_ID_SIZE);
    if (!peer && make_room(cache, entry))
        peer = add_peer(cache, id, now);
    if (!peer)
        return NULL;
    struct holding *holding = holding_create(peer, entry, entry->prefix);
    if (!holding) {
        if (!peer->holdings)
            remove_peer(cache, peer);
        return NULL;
    }
    entry->holdings[entry->holdings_count++] = holding;
    cache->records++;
    if (!peer->heard)
        ask_local(cache, &peer->fetch, now);
    return holding;
}

static void drop_holding(struct cache *cache, struct cache_entry *entry, size_t at)
{
    struct holding *holding = entry->holdings[at];
    entry->holdings[at] = entry->holdings[--entry->holdings_count];
    remove_holding(cache, holding);
}

static void on_record(struct cache *cache, struct cache_entry *entry, const struct seal *seal, bool expired,
                      struct moment now)
{
    struct record record;
    size_t at;
    if (record_decode(&record, seal->payload, seal->size) != 0) {
        cache->counters.ignored_garbled++;
        return;
    }
    struct holding *holding = find_holding(entry, seal->server_id, &at);
    if (strcmp(record.prefix, entry->prefix) != 0) {
        cache->counters.ignored_forged++;
    } else if (expired) {
        if (holding && holding_forget(holding, &record))
            drop_holding(cache, entry, at);
        cache->change++;
    } else if (!holding || holding_wants(holding, &record)) {
        if (!seal_valid(seal, SEAL_RECORD))
            cache->counters.ignored_forged++;
        else if (!holding && !(holding = add_holding(cache, entry, seal->server_id, now)))
            cache->counters.ignored_overflow++;
        else if (holding_take(holding, &record) != 0)
            cache->counters.ignored_garbled++;
        cache->change++;
    }
    record_destroy(&record);
}

static void on_heartbeat(struct cache *cache, struct peer *peer, const uint8_t *value, size_t size, struct moment now)
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
        cache->next_tick_ns = 0;
        break;
    case PEER_OLD:
        break;
    }
}

void cache_on_value(struct cache *cache, uint64_t token, bool expired, const uint8_t *value, size_t size,
                    struct moment now)
{
    struct fetch *fetch = fetcher_find(&cache->fetcher, token);
    struct seal seal;
    if (!fetch)
        return;
    if (!fetch->known && !fetch->heard)
        cache->next_tick_ns = 0; /* its grace begins */
    if (!expired)
        fetch_heard(fetch);
    if (fetch->of_peer) {
        if (!expired)
            on_heartbeat(cache, fetch->owner, value, size, now);
    } else if (seal_decode(&seal, value, size) != 0) {
        cache->counters.ignored_garbled++;
    } else {
        on_record(cache, fetch->owner, &seal, expired, now);
        seal_destroy(&seal);
    }
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
    if (cache->fetcher.alone != alone)
        cache->next_tick_ns = 0;
    cache->fetcher.alone = alone;
}

static void became_known(const struct fetch *fetch)
{
    if (!fetch->of_peer) {
        wake_if_known(fetch->owner);
        return;
    }
    for (struct holding *h = ((struct peer *)fetch->owner)->holdings; h; h = h->next)
        wake_if_known(h->entry);
}

void cache_on_got(struct cache *cache, uint64_t token, bool ok, struct moment now)
{
    struct fetch *fetch = fetcher_find(&cache->fetcher, token);
    if (fetch && fetch_ended(&cache->fetcher, fetch, ok, now))
        became_known(fetch);
    cache->next_tick_ns = 0;
}

void cache_on_connected(struct cache *cache, struct moment now)
{
    struct cache_entry *entry;
    struct peer *peer;
    for (size_t at = 0; (entry = table_next(&cache->entries, &at));)
        if (entry->fetch.unconfirmed || entry->fetch.state == FETCH_RETRYING)
            fetch_again(&cache->fetcher, &entry->fetch, now);
    for (size_t at = 0; (peer = table_next(&cache->peers, &at));)
        if (peer->fetch.unconfirmed || peer->fetch.state == FETCH_RETRYING)
            fetch_again(&cache->fetcher, &peer->fetch, now);
    fetcher_step(&cache->fetcher, now);
}

/* ---- time ----------------------------------------------------------------------------------------------------------
 */

static void sooner(uint64_t *next_ns, uint64_t ns)
{
    if (ns < *next_ns)
        *next_ns = ns;
}

static void tick_peer(struct cache *cache, struct peer *peer, struct moment now, uint64_t *next_ns)
{
    if (fetch_tick(&cache->fetcher, &peer->fetch, now))
        became_known(&peer->fetch);
    sooner(next_ns, fetch_due_ns(&cache->fetcher, &peer->fetch));
    const bool alive = peer_alive(peer, now);
    if (alive != peer->counted_alive) {
        peer->counted_alive = alive;
        cache->change++;
    }
    if (!alive)
        return;
    sooner(next_ns, peer->alive_until_ns);
    /* A heartbeat came by one unacknowledged packet, and may have been lost: ask before it is too late. */
    const uint64_t late_ns = peer->alive_until_ns - peer->life_ns / 4;
    if (now.ns < late_ns)
        sooner(next_ns, late_ns);
    else if (peer->fetch.since_ns < late_ns)
        fetch_again(&cache->fetcher, &peer->fetch, now);
}

static void sweep_entry(struct cache *cache, struct cache_entry *entry, struct moment now)
{
    const uint64_t idle_s = (now.ns - entry->used_ns) / NS_PER_S;
    const bool empty = entry->fetch.known && entry->holdings_count == 0;
    if (!entry->waiters && entry != cache->newest && idle_s >= (empty ? CACHE_NEGATIVE_S : CACHE_IDLE_S)) {
        remove_entry(cache, entry);
        return;
    }
    const uint64_t refresh_ns = (entry->fetch.unconfirmed ? 1 : CACHE_REFRESH_S) * NS_PER_S;
    if (entry->used_ns > entry->fetch.since_ns && now.ns - entry->fetch.since_ns > refresh_ns)
        fetch_again(&cache->fetcher, &entry->fetch, now);
}

uint64_t cache_tick(struct cache *cache, struct moment now)
{
    struct peer *peer;
    uint64_t next_ns = UINT64_MAX;
    const bool sweep = now.ns >= cache->next_sweep_ns;
    if (now.ns < cache->next_tick_ns && !sweep)
        return cache->next_tick_ns < cache->next_sweep_ns ? cache->next_tick_ns : cache->next_sweep_ns;
    for (size_t at = 0; (peer = table_next(&cache->peers, &at));)
        tick_peer(cache, peer, now, &next_ns);
    for (struct cache_entry *entry = cache->newest, *older; entry; entry = older) {
        older = entry->older;
        if (fetch_tick(&cache->fetcher, &entry->fetch, now))
            became_known(&entry->fetch);
        sooner(&next_ns, fetch_due_ns(&cache->fetcher, &entry->fetch));
        if (sweep)
            sweep_entry(cache, entry, now);
    }
    if (sweep)
        cache->next_sweep_ns = now.ns + sweep_ns;
    fetcher_step(&cache->fetcher, now);
    cache->next_tick_ns = next_ns;
    return next_ns < cache->next_sweep_ns ? next_ns : cache->next_sweep_ns;
}

size_t cache_peers_alive(const struct cache *cache, struct moment now)
{
    const struct peer *peer;
    size_t alive = 0;
    for (size_t at = 0; (peer = table_next(&cache->peers, &at));)
        alive += peer_alive(peer, now);
    return alive;
}
