/* Calls that go on at other frontends of the server that the client is connected to: a server with several answers what
 * is asked at the wrong one with the endpoint of the right one. A call that is away has legs, calls of the siblings'
 * clients (client/siblings.h) with its request, or of a call for many experts its parts' shares of it, under its parts'
 * ids; what comes of them is the call's. Where experts are is remembered, and calls then go there at once. One thread
 * at a time, the client's. */
#ifndef EXPERTD_CLIENT_AWAY_H
#define EXPERTD_CLIENT_AWAY_H

#include "client/call.h"

/* Before a call is sent: whether it is away from now on, as its expert, or one of its parts', is known to be at another
 * frontend; or as it is large, and has a connection of its own to the same one. */
bool away_begin(struct expertd_call *call);
/* After its answer: whether it goes on where that says that its expert, or some of its parts', are. endpoint: the
 * answer's; "". Only once is a frontend believed. */
bool away_follow(struct expertd_call *call, const char *endpoint);
/* Takes in what there is of all siblings, and ends the calls whose legs have. Whether anything was put on its way
 * meanwhile: then it is to be looked at all again before sleeping. */
bool away_take_back(struct expertd_client *client);
/* Whether a leg of the call, which is away, has a connection, or has ended. */
bool away_connected(const struct expertd_call *call);
/* Gives the legs up; a call that is not away has none. */
void away_drop(struct expertd_call *call);
/* Forgets them, whose clients have gone. */
void away_forget(struct expertd_call *call);

#endif
