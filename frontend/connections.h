/* The connections of the frontend's socket, as far as ZeroMQ's monitor and the kernel tell of them: who is connected,
 * who has gone, and what a connection has sent that is no message yet. ZeroMQ bounds a frame, but not a message of many
 * frames, nor how many connections there are: here is whoever closes one. One thread. */
#ifndef EXPERTD_FRONTEND_CONNECTIONS_H
#define EXPERTD_FRONTEND_CONNECTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct client_peer;
struct connections;

struct connections_counters {
    uint64_t accept_failures, closed_idle, closed_large, failed_handshakes;
};

/* Before the socket is bound, so that no connection is missed. 0 or -errno. */
int connections_create(struct connections **connections, void *context, void *socket);
/* Before the socket is closed. */
void connections_destroy(struct connections **connections);
/* How many there may be: what the limit of open files leaves beside what is open now. After the socket is bound.
 * -EMFILE: too few; logged. */
int connections_set_limit(struct connections *connections);

/* Becomes readable when there is something to take: after a call of connections_take that took everything. */
int connections_fd(const struct connections *connections);
/* Takes note of who came and went. True if a peer with requests has gone: client_peer.gone tells which. */
bool connections_take(struct connections *connections, uint64_t now_ns);
/* A message of so many bytes on the wire came from the peer, on the connection with this descriptor. */
void connections_heard(struct connections *connections, int fd, struct client_peer *peer, uint64_t wire_bytes,
                       uint64_t now_ns);

/* So many open files are others', that come and go as well. */
void connections_set_others(struct connections *connections, uint32_t files);

uint32_t connections_count(const struct connections *connections);
const struct connections_counters *connections_counters(const struct connections *connections);
/* Closes the one with this descriptor. why, for the log: "that sent ...". */
void connections_end(struct connections *connections, int fd, const char *why);
/* Closes connections, those first that have sent the most that is no message yet, until so many bytes of it are let go
 * of. Such of less than a MiB stay. Returns how many it closed. */
uint32_t connections_shed(struct connections *connections, uint64_t bytes);

#endif
