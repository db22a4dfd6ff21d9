#include "dht/beam.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/array.h"
#include "dht/prefix.h"

/* What is the same for all steps of one search. */
struct search {
    const struct beam_query *query;
    uint32_t offset[UID_MAX_DIMS]; /* of each dimension in the scores */
    double rest[UID_MAX_DIMS + 1]; /* the best that the dimensions from this one on can add */
};

static uint32_t coordinates_of(const struct beam *beam, uint32_t node, uint32_t coordinates[UID_MAX_DIMS])
{
    const uint32_t depth = beam->nodes[node].depth;
    for (uint32_t d = depth; d > 0; d--) {
        coordinates[d - 1] = beam->nodes[node].coordinate;
        node = beam->nodes[node].parent;
    }
    return depth;
}

/* Whether a is to be looked at before b. A prefix comes before what may follow it, so that an expert is reached only
 * when nothing with smaller coordinates can have the same score. */
static bool before(const struct beam *beam, uint32_t a, uint32_t b)
{
    uint32_t x[UID_MAX_DIMS];
    uint32_t y[UID_MAX_DIMS];
    if (beam->nodes[a].bound != beam->nodes[b].bound)
        return beam->nodes[a].bound > beam->nodes[b].bound;
    const uint32_t m = coordinates_of(beam, a, x);
    const uint32_t n = coordinates_of(beam, b, y);
    for (uint32_t i = 0; i < m && i < n; i++)
        if (x[i] != y[i])
            return x[i] < y[i];
    return m < n;
}

/* ---- the two heaps -------------------------------------------------------------------------------------------------
 */

static int heap_push(struct beam *beam, uint32_t node)
{
    if (ARRAY_RESERVE(beam->heap, beam->heap_capacity, beam->heap_count + 1) != 0)
        return -ENOMEM;
    size_t at = beam->heap_count++;
    for (; at > 0 && before(beam, node, beam->heap[(at - 1) / 2]); at = (at - 1) / 2)
        beam->heap[at] = beam->heap[(at - 1) / 2];
    beam->heap[at] = node;
    return 0;
}

static uint32_t heap_pop(struct beam *beam)
{
    const uint32_t top = beam->heap[0];
    const uint32_t moved = beam->heap[--beam->heap_count];
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < beam->heap_count; at = child) {
        if (child + 1 < beam->heap_count && before(beam, beam->heap[child + 1], beam->heap[child]))
            child++;
        if (!before(beam, beam->heap[child], moved))
            break;
        beam->heap[at] = beam->heap[child];
    }
    beam->heap[at] = moved;
    return top;
}

/* An expert's score among the best so far. What cannot reach the worst of beam_size experts need not be kept. */
static void floor_raise(struct beam *beam, uint32_t size, double score)
{
    double *heap = beam->floor;
    if (beam->floor_count < size) {
        size_t at = beam->floor_count++;
        for (; at > 0 && score < heap[(at - 1) / 2]; at = (at - 1) / 2)
            heap[at] = heap[(at - 1) / 2];
        heap[at] = score;
    } else if (score > heap[0]) {
        size_t at = 0;
        for (size_t child; (child = 2 * at + 1) < size; at = child) {
            if (child + 1 < size && heap[child + 1] < heap[child])
                child++;
            if (heap[child] >= score)
                break;
            heap[at] = heap[child];
        }
        heap[at] = score;
    }
}

static bool below_floor(const struct beam *beam, uint32_t size, double bound)
{
    return beam->floor_count == size && bound < beam->floor[0];
}

/* ---- the search ----------------------------------------------------------------------------------------------------
 */

static int add(struct beam *beam, struct beam_node node)
{
    if (beam->nodes_count == BEAM_MAX_NODES)
        return -E2BIG;
    if (ARRAY_RESERVE(beam->nodes, beam->nodes_capacity, beam->nodes_count + 1) != 0)
        return -ENOMEM;
    beam->nodes[beam->nodes_count] = node;
    return heap_push(beam, (uint32_t)beam->nodes_count++);
}

/* Adds what follows the node, as far as it lies in the grid. */
static int expand(struct beam *beam, const struct search *search, uint32_t parent, const struct ranges *set,
                  bool experts)
{
    const struct beam_query *query = search->query;
    const uint32_t depth = beam->nodes[parent].depth;
    const double partial = beam->nodes[parent].partial;
    const float *scores = query->scores + search->offset[depth];
    for (size_t i = 0; i < set->count && set->items[i].first < query->grid[depth]; i++) {
        const uint64_t end = set->items[i].end < query->grid[depth] ? set->items[i].end : query->grid[depth];
        for (uint64_t c = set->items[i].first; c < end; c++) {
            const double sum = partial + (double)scores[c];
            const double bound = sum + search->rest[depth + 1];
            if (below_floor(beam, query->beam_size, bound))
                continue;
            if (experts)
                floor_raise(beam, query->beam_size, sum);
            const int rc = add(beam, (struct beam_node){bound, sum, parent, (uint32_t)c, depth + 1});
            if (rc != 0)
                return rc;
        }
    }
    return 0;
}

/* The node's prefix. False if no uid is so long. */
static bool prefix_of(const struct beam *beam, const struct beam_query *query, uint32_t node, char prefix[UID_SIZE])
{
    uint32_t coordinates[UID_MAX_DIMS];
    const uint32_t depth = coordinates_of(beam, node, coordinates);
    memcpy(prefix, query->prefix, strlen(query->prefix) + 1);
    for (uint32_t d = 0; d < depth; d++) {
        char longer[UID_SIZE];
        if (!prefix_child(prefix, coordinates[d], true, longer))
            return false;
        memcpy(prefix, longer, UID_SIZE);
    }
    return true;
}

static int prepare(struct beam *beam, struct search *search, const struct beam_query *query)
{
    uint32_t at = 0;
    search->query = query;
    for (uint32_t d = 0; d < query->dims; d++) {
        search->offset[d] = at;
        at += query->grid[d];
    }
    search->rest[query->dims] = 0;
    for (uint32_t d = query->dims; d-- > 0;) {
        double best = -INFINITY;
        for (uint32_t c = 0; c < query->grid[d]; c++)
            if ((double)query->scores[search->offset[d] + c] > best)
                best = (double)query->scores[search->offset[d] + c];
        search->rest[d] = search->rest[d + 1] + best;
    }
    beam->nodes_count = beam->heap_count = beam->floor_count = 0;
    if (ARRAY_RESERVE(beam->floor, beam->floor_capacity, query->beam_size) != 0)
        return -ENOMEM;
    return add(beam, (struct beam_node){.bound = search->rest[0]});
}

int beam_search(struct beam *beam, const struct beam_query *query, const struct beam_source *source, size_t missing_max,
                struct beam_best *best, size_t *found)
{
    struct search search = {0};
    size_t missing = 0;
    *found = 0;
    int rc = prepare(beam, &search, query);
    while (rc == 0 && beam->heap_count > 0 && *found < query->beam_size && missing < missing_max) {
        const uint32_t node = heap_pop(beam);
        if (beam->nodes[node].depth == query->dims) {
            best[*found].score = beam->nodes[node].partial;
            coordinates_of(beam, node, best[*found].coordinates);
            ++*found;
            continue;
        }
        char prefix[UID_SIZE];
        const struct ranges *experts;
        const struct ranges *branches;
        if (!prefix_of(beam, query, node, prefix))
            continue;
        const bool last = beam->nodes[node].depth + 1 == query->dims;
        const int known = source->find(source->context, prefix, &experts, &branches);
        if (known < 0)
            return known;
        missing += known == 0;
        if (known)
            rc = expand(beam, &search, node, last ? experts : branches, last);
    }
    if (rc != 0)
        return rc;
    return missing == 0;
}

void beam_destroy(struct beam *beam)
{
    free(beam->nodes);
    free(beam->heap);
    free(beam->floor);
    *beam = (struct beam){0};
}
