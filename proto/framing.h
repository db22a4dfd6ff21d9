/* Where a connection is in ZeroMQ's stream (ZMTP 2 and 3), as its bytes are read: what the message that has begun has
 * so far. ZeroMQ bounds a frame, but not a message of many, and hands it on when it is whole; whoever reads along can
 * end it before. Knows no socket. */
#ifndef EXPERTD_PROTO_FRAMING_H
#define EXPERTD_PROTO_FRAMING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct framing_limits {
    uint32_t frames; /* of a message */
    uint64_t bytes;
};

struct framing {
    uint64_t skip;     /* bytes of the frame, or of the greeting, that are yet to come */
    uint64_t bytes;    /* announced by the message's frames so far, those to come of the last one included */
    uint64_t size;     /* of the frame, as far as its header is read */
    uint32_t frames;   /* of the message so far; 0: none has begun */
    uint64_t begun;    /* frames of all messages */
    uint8_t place;     /* enum framing_place */
    uint8_t greeting;  /* bytes of it that were read one by one */
    uint8_t size_left; /* bytes of `size` to come */
    uint8_t flags;
};

/* Takes bytes in the order in which they are read; a new connection is all zero. False, and then for ever: the message
 * has more frames or bytes than it may have, or this is no ZMTP 2 or 3. Under CURVE each frame looks like a message. */
bool framing_take(struct framing *framing, const struct framing_limits *limits, const void *bytes, size_t size);
/* Bytes of the message that has begun, as far as they were taken. */
uint64_t framing_bytes(const struct framing *framing);

#endif
