/* CHECKPOINT: tickets in the control segments, and the requests that wait for them. A ticket is a number that grows;
 * the runtime says of each expert which ticket it has served. */
#ifndef EXPERTD_FRONTEND_CHECKPOINT_H
#define EXPERTD_FRONTEND_CHECKPOINT_H

#include "frontend/server.h"

void checkpoint_begin(struct server *server, const struct reply_to *to, const Expertd__RequestHeader *header,
                      uint64_t now_ns);
/* Answers those whose tickets are all served, or whose devices are gone. */
void checkpoint_look(struct server *server);
void checkpoint_expire(struct server *server, struct request *request);
/* Answers all that wait. */
void checkpoint_fail(struct server *server, enum status status, const char *message);

#endif
