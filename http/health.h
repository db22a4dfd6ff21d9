/* Whether the gateway, and the server behind it, can take requests. For probes: the status alone counts. */
#ifndef EXPERTD_HTTP_HEALTH_H
#define EXPERTD_HTTP_HEALTH_H

#include <stdbool.h>

#include "http/response.h"
#include "http/upstream.h"

/* This process answers: 200. It looks at nothing else, so that a supervisor does not restart what waits for others. */
void health_live(struct response *response, bool verbose);
/* 200 when the frontend answers and all of its experts are alive; else 503. verbose: a line for each check. */
void health_ready(struct response *response, struct upstream *upstream, bool verbose);

#endif
