/* One ZeroMQ DEALER to one endpoint, beside it the shared memory of a server on the same host, and what happens to it:
 * the socket, its monitor, and one pollable descriptor over both. Knows frames, not messages. One thread at a time.
 *
 * What was sent is either answered or followed by CONNECTION_LOST, and is never delivered by a later connection: the
 * socket takes messages only while a connection stands (ZMQ_IMMEDIATE), drops what it holds when that breaks, and
 * connection_send() refuses from the loss it has seen until the next handshake it has seen. So a request that was
 * given up after a loss cannot be executed behind its caller's back, and what could not be sent is known to be unsent.
 *
 * Liveness: ZeroMQ asks the peer each heartbeat, but on a TCP connection it is not ZeroMQ that judges the answer: its
 * answer waits behind the frame that is on its way, for as long as that takes on a slow link, and ZeroMQ counts whole
 * frames. Here bytes count: a peer is gone when none has come from it, and it has taken no more than pings, for
 * MISSED_HEARTBEATS heartbeats. Nor does a peer stay that sends a message without an end (client/credit.h; over TCP, as
 * of ipc:// the kernel counts nothing); it is connected to again when something is to be sent, after a pause that grows
 * with each time. Both are looked at by connection_hear(), so call it by connection_look_ns() at the latest while an
 * answer is waited for, or something is to be sent.
 *
 * A name is looked up by IPv4 alone, by ZeroMQ's thread, so that nothing in here waits for that.
 */
#ifndef EXPERTD_CLIENT_CONNECTION_H
#define EXPERTD_CLIENT_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <zmq.h>

#include "client/credit.h"
#include "client/keys.h"
#include "client/local_link.h"

struct connection_options {
    void *context; /* ZeroMQ's; NULL: one of its own */
    uint64_t max_frame_bytes;
    uint64_t max_message_bytes; /* that may come before a message ends */
    uint32_t heartbeat_ms;
    const struct keys *keys; /* NULL: plain */
    uint64_t local_bytes;    /* to share with a server on the same host; 0: not at all */
};

struct connection {
    char *endpoint;
    void *context; /* ZeroMQ's */
    void *socket;
    void *monitor;
    int fd; /* epoll over both; -1 */
    bool owns_context;
    bool up;             /* a handshake was seen, and no loss since */
    const char *trouble; /* why the last connection or handshake was none, where there is more to say than that; NULL */
    uint64_t connects, disconnects;
    bool gone;             /* given up: to be left when what it brought is read */
    bool left;             /* to be made anew when that may be */
    bool wanted;           /* something was to be sent since it was given up */
    int tcp_fd;            /* ZeroMQ's, to look at; -1: not known, or no TCP */
    uint64_t heartbeat_ns; /* 0: ZeroMQ judges */
    uint64_t look_ns;      /* when to look at it next */
    uint64_t taken;        /* bytes that the peer had taken when that was last worth a note */
    uint64_t taken_ns;     /* and when that was */
    struct credit credit;  /* what the peer may send */
    bool endless;          /* it was given up for sending more, and no handshake was seen since */
    uint64_t pause_ns;     /* for which it was left alone after that, the last time; 0: never yet */
    uint64_t again_ns;     /* and until when */
    struct local_link local;
    uint64_t local_bytes;
    uint64_t local_since_ns; /* when it was opened */
    unsigned local_failures; /* that it was lost soon after: then it is left alone */
    bool drop_local;         /* when what it brought is read */
    bool local_full;         /* its socket takes no more now */
    bool local_watched, local_watched_full;
};

/* Whether the endpoint is one of this host, and a way through shared memory is wanted and not there. */
bool connection_wants_local(const struct connection *connection);
/* The server says where that is; what can go there does so from now on, as soon as the server is ready. */
void connection_offer_local(struct connection *connection, const char *path,
                            const unsigned char instance[LOCAL_INSTANCE]);
/* Memory from which tensors need not be copied; NULL. */
struct local_heap *connection_heap(const struct connection *connection);

/* -EINVAL for an endpoint that ZeroMQ does not know; -errno. *connection is safe to close after a failure. */
int connection_open(struct connection *connection, const char *endpoint, const struct connection_options *options);
void connection_close(struct connection *connection);

#define CONNECTION_ENDLESS "it was left, as it sends a message that does not end"

enum connection_news {
    CONNECTION_NO_NEWS,
    CONNECTION_NEWS,
    CONNECTION_LOST, /* what was sent before gets no answer any more, but those that can be received already */
};
/* Takes in what the monitor says. Before sending, so that a loss that is already known is not blamed on the new
 * message, and after receiving. */
enum connection_news connection_hear(struct connection *connection);

/* By when connection_hear() and connection_receive() have to be called while an answer is waited for, or something is
 * to be sent (CLOCK_MONOTONIC); UINT64_MAX: no matter. */
uint64_t connection_look_ns(const struct connection *connection);

/* Whether a message is to be sent that has an answer, so that the answer tells that the peer has not been sending a
 * long one for long, as slowly as heartbeats come. */
static inline bool connection_in_doubt(const struct connection *connection)
{
    return connection->up && credit_in_doubt(&connection->credit);
}

/* Sends `count` frames as one message; a sent frame is left empty. room_bytes: what the reply's tensors take, as far as
 * that is known; CONNECTION_NOT_LOCAL: it goes over ZeroMQ. -EAGAIN: no connection now, or its queue is full; nothing
 * was sent. -errno: frames are lost. */
#define CONNECTION_NOT_LOCAL UINT64_MAX
int connection_send(struct connection *connection, zmq_msg_t *frames, size_t count, uint64_t room_bytes);

/* Receives a message into at most `limit` frames, which it initialises; more frames are dropped, but counted. How many
 * frames it had; 0: there is no message. */
size_t connection_receive(struct connection *connection, zmq_msg_t *frames, size_t limit);

/* Sleeps until there may be a message, a loss, or room to send; at most timeout_ms (-1: for ever). 0, or -EINTR.
 * Only when connection_receive() has said 0 and nothing else was done since: any use of a ZeroMQ socket may take in the
 * signal that a message has come. */
int connection_wait(const struct connection *connection, int timeout_ms);

#endif
