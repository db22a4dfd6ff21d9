/* PREFIX: prefixes -> the live coordinates that follow each. */
#include <string.h>

#include "dht/lookup_kinds.h"
#include "dht/prefix.h"

static int copy(struct lookup *lookup, const struct ranges *set, Expertd__Dht__Range ***list, size_t *count)
{
    Expertd__Dht__Range *ranges = lookup_take(lookup, set->count * sizeof *ranges);
    *list = lookup_take(lookup, set->count * sizeof(Expertd__Dht__Range *));
    if (!ranges || !*list || lookup->arena.bytes > LOOKUP_REPLY_MAX) {
        lookup_fail(lookup, STATUS_RESOURCE_EXHAUSTED, "the answer is too large: ask for fewer prefixes at once");
        return -1;
    }
    for (size_t i = 0; i < set->count; i++) {
        expertd__dht__range__init(&ranges[i]);
        ranges[i].first = (uint32_t)set->items[i].first;
        ranges[i].count = set->items[i].end - set->items[i].first;
        (*list)[i] = &ranges[i];
    }
    *count = set->count;
    return 0;
}

static enum lookup_result run(struct lookup *lookup, struct moment now, bool last)
{
    Expertd__Dht__PrefixContent *contents = lookup->state;
    bool waiting = false;
    for (size_t w = 0; w < lookup->wants_count; w++) {
        struct lookup_want *want = &lookup->wants[w];
        const struct place *place;
        if (want->done)
            continue;
        const int known = lookup_ask(lookup, want, CACHE_SURE, last, now, &place);
        if (known < 0)
            return LOOKUP_DONE;
        if (known && (copy(lookup, &place->experts, &contents[w].experts, &contents[w].n_experts) != 0 ||
                      copy(lookup, &place->branches, &contents[w].branches, &contents[w].n_branches) != 0))
            return LOOKUP_DONE;
        waiting |= known == 0;
        want->done = known;
    }
    return waiting ? LOOKUP_WAITING : LOOKUP_DONE;
}

static void begin(struct lookup *lookup)
{
    const Expertd__Dht__Request *request = lookup->request;
    const size_t count = request->n_prefixes;
    if (count == 0 || count > LOOKUP_MAX_PREFIXES) {
        lookup_fail(lookup, STATUS_INVALID_ARGUMENT, "PREFIX takes 1 to %d prefixes, not %zu", LOOKUP_MAX_PREFIXES,
                    count);
        return;
    }
    Expertd__Dht__PrefixContent *contents = lookup_take(lookup, count * sizeof *contents);
    Expertd__Dht__PrefixContent **list = lookup_take(lookup, count * sizeof(Expertd__Dht__PrefixContent *));
    if (!contents || !list || lookup_make_wants(lookup, count) != 0)
        return;
    for (size_t i = 0; i < count; i++) {
        const char *prefix = request->prefixes[i];
        if (!prefix_valid(prefix)) {
            lookup_fail(lookup, STATUS_INVALID_ARGUMENT,
                        "prefix %zu of the request is none: '%.100s' (a prefix ends with a dot, as ffn. or ffn.4. do)",
                        i, prefix);
            return;
        }
        memcpy(lookup->wants[i].prefix, prefix, strlen(prefix) + 1);
        expertd__dht__prefix_content__init(&contents[i]);
        contents[i].prefix = request->prefixes[i];
        list[i] = &contents[i];
    }
    lookup->state = contents;
    lookup->reply.prefixes = list;
    lookup->reply.n_prefixes = count;
}

const struct lookup_kind listing_kind = {.begin = begin, .run = run};
