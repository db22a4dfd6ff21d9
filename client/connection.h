/* One ZeroMQ DEALER to one endpoint, and what happens to it: the socket, its monitor, and one pollable descriptor over
 * both. Knows frames, not messages. One thread at a time.
 *
 * What was sent is either answered or followed by CONNECTION_LOST, and is never delivered by a later connection: the
 * socket takes messages only while a connection stands (ZMQ_IMMEDIATE), drops what it holds when that breaks, and
 * connection_send() refuses from the loss it has seen until the next handshake it has seen. So a request that was
 * given up after a loss cannot be executed behind its caller's back, and what could not be sent is known to be unsent.
 */
#ifndef EXPERTD_CLIENT_CONNECTION_H
#define EXPERTD_CLIENT_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <zmq.h>

struct connection {
    void *context; /* ZeroMQ's */
    void *socket;
    void *monitor;
    int fd; /* epoll over both; -1 */
    bool owns_context;
    bool up;               /* a handshake was seen, and no loss since */
    const char *handshake; /* why the last handshake failed; NULL */
    uint64_t connects, disconnects;
};

struct connection_options {
    void *context; /* NULL: one of its own */
    uint64_t max_frame_bytes;
    uint32_t heartbeat_ms;
};

/* -EINVAL for an endpoint that ZeroMQ does not know; -errno. *connection is safe to close after a failure. */
int connection_open(struct connection *connection, const char *endpoint, const struct connection_options *options);
void connection_close(struct connection *connection);

enum connection_news {
    CONNECTION_NO_NEWS,
    CONNECTION_NEWS,
    CONNECTION_LOST, /* what was sent before gets no answer any more, but those that can be received already */
};
/* Takes in what the monitor says. Before sending, so that a loss that is already known is not blamed on the new
 * message, and after receiving. */
enum connection_news connection_hear(struct connection *connection);

/* Sends `count` frames as one message; a sent frame is left empty. -EAGAIN: no connection now, or its queue is full;
 * nothing was sent. -errno: frames are lost. */
int connection_send(struct connection *connection, zmq_msg_t *frames, size_t count);

/* Receives a message into at most `limit` frames, which it initialises; more frames are dropped, but counted. How many
 * frames it had; 0: there is no message. */
size_t connection_receive(struct connection *connection, zmq_msg_t *frames, size_t limit);

/* Sleeps until there may be a message, a loss, or room to send; at most timeout_ms (-1: for ever). 0, or -EINTR.
 * Only when connection_receive() has said 0 and nothing else was done since: any use of a ZeroMQ socket may take in the
 * signal that a message has come. */
int connection_wait(const struct connection *connection, int timeout_ms);

#endif
