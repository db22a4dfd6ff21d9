/* RESOLVE: uids -> the live servers of each. The uids are sorted by prefix, since what is asked for is the prefix. */
#include <stdlib.h>
#include <string.h>

#include "dht/lookup_kinds.h"
#include "dht/prefix.h"

struct item {
    uint32_t number; /* in the request */
    uint32_t coordinate;
    char prefix[UID_SIZE];
};

struct state {
    struct item *items;               /* ascending by prefix */
    size_t *first;                    /* of each want; and one past the last */
    Expertd__Dht__Resolved *resolved; /* in the request's order */
};

static int compare(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    return strcmp(x->prefix, y->prefix);
}

static bool all_hosted(const struct item *items, size_t count, const struct place *place)
{
    for (size_t i = 0; i < count; i++) {
        size_t at = 0;
        if (!place_replica(place, items[i].coordinate, &at))
            return false;
    }
    return true;
}

/* That somebody has it is known sooner than that nobody does; and where strangers, or servers, are too many for all of
 * them to be asked, that nobody does is never known. As lookup_ask. */
static int ask(struct lookup *lookup, struct lookup_want *want, const struct item *items, size_t count, bool last,
               struct moment now, const struct place **place)
{
    int known = lookup_ask_part(lookup, want, want->sure ? CACHE_SURE : CACHE_SETTLED, last, now, place);
    if (known == 2) {
        known = last || all_hosted(items, count, *place);
        if (known)
            cache_waiter_remove(&want->waiter);
        return known;
    }
    if (known != 1 || last || want->sure || all_hosted(items, count, *place))
        return known;
    want->sure = true;
    return ask(lookup, want, items, count, last, now, place);
}

static enum lookup_result run(struct lookup *lookup, struct moment now, bool last)
{
    struct state *state = lookup->state;
    bool waiting = false;
    for (size_t w = 0; w < lookup->wants_count; w++) {
        struct lookup_want *want = &lookup->wants[w];
        const struct item *items = &state->items[state->first[w]];
        const size_t count = state->first[w + 1] - state->first[w];
        const struct place *place;
        if (want->done)
            continue;
        const int known = ask(lookup, want, items, count, last, now, &place);
        if (known < 0)
            return LOOKUP_DONE;
        waiting |= known == 0;
        for (size_t i = 0; known && i < count; i++)
            if (lookup_replicas(lookup, place, items[i].coordinate, &state->resolved[items[i].number]) != 0)
                return LOOKUP_DONE;
        want->done = known;
    }
    return waiting ? LOOKUP_WAITING : LOOKUP_DONE;
}

/* The wants: one for each prefix among the sorted items. */
static int group(struct lookup *lookup, struct state *state, size_t count)
{
    size_t groups = 0;
    for (size_t i = 0; i < count; i++)
        groups += i == 0 || strcmp(state->items[i].prefix, state->items[i - 1].prefix) != 0;
    state->first = lookup_take(lookup, (groups + 1) * sizeof *state->first);
    if (!state->first || lookup_make_wants(lookup, groups) != 0)
        return -1;
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && strcmp(state->items[i].prefix, state->items[i - 1].prefix) == 0)
            continue;
        memcpy(lookup->wants[at].prefix, state->items[i].prefix, UID_SIZE);
        state->first[at++] = i;
    }
    state->first[at] = count;
    return 0;
}

static void begin(struct lookup *lookup)
{
    const Expertd__Dht__Request *request = lookup->request;
    const size_t count = request->n_uids;
    if (count == 0 || count > LOOKUP_MAX_UIDS) {
        lookup_fail(lookup, STATUS_INVALID_ARGUMENT, "RESOLVE takes 1 to %d uids, not %zu", LOOKUP_MAX_UIDS, count);
        return;
    }
    struct state *state = lookup_take(lookup, sizeof *state);
    struct item *items = lookup_take(lookup, count * sizeof *items);
    Expertd__Dht__Resolved *resolved = lookup_take(lookup, count * sizeof *resolved);
    Expertd__Dht__Resolved **list = lookup_take(lookup, count * sizeof(Expertd__Dht__Resolved *));
    if (lookup->failed)
        return;
    for (size_t i = 0; i < count; i++) {
        if (!prefix_of_uid(request->uids[i], items[i].prefix, &items[i].coordinate)) {
            lookup_fail(lookup, STATUS_INVALID_ARGUMENT, "uid %zu of the request is no uid: '%.100s'", i,
                        request->uids[i]);
            return;
        }
        items[i].number = (uint32_t)i;
        expertd__dht__resolved__init(&resolved[i]);
        resolved[i].uid = request->uids[i];
        list[i] = &resolved[i];
    }
    qsort(items, count, sizeof *items, compare);
    state->items = items;
    state->resolved = resolved;
    if (group(lookup, state, count) != 0)
        return;
    lookup->state = state;
    lookup->reply.resolved = list;
    lookup->reply.n_resolved = count;
}

const struct lookup_kind resolve_kind = {.begin = begin, .run = run};
