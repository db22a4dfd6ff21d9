/* A client's calls on its own connection: made, sent, answered, expired, ended. What an answer says of other frontends
 * is for client/away.h, above. The client's thread. */
#ifndef EXPERTD_CLIENT_SWITCHBOARD_H
#define EXPERTD_CLIENT_SWITCHBOARD_H

#include "client/client_state.h"

struct call_request;

/* A call in no state but CALL_FREE, with nothing in it. NULL: no memory. */
struct expertd_call *switchboard_new_call(struct expertd_client *client, Expertd__Method method);
void switchboard_move(struct expertd_call *call, enum call_state state);
/* The call, which is in no hands any more, is kept for the next one. */
void switchboard_keep(struct expertd_call *call);
/* The call has its status, and has ended. It has no legs. */
void switchboard_finish(struct expertd_call *call);
/* A call that was DONE is to be counted no more, if it was not yet; and, besides, the program knows of it. */
void switchboard_discount(struct expertd_call *call);
void switchboard_report(struct expertd_call *call);
/* The program wants it no more, in whatever state it is. It has no legs. */
void switchboard_release(struct expertd_call *call);

/* Puts the call, whose request is made, on its way. Its status may be there at once. -ENOMEM: it is as it was. */
int switchboard_launch(struct expertd_call *call);
/* The call, which is in the table, waits to be sent to where it was made; and is sent, if that can be. */
void switchboard_queue(struct expertd_call *call);
/* The request says what is left of the call's time. -ENOMEM: nothing has changed. */
int switchboard_set_time_left(struct expertd_call *call, uint64_t now_ns);
/* What is there now, without waiting; the last thing that is done to the connection is an attempt to receive, unless
 * `wanted` (NULL: none) has ended. Calls whose answers name another frontend are CALL_NAMED after that. */
void switchboard_progress(struct expertd_client *client, const struct expertd_call *wanted);

/* What a reply's tensors take: each begins at a multiple of 64. Of a backward they are the inputs' gradients; of a
 * forward as many rows of what came the last time, or else as much as the inputs. */
uint64_t switchboard_room(const struct expertd_client *client, const struct expertd_call *call,
                          const struct call_request *request);

#endif
