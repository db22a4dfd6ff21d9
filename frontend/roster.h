/* The devices and their experts: who is there, what comes and goes, and what is told to the requests that wait. */
#ifndef EXPERTD_FRONTEND_ROSTER_H
#define EXPERTD_FRONTEND_ROSTER_H

#include "frontend/server.h"

/* Who has which expert: first what the configuration says, so that an expert whose device is away is known to be
 * UNAVAILABLE and LIST keeps its order; then what is really there. */
void roster_rebuild(struct server *server);
/* What is about to go, server->closing, takes no requests any more. */
void roster_close(struct server *server);
/* Acts on what device_link_look found. DEVICE_RETIRED: after results_take_last. */
void roster_change(struct server *server, struct device_link *device, enum device_change change, uint64_t now_ns);
/* Answers what has waited for a dead runtime for as long as restart_grace. */
void roster_grace(struct server *server, struct device_link *device, uint64_t now_ns);

#endif
