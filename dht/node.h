/* A node of the DHT: OpenDHT behind an interface of ours, and the only file that knows it.
 *
 * OpenDHT calls back on its own threads. Those callbacks only copy what they were given into a queue and ring an
 * eventfd; everything else in this folder runs on the one thread that calls node_take. Operations are named by tokens
 * of the caller's, not by pointers, so that an event of an operation that was given up meanwhile is recognised and
 * dropped.
 *
 * The queue holds at most NODE_QUEUE_VALUES values; what a flood brings beyond is dropped and counted. Ends of
 * operations are never dropped. */
#ifndef EXPERTD_DHT_NODE_H
#define EXPERTD_DHT_NODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

enum { NODE_QUEUE_VALUES = 65536, NODE_VALUE_MAX = 65536 };

enum node_event_kind {
    NODE_VALUE,   /* a get or a listening brought a value */
    NODE_EXPIRED, /* a value that a listening brought is no longer in the DHT */
    NODE_GOT,     /* a get has ended; ok: some peer answered */
    NODE_PUT,     /* a put has ended; ok: some peer took it */
    NODE_PINGED,  /* ok: an answer */
};

struct node_event {
    struct node_event *next;
    enum node_event_kind kind;
    bool ok;
    uint64_t token;
    size_t size;
    uint8_t data[];
};

struct node;
struct node_listening;
struct node_put;

struct node_options {
    uint16_t port; /* UDP; 0: any free one */
    uint32_t network_id;
    bool lan_discovery;
};

/* Starts a node on all interfaces (OpenDHT's C interface cannot choose one). 0 or -errno, then a message was logged. */
int node_start(struct node **node, const struct node_options *options);
/* Ends it, waiting at most bound_ms for operations under way; NULLs. */
void node_stop(struct node **node, unsigned bound_ms);

void node_id_text(const struct node *node, char text[41]);
uint16_t node_port(const struct node *node); /* 0: it is not running */

/* Readable while there are events. */
int node_fd(const struct node *node);
/* All events since the last call, in order; the caller frees each with free(). NULL: none. */
struct node_event *node_take(struct node *node);
uint64_t node_dropped(const struct node *node);

/* All of these return at once. 0 or -ENOMEM; then there will be no event. The key is hashed. */
int node_get(struct node *node, const char *key, uint64_t token);
int node_listen(struct node *node, const char *key, uint64_t token, struct node_listening **listening);
void node_unlisten(struct node *node, struct node_listening **listening);
/* Puts a value that OpenDHT keeps announcing until node_withdraw, which only ends that: what peers have stored they
 * keep for ten minutes. */
int node_put(struct node *node, const char *key, const uint8_t *data, size_t size, uint64_t token,
             struct node_put **put);
const uint8_t *node_put_value(const struct node_put *put, size_t *size);
void node_withdraw(struct node *node, struct node_put **put);
int node_ping(struct node *node, const struct sockaddr *address, socklen_t length, uint64_t token);

#endif
