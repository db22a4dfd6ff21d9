/* One call: its request until that is sent (a backward's until it is released), its answer after that. A call is in one
 * of its client's lists by its state. The client's thread. */
#ifndef EXPERTD_CLIENT_CALL_H
#define EXPERTD_CLIENT_CALL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <zmq.h>

#include "client/expertd.h"
#include "client/key_table.h"
#include "proto/message.h"

enum { CALL_ENDPOINT_SIZE = 256 }; /* a longer one, that an answer names, is none */

enum call_state {
    CALL_FREE,   /* in no hands; kept for the next call */
    CALL_UNSENT, /* waits for a connection, or for room in its queue */
    CALL_SENT,
    CALL_AWAY,      /* with other frontends of the server, in calls of their clients: its legs (client/away.h) */
    CALL_NAMED,     /* answered, by the name of another frontend where it may go on: nobody has looked there yet */
    CALL_PAUSED,    /* refused for want of room, or behind such a one: it waits in a backlog (client/backlog.h) */
    CALL_LEG_ENDED, /* a leg that has ended, and that the call it is of has not taken yet */
    CALL_DONE,      /* ended, and the program was not told yet */
    CALL_REPORTED,  /* ended, and the program knows */
    CALL_STATES,
};

struct away;
struct backlog;
TAILQ_HEAD(call_list, expertd_call);

struct expertd_call {
    struct keyed by_id; /* in the table of calls in flight; the first member */
    struct expertd_client *client;
    TAILQ_ENTRY(expertd_call) link;
    void *user;
    struct expertd_call *leg_of;    /* of a leg; NULL */
    struct away *away;              /* CALL_AWAY: its legs */
    bool followed;                  /* the server has said where it belongs: it is believed once */
    char named[CALL_ENDPOINT_SIZE]; /* the endpoint that its answer names; "" */
    uint64_t request_id;
    uint64_t deadline_ns;
    struct backlog *backlog; /* its expert's; NULL */
    TAILQ_ENTRY(expertd_call) behind;
    uint32_t deadline_ms;
    uint32_t retry_after_ms; /* of the last refusal */
    enum call_state state;
    uint64_t ended_before; /* which expertd_poll() counts its end: the client's number of polls then */
    Expertd__Method method;
    bool not_applied;
    bool unanswered; /* an attempt has ended before its answer came, which may come yet, under the same id */
    uint64_t in_doubt[MESSAGE_MAX_PARTS / 64]; /* bits, of the parts: client/call_doubt.h */
    enum expertd_status status;
    uint64_t rows;       /* of a forward or backward */
    uint64_t uid_hash;   /* likewise */
    uint64_t room_bytes; /* that its outputs are expected to take (CONNECTION_NOT_LOCAL: it goes over ZeroMQ) */
    size_t n_gradients;  /* that a backward wants */
    size_t n_parts;      /* 0: it asks one expert */
    size_t n_request;    /* frames that are kept in request[] */
    size_t n_outputs;
    void *answer;          /* one allocation: struct expertd_pong, _list, _stats or _info, by the method, or NULL; of a
                              call for many experts struct call_parts (client/call_parts.h) */
    size_t metadata_bytes; /* of the answer */
    unsigned char metadata[MESSAGE_METADATA_MAX];
    char message[512];
    struct expertd_tensor outputs[EXPERTD_MAX_TENSORS];
    zmq_msg_t reply[EXPERTD_MAX_TENSORS]; /* what the outputs' data lies in */
    zmq_msg_t request[1 + EXPERTD_MAX_TENSORS];
};

/* A backward's request is kept whole beyond the call's end, so that the program can repeat it. */
static inline bool call_keeps_request(const struct expertd_call *call)
{
    return call->method == EXPERTD__METHOD__BACKWARD;
}
static inline bool call_in_flight(const struct expertd_call *call)
{
    return call->state == CALL_UNSENT || call->state == CALL_SENT || call->state == CALL_AWAY ||
           call->state == CALL_NAMED || call->state == CALL_PAUSED;
}
/* With the server, or on its way there. */
static inline bool call_state_flies(enum call_state state)
{
    return state == CALL_SENT || state == CALL_UNSENT;
}
/* Of one expert, or several, and with tensors. */
static inline bool call_has_tensors(Expertd__Method method)
{
    return method == EXPERTD__METHOD__FORWARD || method == EXPERTD__METHOD__BACKWARD;
}

/* Frees what the call holds of its request, or of its answer (then it is as before its end). */
void call_drop_request(struct expertd_call *call);
void call_drop_answer(struct expertd_call *call);

/* Whether a status other than OK says that the expert has not changed (PROTOCOL.md's table). */
bool call_nothing_done(enum expertd_status status);

/* Sets status and message; the caller moves the call on. */
void call_set_status(struct expertd_call *call, enum expertd_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Calls in flight by request id. */
int call_table_insert(struct key_table *table, struct expertd_call *call); /* -ENOMEM */
struct expertd_call *call_table_find(const struct key_table *table, uint64_t request_id);

#endif
