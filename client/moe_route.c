#include "client/moe_route.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "client/remote_task.h"
#include "common/clock.h"

enum {
    SCORES_A_QUESTION = 1 << 20, /* 4 MiB of the 16 that expertd-dht takes */
    ROWS_A_QUESTION = 65536,
    BEAM_MAX = 1024,
    SPARES = 4, /* times as many are asked for while some are known to be unusable */
};

void moe_route_clear(struct moe_route *route)
{
    free(route->slots);
    free(route->experts);
    free(route->buckets);
    *route = (struct moe_route){0};
}

float moe_route_score(const struct moe_route *route, uint32_t expert, const float *scores)
{
    float sum = 0;
    for (size_t d = 0; d < route->dims; d++)
        sum += scores[route->experts[expert].scores[d]];
    return sum;
}

static bool rehash(struct moe_route *route)
{
    const size_t size = route->n_buckets ? 2 * route->n_buckets : 64;
    uint32_t *buckets = malloc(size * sizeof *buckets);
    if (!buckets)
        return false;
    memset(buckets, 0xff, size * sizeof *buckets);
    for (uint32_t i = 0; i < route->n_experts; i++) {
        uint32_t *bucket = &buckets[uid_hash(route->experts[i].uid, strlen(route->experts[i].uid)) & (size - 1)];
        route->experts[i].next = *bucket;
        *bucket = i;
    }
    free(route->buckets);
    route->buckets = buckets;
    route->n_buckets = size;
    return true;
}

static bool make_room(struct moe_route *route)
{
    if (route->n_experts == route->capacity) {
        const size_t capacity = route->capacity ? 2 * route->capacity : 64;
        struct moe_expert *experts = realloc(route->experts, capacity * sizeof *experts);
        if (!experts)
            return false;
        route->experts = experts;
        route->capacity = capacity;
    }
    return route->n_experts < route->n_buckets || rehash(route);
}

/* Where a uid's coordinates lie among the scores; false if it is not of this grid. */
static bool place(const struct moe *moe, const char *uid, uint32_t scores[UID_MAX_DIMS])
{
    uint32_t coordinates[UID_MAX_DIMS];
    uint32_t before = 0;
    size_t prefix_length;
    const size_t length = strlen(moe->prefix);
    const int dims = uid_split(uid, &prefix_length, coordinates);
    if (dims < (int)moe->options.n_grid || strncmp(uid, moe->prefix, length) != 0)
        return false;
    /* The prefix may have coordinates of its own ("ffn.4."); it ends with a dot, so the others begin behind it. */
    size_t dots = 0;
    for (const char *at = uid + length; *at; at++)
        dots += *at == '.';
    if (dots + 1 != moe->options.n_grid)
        return false;
    for (size_t d = 0; d < moe->options.n_grid; d++) {
        const uint32_t coordinate = coordinates[(size_t)dims - moe->options.n_grid + d];
        if (coordinate >= moe->grid_size[d])
            return false;
        scores[d] = before + coordinate;
        before += moe->grid_size[d];
    }
    return true;
}

/* The number of a uid in this route; MOE_NO_EXPERT if it is not of this grid. False without memory. */
static bool number_of(struct moe_route *route, const struct moe *moe, const char *uid, uint32_t *number)
{
    *number = MOE_NO_EXPERT;
    if (route->n_buckets)
        *number = route->buckets[uid_hash(uid, strlen(uid)) & (route->n_buckets - 1)];
    while (*number != MOE_NO_EXPERT && strcmp(route->experts[*number].uid, uid) != 0)
        *number = route->experts[*number].next;
    if (*number != MOE_NO_EXPERT)
        return true;
    struct moe_expert expert = {.n_rows = 0};
    if (!place(moe, uid, expert.scores))
        return true;
    if (!make_room(route))
        return false;
    uint32_t *bucket = &route->buckets[uid_hash(uid, strlen(uid)) & (route->n_buckets - 1)];
    memcpy(expert.uid, uid, strlen(uid) + 1);
    expert.next = *bucket;
    *bucket = *number = (uint32_t)route->n_experts;
    route->experts[route->n_experts++] = expert;
    return true;
}

/* Whether a call has a chance, as far as this process has found out by itself. */
static bool reachable(struct expertd_dht *dht, const char *uid)
{
    const struct replicas *replicas = dht_replicas(dht, uid);
    for (size_t i = 0; replicas && i < replicas->count; i++) {
        struct server *server = server_list_get(&dht->servers, replicas->endpoints[i], replicas->keys[i]);
        const bool usable = server && server_usable(server);
        if (server)
            server_release(server);
        if (usable)
            return true;
    }
    return false;
}

static bool any_down(const struct expertd_dht *dht)
{
    const struct server *server;
    for (server = TAILQ_FIRST(&dht->servers.servers); server; server = TAILQ_NEXT(server, link))
        if (server->down)
            return true;
    return false;
}

static bool row_has(const uint32_t *slots, size_t count, uint32_t expert)
{
    for (size_t i = 0; i < count; i++)
        if (slots[i] == expert)
            return true;
    return false;
}

/* The experts of one row of the answer. numbers: of the answer's experts, in this route. */
static void take_row(struct moe_route *route, const Expertd__Dht__BeamResult__Row *row, const uint32_t *numbers,
                     const float *scores, uint32_t *slots)
{
    size_t taken = 0;
    for (size_t i = 0; i < row->n_experts && taken < route->k; i++) {
        const uint32_t expert = numbers[row->experts[i]];
        if (expert == MOE_NO_EXPERT || row_has(slots, taken, expert) ||
            moe_route_score(route, expert, scores) == -INFINITY)
            continue;
        slots[taken++] = expert;
        route->experts[expert].n_rows++;
    }
}

static bool take_answer(struct moe_route *route, struct moe *moe, const Expertd__Dht__BeamResult *beam,
                        const float *scores, size_t first_row)
{
    uint32_t *numbers = malloc((beam->n_experts + 1) * sizeof *numbers);
    bool done = numbers != NULL;
    const bool suspicious = any_down(moe->dht);
    for (size_t i = 0; i < beam->n_experts && done; i++) {
        const char *uid = beam->experts[i]->uid;
        replica_cache_put(&moe->dht->cache, beam->experts[i], clock_now_ns());
        done = number_of(route, moe, uid, &numbers[i]);
        if (suspicious && !reachable(moe->dht, uid))
            numbers[i] = MOE_NO_EXPERT;
    }
    for (size_t i = 0; i < beam->n_rows && done; i++)
        take_row(route, beam->rows[i], numbers, scores + i * moe->gate.n_scores,
                 route->slots + (first_row + i) * route->k);
    free(numbers);
    return done;
}

/* One question about rows from first_row on, while it is on its way. */
struct beam_search {
    struct dht_lookup lookup; /* first */
    struct moe_route *route;
    struct moe *moe;
    const float *scores;
    size_t first_row, rows;
    enum expertd_status status;
    bool done;
};

/* What was found in time is better than nothing. */
static void found(struct dht_lookup *lookup, enum expertd_status status, const Expertd__Dht__Reply *reply,
                  const char *message)
{
    struct beam_search *search = (struct beam_search *)lookup;
    search->done = true;
    search->status = EXPERTD_OK;
    if (!reply || !reply->beam || reply->beam->n_rows != search->rows)
        search->status = moe_fail(search->moe, status == EXPERTD_DEADLINE_EXCEEDED ? EXPERTD_UNAVAILABLE : status,
                                  "beam search: %s", message);
    else if (!take_answer(search->route, search->moe, reply->beam, search->scores, search->first_row))
        search->status = moe_fail(search->moe, EXPERTD_RESOURCE_EXHAUSTED, "no memory");
}

static bool is_done(void *search)
{
    return ((const struct beam_search *)search)->done;
}

static enum expertd_status ask(struct moe_route *route, struct moe *moe, const float *scores, size_t first_row,
                               size_t rows, uint64_t end_ns)
{
    Expertd__Dht__Request request = EXPERTD__DHT__REQUEST__INIT;
    Expertd__Dht__BeamQuery query = EXPERTD__DHT__BEAM_QUERY__INIT;
    struct beam_search search = {.route = route,
                                 .moe = moe,
                                 .scores = scores + first_row * moe->gate.n_scores,
                                 .first_row = first_row,
                                 .rows = rows};
    const uint64_t now_ns = clock_now_ns();
    query.prefix = moe->prefix;
    query.grid_size = moe->grid_size;
    query.n_grid_size = route->dims;
    query.scores = (float *)(uintptr_t)search.scores;
    query.n_scores = rows * moe->gate.n_scores;
    query.beam_size = (uint32_t)route->k * (any_down(moe->dht) ? SPARES : 1);
    if (query.beam_size > BEAM_MAX)
        query.beam_size = BEAM_MAX;
    request.method = EXPERTD__DHT__METHOD__BEAM_SEARCH;
    request.beam = &query;
    const char *problem = dht_ask(moe->dht, &search.lookup, &request,
                                  now_ns >= end_ns ? 1 : (uint32_t)((end_ns - now_ns) / NS_PER_MS + 1), found);
    if (problem)
        return moe_fail(moe, EXPERTD_UNAVAILABLE, "beam search: %s", problem);
    remote_task_await(moe->dht, is_done, &search, UINT64_MAX); /* it has an end of its own */
    return search.status;
}

enum expertd_status moe_route_find(struct moe_route *route, struct moe *moe, const float *scores, size_t rows,
                                   uint64_t end_ns)
{
    size_t step = SCORES_A_QUESTION / moe->gate.n_scores;
    step = step < 1 ? 1 : step > ROWS_A_QUESTION ? ROWS_A_QUESTION : step;
    *route = (struct moe_route){.rows = rows, .k = moe->options.k_best, .dims = moe->options.n_grid};
    route->slots = malloc(rows * route->k * sizeof *route->slots);
    if (!route->slots)
        return moe_fail(moe, EXPERTD_RESOURCE_EXHAUSTED, "no memory");
    memset(route->slots, 0xff, rows * route->k * sizeof *route->slots);
    enum expertd_status status = EXPERTD_OK;
    for (size_t first = 0; first < rows && status == EXPERTD_OK; first += step)
        status = ask(route, moe, scores, first, rows - first < step ? rows - first : step, end_ns);
    return status;
}
