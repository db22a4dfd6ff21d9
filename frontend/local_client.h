/* A client on this host: its socket, its memory, and the answers that wait to be sent to it. Knows records
 * (proto/local_record.h), not requests. One thread. */
#ifndef EXPERTD_FRONTEND_LOCAL_CLIENT_H
#define EXPERTD_FRONTEND_LOCAL_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "frontend/local_region.h"
#include "proto/local_record.h"

struct client_peer;

struct local_client {
    TAILQ_ENTRY(local_client) link; /* of all, the oldest first */
    struct local_client *next_dirty, **dirty_list;
    int fd;
    bool owner; /* of the server's user, or root: not one of its group only */
    bool ready; /* its memory is here */
    bool dirty; /* has answers that were not sent */
    bool full;  /* its socket takes none now */
    bool broken;
    struct client_peer *peer;
    struct local_region region;
    uint64_t busy[LOCAL_SLOTS / 64]; /* slots with a request */
    unsigned char *out;              /* whole records */
    size_t out_bytes, out_size;
};
TAILQ_HEAD(local_client_list, local_client);

/* Greets a client on a connected, non-blocking socket, which becomes its own. NULL: no memory, or it cannot be spoken
 * to; the descriptor is closed. */
struct local_client *local_client_new(int fd, uint64_t region_max, const unsigned char instance[LOCAL_INSTANCE]);
void local_client_free(struct local_client *client);

/* The packet in which it hands over its memory, with the descriptor that came along (-1: none; stays the caller's). 0,
 * or -errno and why. */
int local_client_hello(struct local_client *client, const void *packet, size_t bytes, int fd, uint64_t region_max,
                       const char **why);
/* Takes the next request out of a packet: its bytes, or -EBADMSG (a slot that has a request already, too). */
long local_client_request(struct local_client *client, const void *packet, size_t bytes, struct local_record *record);

/* Where in its memory that is; a span that was parsed. */
static inline unsigned char *local_client_at(const struct local_client *client, uint64_t at)
{
    return client->region.base + at;
}
/* Queues an answer for the slot, which is free then. Without memory for it the client is broken. */
void local_client_answer(struct local_client *client, const struct local_record *record);
/* Sends what is queued. 0; -EAGAIN: it does not read now; another -errno: it is gone. */
int local_client_flush(struct local_client *client);

#endif
