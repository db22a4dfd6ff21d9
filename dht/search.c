/* BEAM_SEARCH: rows of scores -> the best live experts of each row.
 *
 * When the grid's prefix is known, so is all below it, and every row is answered at once. Until then every coordinate
 * of the grid may lead on, and the longer prefixes are asked for as the search comes to them: of a full grid the best
 * few hold the answer, and have few servers. If they do not, the grid is sparse, and the search waits for what is
 * above; unless more servers are there than are connected to. That nobody hosts anything is said when it is sure: who
 * did not answer is asked again first. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "dht/beam.h"
#include "dht/lookup_kinds.h"
#include "dht/prefix.h"

enum {
    GRID_MAX = 65536,
    SCORES_MAX = 1 << 22,
    ROWS_MAX = 65536,
    BEAM_SIZE_MAX = 1024,
    ANSWERS_MAX = 1 << 20, /* rows x beam_size */
    WANTS_MAX = 256,       /* prefixes fetched together */
    PEEK_ROUNDS = 3,       /* until it waits for what is above */
    ROUNDS_MAX = 64,       /* in each, all that was asked for comes; honest grids take as many as they have dimensions,
                              or a few more */
};

static const uint64_t slice_ns = 3 * NS_PER_MS;
static const uint64_t last_slice_ns = 30 * NS_PER_MS; /* at the deadline: rows that it leaves stay empty */

struct state {
    struct beam beam;
    struct beam_query query;
    struct beam_best *best; /* beam_size of them */
    size_t row_scores, rows;
    bool *done;           /* of each row */
    struct table numbers; /* uid -> struct numbered */
    Expertd__Dht__BeamResult result;
    Expertd__Dht__BeamResult__Row *row;
    size_t experts_capacity;
    struct ranges anything; /* what may follow a wide prefix */
    unsigned round;
    enum cache_need need;
    /* of the run that is under way */
    struct lookup *lookup;
    struct moment now;
    size_t row_now;
    bool last;
    bool lied_to; /* an expert was a liar's */
};

/* An expert of the answer, and its place there. */
struct numbered {
    Expertd__Dht__Resolved resolved;
    uint32_t number;
};

/* ---- what the search asks for --------------------------------------------------------------------------------------
 */

static void wait_for(struct lookup *lookup, struct cache_entry *entry, const char *prefix)
{
    if (!lookup->wants && lookup_make_wants(lookup, WANTS_MAX) != 0)
        return;
    for (size_t i = 0; i < lookup->wants_count; i++) {
        struct lookup_want *want = &lookup->wants[i];
        if (want->waiter.waits_for && strcmp(want->prefix, prefix) == 0)
            return;
        if (want->waiter.waits_for)
            continue;
        memcpy(want->prefix, prefix, strlen(prefix) + 1);
        lookup_wait(want, entry, ((const struct state *)lookup->state)->need);
        return;
    }
}

/* Whether experts complete the prefix, and not branches. */
static bool at_experts(const struct beam_query *query, const char *prefix)
{
    uint32_t depth = 0;
    for (const char *c = prefix + strlen(query->prefix); *c; c++)
        depth += *c == '.';
    return depth + 1 == query->dims;
}

static int find(void *context, const char *prefix, const struct ranges **experts, const struct ranges **branches)
{
    struct state *state = context;
    struct lookup *lookup = state->lookup;
    struct cache_entry *entry;
    const bool counted = state->round == 0 && state->row_now == 0;
    const bool leads_on = !at_experts(&state->query, prefix);
    const int peeked = leads_on ? cache_peek(lookup->cache, prefix, counted, state->now) : 1;
    if (peeked == -E2BIG || (peeked != 1 && state->round < PEEK_ROUNDS && !state->last)) {
        *experts = *branches = &state->anything;
        return 1;
    }
    const int known = cache_find(lookup->cache, prefix, state->need, counted, state->now, &entry);
    if (known == 0 && !state->last) {
        wait_for(lookup, entry, prefix);
        return lookup->failed ? -1 : 0;
    }
    if (known == -E2BIG && leads_on) {
        *experts = *branches = &state->anything;
        return 1;
    }
    /* Of a wide row, those that are known. */
    const struct place *place = known < 0 && known != -E2BIG ? NULL : world_find(lookup->cache->world, prefix);
    if (!place) {
        lookup_fail(lookup, STATUS_RESOURCE_EXHAUSTED,
                    "no room for more look-ups (dht.max_cache, dht.max_servers): try again later");
        return -1;
    }
    *experts = &place->experts;
    *branches = &place->branches;
    return 1;
}

/* ---- the answer ----------------------------------------------------------------------------------------------------
 */

static uint32_t best_coordinate(const struct state *state, size_t i)
{
    return state->best[i].coordinates[state->query.dims - 1];
}

static struct numbered *add_expert(struct state *state, const struct place *place, uint32_t coordinate, const char *uid)
{
    struct lookup *lookup = state->lookup;
    struct numbered *expert = lookup_take(lookup, sizeof *expert);
    char *text = arena_text(&lookup->arena, uid);
    if (state->result.n_experts == state->experts_capacity) {
        const size_t capacity = state->experts_capacity ? 2 * state->experts_capacity : 64;
        Expertd__Dht__Resolved **list = lookup_take(lookup, capacity * sizeof(Expertd__Dht__Resolved *));
        if (list && state->result.n_experts)
            memcpy(list, state->result.experts, state->result.n_experts * sizeof(Expertd__Dht__Resolved *));
        state->result.experts = list;
        state->experts_capacity = capacity;
    }
    if (!expert || !text || !state->result.experts || table_insert(&state->numbers, text, strlen(text), expert) != 0) {
        lookup_fail(lookup, STATUS_RESOURCE_EXHAUSTED, "out of memory");
        return NULL;
    }
    expertd__dht__resolved__init(&expert->resolved);
    expert->resolved.uid = text;
    expert->number = (uint32_t)state->result.n_experts;
    state->result.experts[state->result.n_experts++] = &expert->resolved;
    return lookup_replicas(lookup, place, coordinate, &expert->resolved) == 0 ? expert : NULL;
}

/* The uid of one of the best, and what stands before its last coordinate. False: somebody's record has a coordinate
 * that makes no uid. */
static bool name(const struct state *state, const struct beam_best *best, char prefix[UID_SIZE], char uid[UID_SIZE])
{
    bool fits = true;
    memcpy(uid, state->query.prefix, strlen(state->query.prefix) + 1);
    for (uint32_t d = 0; d < state->query.dims && fits; d++) {
        memcpy(prefix, uid, UID_SIZE);
        fits = prefix_child(prefix, best->coordinates[d], d + 1 < state->query.dims, uid);
    }
    return fits;
}

/* The row's experts into the answer: 1. 0: one of them was a liar's, which is to be forgotten first; -1: failed. */
static int answer_row(struct state *state, size_t row, size_t found)
{
    struct lookup *lookup = state->lookup;
    Expertd__Dht__BeamResult__Row *answer = &state->row[row];
    answer->n_experts = answer->n_scores = 0;
    answer->experts = lookup_take(lookup, found * sizeof *answer->experts);
    answer->scores = lookup_take(lookup, found * sizeof *answer->scores);
    if (lookup->failed)
        return -1;
    for (size_t i = 0; i < found; i++) {
        char prefix[UID_SIZE], uid[UID_SIZE];
        if (!name(state, &state->best[i], prefix, uid))
            continue;
        struct numbered *expert = table_find(&state->numbers, uid, strlen(uid));
        if (!expert) {
            size_t at = 0;
            const uint32_t coordinate = best_coordinate(state, i);
            const struct place *place = world_find(lookup->cache->world, prefix);
            if (!place || !place_replica(place, coordinate, &at)) { /* nobody has proved who it is that hosts it */
                if (state->last)
                    continue;
                return 0;
            }
            expert = add_expert(state, place, coordinate, uid);
        }
        if (!expert)
            return -1;
        answer->experts[answer->n_experts++] = expert->number;
        answer->scores[answer->n_scores++] = (float)state->best[i].score;
    }
    return 1;
}

/* ---- running -------------------------------------------------------------------------------------------------------
 */

/* 1: the row is done; 0: something is missing; -1: failed. */
static int run_row(struct state *state, size_t row)
{
    const struct beam_source source = {state, find};
    /* Mostly the best of the first few prefixes are the best of all. */
    const size_t missing_max = (size_t)(state->query.beam_size + 7) / 4 << (state->round < 8 ? state->round : 8);
    size_t found;
    state->row_now = row;
    state->query.scores = state->lookup->request->beam->scores + row * state->row_scores;
    const int rc = beam_search(&state->beam, &state->query, &source, missing_max < WANTS_MAX ? missing_max : WANTS_MAX,
                               state->best, &found);
    if (rc == -E2BIG || rc == -ENOMEM)
        lookup_fail(state->lookup, STATUS_RESOURCE_EXHAUSTED, "the grid is too large to be searched");
    if (rc < 0)
        return -1;
    if (rc == 1 && found == 0 && state->need != CACHE_SURE && !state->last) {
        state->need = CACHE_SURE;
        return 0;
    }
    const int answered = rc == 1 ? answer_row(state, row, found) : 0;
    state->lied_to |= rc == 1 && answered == 0;
    return answered;
}

static bool waits(const struct lookup *lookup)
{
    for (size_t i = 0; i < lookup->wants_count; i++)
        if (lookup->wants[i].waiter.waits_for)
            return true;
    return false;
}

static enum lookup_result run(struct lookup *lookup, struct moment now, bool last)
{
    struct state *state = lookup->state;
    const uint64_t end_ns = clock_now_ns() + (last ? last_slice_ns : slice_ns);
    /* What was asked for together is waited for together: it mostly leads on together. */
    if (!last && waits(lookup))
        return LOOKUP_WAITING;
    state->now = now;
    state->last = last;
    state->lied_to = false;
    bool missing = false;
    for (size_t row = 0; row < state->rows; row++) {
        if (state->done[row])
            continue;
        const int done = run_row(state, row);
        if (done < 0)
            return LOOKUP_DONE;
        state->done[row] = done;
        if (state->lied_to)
            return LOOKUP_AGAIN; /* what it said is forgotten before the next run */
        missing |= done == 0;
        if (row % 16 == 15 && !missing && clock_now_ns() >= end_ns)
            return LOOKUP_AGAIN;
    }
    if (missing && ++state->round > ROUNDS_MAX)
        return lookup_fail(lookup, STATUS_RESOURCE_EXHAUSTED,
                           "the grid is too sparse to be searched: more than %d rounds of look-ups", ROUNDS_MAX);
    return missing ? waits(lookup) ? LOOKUP_WAITING : LOOKUP_AGAIN : LOOKUP_DONE;
}

static void clean(struct lookup *lookup)
{
    struct state *state = lookup->state;
    beam_destroy(&state->beam);
    ranges_destroy(&state->anything);
    table_destroy(&state->numbers);
}

/* ---- the request ---------------------------------------------------------------------------------------------------
 */

/* NULL, or what is wrong. */
static const char *check(const Expertd__Dht__BeamQuery *query, size_t *row_scores)
{
    *row_scores = 0;
    if (!query)
        return "BEAM_SEARCH needs `beam`";
    if (!prefix_valid(query->prefix))
        return "beam.prefix is no prefix: it ends with a dot, as ffn. does";
    if (query->n_grid_size < 1 || query->n_grid_size > UID_MAX_DIMS)
        return "beam.grid_size has to have 1 to 16 dimensions";
    for (size_t d = 0; d < query->n_grid_size; d++) {
        if (query->grid_size[d] < 1 || query->grid_size[d] > GRID_MAX)
            return "each of beam.grid_size has to be 1 to 65536";
        *row_scores += query->grid_size[d];
    }
    if (query->n_scores == 0 || query->n_scores > SCORES_MAX || query->n_scores % *row_scores != 0)
        return "beam.scores has to be one or more rows of sum(grid_size) numbers, at most 4194304 in all";
    if (query->beam_size < 1 || query->beam_size > BEAM_SIZE_MAX)
        return "beam.beam_size has to be 1 to 1024";
    const size_t rows = query->n_scores / *row_scores;
    if (rows > ROWS_MAX || rows * query->beam_size > ANSWERS_MAX)
        return "at most 65536 rows, and 1048576 experts in the answer (rows x beam_size)";
    for (size_t i = 0; i < query->n_scores; i++)
        if (isnan(query->scores[i]) || (isinf(query->scores[i]) && query->scores[i] > 0))
            return "a score is NaN or +Inf";
    return NULL;
}

static void begin(struct lookup *lookup)
{
    const Expertd__Dht__BeamQuery *query = lookup->request->beam;
    size_t row_scores;
    const char *problem = check(query, &row_scores);
    if (problem) {
        lookup_fail(lookup, STATUS_INVALID_ARGUMENT, "%s", problem);
        return;
    }
    const size_t rows = query->n_scores / row_scores;
    struct state *state = lookup_take(lookup, sizeof *state);
    Expertd__Dht__BeamResult__Row **list = lookup_take(lookup, rows * sizeof(Expertd__Dht__BeamResult__Row *));
    Expertd__Dht__BeamResult__Row *row = lookup_take(lookup, rows * sizeof *row);
    bool *done = lookup_take(lookup, rows * sizeof *done);
    struct beam_best *best = lookup_take(lookup, query->beam_size * sizeof *best);
    if (!state || !list || !row || !done || !best || ranges_append(&state->anything, 0, RANGES_END_MAX) != 0) {
        lookup_fail(lookup, STATUS_RESOURCE_EXHAUSTED, "out of memory");
        return;
    }
    for (size_t i = 0; i < rows; i++) {
        expertd__dht__beam_result__row__init(&row[i]);
        list[i] = &row[i];
    }
    expertd__dht__beam_result__init(&state->result);
    state->result.rows = list;
    state->result.n_rows = rows;
    state->query = (struct beam_query){.prefix = query->prefix,
                                       .dims = (uint32_t)query->n_grid_size,
                                       .grid = query->grid_size,
                                       .beam_size = query->beam_size};
    state->best = best;
    state->row = row;
    state->done = done;
    state->rows = rows;
    state->row_scores = row_scores;
    state->lookup = lookup;
    lookup->state = state;
    lookup->reply.beam = &state->result;
}

const struct lookup_kind search_kind = {.begin = begin, .run = run, .clean = clean};
