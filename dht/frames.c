#include "dht/frames.h"

#include "proto/gate.h"

bool frames_receive(struct frames *frames, void *socket)
{
    frames->count = 0;
    for (bool more = true; more; frames->count++) {
        zmq_msg_t dropped;
        zmq_msg_init(&dropped);
        zmq_msg_t *frame = frames->count < FRAMES_KEPT ? &frames->items[frames->count] : &dropped;
        zmq_msg_init(frame);
        if (zmq_msg_recv(frame, socket, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(frame);
            break;
        }
        more = zmq_msg_more(frame);
        if (frame == &dropped)
            zmq_msg_close(frame);
    }
    if (frames->count > 0)
        gate_heard(zmq_msg_get(&frames->items[0], ZMQ_SRCFD));
    return frames->count > 0;
}

void frames_close(struct frames *frames)
{
    for (int i = 0; i < frames->count && i < FRAMES_KEPT; i++)
        zmq_msg_close(&frames->items[i]);
}
