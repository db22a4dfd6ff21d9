/* What the cache has under one prefix, and how much that is worth.
 *
 *     NOTHING -> GUESS      values have come, and a pause: enough to go on with, not to answer with
 *             -> GOT        its own get is sure that it has brought all: enough to say who hosts something
 *             -> COMPLETE   every record that there is has come: enough to say that nobody does
 *             -> EXACT      and of each of their servers it is known whether it lives
 *
 * It goes back only when a node that was alone finds peers: who turns up later is looked at meanwhile, and nobody waits
 * for him.
 *
 * What proves that every record has come: of a prefix at the top (`ffn.`), only a get that is sure (fetch.h). Of one
 * below, the records above it: each server names there the coordinates under which it has something, so under `ffn.4.`
 * there is nothing more to come when every live server that names 4 under `ffn.` has been seen. If none does, the DHT
 * need not be asked at all. Whoever names a coordinate and has no record there is waited for CLAIM_GETS gets.
 *
 * No locks: belongs to the cache. */
#ifndef EXPERTD_DHT_CACHE_ENTRY_H
#define EXPERTD_DHT_CACHE_ENTRY_H

#include "dht/cache_waiter.h"
#include "dht/fetch.h"
#include "dht/holding.h"

enum { CLAIM_GETS = 6, GUESS_AFTER_MS = 3 };

struct cache_entry {
    char prefix[UID_SIZE];
    struct fetch fetch;
    enum cache_level level;
    enum cache_level want;      /* the most that was asked for */
    struct cache_entry *parent; /* of the prefix above; NULL: at the top */
    uint32_t coordinate;        /* in it */
    struct cache_entry *children, *sibling, **sibling_at;
    struct holding **holdings;
    size_t holdings_count, holdings_capacity;
    struct ranges experts, branches; /* of its servers; right after cache_find, or cache_look */
    uint64_t view_change;            /* the cache's, when they were computed */
    bool view_maybe;                 /* with those of servers of which it is not known whether they live */
    uint64_t used_ns;
    struct cache_entry *newer, *older;
    struct cache_waiter *waiters;
};

/* NULL: no memory. The parent must outlive it. */
struct cache_entry *cache_entry_create(const char *prefix, struct cache_entry *parent, uint32_t coordinate);
/* Without holdings and children. */
void cache_entry_destroy(struct cache_entry **entry);

struct holding *cache_entry_holding(const struct cache_entry *entry, const uint8_t id[SERVER_ID_SIZE], size_t *at);
/* Takes it over. 0 or -ENOMEM. */
int cache_entry_add(struct cache_entry *entry, struct holding *holding);

/* Asks for what it lacks of what is wanted of it. mark: a number that no peer has been marked with. */
void cache_entry_fetch(struct cache_entry *entry, struct fetcher *fetcher, uint64_t mark, struct moment now);
/* Finds out what it is worth now, wakes who waited for that, and asks for what is still missing. True if it has become
 * more. */
bool cache_entry_review(struct cache_entry *entry, struct fetcher *fetcher, uint64_t mark, struct moment now);
/* When it should be reviewed though nothing happened; UINT64_MAX: never. */
uint64_t cache_entry_due_ns(const struct cache_entry *entry);
/* Forgets what it was worth, with all below. */
void cache_entry_doubt(struct cache_entry *entry);

/* The first live server from *at (0 at first) that hosts the entry's expert; NULL: no more. */
const struct peer *cache_replica(const struct cache_entry *entry, uint32_t coordinate, struct moment now, size_t *at);

#endif
