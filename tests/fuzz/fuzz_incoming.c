/* Any frames are one message: it is received whole within the bounds, and the next one is not touched by it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "frontend/incoming.h"

static void *router, *dealer;

static void open_sockets(void)
{
    void *context = zmq_ctx_new();
    zmq_ctx_set(context, ZMQ_IO_THREADS, 0); /* inproc needs none */
    router = zmq_socket(context, ZMQ_ROUTER);
    dealer = zmq_socket(context, ZMQ_DEALER);
    if (zmq_bind(router, "inproc://fuzz") != 0 || zmq_connect(dealer, "inproc://fuzz") != 0)
        abort();
}

static void expect(struct incoming *incoming)
{
    int rc;
    while ((rc = incoming_receive(incoming, router)) == -EINPROGRESS)
        ;
    if (rc != 1)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct incoming incoming;
    if (!router) {
        open_sockets();
        incoming_init(&incoming);
    }
    /* A byte says how long the next frame is; the last one has the rest. */
    size_t bytes = 0, frames = 0;
    while (size > 0) {
        const size_t wanted = *data++, length = wanted < --size ? wanted : size;
        const int flags = length < size ? ZMQ_SNDMORE : 0;
        zmq_send(dealer, data, length, flags);
        bytes += length;
        frames++;
        data += length;
        size -= length;
        if (flags == 0)
            break;
    }
    if (frames) {
        expect(&incoming);
        if (incoming.tensor_frames > frames || incoming.bytes > bytes ||
            (incoming.has_header && zmq_msg_size(&incoming.header) > incoming.bytes))
            abort();
        incoming_clear(&incoming);
    }
    zmq_send(dealer, "header", 6, ZMQ_SNDMORE);
    zmq_send(dealer, "tensor", 6, 0);
    expect(&incoming);
    if (!incoming.has_header || incoming.tensor_frames != 1 || incoming.bytes != 12 ||
        memcmp(zmq_msg_data(&incoming.tensors[0]), "tensor", 6) != 0)
        abort();
    incoming_clear(&incoming);
    if (incoming_receive(&incoming, router) != 0)
        abort();
    return 0;
}
