#include "dht/lookup.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum lookup_result lookup_fail(struct lookup *lookup, enum status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(lookup->message, sizeof lookup->message, format, args);
    va_end(args);
    /* It goes into a string field, which has to be UTF-8. */
    for (char *c = lookup->message; *c; c++)
        if ((unsigned char)*c < ' ' || (unsigned char)*c >= 0x7f)
            *c = '?';
    expertd__dht__reply__init(&lookup->reply);
    lookup->reply.status = status;
    lookup->reply.message = lookup->message;
    lookup->failed = true;
    return LOOKUP_DONE;
}

void *lookup_take(struct lookup *lookup, size_t size)
{
    void *memory = arena_take(&lookup->arena, size);
    if (!memory)
        lookup_fail(lookup, STATUS_RESOURCE_EXHAUSTED, "out of memory");
    return memory;
}

static void wake(struct cache_waiter *waiter)
{
    struct lookup *lookup = ((struct lookup_want *)waiter)->lookup; /* its first member */
    lookup->wake(lookup);
}

int lookup_make_wants(struct lookup *lookup, size_t count)
{
    lookup->wants = lookup_take(lookup, count * sizeof *lookup->wants);
    if (!lookup->wants)
        return -1;
    lookup->wants_count = count;
    for (size_t i = 0; i < count; i++) {
        lookup->wants[i].lookup = lookup;
        lookup->wants[i].waiter.wake = wake;
    }
    return 0;
}

void lookup_wait(struct lookup_want *want, struct cache_entry *entry, enum cache_need need)
{
    want->waiter.need = need;
    cache_wait(entry, &want->waiter);
}

int lookup_ask_part(struct lookup *lookup, struct lookup_want *want, enum cache_need need, bool last, struct moment now,
                    const struct place **place)
{
    struct cache_entry *entry;
    if (want->waiter.waits_for && !last)
        return 0;
    cache_waiter_remove(&want->waiter);
    const int known = cache_find(lookup->cache, want->prefix, need, !want->asked, now, &entry);
    want->asked = true;
    if (known == 1 || known == -E2BIG || (last && known == 0)) {
        *place = world_find(lookup->cache->world, want->prefix);
        if (*place && known == -E2BIG && !last)
            lookup_wait(want, entry, need);
        if (*place)
            return known == -E2BIG ? 2 : 1;
    } else if (known == 0) {
        lookup_wait(want, entry, need);
        return 0;
    }
    if (known == -ENOSPC)
        lookup_fail(lookup, STATUS_RESOURCE_EXHAUSTED,
                    "the cache (dht.max_cache) is full of prefixes that are being looked up: try again later");
    else
        lookup_fail(lookup, STATUS_RESOURCE_EXHAUSTED, "out of memory");
    return -1;
}

int lookup_ask(struct lookup *lookup, struct lookup_want *want, enum cache_need need, bool last, struct moment now,
               const struct place **place)
{
    const int known = lookup_ask_part(lookup, want, need, last, now, place);
    if (known != 2)
        return known;
    lookup_fail(lookup, STATUS_RESOURCE_EXHAUSTED,
                "more servers are under '%.100s' than dht.max_servers: ask for longer prefixes", want->prefix);
    return -1;
}

int lookup_replicas(struct lookup *lookup, const struct place *place, uint32_t coordinate,
                    Expertd__Dht__Resolved *resolved)
{
    size_t count = 0;
    for (size_t at = 0; place_replica(place, coordinate, &at);)
        count++;
    if (count == 0)
        return 0;
    Expertd__Dht__Replica *replicas = arena_take(&lookup->arena, count * sizeof *replicas);
    resolved->replicas = arena_take(&lookup->arena, count * sizeof(Expertd__Dht__Replica *));
    for (size_t at = 0; replicas && resolved->replicas && resolved->n_replicas < count;) {
        struct resident *server = place_replica(place, coordinate, &at);
        server->named = true;
        Expertd__Dht__Replica *replica = &replicas[resolved->n_replicas];
        expertd__dht__replica__init(replica);
        replica->endpoint = arena_text(&lookup->arena, server->endpoint);
        replica->server_id.data = arena_take(&lookup->arena, SERVER_ID_SIZE);
        if (!replica->endpoint || !replica->server_id.data)
            break;
        memcpy(replica->server_id.data, server->id, SERVER_ID_SIZE);
        replica->server_id.len = SERVER_ID_SIZE;
        if (server->curve_key.is) {
            replica->curve_key.data = arena_take(&lookup->arena, CURVE_KEY_SIZE);
            if (!replica->curve_key.data)
                break;
            memcpy(replica->curve_key.data, server->curve_key.bytes, CURVE_KEY_SIZE);
            replica->curve_key.len = CURVE_KEY_SIZE;
        }
        resolved->replicas[resolved->n_replicas++] = replica;
    }
    if (resolved->n_replicas == count && lookup->arena.bytes <= LOOKUP_REPLY_MAX)
        return 0;
    lookup_fail(lookup, STATUS_RESOURCE_EXHAUSTED, "the answer is too large: ask for less at once");
    return -1;
}

void lookup_init(struct lookup *lookup, struct cache *cache, const struct lookup_kind *kind,
                 const Expertd__Dht__Request *request, struct moment now)
{
    *lookup = (struct lookup){.cache = cache, .kind = kind, .request = request};
    expertd__dht__reply__init(&lookup->reply);
    uint64_t deadline_ms = request->deadline_ms ? request->deadline_ms : LOOKUP_DEADLINE_MS;
    if (deadline_ms > LOOKUP_DEADLINE_MAX_MS)
        deadline_ms = LOOKUP_DEADLINE_MAX_MS;
    lookup->deadline_ns = now.ns + deadline_ms * NS_PER_MS;
    if (kind)
        kind->begin(lookup);
    else
        lookup_fail(lookup, STATUS_UNIMPLEMENTED, "unknown method %d", (int)request->method);
}

void lookup_destroy(struct lookup *lookup)
{
    for (size_t i = 0; i < lookup->wants_count; i++)
        cache_waiter_remove(&lookup->wants[i].waiter);
    if (lookup->state && lookup->kind->clean)
        lookup->kind->clean(lookup);
    lookup->wants_count = 0;
    arena_clear(&lookup->arena);
}

enum lookup_result lookup_run(struct lookup *lookup, struct moment now)
{
    if (lookup->failed)
        return LOOKUP_DONE;
    const bool last = now.ns >= lookup->deadline_ns;
    const enum lookup_result result = lookup->kind->run(lookup, now, last);
    if (!last || lookup->failed)
        return result;
    /* The answer is what it is; only its status says that it may be short of something. */
    lookup->reply.status = STATUS_DEADLINE_EXCEEDED;
    snprintf(lookup->message, sizeof lookup->message,
             "the DHT did not answer in time for everything: the reply holds what is known");
    lookup->reply.message = lookup->message;
    return LOOKUP_DONE;
}
