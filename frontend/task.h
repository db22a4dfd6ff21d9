/* Requests in: FORWARD and BACKWARD, from a request to a task in a pool. (Results out is frontend/results.h; the end of
 * those that no result ends frontend/task_end.h.) */
#ifndef EXPERTD_FRONTEND_TASK_H
#define EXPERTD_FRONTEND_TASK_H

#include "frontend/server.h"

/* The request in server->message, decoded. Answers it, or queues it. */
void task_begin(struct server *server, const struct reply_to *to, const Expertd__RequestHeader *header,
                uint64_t now_ns);
/* The pool may have room now: those that wait for it come in, in their order. */
void task_admit(struct server *server, struct pool_link *link);

#endif
