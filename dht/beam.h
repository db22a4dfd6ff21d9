/* The best live experts of a grid for one row of scores, where an expert's score is the sum of its coordinates' scores.
 *
 * A best-first search over prefixes: the most that a prefix can lead to is its own score plus the best score of each
 * dimension that follows, so the first beam_size experts that are reached in this order are the best there are, on
 * sparse grids too, where a beam that keeps only the best prefixes of each dimension would miss some. Equal scores: the
 * smaller coordinates first. Prefixes that are not known yet are passed over and reported, so that they can be fetched
 * together. */
#ifndef EXPERTD_DHT_BEAM_H
#define EXPERTD_DHT_BEAM_H

#include <stdbool.h>

#include "common/uid.h"
#include "dht/ranges.h"

enum { BEAM_MAX_NODES = 1 << 20 };

struct beam_query {
    const char *prefix;
    uint32_t dims; /* 1 ... UID_MAX_DIMS */
    const uint32_t *grid;
    const float *scores; /* sum(grid), no NaN, no +Inf */
    uint32_t beam_size;
};

struct beam_source {
    void *context;
    /* 1: known, and the sets stay right until the next call; 0: not known yet (and noted, if wanted); < 0: stop. */
    int (*find)(void *context, const char *prefix, const struct ranges **experts, const struct ranges **branches);
};

struct beam_best {
    double score;
    uint32_t coordinates[UID_MAX_DIMS];
};

struct beam_node {
    double bound;   /* no expert below has a higher score */
    double partial; /* of the coordinates so far */
    uint32_t parent;
    uint32_t coordinate;
    uint32_t depth; /* coordinates so far */
};

/* Memory that is used again for the next row. Zero-initialised; one thread. */
struct beam {
    struct beam_node *nodes;
    size_t nodes_count, nodes_capacity;
    uint32_t *heap; /* of numbers of nodes, the best on top */
    size_t heap_count, heap_capacity;
    double *floor; /* the beam_size best scores of experts seen so far, the worst on top */
    size_t floor_count, floor_capacity;
};

/* Fills best[0 ... *found), *found <= beam_size. 1: done; 0: prefixes are missing (at most missing_max were asked for);
 * -E2BIG: more than BEAM_MAX_NODES candidates; -ENOMEM; or what find returned. */
int beam_search(struct beam *beam, const struct beam_query *query, const struct beam_source *source, size_t missing_max,
                struct beam_best *best, size_t *found);
void beam_destroy(struct beam *beam);

#endif
