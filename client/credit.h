/* What the peer of a connection may send before its message ends. ZeroMQ bounds a frame, but hands on no message before
 * its last frame, and keeps the others, however many: here is counted what has come since a message was taken. The
 * client's thread; no clock and no socket in here. */
#ifndef EXPERTD_CLIENT_CREDIT_H
#define EXPERTD_CLIENT_CREDIT_H

#include <stdbool.h>
#include <stdint.h>

struct credit {
    uint64_t most_bytes;  /* of a message that has not ended, as they travel, and of what becomes of them here */
    uint64_t whole_bytes; /* had come when messages were last known to have ended */
    uint64_t own_bytes;   /* of the process, when the message began to be large; 0: it has not, or they are not known */
    uint64_t large_bytes; /* of the message, then */
    uint64_t ping_ns;     /* a heartbeat comes as often, and its answers; 0: none do */
    uint64_t pinged_ns;   /* until when they are counted */
    uint64_t pings_bytes; /* counted as theirs since a message was taken */
    bool asked;           /* something since that is so much that it could be a message */
    bool taken;           /* a message, since the last look */
};

/* Bytes for a client that names none: a quarter of the memory, 2 GiB at most and 64 MiB at least; and as many as one
 * frame and its message's header take. frame_bytes: the largest that the program has named; 0: none. */
uint64_t credit_default(uint64_t memory_bytes, uint64_t frame_bytes);
/* A connection begins. */
void credit_begin(struct credit *credit, uint64_t now_ns);
/* A whole message came. */
void credit_taken(struct credit *credit);
/* Whether so much was counted as heartbeats that it could be a large message, sent at their pace. The answer to a
 * question tells: before a message's end nothing else can come. */
bool credit_in_doubt(const struct credit *credit);
/* A question was sent: where there is doubt, nothing is counted as heartbeats until it is answered. */
void credit_asked(struct credit *credit);
/* So many bytes have come on the connection. Whether that is more than may come before a message ends, if none waits to
 * be taken. */
bool credit_used_up(struct credit *credit, uint64_t received_bytes, uint64_t now_ns);

#endif
