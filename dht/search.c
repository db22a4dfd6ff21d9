/* BEAM_SEARCH: rows of scores -> the best live experts of each row.
 *
 * A row is answered from prefixes that are exactly known. Until they are, the search goes on with what has come, so
 * that the prefixes that it leads to are asked for meanwhile. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "dht/beam.h"
#include "dht/lookup.h"
#include "dht/prefix.h"

enum {
    GRID_MAX = 65536,
    SCORES_MAX = 1 << 22,
    ROWS_MAX = 65536,
    BEAM_SIZE_MAX = 1024,
    ANSWERS_MAX = 1 << 20, /* rows x beam_size */
    WANTS_MAX = 256,       /* prefixes fetched together */
    LAZY_ROUNDS = 4,
    ROUNDS_MAX = 64, /* in each, all that was asked for comes; honest grids take as many as they have dimensions,
                        or a few more */
};

static const uint64_t slice_ns = 3 * NS_PER_MS;
static const uint64_t last_slice_ns = 30 * NS_PER_MS; /* at the deadline: rows that it leaves stay empty */

struct state {
    struct beam beam;
    struct beam_query query;
    struct beam_best *best; /* beam_size of them */
    size_t row_scores, rows, rows_done;
    bool *done;           /* of each row */
    struct table numbers; /* uid -> struct numbered */
    Expertd__Dht__BeamResult result;
    Expertd__Dht__BeamResult__Row *row;
    size_t experts_capacity;
    unsigned round;
    unsigned unsettled; /* runs that met servers of which it was not known whether they live */
    /* of the run that is under way */
    struct lookup *lookup;
    struct moment now;
    size_t row_now;
    bool leaves;  /* were waited for: it was no mere guess that came */
    bool unknown; /* such servers were met */
    bool guessed; /* something that is not exactly known was used for the row */
    bool last;
};

/* An expert of the answer, and its place there. */
struct numbered {
    Expertd__Dht__Resolved resolved;
    uint32_t number;
};

/* ---- what the search asks for --------------------------------------------------------------------------------------
 */

static struct lookup_want *wanted(const struct lookup *lookup, const char *prefix)
{
    for (size_t i = 0; i < lookup->wants_count && lookup->wants[i].asked; i++)
        if (strcmp(lookup->wants[i].prefix, prefix) == 0)
            return &lookup->wants[i];
    return NULL;
}

/* A want that waits for nothing yet. NULL: none is left (those that wait will do), or the lookup has failed. */
static struct lookup_want *free_want(struct lookup *lookup)
{
    if (!lookup->wants && lookup_make_wants(lookup, WANTS_MAX) != 0)
        return NULL;
    for (size_t i = 0; i < lookup->wants_count; i++)
        if (!lookup->wants[i].asked)
            return &lookup->wants[i];
    return NULL;
}

static void wait_for(struct lookup *lookup, struct cache_entry *entry, enum cache_level level, bool leads_on)
{
    struct lookup_want *want = wanted(lookup, entry->prefix) ? NULL : free_want(lookup);
    if (!want)
        return;
    want->asked = true;
    want->leads_on = leads_on;
    memcpy(want->prefix, entry->prefix, UID_SIZE);
    want->waiter.level = level;
    cache_wait(entry, &want->waiter);
    lookup->waiting++;
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
    /* Branches of servers that do not live lead to nothing, and so do no harm. Experts that do not are found out by
     * answer_row; if they are many, all servers are asked for. */
    const bool leaf = at_experts(&state->query, prefix);
    const enum cache_level need = leaf && state->unsettled >= LAZY_ROUNDS ? CACHE_EXACT : CACHE_COMPLETE;
    int known = cache_find(lookup->cache, prefix, need, counted, state->now, &entry);
    if (known == 1 && state->last)
        known = 0;
    if (known == 0 && !state->last) {
        const bool guess = entry->level >= CACHE_GUESS;
        state->leaves |= leaf || guess;
        wait_for(lookup, entry, leaf || guess ? need : CACHE_GUESS, !leaf);
        if (lookup->failed)
            return -1;
        if (!guess)
            return 0;
        state->guessed = true;
    }
    if (known == 0)
        known = cache_look(lookup->cache, entry, !state->last, state->now) == 0 ? 1 : -ENOMEM;
    if (known < 0) {
        lookup_fail(lookup, STATUS_RESOURCE_EXHAUSTED, "no room for more look-ups (dht.max_cache): try again later");
        return -1;
    }
    *experts = &entry->experts;
    *branches = &entry->branches;
    return 1;
}

/* ---- the answer ----------------------------------------------------------------------------------------------------
 */

static uint32_t best_coordinate(const struct state *state, size_t i)
{
    return state->best[i].coordinates[state->query.dims - 1];
}

static struct numbered *add_expert(struct state *state, const char *prefix, uint32_t coordinate, const char *uid)
{
    struct lookup *lookup = state->lookup;
    struct cache_entry *entry;
    struct numbered *expert = arena_take(&lookup->arena, sizeof *expert);
    char *text = arena_text(&lookup->arena, uid);
    if (state->result.n_experts == state->experts_capacity) {
        const size_t capacity = state->experts_capacity ? 2 * state->experts_capacity : 64;
        Expertd__Dht__Resolved **list = arena_take(&lookup->arena, capacity * sizeof(Expertd__Dht__Resolved *));
        if (list && state->result.n_experts)
            memcpy(list, state->result.experts, state->result.n_experts * sizeof(Expertd__Dht__Resolved *));
        state->result.experts = list;
        state->experts_capacity = capacity;
    }
    if (!expert || !text || !state->result.experts || table_insert(&state->numbers, text, strlen(text), expert) != 0 ||
        cache_find(lookup->cache, prefix, CACHE_COMPLETE, false, state->now, &entry) < 0) {
        lookup_fail(lookup, STATUS_RESOURCE_EXHAUSTED, "out of memory");
        return NULL;
    }
    expertd__dht__resolved__init(&expert->resolved);
    expert->resolved.uid = text;
    expert->number = (uint32_t)state->result.n_experts;
    state->result.experts[state->result.n_experts++] = &expert->resolved;
    return lookup_replicas(lookup, entry, coordinate, state->now, &expert->resolved) == 0 ? expert : NULL;
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

/* Whether it is known of all servers of the row's experts whether they live. 1; 0: not yet; -1: failed. */
static int settle_row(struct state *state, size_t found)
{
    struct lookup *lookup = state->lookup;
    int settled = 1;
    for (size_t i = 0; i < found && !state->last; i++) {
        char prefix[UID_SIZE], uid[UID_SIZE];
        struct cache_entry *entry;
        struct cache_waiter none = {0};
        if (!name(state, &state->best[i], prefix, uid) || table_find(&state->numbers, uid, strlen(uid)))
            continue;
        struct lookup_want *want = free_want(lookup);
        if (lookup->failed || cache_find(lookup->cache, prefix, CACHE_COMPLETE, false, state->now, &entry) < 0)
            return -1;
        struct cache_waiter *waiter = want ? &want->waiter : &none;
        waiter->level = CACHE_EXACT;
        if (cache_settled(lookup->cache, entry, best_coordinate(state, i), waiter, state->now))
            continue;
        settled = 0;
        state->unknown = state->leaves = true;
        if (want) {
            want->asked = true;
            want->leads_on = false;
            want->prefix[0] = '\0';
            lookup->waiting++;
        } else {
            cache_waiter_remove(&none);
        }
    }
    return settled;
}

/* The row's experts into the answer. 0 or a failed lookup (-1). */
static int answer_row(struct state *state, size_t row, size_t found)
{
    struct lookup *lookup = state->lookup;
    Expertd__Dht__BeamResult__Row *answer = &state->row[row];
    answer->experts = arena_take(&lookup->arena, found * sizeof *answer->experts);
    answer->scores = arena_take(&lookup->arena, found * sizeof *answer->scores);
    if (!answer->experts || !answer->scores) {
        lookup_fail(lookup, STATUS_RESOURCE_EXHAUSTED, "out of memory");
        return -1;
    }
    for (size_t i = 0; i < found; i++) {
        char prefix[UID_SIZE], uid[UID_SIZE];
        if (!name(state, &state->best[i], prefix, uid))
            continue;
        struct numbered *expert = table_find(&state->numbers, uid, strlen(uid));
        if (!expert)
            expert = add_expert(state, prefix, best_coordinate(state, i), uid);
        if (!expert)
            return -1;
        answer->experts[answer->n_experts++] = expert->number;
        answer->scores[answer->n_scores++] = (float)state->best[i].score;
    }
    return 0;
}

/* ---- running -------------------------------------------------------------------------------------------------------
 */

/* 1: the row is done; 0: something is missing; -1: failed. */
static int run_row(struct state *state, size_t row)
{
    const struct beam_source source = {state, find};
    /* Mostly the best of the first few prefixes are the best of all. */
    const size_t missing_max = (size_t)(state->query.beam_size + 3) / 4 << (state->round < 8 ? state->round : 8);
    size_t found;
    state->row_now = row;
    state->guessed = false;
    state->query.scores = state->lookup->request->beam->scores + row * state->row_scores;
    const int rc = beam_search(&state->beam, &state->query, &source, missing_max < WANTS_MAX ? missing_max : WANTS_MAX,
                               state->best, &found);
    if (rc == -E2BIG || rc == -ENOMEM)
        lookup_fail(state->lookup, STATUS_RESOURCE_EXHAUSTED, "the grid is too large to be searched");
    if (rc < 0)
        return -1;
    if (rc == 0)
        return 0;
    const int settled = settle_row(state, found);
    if (settled < 0 || (settled && !state->guessed && answer_row(state, row, found) != 0))
        return -1;
    return settled && !state->guessed;
}

static enum lookup_result run(struct lookup *lookup, struct moment now, bool last)
{
    struct state *state = lookup->state;
    const uint64_t end_ns = clock_now_ns() + (last ? last_slice_ns : slice_ns);
    const bool all_came = state->leaves && lookup->waiting == 0;
    state->now = now;
    state->last = last;
    if (all_came && ++state->round > ROUNDS_MAX)
        return lookup_fail(lookup, STATUS_RESOURCE_EXHAUSTED,
                           "the grid is too sparse to be searched: more than %d rounds of look-ups", ROUNDS_MAX);
    lookup->waiting = 0;
    state->leaves = state->unknown = false;
    for (size_t i = 0; i < lookup->wants_count; i++) {
        cache_waiter_remove(&lookup->wants[i].waiter);
        lookup->wants[i].asked = false;
    }
    bool missing = false;
    for (size_t row = 0; row < state->rows; row++) {
        if (state->done[row])
            continue;
        const int done = run_row(state, row);
        if (done < 0)
            return LOOKUP_DONE;
        state->done[row] = done;
        state->rows_done += done;
        missing |= done == 0;
        if (row % 16 == 15 && !missing && clock_now_ns() >= end_ns)
            return LOOKUP_AGAIN;
    }
    state->unsettled += state->unknown;
    return missing ? LOOKUP_WAITING : LOOKUP_DONE;
}

static void clean(struct lookup *lookup)
{
    struct state *state = lookup->state;
    beam_destroy(&state->beam);
    table_destroy(&state->numbers);
}

static const struct lookup_kind searching = {.run = run, .clean = clean};

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

void search_init(struct lookup *lookup)
{
    const Expertd__Dht__BeamQuery *query = lookup->request->beam;
    size_t row_scores;
    const char *problem = check(query, &row_scores);
    if (problem) {
        lookup_fail(lookup, STATUS_INVALID_ARGUMENT, "%s", problem);
        return;
    }
    const size_t rows = query->n_scores / row_scores;
    struct state *state = arena_take(&lookup->arena, sizeof *state);
    Expertd__Dht__BeamResult__Row **list = arena_take(&lookup->arena, rows * sizeof(Expertd__Dht__BeamResult__Row *));
    Expertd__Dht__BeamResult__Row *row = arena_take(&lookup->arena, rows * sizeof *row);
    bool *done = arena_take(&lookup->arena, rows * sizeof *done);
    struct beam_best *best = arena_take(&lookup->arena, query->beam_size * sizeof *best);
    if (!state || !list || !row || !done || !best) {
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
    lookup->kind = &searching;
    lookup->patient = true;
    lookup->reply.beam = &state->result;
}
