/* Someone that waits for something in the cache. */
#ifndef EXPERTD_DHT_CACHE_WAITER_H
#define EXPERTD_DHT_CACHE_WAITER_H

#include <stddef.h>

/* What a prefix is worth: cache_entry.h. */
enum cache_level { CACHE_NOTHING, CACHE_GUESS, CACHE_GOT, CACHE_COMPLETE, CACHE_EXACT };

struct cache_waiter {
    void (*wake)(struct cache_waiter *waiter); /* it is off the list then; must not call the cache */
    enum cache_level level;                    /* of a prefix that it waits for */
    struct cache_waiter *next, **at;           /* at NULL: it waits for nothing */
};

void cache_waiter_add(struct cache_waiter *waiter, struct cache_waiter **list);
/* Waits for nothing any more. */
void cache_waiter_remove(struct cache_waiter *waiter);
/* Wakes those that wait for no more than the level. */
void cache_waiter_wake(struct cache_waiter **list, enum cache_level level);

#endif
