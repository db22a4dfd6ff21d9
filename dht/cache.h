/* What this node knows of the DHT: prefixes that were asked for, and the servers that host something under them. Both
 * are got once and then kept fresh by listening, so that a repeated look-up needs no network; that nothing is hosted is
 * kept too. With a prefix those above it are kept, since they say who has something under it. The least recently used
 * prefix is forgotten when there is no room, a prefix under which nothing lives after CACHE_NEGATIVE_S without a
 * question, and any after CACHE_IDLE_S.
 *
 * No locks: the thread that feeds it events asks it. Time comes from outside. */
#ifndef EXPERTD_DHT_CACHE_H
#define EXPERTD_DHT_CACHE_H

#include "dht/cache_entry.h"

enum {
    CACHE_NEGATIVE_S = 10,
    CACHE_IDLE_S = 600,
    CACHE_REFRESH_S = 60,      /* an asked prefix is got again, in the background, when the last get is older */
    CACHE_HOLDINGS_MAX = 4096, /* servers under one prefix */
};

struct cache_counters {
    uint64_t hits, misses, evictions;
    uint64_t ignored_forged, ignored_garbled, ignored_time, ignored_overflow;
};

struct cache {
    struct fetcher fetcher;
    struct table entries; /* prefix -> struct cache_entry */
    struct table peers;   /* server id -> struct peer */
    struct cache_entry *newest, *oldest;
    size_t max_keys; /* entries and peers together */
    size_t records;
    uint64_t change;       /* grows whenever a view may have changed */
    bool stirred;          /* something happened since the last tick */
    uint64_t mark;         /* the last with which peers were marked */
    uint64_t next_tick_ns; /* nothing to do before */
    uint64_t next_sweep_ns;
    struct cache_counters counters;
};

void cache_init(struct cache *cache, const struct fetch_engine *engine, uint64_t tokens_tag, size_t max_keys);
void cache_destroy(struct cache *cache);

/* Asks for a prefix (a valid one). 1: it is worth `need`, and *entry's view is right until the next event or tick, with
 * servers of which it is not known whether they live unless need is CACHE_EXACT; 0: it is being found out; -ENOSPC: no
 * room, since all that is kept is waited for; -ENOMEM. `counted`: as a hit or a miss. The entry stays where it is until
 * the next cache_find, event or tick, and as long as it is waited for. */
int cache_find(struct cache *cache, const char *prefix, enum cache_level need, bool counted, struct moment now,
               struct cache_entry **entry);
/* Makes the view of an entry right as far as it goes; maybe: with those servers. 0 or -ENOMEM. */
int cache_look(struct cache *cache, struct cache_entry *entry, bool maybe, struct moment now);
/* To be woken when the entry is worth waiter->level. */
void cache_wait(struct cache_entry *entry, struct cache_waiter *waiter);
/* Whether it is known of all servers that have the complete entry's expert whether they live. If not, that is being
 * found out, and the waiter is woken when more is known. */
bool cache_settled(struct cache *cache, struct cache_entry *entry, uint32_t coordinate, struct cache_waiter *waiter,
                   struct moment now);

/* Events of the node whose tokens have the cache's tag. */
void cache_on_value(struct cache *cache, uint64_t token, bool expired, const uint8_t *value, size_t size,
                    struct moment now);
void cache_on_got(struct cache *cache, uint64_t token, bool ok, struct moment now);
/* What this node has just published under a prefix (or, without one, as a heartbeat of the server): without the detour
 * by the network, and also while there is none. */
void cache_on_own(struct cache *cache, const char *prefix, const uint8_t id[SERVER_ID_SIZE], const uint8_t *value,
                  size_t size, struct moment now);
/* Whether peers answer at all. */
void cache_set_alone(struct cache *cache, bool alone);
/* Peers answer again: what was only presumed is got anew. */
void cache_on_connected(struct cache *cache, struct moment now);
/* A new place for what a server has under a prefix; it has none there yet. NULL: no room, or no memory. */
struct holding *cache_hold(struct cache *cache, struct cache_entry *entry, const uint8_t id[SERVER_ID_SIZE],
                           struct moment now);
/* Time passes: call when it is due, and after events. Returns when it is due next. */
uint64_t cache_tick(struct cache *cache, struct moment now);
uint64_t cache_due_ns(const struct cache *cache);
size_t cache_peers_alive(const struct cache *cache, struct moment now);

#endif
