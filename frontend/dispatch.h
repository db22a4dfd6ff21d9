/* From a received message to the method it asks for. */
#ifndef EXPERTD_FRONTEND_DISPATCH_H
#define EXPERTD_FRONTEND_DISPATCH_H

#include "frontend/server.h"

/* The complete message in server->incoming, whatever it holds. Counts it, and answers it or begins its task. */
void dispatch(struct server *server, uint64_t now_ns);
/* The same for the one in server->message, whichever way it came; to: whom the reply goes to, but for the request_id.
 */
void dispatch_message(struct server *server, struct reply_to *to, uint64_t now_ns);

#endif
