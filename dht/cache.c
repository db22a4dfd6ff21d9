#include "dht/cache.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/array.h"
#include "dht/engine.h"
#include "dht/prefix.h"
#include "dht/rendezvous.h"

enum {
    ROUNDS_MAX = 3,
    BACKLOG_MAX = 4096,    /* addresses under a prefix that wait until others turn out to be dead */
    ROUND_FINDS_MAX = 512, /* keys that one round looks for: two levels of shards are complete */
};

static const uint64_t sweep_ns = NS_PER_S;
static const uint64_t again_ns = 200 * NS_PER_MS; /* when nobody answered */
/* Where most of the nearest nodes were silent: until they have been asked again, and could take their time. */
static const uint64_t doubt_ns = (ENGINE_SILENT_MS + 1500) * NS_PER_MS;
static const uint64_t find_pause_ns = 10 * NS_PER_MS; /* of finds in the background */
static const uint64_t touch_ns = 250 * NS_PER_MS;
static const uint64_t wide_again_ns = 10 * NS_PER_S; /* when all that were found have had their turn */

struct cache_link {
    struct server_link link;
    struct cache_entry *entry;
    size_t at;                      /* in entry->links */
    bool counted;                   /* one that turned up later makes nobody wait until it has once been settled; */
    bool doubted;                   /* but that it hosts nothing is not sure before, if it turned up in doubt */
    bool unsettled, unsure, weighs; /* as the entry's counts have it */
    bool shown;                     /* whoever waits was woken when it had told what it has */
};

struct cache_entry {
    struct cache *cache;
    TAILQ_ENTRY(cache_entry) by_use;
    struct cache_link **links;
    size_t links_count, links_capacity;
    size_t unsettled, unsure;
    size_t weighing; /* links to servers that live, or may: the dead take nobody's place */
    size_t jobs;     /* under way */
    size_t finds;    /* of the round */
    bool found;      /* all that were announced have been linked */
    bool wide;
    bool complete;             /* the last round was certain */
    bool left_out;             /* not all that the last round found are linked, or unasked */
    unsigned answered, silent; /* of the round's first key */
    unsigned rounds;           /* that were not certain */
    bool doubtful;             /* most of the nearest were silent: that nobody hosts something is a guess */
    uint64_t doubted_ns;       /* since then they have been; 0: they are not */
    uint64_t made_ns, used_ns, touched_ns;
    uint64_t looked_ns; /* the end of the last round */
    uint64_t again_ns;  /* a round is to begin then; 0: none */
    uint64_t watch;     /* the token of the latest round; 0: none */
    LIST_HEAD(cache_waiters, cache_waiter) waiters;
    bool peeked;             /* only: those that are found are kept, not asked; */
    bool ready;              /* and these are all */
    struct contact *unasked; /* peeked at, or more than weigh at once */
    size_t unasked_count, unasked_capacity;
    char prefix[];
};

/* A key that is being looked for. */
struct cache_job {
    uint64_t token;
    struct cache_entry *entry; /* NULL: forgotten meanwhile */
    char shard[RENDEZVOUS_DIGITS_MAX + 1];
};

void cache_init(struct cache *cache, struct world *world, struct servers *servers, const struct cache_options *options)
{
    *cache = (struct cache){.options = *options, .world = world, .servers = servers};
    TAILQ_INIT(&cache->by_use);
}

/* ---- waiting -------------------------------------------------------------------------------------------------------
 */

void cache_wait(struct cache_entry *entry, struct cache_waiter *waiter)
{
    waiter->waits_for = entry;
    LIST_INSERT_HEAD(&entry->waiters, waiter, entry);
}

void cache_waiter_remove(struct cache_waiter *waiter)
{
    if (waiter->waits_for)
        LIST_REMOVE(waiter, entry);
    waiter->waits_for = NULL;
}

static bool known(const struct cache_entry *entry, enum cache_need need)
{
    return entry->found && entry->unsettled == 0 && (need == CACHE_SETTLED || (entry->unsure == 0 && !entry->doubtful));
}

/* Of a wide entry, whoever waits looks whether what it wants has turned up. */
static void wake(struct cache_entry *entry)
{
    for (struct cache_waiter *waiter = LIST_FIRST(&entry->waiters), *next; waiter; waiter = next) {
        next = LIST_NEXT(waiter, entry);
        if (!entry->wide && !known(entry, waiter->need))
            continue;
        cache_waiter_remove(waiter);
        waiter->wake(waiter);
    }
}

/* ---- links ---------------------------------------------------------------------------------------------------------
 */

static void count_link(struct cache_link *link, bool unsettled, bool unsure, bool weighs)
{
    struct cache_entry *entry = link->entry;
    entry->unsettled += (size_t)unsettled - (size_t)link->unsettled;
    entry->unsure += (size_t)unsure - (size_t)link->unsure;
    entry->weighing += (size_t)weighs - (size_t)link->weighs;
    link->unsettled = unsettled;
    link->unsure = unsure;
    link->weighs = weighs;
}

static void count_server(struct cache_link *link, const struct server *server)
{
    link->counted |= server->settled;
    count_link(link, link->counted && !server->settled, (link->counted || link->doubted) && !server->sure,
               server->live || !server->settled);
}

static void drop_link(struct cache_link *link)
{
    struct cache_entry *entry = link->entry;
    count_link(link, false, false, false);
    entry->links[link->at] = entry->links[--entry->links_count];
    entry->links[link->at]->at = link->at;
    free(link);
}

static void on_changed(struct server_link *changed, bool gone)
{
    struct cache_link *link = (struct cache_link *)changed; /* its first member */
    struct cache_entry *entry = link->entry;
    if (gone) {
        /* What it hosts is no longer known, though it may be there; of one that is dead nothing was. */
        if (link->weighs) {
            entry->found = false;
            entry->left_out = true;
            entry->doubted_ns = 0;
        }
        drop_link(link);
        return;
    }
    count_server(link, changed->server);
    if (!entry->wide)
        wake(entry);
}

static void drop_links(struct cache_entry *entry)
{
    while (entry->links_count > 0) {
        struct cache_link *link = entry->links[entry->links_count - 1];
        servers_unlink(entry->cache->servers, &link->link);
        drop_link(link);
    }
}

static bool has_link(const struct cache_entry *entry, const struct contact *contact)
{
    const struct server *server = servers_find(entry->cache->servers, contact);
    for (const struct server_link *link = server ? LIST_FIRST(&server->links) : NULL; link;
         link = LIST_NEXT(link, entry))
        if (link->changed == on_changed && ((const struct cache_link *)link)->entry == entry)
            return true;
    return false;
}

static void add_link(struct cache_entry *entry, const struct contact *contact, struct moment now)
{
    if (has_link(entry, contact))
        return;
    struct cache_link *link = calloc(1, sizeof *link);
    if (!link || ARRAY_RESERVE(entry->links, entry->links_capacity, entry->links_count + 1) != 0) {
        free(link);
        entry->left_out = true;
        return;
    }
    link->entry = entry;
    link->link.changed = on_changed;
    const int rc = servers_link(entry->cache->servers, contact, &link->link, now);
    if (rc != 0) {
        /* An IP that has more than its share is all that is left out of it. */
        entry->left_out |= rc != -EDQUOT;
        free(link);
        return;
    }
    link->at = entry->links_count;
    entry->links[entry->links_count++] = link;
    link->counted = !entry->found;
    link->doubted = entry->doubtful;
    count_server(link, link->link.server);
}

static void keep_unasked(struct cache_entry *entry, const struct contact *contact)
{
    for (size_t i = 0; i < entry->unasked_count; i++)
        if (memcmp(&entry->unasked[i], contact, sizeof *contact) == 0)
            return;
    if (entry->unasked_count == BACKLOG_MAX) {
        /* Each in turn makes room for another, so that those who come first do not keep the others out. */
        entry->left_out = true;
        entry->unasked[entry->cache->last_left_out++ % BACKLOG_MAX] = *contact;
        return;
    }
    if (ARRAY_RESERVE(entry->unasked, entry->unasked_capacity, entry->unasked_count + 1) == 0)
        entry->unasked[entry->unasked_count++] = *contact;
    else
        entry->left_out = true;
}

static bool has_room(const struct cache_entry *entry)
{
    return entry->weighing < entry->cache->options.max_servers;
}

static void take_contact(struct cache_entry *entry, const struct contact *contact, struct moment now)
{
    if (!entry->peeked && has_room(entry)) {
        add_link(entry, contact, now);
    } else if (!entry->peeked) {
        if (!has_link(entry, contact))
            keep_unasked(entry, contact);
    } else if (entry->unasked_count <= entry->cache->options.max_servers) {
        /* Of a prefix that is too wide, some more than too many are enough. */
        keep_unasked(entry, contact);
    }
}

/* Those that wait take the places of those that turned out to be dead. */
static void feed(struct cache_entry *entry, struct moment now)
{
    while (entry->unasked_count > 0 && has_room(entry)) {
        const struct contact contact = entry->unasked[--entry->unasked_count];
        add_link(entry, &contact, now);
    }
    if (entry->unasked_count > 0)
        return;
    free(entry->unasked);
    entry->unasked = NULL;
    entry->unasked_capacity = 0;
}

/* Somebody needs all of it. */
static void ask_all(struct cache_entry *entry, struct moment now)
{
    const bool ready = entry->ready;
    entry->peeked = entry->ready = false;
    feed(entry, now);
    entry->wide = ready && (entry->unasked_count > 0 || entry->left_out);
    entry->found |= ready && !entry->wide;
}

/* Its servers are of use. */
static void touch(struct cache_entry *entry, struct moment now)
{
    entry->used_ns = now.ns;
    if (now.ns - entry->touched_ns < touch_ns)
        return;
    entry->touched_ns = now.ns;
    /* Under a wide prefix those are of use that an answer has named: the others are the first to be let go of. */
    for (size_t i = 0; i < entry->links_count; i++)
        if (!entry->wide || entry->links[i]->link.server->resident.named)
            entry->links[i]->link.server->used_ns = now.ns;
}

/* ---- entries -------------------------------------------------------------------------------------------------------
 */

static void unwatch(struct cache_entry *entry)
{
    if (entry->watch)
        table_remove(&entry->cache->watches, &entry->watch, sizeof entry->watch);
    entry->watch = 0;
}

static void remove_entry(struct cache *cache, struct cache_entry *entry)
{
    struct cache_job *job;
    TAILQ_REMOVE(&cache->by_use, entry, by_use);
    table_remove(&cache->entries, entry->prefix, strlen(entry->prefix));
    if (entry->jobs > 0)
        for (size_t at = 0; (job = table_next(&cache->jobs, &at));)
            if (job->entry == entry)
                job->entry = NULL;
    unwatch(entry);
    drop_links(entry);
    free(entry->links);
    free(entry->unasked);
    free(entry);
}

void cache_destroy(struct cache *cache)
{
    struct cache_job *job;
    while (!TAILQ_EMPTY(&cache->by_use))
        remove_entry(cache, TAILQ_FIRST(&cache->by_use));
    for (size_t at = 0; (job = table_next(&cache->jobs, &at));)
        free(job);
    table_destroy(&cache->jobs);
    table_destroy(&cache->watches);
    table_destroy(&cache->entries);
}

static bool make_room(struct cache *cache)
{
    while (cache->entries.count >= cache->options.max_entries) {
        struct cache_entry *entry = TAILQ_LAST(&cache->by_use, cache_entries);
        while (entry && !LIST_EMPTY(&entry->waiters))
            entry = TAILQ_PREV(entry, cache_entries, by_use);
        if (!entry)
            return false;
        remove_entry(cache, entry);
        cache->counters.evictions++;
    }
    return true;
}

static struct cache_entry *add_entry(struct cache *cache, const char *prefix, struct moment now)
{
    const size_t length = strlen(prefix);
    struct cache_entry *entry = calloc(1, sizeof *entry + length + 1);
    if (!entry)
        return NULL;
    memcpy(entry->prefix, prefix, length);
    entry->cache = cache;
    entry->made_ns = now.ns;
    if (table_insert(&cache->entries, entry->prefix, length, entry) != 0) {
        free(entry);
        return NULL;
    }
    TAILQ_INSERT_HEAD(&cache->by_use, entry, by_use);
    return entry;
}

/* ---- looking for those that were announced -------------------------------------------------------------------------
 */

static void look_for(struct cache_entry *entry, const char *shard)
{
    struct cache *cache = entry->cache;
    char key[RENDEZVOUS_KEY_SIZE];
    struct cache_job *job = calloc(1, sizeof *job);
    if (!job)
        return;
    job->token = cache->options.tokens_tag | ++cache->last_token;
    job->entry = entry;
    memcpy(job->shard, shard, strlen(shard));
    if (table_insert(&cache->jobs, &job->token, sizeof job->token, job) != 0) {
        free(job);
        return;
    }
    entry->jobs++;
    entry->finds++;
    cache->counters.finds++;
    if (entry->found)
        cache->next_refresh_ns += find_pause_ns;
    cache->options.find(cache->options.context, rendezvous_key(key, cache->options.network_id, entry->prefix, shard),
                        job->token);
}

static void begin_round(struct cache_entry *entry)
{
    entry->again_ns = 0;
    if (entry->jobs > 0)
        return;
    unwatch(entry);
    entry->finds = 0;
    entry->left_out = false;
    look_for(entry, "");
    if (entry->jobs == 0)
        return;
    entry->watch = entry->cache->options.tokens_tag | entry->cache->last_token;
    if (table_insert(&entry->cache->watches, &entry->watch, sizeof entry->watch, entry) != 0)
        entry->watch = 0;
}

void cache_on_kept(struct cache *cache, uint64_t token, const struct contact *contact, struct moment now)
{
    struct cache_entry *entry = table_find(&cache->watches, &token, sizeof token);
    if (entry && !(entry->wide && entry->peeked))
        take_contact(entry, contact, now);
}

/* After rounds that were all there can be. The nearest are asked again when the engine does so; who is silent then is
 * taken for dead. Once known without doubt, a prefix stays so. */
static void doubt(struct cache_entry *entry, struct moment now)
{
    if (entry->silent <= entry->answered) {
        entry->doubtful = false;
        entry->doubted_ns = 0;
    } else if (!entry->found || entry->doubtful) {
        if (!entry->doubted_ns)
            entry->doubted_ns = now.ns;
        entry->doubtful = now.ns - entry->doubted_ns < doubt_ns;
        if (entry->doubtful)
            entry->again_ns = entry->doubted_ns + doubt_ns;
    }
}

/* Whether the round has shown all that there is. If not, it is to be done again, soon. */
static bool certain(struct cache_entry *entry, struct moment now)
{
    const struct cache *cache = entry->cache;
    if (entry->answered == 0 && !cache->options.single) {
        if (!cache->met && now.ns - entry->made_ns >= CACHE_ALONE_MS * NS_PER_MS)
            return true;
        /* What was known once stays so, as far as its servers are there. */
        entry->again_ns = entry->found ? 0 : now.ns + again_ns;
        return false;
    }
    if (entry->silent > entry->answered && ++entry->rounds < ROUNDS_MAX) {
        entry->again_ns = now.ns;
        return false;
    }
    doubt(entry, now);
    return true;
}

/* Whether all that were found are asked. What was known before stays so: who comes later makes nobody wait. */
static void settle_width(struct cache_entry *entry)
{
    const bool all = entry->unasked_count == 0 && !entry->left_out;
    entry->wide = !all && !entry->found;
    entry->found |= all && entry->complete;
}

static void end_round(struct cache_entry *entry, struct moment now)
{
    struct cache *cache = entry->cache;
    entry->looked_ns = now.ns;
    if (entry->peeked && entry->unasked_count > cache->options.max_servers) {
        entry->unasked_count = 0;
        entry->wide = true;
    } else {
        entry->complete = certain(entry, now);
        if (entry->complete)
            entry->rounds = 0;
        entry->ready = entry->peeked && entry->complete;
        if (entry->peeked && entry->unasked_count <= CACHE_FEW)
            ask_all(entry, now);
        if (!entry->peeked)
            settle_width(entry);
        else if (entry->ready)
            entry->wide = false;
    }
    if (entry->ready && now.ns + CACHE_BEHIND_MS * NS_PER_MS < cache->next_ns)
        cache->next_ns = now.ns + CACHE_BEHIND_MS * NS_PER_MS;
    if (entry->again_ns && entry->again_ns < cache->next_ns)
        cache->next_ns = entry->again_ns;
    wake(entry);
}

void cache_on_peers(struct cache *cache, uint64_t token, const struct contact *contacts, size_t count,
                    struct moment now)
{
    const struct cache_job *job = table_find(&cache->jobs, &token, sizeof token);
    if (!job || !job->entry)
        return;
    for (size_t i = 0; i < count; i++)
        take_contact(job->entry, &contacts[i], now);
}

/* Each time from another shard on, where not all can be looked for. */
static void look_for_shards(struct cache_entry *entry, char *shard, size_t digits)
{
    const uint64_t first = entry->cache->last_token;
    for (unsigned i = 0; i < RENDEZVOUS_SHARDS; i++) {
        if (entry->finds >= ROUND_FINDS_MAX) {
            entry->left_out = true;
            return;
        }
        shard[digits] = "0123456789abcdef"[(first + i) % RENDEZVOUS_SHARDS];
        look_for(entry, shard);
    }
}

void cache_on_found(struct cache *cache, uint64_t token, unsigned answered, unsigned silent, unsigned fullest,
                    struct moment now)
{
    struct cache_job *job = table_remove(&cache->jobs, &token, sizeof token);
    struct cache_entry *entry = job ? job->entry : NULL;
    if (entry) {
        const size_t digits = strlen(job->shard);
        entry->jobs--;
        if (digits == 0) {
            entry->answered = answered;
            entry->silent = silent;
        }
        const bool deeper = fullest >= RENDEZVOUS_CROWDED && digits < RENDEZVOUS_DIGITS_MAX;
        if (deeper && (!entry->peeked || entry->unasked_count <= cache->options.max_servers))
            look_for_shards(entry, job->shard, digits);
        if (entry->jobs == 0)
            end_round(entry, now);
    }
    free(job);
}

void cache_on_connected(struct cache *cache, struct moment now)
{
    cache->met = true;
    cache->next_ns = now.ns;
    struct cache_entry *entry;
    for (entry = TAILQ_FIRST(&cache->by_use); entry; entry = TAILQ_NEXT(entry, by_use))
        entry->again_ns = now.ns;
}

/* ---- asking --------------------------------------------------------------------------------------------------------
 */

static void use(struct cache *cache, struct cache_entry *entry, struct moment now)
{
    touch(entry, now);
    TAILQ_REMOVE(&cache->by_use, entry, by_use);
    TAILQ_INSERT_HEAD(&cache->by_use, entry, by_use);
    const uint64_t pause_ns = (entry->wide ? CACHE_REFRESH_WIDE_MS : CACHE_REFRESH_MS) * NS_PER_MS;
    if (entry->jobs > 0 || now.ns < cache->next_refresh_ns || now.ns - entry->looked_ns < pause_ns)
        return;
    cache->next_refresh_ns = now.ns;
    begin_round(entry);
}

/* The prefix's entry, or one above it that is known. */
static struct cache_entry *find_known(struct cache *cache, const char *prefix, enum cache_need need, bool peek)
{
    char above[UID_SIZE];
    uint32_t coordinate;
    struct cache_entry *entry = table_find(&cache->entries, prefix, strlen(prefix));
    if (entry && (entry->wide ? peek || !entry->peeked : known(entry, need)))
        return entry;
    memcpy(above, prefix, strlen(prefix) + 1);
    while (prefix_parent(above, above, &coordinate)) {
        entry = table_find(&cache->entries, above, strlen(above));
        if (entry && !entry->wide && known(entry, need))
            return entry;
    }
    return NULL;
}

/* As cache_find; a prefix that nobody knows yet is only peeked at, or needed. */
static int seek(struct cache *cache, const char *prefix, enum cache_need need, bool peek, bool counted,
                struct moment now, struct cache_entry **entry)
{
    struct cache_entry *found = find_known(cache, prefix, need, peek);
    if (counted)
        *(found ? &cache->counters.hits : &cache->counters.misses) += 1;
    if (!found) {
        found = table_find(&cache->entries, prefix, strlen(prefix));
        if (!found) {
            if (!make_room(cache))
                return -ENOSPC;
            found = add_entry(cache, prefix, now);
            if (!found)
                return -ENOMEM;
            found->peeked = peek;
        }
        if (found->peeked && !peek)
            ask_all(found, now);
        *entry = found;
        if (found->wide)
            return -E2BIG;
        if (!known(found, need)) {
            touch(found, now);
            if (!found->found && !found->ready && found->jobs == 0 && found->again_ns == 0)
                begin_round(found);
            return 0;
        }
    }
    *entry = found;
    use(cache, found, now);
    return found->wide ? -E2BIG : 1;
}

int cache_find(struct cache *cache, const char *prefix, enum cache_need need, bool counted, struct moment now,
               struct cache_entry **entry)
{
    return seek(cache, prefix, need, false, counted, now, entry);
}

int cache_peek(struct cache *cache, const char *prefix, bool counted, struct moment now)
{
    struct cache_entry *entry;
    return seek(cache, prefix, CACHE_SETTLED, true, counted, now, &entry);
}

/* ---- time ----------------------------------------------------------------------------------------------------------
 */

static bool outlived(const struct cache *cache, const struct cache_entry *entry, struct moment now)
{
    const bool empty = entry->links_count + entry->unasked_count == 0 ||
                       !table_find(&cache->world->places, entry->prefix, strlen(entry->prefix));
    return LIST_EMPTY(&entry->waiters) &&
           now.ns - entry->used_ns >= (empty ? CACHE_NEGATIVE_S : CACHE_IDLE_S) * NS_PER_S;
}

/* Under a wide prefix, while somebody waits for what nobody is known to host: servers that no answer has named, and
 * that have told what they have, make room for those that wait to be asked. */
static void take_turns(struct cache_entry *entry)
{
    size_t let_go = 0;
    for (size_t i = entry->links_count; i-- > 0 && 2 * let_go < entry->cache->options.max_servers;) {
        struct cache_link *link = entry->links[i];
        if (!link->shown || !link->link.server->live || link->link.server->resident.named)
            continue;
        servers_unlink(entry->cache->servers, &link->link);
        drop_link(link);
        entry->left_out = true;
        let_go++;
    }
}

static void widen(struct cache_entry *entry, struct moment now)
{
    const bool was_wide = entry->wide;
    if (was_wide && !LIST_EMPTY(&entry->waiters) && entry->jobs == 0 && !has_room(entry))
        take_turns(entry);
    feed(entry, now);
    if (!was_wide || entry->jobs > 0)
        return;
    if (entry->unsettled == 0)
        settle_width(entry);
    if (entry->wide && !LIST_EMPTY(&entry->waiters) && entry->unasked_count == 0 && entry->again_ns == 0)
        entry->again_ns = entry->looked_ns + wide_again_ns;
    for (size_t i = 0; i < entry->links_count; i++)
        entry->links[i]->shown = entry->links[i]->link.server->live;
    wake(entry);
}

uint64_t cache_step(struct cache *cache, struct moment now)
{
    if (now.ns < cache->next_ns)
        return cache->next_ns;
    cache->next_ns = now.ns + sweep_ns;
    for (struct cache_entry *entry = TAILQ_FIRST(&cache->by_use), *older; entry; entry = older) {
        older = TAILQ_NEXT(entry, by_use);
        const bool waited_for = !LIST_EMPTY(&entry->waiters);
        if (waited_for)
            touch(entry, now);
        /* Also one whose servers were let go of while somebody waits, and one in doubt when no node answers any more.
         */
        if (waited_for && (!entry->found || entry->doubtful) && !entry->wide && entry->jobs == 0 &&
            entry->again_ns == 0)
            entry->again_ns = now.ns;
        if (!entry->peeked && (entry->wide || entry->unasked_count > 0))
            widen(entry, now);
        if (entry->again_ns && now.ns >= entry->again_ns)
            begin_round(entry);
        else if (entry->again_ns && entry->again_ns < cache->next_ns)
            cache->next_ns = entry->again_ns;
        if (entry->ready && now.ns - entry->looked_ns >= CACHE_BEHIND_MS * NS_PER_MS)
            ask_all(entry, now);
        else if (entry->ready && entry->looked_ns + CACHE_BEHIND_MS * NS_PER_MS < cache->next_ns)
            cache->next_ns = entry->looked_ns + CACHE_BEHIND_MS * NS_PER_MS;
        if (outlived(cache, entry, now))
            remove_entry(cache, entry);
    }
    return cache->next_ns;
}
