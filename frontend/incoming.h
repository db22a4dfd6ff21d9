/* One request as it comes in: the frames of a multipart message, received within bounds; and what a request is,
 * whichever way it came. One thread. */
#ifndef EXPERTD_FRONTEND_INCOMING_H
#define EXPERTD_FRONTEND_INCOMING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <zmq.h>

#include "frontend/reply.h"
#include "proto/message.h"

/* A whole request: its frames, where they lie. What lies in a client's memory changes when that client likes. */
struct incoming_message {
    const void *header; /* NULL: it has none */
    size_t header_bytes;
    const void *tensors[MESSAGE_MAX_TENSORS];
    size_t tensor_bytes[MESSAGE_MAX_TENSORS];
    uint64_t tensor_frames; /* that came; of those beyond MESSAGE_MAX_TENSORS nothing is known */
    uint64_t bytes;         /* of header and tensors */
};

struct incoming {
    zmq_msg_t id, header;
    zmq_msg_t tensors[MESSAGE_MAX_TENSORS];
    size_t tensor_bytes[MESSAGE_MAX_TENSORS];
    uint64_t tensor_frames; /* that came; those beyond MESSAGE_MAX_TENSORS were dropped */
    uint64_t bytes;         /* of header and tensors */
    uint64_t wire_bytes;    /* of all frames but the routing id, as they came on the connection */
    struct reply_envelope envelope;
    bool has_header;
    bool unfinished; /* more frames of this message wait in the socket */
};

void incoming_init(struct incoming *incoming);
/* Closes what is open; ready for the next. */
void incoming_clear(struct incoming *incoming);
/* The complete message that was received; valid until it is cleared. */
void incoming_message(struct incoming *incoming, struct incoming_message *message);
/* The descriptor of its connection; -1: there is none, or it is not known. */
int incoming_fd(struct incoming *incoming);
/* Receives a message without waiting. 1: it is complete. 0: there is none now. -EINPROGRESS: a very long one is not yet
 * drained; call again (other work may go first). Another -errno of zmq_msg_recv. */
int incoming_receive(struct incoming *incoming, void *socket);

#endif
