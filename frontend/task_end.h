/* The end of requests that are in a pool, or wait to be, where no result ends them: their time, their client, their
 * expert or their device has gone. */
#ifndef EXPERTD_FRONTEND_TASK_END_H
#define EXPERTD_FRONTEND_TASK_END_H

#include "frontend/server.h"

/* Its asker is told now; the task is cancelled, and runs only if it has begun. */
void task_end_early(struct server *server, struct request *request, enum status status, const char *message);
/* The request's deadline has come. */
void task_expire(struct server *server, struct request *request);
/* Ends the requests of peers that have gone. Those that were queued are not computed; but a BACKWARD with ids, for
 * which a repeat may ask, is queued again behind all others. */
void task_drop_gone(struct server *server);
/* Answers all that waits for the device. The tasks are cancelled, but their results may still come. */
void task_fail_device(struct server *server, struct device_link *device, enum status status, const char *message);
/* Before the device is detached: no result will come any more. All that waited was answered. */
void task_forget_device(struct server *server, struct device_link *device);
/* The expert is no more: answers what waits for it, and lets go of its pools. */
void task_end_expert(struct server *server, struct device_link *device, uint32_t expert, const char *message);
/* The request was answered, and no result of its will come any more: its slot is free again. */
void task_forget(struct server *server, struct request *request);
/* Shared memory of the pool broke an invariant: answers what waits, and uses it no more. */
void task_break_pool(struct server *server, struct pool_link *link);

#endif
