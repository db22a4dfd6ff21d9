/* A server over TCP that answers with a message that does not end, for tests of clients. */
#ifndef EXPERTD_TESTS_SUPPORT_ENDLESS_H
#define EXPERTD_TESTS_SUPPORT_ENDLESS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

enum { ENDLESS_MOST = 16 << 20 }; /* what its clients are to take at most; it sends some times as much and then waits */

struct endless {
    const char *frame; /* of which its messages are, with the frame's head */
    size_t frame_bytes;
    bool slow;          /* a frame for each heartbeat of the client's, and from the start */
    atomic_uint asked;  /* messages that the clients have sent; of a slow one */
    atomic_uint closed; /* connections that the clients have closed */
    char endpoint[64];
    int listener;
    pthread_t thread;
};

extern const char endless_frame[257], endless_empty_frame[2];

/* frame, frame_bytes and slow are set. */
void endless_start(struct endless *server);
/* When its clients are gone. */
void endless_stop(struct endless *server);

#endif
