/* Calls that go on at other frontends of the server that the client is connected to: a server with several answers what
 * is asked at the wrong one with the endpoint of the right one. A call that is away has legs, calls of the siblings'
 * clients (client/siblings.h) with its request, or of a call for many experts its parts' shares of it, under its parts'
 * ids; what comes of them is the call's. Where experts are is remembered, and calls then go there at once. One thread
 * at a time, the client's. */
#ifndef EXPERTD_CLIENT_AWAY_H
#define EXPERTD_CLIENT_AWAY_H

#include "client/call.h"

/* Puts the call, whose request is made, on its way: to where its expert, or one of its parts', is known to be; or, as
 * it is large, by a connection of its own to the same frontend; or as any other. Its status may be there at once.
 * -ENOMEM: it is as it was. */
int away_launch(struct expertd_call *call, uint64_t deadline_ns);
/* What is there now, of the client and all its siblings, without waiting: at most until `wanted` (NULL: none) has
 * ended. */
void away_progress(struct expertd_client *client, const struct expertd_call *wanted);
/* Whether a leg of the call, which is away, has a connection, or has ended. */
bool away_connected(const struct expertd_call *call);
/* The program wants the call no more: gives it up, and its legs. */
void away_release(struct expertd_call *call);

#endif
