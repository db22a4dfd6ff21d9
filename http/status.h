/* The server's state as JSON, for the page and for scripts: processes, counters, histograms, and all experts with their
 * figures. */
#ifndef EXPERTD_HTTP_STATUS_H
#define EXPERTD_HTTP_STATUS_H

#include "http/history.h"

/* 200; or 503 with a sentence when the frontend does not answer. */
void status_answer(struct response *response, struct upstream *upstream, struct history *history,
                   const struct config *config);

#endif
