#include "dht/cache_entry.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct cache_entry *cache_entry_create(const char *prefix, struct cache_entry *parent, uint32_t coordinate)
{
    struct cache_entry *entry = calloc(1, sizeof *entry);
    if (!entry)
        return NULL;
    memcpy(entry->prefix, prefix, strlen(prefix) + 1);
    entry->fetch.owner = entry;
    entry->fetch.expected = FETCH_NODES - 1;
    entry->parent = parent;
    entry->coordinate = coordinate;
    if (!parent)
        return entry;
    entry->sibling = parent->children;
    entry->sibling_at = &parent->children;
    if (entry->sibling)
        entry->sibling->sibling_at = &entry->sibling;
    parent->children = entry;
    return entry;
}

void cache_entry_destroy(struct cache_entry **entry)
{
    struct cache_entry *old = *entry;
    *entry = NULL;
    if (old->parent) {
        *old->sibling_at = old->sibling;
        if (old->sibling)
            old->sibling->sibling_at = old->sibling_at;
    }
    free(old->holdings);
    ranges_destroy(&old->experts);
    ranges_destroy(&old->branches);
    free(old);
}

/* ---- holdings ------------------------------------------------------------------------------------------------------
 */

struct holding *cache_entry_holding(const struct cache_entry *entry, const uint8_t id[SERVER_ID_SIZE], size_t *at)
{
    for (*at = 0; *at < entry->holdings_count; ++*at)
        if (memcmp(entry->holdings[*at]->peer->id, id, SERVER_ID_SIZE) == 0)
            return entry->holdings[*at];
    return NULL;
}

int cache_entry_add(struct cache_entry *entry, struct holding *holding)
{
    if (entry->holdings_count == entry->holdings_capacity) {
        const size_t capacity = entry->holdings_capacity ? 2 * entry->holdings_capacity : 4;
        struct holding **holdings = realloc(entry->holdings, capacity * sizeof(struct holding *));
        if (!holdings)
            return -ENOMEM;
        entry->holdings = holdings;
        entry->holdings_capacity = capacity;
    }
    entry->holdings[entry->holdings_count++] = holding;
    return 0;
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

/* ---- what it is worth ----------------------------------------------------------------------------------------------
 */

struct claims {
    uint32_t all;
    uint32_t open;    /* whose record here has not come, of servers that are or may be alive */
    uint32_t unknown; /* of the open ones: it is not known whether they live */
};

/* What the servers of the prefix above say about this one. */
static struct claims count_claims(const struct cache_entry *entry, uint64_t mark, struct moment now)
{
    struct claims claims = {0};
    const struct cache_entry *parent = entry->parent;
    for (size_t i = 0; i < entry->holdings_count; i++)
        if (holding_whole(entry->holdings[i]))
            entry->holdings[i]->peer->mark = mark;
    for (size_t i = 0; i < parent->holdings_count; i++) {
        const struct holding *holding = parent->holdings[i];
        const bool known = peer_known(holding->peer, now);
        if (!holding_claims(holding, entry->coordinate) || (known && !peer_alive(holding->peer, now)))
            continue;
        claims.all++;
        if (holding->peer->mark != mark) {
            claims.open++;
            claims.unknown += !known;
        }
    }
    return claims;
}

/* Asks for the heartbeats of all that have to do with it. */
static void want_peers(struct cache_entry *entry, struct fetcher *fetcher, struct moment now)
{
    for (size_t i = 0; i < entry->holdings_count; i++)
        fetch_want(fetcher, &entry->holdings[i]->peer->fetch, now);
    for (size_t i = 0; entry->parent && i < entry->parent->holdings_count; i++)
        if (holding_claims(entry->parent->holdings[i], entry->coordinate))
            fetch_want(fetcher, &entry->parent->holdings[i]->peer->fetch, now);
}

static bool complete(struct cache_entry *entry, struct fetcher *fetcher, uint64_t mark, struct moment now)
{
    struct fetch *fetch = &entry->fetch;
    if (entry->level >= CACHE_COMPLETE)
        return true;
    if (!entry->parent)
        return fetch->sure;
    if (entry->parent->level < CACHE_COMPLETE)
        return false;
    const struct claims claims = count_claims(entry, mark, now);
    if (claims.open == 0 || (claims.unknown == 0 && fetch->sure && fetch->ends >= CLAIM_GETS) ||
        (fetch->sure && fetch->unconfirmed))
        return true;
    if (fetch->ends == 0)
        fetch->expected = claims.all;
    /* What is still missing may be of servers that are dead. */
    if (claims.unknown && (fetch->sure || entry->want == CACHE_EXACT))
        want_peers(entry, fetcher, now);
    if (claims.unknown < claims.open && fetch->sure)
        fetch_again_later(fetcher, fetch, now);
    else
        fetch_want(fetcher, fetch, now);
    return false;
}

static bool exact(const struct cache_entry *entry, struct moment now)
{
    for (size_t i = 0; i < entry->holdings_count; i++)
        if (!peer_known(entry->holdings[i]->peer, now))
            return false;
    return true;
}

uint64_t cache_entry_due_ns(const struct cache_entry *entry)
{
    const bool guess = entry->level == CACHE_NOTHING && entry->want > CACHE_NOTHING && entry->fetch.heard;
    return guess ? entry->fetch.news_ns + GUESS_AFTER_MS * NS_PER_MS : UINT64_MAX;
}

void cache_entry_fetch(struct cache_entry *entry, struct fetcher *fetcher, uint64_t mark, struct moment now)
{
    if (entry->level >= entry->want)
        return;
    if (entry->want == CACHE_EXACT)
        want_peers(entry, fetcher, now);
    /* Before the prefix above is complete it is asked beside it, to lose no time. */
    if (entry->want < CACHE_COMPLETE || !complete(entry, fetcher, mark, now))
        fetch_want(fetcher, &entry->fetch, now);
}

bool cache_entry_review(struct cache_entry *entry, struct fetcher *fetcher, uint64_t mark, struct moment now)
{
    const enum cache_level before = entry->level;
    struct fetch *fetch = &entry->fetch;
    if (now.ns >= cache_entry_due_ns(entry))
        entry->level = CACHE_GUESS;
    if (before < CACHE_GOT && entry->want > CACHE_NOTHING && fetch->sure)
        entry->level = CACHE_GOT;
    if (before < entry->want && entry->want >= CACHE_COMPLETE && complete(entry, fetcher, mark, now)) {
        entry->level = exact(entry, now) ? CACHE_EXACT : CACHE_COMPLETE;
        if (before < CACHE_COMPLETE)
            fetch_drop(fetcher, fetch, now);
        if (entry->level < entry->want)
            want_peers(entry, fetcher, now);
    }
    /* With no get behind it, it is empty because nobody above names it: that is where news would come from. */
    if (entry->level >= (entry->want < CACHE_COMPLETE ? CACHE_GOT : CACHE_COMPLETE) && fetch->state == FETCH_IDLE &&
        fetch->sure)
        fetch_listen(fetcher, fetch, now);
    if (entry->level > before)
        cache_waiter_wake(&entry->waiters, entry->level);
    return entry->level > before;
}

void cache_entry_doubt(struct cache_entry *entry)
{
    entry->level = CACHE_NOTHING;
    for (struct cache_entry *child = entry->children; child; child = child->sibling)
        cache_entry_doubt(child);
}
