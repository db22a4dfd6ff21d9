#include "dht/cache_waiter.h"

void cache_waiter_add(struct cache_waiter *waiter, struct cache_waiter **list)
{
    waiter->next = *list;
    waiter->at = list;
    if (waiter->next)
        waiter->next->at = &waiter->next;
    *list = waiter;
}

void cache_waiter_remove(struct cache_waiter *waiter)
{
    if (!waiter->at)
        return;
    *waiter->at = waiter->next;
    if (waiter->next)
        waiter->next->at = waiter->at;
    waiter->at = NULL;
}

void cache_waiter_wake(struct cache_waiter **list, enum cache_level level)
{
    for (struct cache_waiter *waiter = *list, *next; waiter; waiter = next) {
        next = waiter->next;
        if (waiter->level > level)
            continue;
        cache_waiter_remove(waiter);
        waiter->wake(waiter);
    }
}
