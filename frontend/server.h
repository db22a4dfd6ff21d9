/* What the frontend's parts work on together, and how a request is answered: below all that handle one.
 * (frontend/frontend.h makes it.) One thread; ZeroMQ has its own, and so has the copier
 * (frontend.copy_threads), which touch nothing here. */
#ifndef EXPERTD_FRONTEND_SERVER_H
#define EXPERTD_FRONTEND_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/config.h"
#include "frontend/buffer.h"
#include "frontend/counters.h"
#include "frontend/deadline.h"
#include "frontend/device_link.h"
#include "frontend/endpoint.h"
#include "frontend/expert_table.h"
#include "frontend/incoming.h"
#include "frontend/client_peer.h"
#include "frontend/repeats.h"
#include "frontend/reply.h"
#include "frontend/request.h"
#include "frontend/share.h"
#include "proto/message.h"

struct elsewhere;
struct local;
struct server {
    const struct config *config; /* as the program was started */
    const struct config *live;   /* whose experts there are: the same, or what it was changed to (frontend/changes.h) */
    struct elsewhere *elsewhere; /* NULL: this is the one frontend */
    struct changes *changes;
    struct {
        char **uids; /* malloc'd as their list is */
        size_t count;
    } closing; /* experts that are about to go; set by the change that runs (frontend/change.h) */
    struct endpoint endpoint;
    void *socket;                    /* the endpoint's */
    struct connections *connections; /* likewise */
    struct local *local;             /* NULL: clients on this host have ZeroMQ alone */
    struct {
        uint64_t budget, own_after; /* bytes: of messages; of the process, when it last gave some back */
        uint64_t quiet_since_ns, moved_before;
        uint64_t ended_said; /* of gate_ended() */
    } pressure;
    int socket_fd, bell_fd;
    struct device_link **devices;
    unsigned devices_count;
    struct expert_table *experts;
    struct requests *requests;
    struct shares *shares;
    uint64_t parked_bytes; /* of requests that wait for room in their pools */
    struct deadlines *deadlines;
    struct request_list checkpoints; /* that wait */
    struct client_peers *peers;
    struct buffers *buffers;
    struct copier *copier; /* of large tensors */
    struct repeats *repeats;
    struct counters counters;
    struct replier replier;
    struct incoming incoming;
    struct incoming_message message; /* the request that is worked on */
    struct message_arena arena;
    bool local_waits;  /* a client on this host has said something, or a new one has come */
    bool socket_empty; /* the last receive found nothing, and nothing was sent since: see sleep_for_work in loop.c */
    int owner_fd;      /* of the role; the process's end closes it */
    uint64_t next_connections_ns;
    uint64_t spin_until_ns; /* looks for work, rather than sleeping, until then */
    uint64_t start_ns, looked_ns, next_look_ns, next_names_ns;
    uint64_t list_generation; /* of LIST's answer */
    uint64_t last_ticket;     /* of a checkpoint */
    uint64_t ended_told;      /* counters.ended, when the watchdog was last thought of */
    void *arena_memory;
};

/* Answers a request for good: its slot still has to be given back. message NULL: none. */
void server_answer(struct server *server, struct request *request, enum status status, const char *message);
/* The same when the reply itself was sent by other means. */
void server_answered(struct server *server, struct request *request);
/* NOT_FOUND, of any method: an expert that is not here, with the endpoint of the frontend of this server that has it,
 * if one has. */
void server_refuse_unknown(struct server *server, const struct reply_to *to, const char *uid);

#endif
