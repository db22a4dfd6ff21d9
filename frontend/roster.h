/* The devices and their experts: who is there, what comes and goes, and what is told to the requests that wait. */
#ifndef EXPERTD_FRONTEND_ROSTER_H
#define EXPERTD_FRONTEND_ROSTER_H

#include "frontend/server.h"

/* Who has which expert: first what the configuration says, so that an expert whose device is away is known to be
 * UNAVAILABLE and LIST keeps its order; then what is really there. */
void roster_rebuild(struct server *server);
/* Looks at each device, acts on what changed, and sets the time of the next look. */
void roster_look(struct server *server, uint64_t now_ns);
/* Takes the results of all devices; whether there were any. */
bool roster_take_results(struct server *server);
/* Why the device cannot take requests, for the client; NULL: it can. */
const char *roster_refusal(const struct device_link *device, char *text, size_t size);

#endif
