/* Who comes into a pool when not all find room. Where there is room, everybody does, in the order of arrival; a client
 * that is alone may fill the pool. Where there is none, the requests of a client that has less than its fair share (the
 * pool's rows and tasks, divided by the clients that have something there) wait in the frontend's memory, in the order
 * of their arrival, and go in as results make room; nobody overtakes them. A client that has its share is refused, with
 * the time after which it is worth coming back. So clients that all want more than there is have equally much of the
 * queue, and with it of the work; and a client that calls one by one is not refused because of one that calls a
 * thousand times at once. One thread. */
#ifndef EXPERTD_FRONTEND_ADMISSION_H
#define EXPERTD_FRONTEND_ADMISSION_H

#include <stdbool.h>
#include <stdint.h>

#include "frontend/server.h"
#include "frontend/task_inputs.h"

/* The frames of a request that waits for room. */
struct request_parked {
    struct task_inputs inputs; /* of the frames here */
    zmq_msg_t frames[MESSAGE_MAX_TENSORS];
    uint32_t frames_count;
    uint64_t bytes;
    uint64_t deadline_ns; /* 0: none */
};

/* A slot for a request of this client. NULL: all are taken, or nearly all, and it has many of them. */
struct request *admission_slot(struct server *server, const struct client_peer *peer);
/* Whether a new request has to stand behind others that wait. */
bool admission_queued(const struct pool_link *link);
/* Whether a request of the client for which there is no room now may wait for it. */
bool admission_may_wait(const struct server *server, const struct pool_link *link, const struct client_peer *peer,
                        uint32_t rows, uint64_t bytes);
/* The request waits: the frames move out of server->incoming, or, of a part of a call for many experts, its rows are
 * copied. pool, rows, to and group are set. False: no memory. */
bool admission_park(struct server *server, struct request *request, const struct task_inputs *inputs,
                    uint64_t deadline_ns);
/* It waits no more; its frames are the caller's, for admission_free. */
struct request_parked *admission_unpark(struct server *server, struct request *request);
void admission_free(struct request_parked *parked);

/* When one that is refused now may hope for room: milliseconds, 1 to 1,000. */
uint32_t admission_retry_after_ms(const struct pool_link *link);
/* Results of so many tasks (1 or more) and rows came from the pool: what the hint is made of, with link->refused. */
void admission_served(struct pool_link *link, uint32_t tasks, uint32_t rows, uint64_t now_ns);

#endif
