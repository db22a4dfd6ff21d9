/* The client, to the other files of this library. */
#ifndef EXPERTD_CLIENT_CLIENT_H
#define EXPERTD_CLIENT_CLIENT_H

#include "client/expertd.h"
#include "client/call_request.h"

/* Makes the request a call and puts it on its way, as the public functions that make calls say. Sets client_id. */
int client_make_call(struct expertd_client *client, struct call_request *request, uint32_t deadline_ms,
                     struct expertd_call **call);
/* Whether a call that is in flight has a connection: to the server that it was made at, or to that one's other frontend
 * where it goes on. */
bool client_call_connected(const struct expertd_call *call);

#endif
