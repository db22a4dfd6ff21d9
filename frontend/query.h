/* PING, LIST, INFO and STATS: questions that are answered at once. */
#ifndef EXPERTD_FRONTEND_QUERY_H
#define EXPERTD_FRONTEND_QUERY_H

#include "frontend/server.h"

void query_ping(struct server *server, const struct reply_to *to);
void query_list(struct server *server, const struct reply_to *to, const Expertd__RequestHeader *header);
void query_info(struct server *server, const struct reply_to *to, const Expertd__RequestHeader *header);
void query_stats(struct server *server, const struct reply_to *to);

#endif
