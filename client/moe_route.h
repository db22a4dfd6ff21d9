/* Which rows go to which experts: the answer of a beam search, turned round into one call for each expert. */
#ifndef EXPERTD_CLIENT_MOE_ROUTE_H
#define EXPERTD_CLIENT_MOE_ROUTE_H

#include "client/moe.h"

struct moe_expert {
    char uid[UID_SIZE];
    uint32_t scores[UID_MAX_DIMS]; /* of each dimension, which of a row's scores is its coordinate's */
    size_t n_rows;                 /* that chose it */
    uint32_t next;                 /* in its bucket */
};

#define MOE_NO_EXPERT UINT32_MAX

struct moe_route {
    size_t rows, k, dims;
    uint32_t *slots; /* rows x k: a number in experts, the best first; MOE_NO_EXPERT behind the last */
    struct moe_expert *experts;
    size_t n_experts, capacity;
    uint32_t *buckets; /* of experts by uid */
    size_t n_buckets;
};

/* Searches for each row of scores (gate.n_scores wide; -Inf: never). Experts whose servers are all known to be down
 * count as dead, whatever the DHT still says. No later than end_ns. EXPERTD_OK, also when rows found less than k, or
 * nothing; else moe->message is set. The route can be cleared in any case. */
enum expertd_status moe_route_find(struct moe_route *route, struct moe *moe, const float *scores, size_t rows,
                                   uint64_t end_ns);
void moe_route_clear(struct moe_route *route);

/* An expert's score in a row of scores. */
float moe_route_score(const struct moe_route *route, uint32_t expert, const float *scores);

#endif
