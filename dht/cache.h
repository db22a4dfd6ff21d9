/* The prefixes that were looked up, and who was announced under them: whether what the world has under a prefix is all
 * that there is. Known once, a prefix stays known: its servers tell of changes by themselves, and others that are
 * announced later are looked for now and then, in the background. All that is below a known prefix is known too. That
 * nothing is hosted is kept as well. The least recently used prefix is forgotten when there is no room, one under which
 * nothing lives after CACHE_NEGATIVE_S without a question, and any after CACHE_IDLE_S.
 *
 * No locks: the thread that feeds it events asks it. Time comes from outside. */
#ifndef EXPERTD_DHT_CACHE_H
#define EXPERTD_DHT_CACHE_H

#include "dht/servers.h"

enum {
    CACHE_NEGATIVE_S = 10,
    CACHE_IDLE_S = 600,
    CACHE_REFRESH_MS = 1000, /* an asked prefix is looked for again when the last time is longer ago */
    CACHE_REFRESH_WIDE_MS = 60000,
    CACHE_FEW = 32,        /* servers that are asked although so far only peeked at; more only when somebody waits, */
    CACHE_BEHIND_MS = 500, /* or after a while */
    CACHE_ALONE_MS = 1000, /* so long a node that never met another waits for one */
};

/* What an answer may be made of: all servers that answer at once are in; or also those that took their time, so that
 * "nobody" is no guess (servers.h: settled, sure); nor is it one where most nodes of the DHT were silent: they are
 * asked again first, some seconds later. */
enum cache_need { CACHE_SETTLED, CACHE_SURE };

struct cache_entry;

/* Someone that waits for a prefix. */
struct cache_waiter {
    void (*wake)(struct cache_waiter *waiter); /* it waits for nothing then; must not call the cache */
    enum cache_need need;
    struct cache_entry *waits_for; /* NULL: nothing */
    LIST_ENTRY(cache_waiter) entry;
};

struct cache_options {
    uint32_t network_id;
    size_t max_entries;
    size_t max_servers;  /* more that may live under one prefix are not connected to at once: it is wide */
    bool single;         /* no other nodes are looked for: what nobody answers is certain */
    uint64_t tokens_tag; /* bits that no other's tokens have */
    /* Begins to look for a key; ends with cache_on_found. */
    void (*find)(void *context, const char *key, uint64_t token);
    void *context;
};

struct cache_counters {
    uint64_t hits, misses, evictions, finds;
};

struct cache {
    struct cache_options options;
    struct world *world;
    struct servers *servers;
    struct table entries;                          /* prefix -> struct cache_entry */
    TAILQ_HEAD(cache_entries, cache_entry) by_use; /* the latest first */
    struct table jobs;                             /* token -> struct cache_job */
    struct table watches;                          /* token of an entry's latest round -> struct cache_entry */
    uint64_t last_token;
    uint64_t next_ns;
    size_t last_left_out;
    uint64_t next_refresh_ns; /* so that many prefixes do not make many finds */
    bool met;                 /* another node, ever */
    struct cache_counters counters;
};

void cache_init(struct cache *cache, struct world *world, struct servers *servers, const struct cache_options *options);
void cache_destroy(struct cache *cache);

/* Asks for a prefix (a valid one). 1: what the world has under it is what there is; 0: it is being found out: wait for
 * *entry, which stays where it is as long as somebody does; -E2BIG: it is wide: what the world has of it is a part.
 * Whoever waits for *entry is woken now and then, as servers that nobody asked for make room for others; or asks for
 * longer ones; -ENOSPC: no room, since all that is kept is waited for; -ENOMEM. `counted`: as a hit or a miss. */
int cache_find(struct cache *cache, const char *prefix, enum cache_need need, bool counted, struct moment now,
               struct cache_entry **entry);
/* The same, for who asks in the meantime for longer prefixes: the servers that are found are not asked yet, where they
 * are more than CACHE_FEW, and nobody waits. */
int cache_peek(struct cache *cache, const char *prefix, bool counted, struct moment now);
void cache_wait(struct cache_entry *entry, struct cache_waiter *waiter);
void cache_waiter_remove(struct cache_waiter *waiter);

/* Addresses that were found for a token; and the end, as engine.h has it. */
void cache_on_peers(struct cache *cache, uint64_t token, const struct contact *contacts, size_t count,
                    struct moment now);
void cache_on_found(struct cache *cache, uint64_t token, unsigned answered, unsigned silent, unsigned fullest,
                    struct moment now);
/* Somebody was announced to this node itself, under the key of the latest find of a prefix: nobody need look for it. */
void cache_on_kept(struct cache *cache, uint64_t token, const struct contact *contact, struct moment now);
/* Another node has answered, for the first time or again: what was presumed is looked for anew. */
void cache_on_connected(struct cache *cache, struct moment now);
/* Does what is due; returns when the next is. */
uint64_t cache_step(struct cache *cache, struct moment now);

#endif
