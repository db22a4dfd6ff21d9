/* The frames of one message of a ZeroMQ socket. One thread, the socket's. */
#ifndef EXPERTD_DHT_FRAMES_H
#define EXPERTD_DHT_FRAMES_H

#include <stdbool.h>
#include <zmq.h>

enum { FRAMES_KEPT = 5 }; /* no message of ours has so many: the others are dropped, and counted */

struct frames {
    zmq_msg_t items[FRAMES_KEPT]; /* the first of them */
    int count;
};

/* The next message, without waiting for one. False: none has come; else frames_close it. */
bool frames_receive(struct frames *frames, void *socket);
void frames_close(struct frames *frames);

#endif
