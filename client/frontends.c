#include "client/frontends.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void frontends_begin(struct frontends *frontends, struct expertd_client *client)
{
    *frontends = (struct frontends){.clients = {client}, .count = 1};
}

void frontends_learn(struct frontends *frontends, const struct expertd_pong *pong)
{
    frontends->count = 1;
    for (size_t i = 0; i < pong->frontends_count && frontends->count < FRONTENDS_MAX; i++) {
        struct expertd_client *other = expertd_client_frontend(frontends->clients[0], pong->frontends[i].endpoint);
        if (other)
            frontends->clients[frontends->count++] = other;
    }
}

/* ---- asking -------------------------------------------------------------------------------------------------------
 */

int frontends_ask(const struct frontends *frontends, struct frontends_look *look, const char *prefix, uint32_t experts,
                  uint32_t deadline_ms)
{
    *look = (struct frontends_look){0};
    for (; look->count < frontends->count; look->count++) {
        struct expertd_client *client = frontends->clients[look->count];
        struct expertd_call **stats = &look->stats[look->count];
        int rc = expertd_ping(client, deadline_ms, &look->pings[look->count]);
        if (rc == 0 && experts != FRONTENDS_PING_ALONE)
            rc = experts == FRONTENDS_NO_EXPERTS ? expertd_stats(client, deadline_ms, stats)
                                                 : expertd_stats_experts(client, prefix, experts, deadline_ms, stats);
        if (rc < 0) {
            look->count++;
            frontends_release(look);
            return rc;
        }
    }
    return 0;
}

static void wait_for(struct expertd_call *call)
{
    while (expertd_call_wait(call, -1) == -EINTR)
        ;
}

int frontends_look(struct frontends *frontends, struct frontends_look *look, const char *prefix, uint32_t experts,
                   uint32_t deadline_ms)
{
    struct expertd_call *call;
    int rc = expertd_ping(frontends->clients[0], deadline_ms, &call);
    if (rc < 0)
        return rc;
    wait_for(call);
    if (expertd_call_pong(call))
        frontends_learn(frontends, expertd_call_pong(call));
    expertd_call_release(&call);
    rc = frontends_ask(frontends, look, prefix, experts, deadline_ms);
    for (size_t i = 0; i < look->count; i++) {
        wait_for(look->pings[i]);
        if (look->stats[i])
            wait_for(look->stats[i]);
    }
    return rc;
}

bool frontends_answered(const struct frontends_look *look)
{
    for (size_t i = 0; i < look->count; i++)
        if (!expertd_call_done(look->pings[i]) || (look->stats[i] && !expertd_call_done(look->stats[i])))
            return false;
    return true;
}

static void free_sum(struct frontends_look *look)
{
    for (size_t i = 0; i < sizeof look->memory / sizeof look->memory[0]; i++) {
        free(look->memory[i]);
        look->memory[i] = NULL;
    }
}

void frontends_release(struct frontends_look *look)
{
    for (size_t i = 0; i < look->count; i++) {
        expertd_call_release(&look->pings[i]);
        expertd_call_release(&look->stats[i]);
    }
    free_sum(look);
    *look = (struct frontends_look){0};
}

const struct expertd_pong *frontends_pong(const struct frontends_look *look, size_t frontend)
{
    return frontend < look->count ? expertd_call_pong(look->pings[frontend]) : NULL;
}

const struct expertd_stats *frontends_stats(const struct frontends_look *look, size_t frontend)
{
    return frontend < look->count && look->stats[frontend] ? expertd_call_stats(look->stats[frontend]) : NULL;
}

/* ---- adding up ----------------------------------------------------------------------------------------------------
 */

/* Names are few, and mostly come in the same order: the search begins where the last one ended. */
static size_t find_counter(const struct expertd_counter *counters, size_t count, const char *name, size_t hint)
{
    for (size_t i = 0; i < count; i++) {
        const size_t at = (hint + i) % count;
        if (strcmp(counters[at].name, name) == 0)
            return at;
    }
    return count;
}

static void add_counter(struct expertd_counter *to, const struct expertd_counter *one)
{
    if (strcmp(one->name, "frontend.uptime_s") == 0)
        to->value = one->value < to->value ? one->value : to->value;
    else if (strcmp(one->name, "frontend.pid") != 0)
        to->value += one->value;
}

static size_t add_counters(struct expertd_counter *to, size_t count, const struct expertd_stats *stats)
{
    size_t hint = 0;
    for (size_t i = 0; i < stats->count; i++) {
        const size_t at = find_counter(to, count, stats->counters[i].name, hint);
        if (at < count)
            add_counter(&to[at], &stats->counters[i]);
        else
            to[count++] = stats->counters[i];
        hint = at + 1;
    }
    return count;
}

static bool same_bounds(const struct expertd_histogram *a, const struct expertd_histogram *b)
{
    return strcmp(a->name, b->name) == 0 && a->bounds_count == b->bounds_count &&
           memcmp(a->bounds, b->bounds, a->bounds_count * sizeof a->bounds[0]) == 0;
}

/* `counts` has room for those of each new one; where that ends is returned. */
static uint64_t *add_histograms(struct expertd_histogram *to, size_t *count, uint64_t *counts,
                                const struct expertd_stats *stats)
{
    for (size_t i = 0; i < stats->histograms_count; i++) {
        const struct expertd_histogram *one = &stats->histograms[i];
        const size_t buckets = one->bounds_count + 1;
        size_t at = 0;
        while (at < *count && !same_bounds(&to[at], one))
            at++;
        if (at == *count) {
            to[at] = *one;
            to[at].counts = memcpy(counts, one->counts, buckets * sizeof *counts);
            counts += buckets;
            ++*count;
            continue;
        }
        uint64_t *sums = (uint64_t *)(uintptr_t)to[at].counts; /* in `counts` */
        for (size_t b = 0; b < buckets; b++)
            sums[b] += one->counts[b];
        to[at].sum += one->sum;
    }
    return counts;
}

static int by_rows(const void *a, const void *b)
{
    const struct expertd_expert_stats *left = a, *right = b;
    const uint64_t l = left->forward_rows + left->backward_rows, r = right->forward_rows + right->backward_rows;
    return l != r ? (l < r) - (l > r) : strcmp(left->uid, right->uid);
}

static bool add_up(struct frontends_look *look)
{
    size_t counters = 0, histograms = 0, buckets = 0, experts = 0;
    for (size_t f = 0; f < look->count; f++) {
        const struct expertd_stats *stats = frontends_stats(look, f);
        for (size_t i = 0; stats && i < stats->histograms_count; i++)
            buckets += stats->histograms[i].bounds_count + 1;
        counters += stats ? stats->count : 0;
        histograms += stats ? stats->histograms_count : 0;
        experts += stats ? stats->experts_count : 0;
    }
    struct expertd_counter *all_counters = calloc(counters + 1, sizeof *all_counters);
    struct expertd_histogram *all_histograms =
        calloc(1, (histograms + 1) * sizeof *all_histograms + (buckets + 1) * sizeof(uint64_t));
    struct expertd_expert_stats *all_experts = calloc(experts + 1, sizeof *all_experts);
    look->memory[0] = all_counters;
    look->memory[1] = all_histograms;
    look->memory[2] = all_experts;
    if (!all_counters || !all_histograms || !all_experts) {
        free_sum(look);
        return false;
    }
    uint64_t *counts = (uint64_t *)(void *)(all_histograms + histograms + 1);
    look->sum = (struct expertd_stats){.counters = all_counters, .histograms = all_histograms, .experts = all_experts};
    for (size_t f = 0; f < look->count; f++) {
        const struct expertd_stats *stats = frontends_stats(look, f);
        if (!stats)
            continue;
        look->sum.count = add_counters(all_counters, look->sum.count, stats);
        counts = add_histograms(all_histograms, &look->sum.histograms_count, counts, stats);
        if (stats->experts_count)
            memcpy(all_experts + look->sum.experts_count, stats->experts, stats->experts_count * sizeof *all_experts);
        look->sum.experts_count += stats->experts_count;
    }
    qsort(all_experts, look->sum.experts_count, sizeof *all_experts, by_rows);
    return true;
}

const struct expertd_stats *frontends_sum(struct frontends_look *look)
{
    const struct expertd_stats *only = NULL;
    size_t answered = 0;
    for (size_t f = 0; f < look->count; f++) {
        const struct expertd_stats *stats = frontends_stats(look, f);
        only = stats ? stats : only;
        answered += stats != NULL;
    }
    if (answered < 2)
        return only;
    if (!look->summed && !(look->summed = add_up(look)))
        return NULL;
    return &look->sum;
}
