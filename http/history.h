/* What the server did over the last minutes, and what its expertd-dht said last: a thread asks both every two seconds,
 * so that a page that is opened has a past, and nobody who asks waits for a directory that is not there. */
#ifndef EXPERTD_HTTP_HISTORY_H
#define EXPERTD_HTTP_HISTORY_H

#include <stdbool.h>

#include "http/response.h"
#include "http/upstream.h"

struct history;

enum { HISTORY_PERIOD_S = 2, HISTORY_SAMPLES = 300 };

/* 0 or -errno, logged. Keeps both. */
int history_create(struct history **history, struct upstream *upstream, const struct config *config);
void history_destroy(struct history **history); /* before the upstream */

/* Any thread. JSON: {"period": seconds, "samples": [[seconds since 1970, requests so far, requests in the server,
 * replies other than OK so far], ...]}, the oldest first; seconds in which the frontend did not answer have none. */
void history_answer(struct history *history, struct response *response);

/* Any thread. Visits the counters (PROTOCOL-dht.md, STATUS) that http.dht told at the last look; must be quick. False:
 * it did not answer then. */
typedef void history_visit(void *context, const char *name, double value);
bool history_dht(struct history *history, history_visit *visit, void *context);

#endif
