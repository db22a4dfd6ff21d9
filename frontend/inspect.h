/* PING, LIST, INFO and STATS: questions that are answered at once. */
#ifndef EXPERTD_FRONTEND_INSPECT_H
#define EXPERTD_FRONTEND_INSPECT_H

#include "frontend/server.h"

void inspect_ping(struct server *server, const struct reply_to *to);
void inspect_list(struct server *server, const struct reply_to *to, const Expertd__RequestHeader *header);
void inspect_info(struct server *server, const struct reply_to *to, const Expertd__RequestHeader *header);
void inspect_stats(struct server *server, const struct reply_to *to, const Expertd__RequestHeader *header);

#endif
