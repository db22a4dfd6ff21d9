/* DRAW: a pattern and a count -> so many of its uids that no live server hosts. */
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "dht/lookup_kinds.h"
#include "dht/prefix.h"

struct state {
    uint32_t count;
    uint64_t first, end;   /* of the last coordinate */
    struct ranges *free;   /* of each want's prefix */
    uint64_t *free_before; /* free uids of the wants before */
    Expertd__Dht__DrawResult result;
};

static uint64_t extent(const struct uid_pattern *pattern, uint32_t dim)
{
    /* An end of 0 stands for 2^32, which the 32-bit difference gets right. */
    return (uint32_t)(pattern->range[dim].end - pattern->range[dim].first);
}

/* ---- numbers -------------------------------------------------------------------------------------------------------
 */

/* SplitMix64: the step adds the golden ratio's bits, the rest mixes them. */
static uint64_t random_next(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static int compare(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static size_t unique(uint64_t *numbers, size_t count)
{
    size_t kept = 0;
    qsort(numbers, count, sizeof *numbers, compare);
    for (size_t i = 0; i < count; i++)
        if (i == 0 || numbers[i] != numbers[kept - 1])
            numbers[kept++] = numbers[i];
    return kept;
}

/* `count` distinct numbers below total, ascending; count < total. */
static void draw_numbers(uint64_t *numbers, uint64_t count, uint64_t total)
{
    uint64_t seed = 0;
    if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed)
        seed = clock_now_ns();
    size_t have = 0;
    if (total < 4 * count) {
        /* One pass over all, each taken with the chance that it has left: it never has to draw one again. */
        for (uint64_t i = 0; i < total && have < count; i++)
            if (random_next(&seed) % (total - i) < count - have)
                numbers[have++] = i;
        return;
    }
    while (have < count) {
        for (; have < count; have++)
            numbers[have] = random_next(&seed) % total;
        have = unique(numbers, have);
    }
}

/* ---- running -------------------------------------------------------------------------------------------------------
 */

/* The number-th free uid of the pattern. */
static bool free_uid(const struct lookup *lookup, uint64_t number, size_t *want, char uid[UID_SIZE])
{
    const struct state *state = lookup->state;
    while (number >= state->free_before[*want + 1])
        ++*want;
    number -= state->free_before[*want];
    const struct ranges *set = &state->free[*want];
    for (size_t i = 0; i < set->count; i++) {
        const uint64_t members = set->items[i].end - set->items[i].first;
        if (number < members)
            return prefix_child(lookup->wants[*want].prefix, (uint32_t)(set->items[i].first + number), false, uid);
        number -= members;
    }
    return false;
}

static enum lookup_result answer(struct lookup *lookup)
{
    struct state *state = lookup->state;
    for (size_t w = 0; w < lookup->wants_count; w++)
        state->free_before[w + 1] = state->free_before[w] + ranges_members(&state->free[w], UINT64_MAX);
    const uint64_t total = state->free_before[lookup->wants_count];
    const uint64_t count = state->count < total ? state->count : total;
    uint64_t *numbers = lookup_take(lookup, count * sizeof *numbers);
    char **uids = lookup_take(lookup, count * sizeof(char *));
    if (lookup->failed)
        return LOOKUP_DONE;
    for (uint64_t i = 0; i < count; i++)
        numbers[i] = i;
    if (count < total)
        draw_numbers(numbers, count, total);
    size_t want = 0;
    for (uint64_t i = 0; i < count; i++) {
        char uid[UID_SIZE];
        if (!free_uid(lookup, numbers[i], &want, uid))
            continue; /* longer than a uid may be */
        uids[state->result.n_uids] = arena_text(&lookup->arena, uid);
        if (!uids[state->result.n_uids++])
            return lookup_fail(lookup, STATUS_RESOURCE_EXHAUSTED, "out of memory");
    }
    state->result.uids = uids;
    state->result.free = total;
    return LOOKUP_DONE;
}

static enum lookup_result run(struct lookup *lookup, struct moment now, bool last)
{
    struct state *state = lookup->state;
    bool waiting = false;
    for (size_t w = 0; w < lookup->wants_count; w++) {
        struct lookup_want *want = &lookup->wants[w];
        const struct place *place;
        if (want->done)
            continue;
        const int known = lookup_ask(lookup, want, CACHE_SURE, last, now, &place);
        if (known < 0)
            return LOOKUP_DONE;
        waiting |= known == 0;
        want->done = known;
        if (known && (ranges_append(&state->free[w], state->first, state->end) != 0 ||
                      ranges_subtract(&state->free[w], &place->experts) != 0))
            return lookup_fail(lookup, STATUS_RESOURCE_EXHAUSTED, "out of memory");
    }
    return waiting ? LOOKUP_WAITING : answer(lookup);
}

static void clean(struct lookup *lookup)
{
    struct state *state = lookup->state;
    for (size_t w = 0; w < lookup->wants_count; w++)
        ranges_destroy(&state->free[w]);
}

/* The pattern's prefixes into the wants, the last coordinate fastest. False if one is too long. */
static bool fill_wants(struct lookup *lookup, const struct uid_pattern *pattern)
{
    for (size_t w = 0; w < lookup->wants_count; w++) {
        uint32_t coordinates[UID_MAX_DIMS];
        char prefix[UID_SIZE + 1];
        uint64_t rest = w;
        for (uint32_t d = pattern->dims - 1; d-- > 0;) {
            coordinates[d] = pattern->range[d].first + (uint32_t)(rest % extent(pattern, d));
            rest /= extent(pattern, d);
        }
        const size_t length = strlen(pattern->prefix);
        if (length + 2 > UID_SIZE)
            return false;
        memcpy(prefix, pattern->prefix, length);
        memcpy(prefix + length, ".", 2);
        for (uint32_t d = 0; d + 1 < pattern->dims; d++) {
            char longer[UID_SIZE];
            if (!prefix_child(prefix, coordinates[d], true, longer))
                return false;
            memcpy(prefix, longer, UID_SIZE);
        }
        memcpy(lookup->wants[w].prefix, prefix, UID_SIZE);
    }
    return true;
}

static void begin(struct lookup *lookup)
{
    const Expertd__Dht__DrawQuery *query = lookup->request->draw;
    struct uid_pattern pattern;
    char error[160] = "no pattern";
    uint64_t prefixes = 1;
    if (!query || uid_pattern_parse(&pattern, query->pattern, error, sizeof error) != 0) {
        lookup_fail(lookup, STATUS_INVALID_ARGUMENT, "DRAW needs a pattern like ffn.[0:4].[0:16]: %s", error);
        return;
    }
    for (uint32_t d = 0; d + 1 < pattern.dims && prefixes <= LOOKUP_MAX_PREFIXES; d++)
        prefixes *= extent(&pattern, d);
    if (prefixes > LOOKUP_MAX_PREFIXES || query->count == 0 || query->count > LOOKUP_MAX_UIDS) {
        lookup_fail(lookup, STATUS_INVALID_ARGUMENT,
                    "DRAW takes a count of 1 to %d, and a pattern of at most %d coordinates before the last dimension",
                    LOOKUP_MAX_UIDS, LOOKUP_MAX_PREFIXES);
        return;
    }
    struct state *state = lookup_take(lookup, sizeof *state);
    if (!state || !(state->free = lookup_take(lookup, prefixes * sizeof *state->free)) ||
        !(state->free_before = lookup_take(lookup, (prefixes + 1) * sizeof *state->free_before)) ||
        lookup_make_wants(lookup, prefixes) != 0)
        return;
    expertd__dht__draw_result__init(&state->result);
    if (!fill_wants(lookup, &pattern)) {
        lookup_fail(lookup, STATUS_INVALID_ARGUMENT, "the pattern's uids are too long");
        return;
    }
    state->count = query->count;
    state->first = pattern.range[pattern.dims - 1].first;
    state->end = state->first + extent(&pattern, pattern.dims - 1);
    lookup->state = state;
    lookup->reply.draw = &state->result;
}

const struct lookup_kind draw_kind = {.begin = begin, .run = run, .clean = clean};
