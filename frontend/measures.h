/* What STATS says beyond counters: histograms of times and batch sizes, and the experts that are called most. */
#ifndef EXPERTD_FRONTEND_MEASURES_H
#define EXPERTD_FRONTEND_MEASURES_H

#include "frontend/server.h"

struct measures;

/* Gathers them, and enters them into `stats`, which then points to what measures_free frees. query NULL: no experts;
 * else those whose uid begins with its prefix, at most its limit, in the order of rows done. 0 or -ENOMEM. */
int measures_gather(struct measures **measures, struct server *server, const Expertd__ListQuery *query, uint64_t now_ns,
                    Expertd__Stats *stats);
void measures_free(struct measures **measures); /* nulls; NULL inside is fine */

#endif
