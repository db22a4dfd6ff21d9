#include "dht/cache.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dht/prefix.h"

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
    cache_waiter_wake(&peer->waiters, CACHE_EXACT);
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

static struct peer *add_peer(struct cache *cache, const uint8_t id[SERVER_ID_SIZE])
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
    peer->fetch.expected = FETCH_NODES / 2;
    if (fetch_start(&cache->fetcher, &peer->fetch, peer->key) != 0) {
        table_remove(&cache->peers, peer->id, SERVER_ID_SIZE);
        free(peer);
        return NULL;
    }
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

/* Children go first. */
static void remove_entry(struct cache *cache, struct cache_entry *entry)
{
    while (entry->children)
        remove_entry(cache, entry->children);
    unlink_entry(cache, entry);
    table_remove(&cache->entries, entry->prefix, strlen(entry->prefix));
    fetch_stop(&cache->fetcher, &entry->fetch);
    for (size_t i = 0; i < entry->holdings_count; i++)
        remove_holding(cache, entry->holdings[i]);
    cache_entry_destroy(&entry);
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
        while (entry && (entry->waiters || entry->children || entry == keep))
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

static struct cache_entry *add_entry(struct cache *cache, const char *prefix, struct cache_entry *parent,
                                     uint32_t coordinate)
{
    struct cache_entry *entry = cache_entry_create(prefix, parent, coordinate);
    const size_t length = strlen(prefix);
    if (!entry)
        return NULL;
    if (table_insert(&cache->entries, entry->prefix, length, entry) != 0) {
        cache_entry_destroy(&entry);
        return NULL;
    }
    if (fetch_start(&cache->fetcher, &entry->fetch, entry->prefix) != 0) {
        table_remove(&cache->entries, entry->prefix, length);
        cache_entry_destroy(&entry);
        return NULL;
    }
    link_newest(cache, entry);
    return entry;
}

int cache_look(struct cache *cache, struct cache_entry *entry, bool maybe, struct moment now)
{
    if (entry->view_change == cache->change + 1 && entry->view_maybe == maybe)
        return 0;
    ranges_clear(&entry->experts);
    ranges_clear(&entry->branches);
    for (size_t i = 0; i < entry->holdings_count; i++) {
        struct holding *holding = entry->holdings[i];
        if (!peer_alive(holding->peer, now) && !(maybe && !peer_known(holding->peer, now)))
            continue;
        if (holding_update(holding) != 0 || ranges_append_all(&entry->experts, &holding->experts) != 0 ||
            ranges_append_all(&entry->branches, &holding->branches) != 0)
            return -ENOMEM;
    }
    ranges_normalize(&entry->experts);
    ranges_normalize(&entry->branches);
    entry->view_change = cache->change + 1; /* 0 is "never" */
    entry->view_maybe = maybe;
    return 0;
}

/* The prefix's entry, made the newest, after those above it. 0, -ENOSPC or -ENOMEM. */
static int reach(struct cache *cache, const char *prefix, enum cache_level need, struct moment now,
                 struct cache_entry **entry)
{
    struct cache_entry *found = table_find(&cache->entries, prefix, strlen(prefix));
    struct cache_entry *parent = NULL;
    char above[UID_SIZE];
    uint32_t coordinate = 0;
    if ((!found || found->level < need) && prefix_parent(prefix, above, &coordinate)) {
        const int rc = reach(cache, above, need < CACHE_COMPLETE ? CACHE_NOTHING : CACHE_COMPLETE, now, &parent);
        if (rc != 0)
            return rc;
    }
    if (!found) {
        if (!make_room(cache, parent))
            return -ENOSPC;
        found = add_entry(cache, prefix, parent, coordinate);
        if (!found)
            return -ENOMEM;
        ask_local(cache, &found->fetch, now);
    } else if (found != cache->newest) {
        unlink_entry(cache, found);
        link_newest(cache, found);
    }
    found->used_ns = now.ns;
    if (need > found->want)
        found->want = need;
    if (found->level < need) {
        cache_entry_fetch(found, &cache->fetcher, ++cache->mark, now);
        cache_entry_review(found, &cache->fetcher, ++cache->mark, now);
        cache->stirred = true;
    }
    *entry = found;
    return 0;
}

int cache_find(struct cache *cache, const char *prefix, enum cache_level need, bool counted, struct moment now,
               struct cache_entry **entry)
{
    if (now.ns >= cache->next_tick_ns)
        cache_tick(cache, now); /* so that nobody dead is taken for alive */
    int rc = reach(cache, prefix, need, now, entry);
    if (rc != 0)
        return rc;
    const bool known = (*entry)->level >= need;
    if (counted)
        *(known ? &cache->counters.hits : &cache->counters.misses) += 1;
    if (!known) {
        fetcher_step(&cache->fetcher, now);
        return 0;
    }
    rc = cache_look(cache, *entry, need < CACHE_EXACT, now);
    return rc != 0 ? rc : 1;
}

void cache_wait(struct cache_entry *entry, struct cache_waiter *waiter)
{
    cache_waiter_add(waiter, &entry->waiters);
}

bool cache_settled(struct cache *cache, struct cache_entry *entry, uint32_t coordinate, struct cache_waiter *waiter,
                   struct moment now)
{
    bool settled = true;
    for (size_t i = 0; i < entry->holdings_count; i++) {
        struct holding *holding = entry->holdings[i];
        if (peer_known(holding->peer, now) || holding_update(holding) != 0 ||
            !ranges_contain(&holding->experts, coordinate))
            continue;
        settled = false;
        fetch_want(&cache->fetcher, &holding->peer->fetch, now);
        if (!waiter->at)
            cache_waiter_add(waiter, &holding->peer->waiters);
    }
    if (!settled)
        cache->stirred = true;
    return settled;
}

/* ---- holdings ------------------------------------------------------------------------------------------------------
 */

struct holding *cache_hold(struct cache *cache, struct cache_entry *entry, const uint8_t id[SERVER_ID_SIZE],
                           struct moment now)
{
    struct peer *peer = table_find(&cache->peers, id, SERVER_ID_SIZE);
    if (entry->holdings_count == CACHE_HOLDINGS_MAX)
        return NULL;
    if (!peer && make_room(cache, entry))
        peer = add_peer(cache, id);
    if (!peer)
        return NULL;
    struct holding *holding = holding_create(peer, entry, entry->prefix);
    if (!holding) {
        if (!peer->holdings)
            remove_peer(cache, peer);
        return NULL;
    }
    cache->records++;
    if (cache_entry_add(entry, holding) != 0) {
        remove_holding(cache, holding);
        return NULL;
    }
    if (entry->want == CACHE_EXACT)
        fetch_want(&cache->fetcher, &peer->fetch, now);
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

/* ---- time ----------------------------------------------------------------------------------------------------------
 */

static void sooner(uint64_t *next_ns, uint64_t ns)
{
    if (ns < *next_ns)
        *next_ns = ns;
}

static void tick_peer(struct cache *cache, struct peer *peer, struct moment now, uint64_t *next_ns)
{
    fetch_tick(&cache->fetcher, &peer->fetch, now);
    sooner(next_ns, fetch_due_ns(&cache->fetcher, &peer->fetch));
    const bool alive = peer_alive(peer, now);
    const bool known = peer_known(peer, now);
    if (alive != peer->counted_alive || known != peer->counted_known) {
        peer->counted_alive = alive;
        peer->counted_known = known;
        cache->change++;
    }
    if (known)
        cache_waiter_wake(&peer->waiters, CACHE_EXACT);
    if (peer->fetch.sure && peer->fetch.state == FETCH_IDLE)
        fetch_listen(&cache->fetcher, &peer->fetch, now);
    if (!alive)
        return;
    sooner(next_ns, peer->alive_until_ns);
    sooner(next_ns, peer_due_ns(peer, now));
    /* A heartbeat came by one unacknowledged packet, and may have been lost: ask before it is too late. */
    const uint64_t late_ns = peer->alive_until_ns - peer->life_ns / 4;
    if (now.ns < late_ns)
        sooner(next_ns, late_ns);
    else if (peer->fetch.since_ns < late_ns)
        fetch_again(&cache->fetcher, &peer->fetch, now);
}

/* Records of the dead go when the DHT has forgotten them too. */
static void bury(struct cache *cache, struct cache_entry *entry, struct moment now)
{
    for (size_t at = 0; at < entry->holdings_count;) {
        struct peer *peer = entry->holdings[at]->peer;
        const bool forgotten = entry->holdings[at]->forgotten;
        if (forgotten)
            fetch_want(&cache->fetcher, &peer->fetch, now);
        if (forgotten && peer_known(peer, now) && !peer_alive(peer, now)) {
            drop_holding(cache, entry, at);
            cache->change++;
        } else {
            at++;
        }
    }
}

static void sweep_entry(struct cache *cache, struct cache_entry *entry, struct moment now)
{
    struct fetch *fetch = &entry->fetch;
    const uint64_t idle_s = (now.ns - entry->used_ns) / NS_PER_S;
    const bool empty = entry->level >= CACHE_COMPLETE && entry->holdings_count == 0;
    if (!entry->waiters && !entry->children && idle_s >= (empty ? CACHE_NEGATIVE_S : CACHE_IDLE_S)) {
        remove_entry(cache, entry);
        return;
    }
    bury(cache, entry, now);
    const uint64_t refresh_ns = (fetch->unconfirmed ? 1 : CACHE_REFRESH_S) * NS_PER_S;
    if (fetch->sure && entry->used_ns > fetch->since_ns && now.ns - fetch->since_ns > refresh_ns)
        fetch_again(&cache->fetcher, fetch, now);
}

/* What became known of one may decide others, below it. */
static void review(struct cache *cache, struct moment now, uint64_t *next_ns)
{
    bool risen;
    do {
        risen = false;
        for (struct cache_entry *entry = cache->oldest; entry; entry = entry->newer)
            if (cache_entry_review(entry, &cache->fetcher, ++cache->mark, now) && entry->children)
                risen = true;
    } while (risen);
    for (const struct cache_entry *entry = cache->oldest; entry; entry = entry->newer) {
        sooner(next_ns, cache_entry_due_ns(entry));
        sooner(next_ns, fetch_due_ns(&cache->fetcher, &entry->fetch));
    }
}

uint64_t cache_due_ns(const struct cache *cache)
{
    if (cache->stirred)
        return 0;
    return cache->next_tick_ns < cache->next_sweep_ns ? cache->next_tick_ns : cache->next_sweep_ns;
}

uint64_t cache_tick(struct cache *cache, struct moment now)
{
    struct peer *peer;
    uint64_t next_ns = UINT64_MAX;
    if (now.ns < cache_due_ns(cache))
        return cache_due_ns(cache);
    cache->stirred = false;
    cache->fetcher.nodes = cache->peers.count;
    for (size_t at = 0; (peer = table_next(&cache->peers, &at));)
        tick_peer(cache, peer, now, &next_ns);
    const bool sweep = now.ns >= cache->next_sweep_ns;
    for (struct cache_entry *entry = cache->newest, *older; entry; entry = older) {
        older = entry->older;
        fetch_tick(&cache->fetcher, &entry->fetch, now);
        if (sweep)
            sweep_entry(cache, entry, now);
    }
    if (sweep)
        cache->next_sweep_ns = now.ns + sweep_ns;
    review(cache, now, &next_ns);
    sooner(&next_ns, fetcher_step(&cache->fetcher, now));
    cache->next_tick_ns = next_ns;
    return cache_due_ns(cache);
}

size_t cache_peers_alive(const struct cache *cache, struct moment now)
{
    const struct peer *peer;
    size_t alive = 0;
    for (size_t at = 0; (peer = table_next(&cache->peers, &at));)
        alive += peer_alive(peer, now);
    return alive;
}
