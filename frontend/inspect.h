/* PING, LIST, INFO and STATS: questions that are answered at once. */
#ifndef EXPERTD_FRONTEND_INSPECT_H
#define EXPERTD_FRONTEND_INSPECT_H

#include "frontend/server.h"

void inspect_ping(struct server *server, const struct reply_to *to);
void inspect_list(struct server *server, const struct reply_to *to, const Expertd__RequestHeader *header);
void inspect_info(struct server *server, const struct reply_to *to, const Expertd__RequestHeader *header);
void inspect_stats(struct server *server, const struct reply_to *to, const Expertd__RequestHeader *header);

/* NOT_FOUND, of any method: an expert that is not here, and with the endpoint of the frontend of this server that has
 * it, if one has. */
void inspect_unknown(struct server *server, const struct reply_to *to, const char *uid);
/* What that says, into why: the endpoint, good until the server's next look at the others, or NULL. */
const char *inspect_where(const struct server *server, const char *uid, char *why, size_t size);

#endif
