/* The way to a server on the same host through shared memory (PROTOCOL.md, "On the same host"): its socket, this
 * client's memory, and the requests that are on their way. Frames go in and come out as they do with ZeroMQ; what they
 * say it does not know. One thread at a time.
 *
 * A request's memory is not used for anything else until its answer has come or the link has ended, also when nobody
 * waits for that answer any more: the server may read it until then. */
#ifndef EXPERTD_CLIENT_LOCAL_LINK_H
#define EXPERTD_CLIENT_LOCAL_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <zmq.h>

#include "client/local_heap.h"
#include "proto/local_record.h"

enum local_link_state {
    LOCAL_LINK_NONE,
    LOCAL_LINK_GREETING, /* connected; the server has not taken the memory yet */
    LOCAL_LINK_READY,
};

struct local_link {
    enum local_link_state state;
    int fd; /* -1 */
    bool hello_sent;
    bool lost;   /* it was ready, and has ended since somebody last looked */
    bool failed; /* it has ended before it was ready */
    uint64_t memory_bytes;
    unsigned char instance[LOCAL_INSTANCE];
    struct local_heap *heap;
    struct local_slot *slots; /* LOCAL_SLOTS */
    uint32_t free_count, *free;
    struct local_slot *again_first; /* are to be sent once more, with a larger room */
    struct local_slot *refused;     /* have no room here */
    unsigned char *packet;
    size_t packet_bytes, packet_at; /* what of it was not taken yet */
};

void local_link_init(struct local_link *link);
void local_link_close(struct local_link *link);

/* Connects to the socket of a server that greets with this instance; memory_bytes: how much to share. 0, and the state
 * is GREETING; -errno: it cannot be, and nothing has changed. */
int local_link_open(struct local_link *link, const char *path, const unsigned char instance[LOCAL_INSTANCE],
                    uint64_t memory_bytes);
/* Sends frames as one request; the reply's tensors should take no more than room_bytes. Sent frames are left empty.
 * -EAGAIN: not now (no slot, or the server does not read); -ENOMEM: there is no memory for it here; -EMSGSIZE: it is
 * not for this way. Then nothing was sent. */
int local_link_send(struct local_link *link, zmq_msg_t *frames, size_t count, uint64_t room_bytes);
/* Takes in one reply, as connection_receive() does. 0: there is none; also when the link has ended, which `lost` tells
 * when all that came before was received. */
size_t local_link_receive(struct local_link *link, zmq_msg_t *frames, size_t limit);
/* Takes out a request, sent before, whose reply takes more memory than there is here: it is to go another way. Its
 * frames; 0: there is none. */
size_t local_link_refused(struct local_link *link, zmq_msg_t *frames);
/* Whether something waits until the socket takes more. */
bool local_link_waits(const struct local_link *link);

#endif
