#include "frontend/incoming.h"

#include <errno.h>
#include <string.h>

/* Frames that are dropped at once before others get their turn; frames beyond so many bytes have a length of 8. */
enum { DRAIN_BURST = 1024, LONG_FRAME = 255 };

void incoming_init(struct incoming *incoming)
{
    memset(incoming, 0, sizeof *incoming);
    zmq_msg_init(&incoming->id);
    zmq_msg_init(&incoming->header);
    for (int i = 0; i < MESSAGE_MAX_TENSORS; i++)
        zmq_msg_init(&incoming->tensors[i]);
}

void incoming_clear(struct incoming *incoming)
{
    /* A closed message is to be initialised again before it is received into. */
    zmq_msg_close(&incoming->id);
    zmq_msg_init(&incoming->id);
    zmq_msg_close(&incoming->header);
    zmq_msg_init(&incoming->header);
    const uint64_t kept = incoming->tensor_frames;
    for (uint64_t i = 0; i < kept && i < MESSAGE_MAX_TENSORS; i++) {
        zmq_msg_close(&incoming->tensors[i]);
        zmq_msg_init(&incoming->tensors[i]);
    }
    incoming->tensor_frames = 0;
    incoming->bytes = 0;
    incoming->envelope = (struct reply_envelope){0};
    incoming->has_header = incoming->unfinished = false;
}

/* 0 or -errno; *more as the frame says. */
static int receive_frame(struct incoming *incoming, void *socket, zmq_msg_t *frame, bool *more)
{
    int n;
    do
        n = zmq_msg_recv(frame, socket, ZMQ_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    *more = zmq_msg_more(frame) != 0;
    const size_t size = zmq_msg_size(frame);
    incoming->wire_bytes += size + (size > LONG_FRAME ? 9 : 2);
    return 0;
}

/* What may stand between routing id and header: the empty delimiter of a REQ, and before it the 4 bytes of its
 * ZMQ_REQ_CORRELATE. *more is about the header, which is then received; a request without one ends here. */
static int receive_header(struct incoming *incoming, void *socket, bool *more)
{
    int rc = receive_frame(incoming, socket, &incoming->header, more);
    if (rc < 0)
        return rc;
    const size_t first = zmq_msg_size(&incoming->header);
    if (first == 0) {
        incoming->envelope.kind = REPLY_DELIMITED;
    } else if (first == sizeof incoming->envelope.correlate && *more) {
        /* No header of 4 bytes announces a tensor; so an empty frame behind it is a delimiter, or an error anyway. */
        zmq_msg_t *second = &incoming->tensors[0];
        rc = receive_frame(incoming, socket, second, more);
        if (rc < 0)
            return rc;
        incoming->tensor_frames = 1;
        if (zmq_msg_size(second) > 0) {
            incoming->has_header = true;
            incoming->tensor_bytes[0] = zmq_msg_size(second);
            incoming->bytes = first + zmq_msg_size(second);
            return 0;
        }
        incoming->tensor_frames = 0;
        incoming->envelope.kind = REPLY_CORRELATED;
        memcpy(&incoming->envelope.correlate, zmq_msg_data(&incoming->header), first);
    } else {
        incoming->has_header = true;
        incoming->bytes = first;
        return 0;
    }
    if (!*more)
        return 0;
    rc = receive_frame(incoming, socket, &incoming->header, more);
    incoming->has_header = rc == 0;
    incoming->bytes = rc == 0 ? zmq_msg_size(&incoming->header) : 0;
    return rc;
}

/* Frames beyond the tensors, into one message: of a million empty ones each costs no more than its receiving. */
static int drain(struct incoming *incoming, void *socket, bool more)
{
    int rc = 0;
    zmq_msg_t surplus;
    zmq_msg_init(&surplus);
    for (int burst = 0; rc == 0 && more; burst++) {
        if (burst == DRAIN_BURST) {
            incoming->unfinished = true;
            rc = -EINPROGRESS;
            break;
        }
        rc = receive_frame(incoming, socket, &surplus, &more);
        if (rc == 0) {
            incoming->bytes += zmq_msg_size(&surplus);
            incoming->tensor_frames++;
        }
    }
    zmq_msg_close(&surplus);
    return rc;
}

static int receive_tensors(struct incoming *incoming, void *socket, bool more)
{
    while (more && incoming->tensor_frames < MESSAGE_MAX_TENSORS) {
        const uint64_t n = incoming->tensor_frames;
        const int rc = receive_frame(incoming, socket, &incoming->tensors[n], &more);
        if (rc < 0)
            return rc;
        incoming->tensor_bytes[n] = zmq_msg_size(&incoming->tensors[n]);
        incoming->bytes += incoming->tensor_bytes[n];
        incoming->tensor_frames++;
    }
    const int rc = more ? drain(incoming, socket, more) : 0;
    if (rc < 0)
        return rc;
    incoming->unfinished = false;
    return 1;
}

void incoming_message(struct incoming *incoming, struct incoming_message *message)
{
    message->header = incoming->has_header ? zmq_msg_data(&incoming->header) : NULL;
    message->header_bytes = incoming->has_header ? zmq_msg_size(&incoming->header) : 0;
    message->tensor_frames = incoming->tensor_frames;
    message->bytes = incoming->bytes;
    for (uint64_t i = 0; i < incoming->tensor_frames && i < MESSAGE_MAX_TENSORS; i++) {
        message->tensors[i] = zmq_msg_data(&incoming->tensors[i]);
        message->tensor_bytes[i] = incoming->tensor_bytes[i];
    }
}

int incoming_fd(struct incoming *incoming)
{
    return zmq_msg_get(&incoming->id, ZMQ_SRCFD);
}

int incoming_receive(struct incoming *incoming, void *socket)
{
    bool more = true;
    if (!incoming->unfinished) {
        int rc = receive_frame(incoming, socket, &incoming->id, &more);
        incoming->wire_bytes = 0; /* the routing id did not travel */
        if (rc < 0)
            return rc == -EAGAIN ? 0 : rc;
        if (more)
            rc = receive_header(incoming, socket, &more);
        if (rc < 0)
            return rc;
    }
    return receive_tensors(incoming, socket, more);
}
