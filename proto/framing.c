#include "proto/framing.h"

enum framing_place { IN_GREETING, AT_FLAGS, IN_SIZE, IN_FRAME, IN_ERROR };
/* Of the greeting: the signature's ends, and where the revision is; then a type, or all that ZMTP 3 has. */
enum { SIGNATURE = 0xff, LAST_OF_SIGNATURE = 9, REVISION = 10, LEFT_OF_2 = 1, LEFT_OF_3 = 53 };
enum { MORE = 1, LONG = 2, COMMAND = 4 };

static enum framing_place greet(struct framing *framing, uint8_t byte)
{
    const uint8_t at = framing->greeting++;
    if ((at == 0 && byte != SIGNATURE) || (at == LAST_OF_SIGNATURE && !(byte & 1)) || (at == REVISION && byte == 0))
        return IN_ERROR; /* ZMTP 1, whose frames are others, or no ZMTP at all */
    if (at == REVISION)
        framing->skip = byte < 3 ? LEFT_OF_2 : LEFT_OF_3;
    return at == REVISION ? IN_FRAME : IN_GREETING;
}

/* The frame's header is whole. Commands are no part of a message, and ZeroMQ bounds them as it does frames. */
static enum framing_place begin_frame(struct framing *framing, const struct framing_limits *limits)
{
    framing->skip = framing->size;
    if (framing->flags & COMMAND)
        return IN_FRAME;
    framing->frames++;
    framing->begun++;
    if (framing->frames > limits->frames || framing->size > limits->bytes ||
        framing->bytes > limits->bytes - framing->size)
        return IN_ERROR;
    framing->bytes += framing->size;
    return IN_FRAME;
}

/* Of a frame without bytes, too. */
static enum framing_place end_frame(struct framing *framing)
{
    if (!(framing->flags & (MORE | COMMAND)))
        framing->bytes = framing->frames = 0;
    return AT_FLAGS;
}

static enum framing_place take_byte(struct framing *framing, const struct framing_limits *limits, uint8_t byte)
{
    switch ((enum framing_place)framing->place) {
    case IN_GREETING:
        return greet(framing, byte);
    case AT_FLAGS:
        framing->flags = byte;
        framing->size = 0;
        framing->size_left = byte & LONG ? 8 : 1;
        return IN_SIZE;
    case IN_SIZE:
        framing->size = framing->size << 8 | byte;
        if (--framing->size_left > 0)
            return IN_SIZE;
        return begin_frame(framing, limits);
    case IN_FRAME:
    case IN_ERROR:
        break;
    }
    return IN_ERROR;
}

bool framing_take(struct framing *framing, const struct framing_limits *limits, const void *bytes, size_t size)
{
    const uint8_t *at = bytes, *const end = at + size;
    while (at < end && framing->place != IN_ERROR) {
        if (framing->place != IN_FRAME)
            framing->place = (uint8_t)take_byte(framing, limits, *at++);
        if (framing->place != IN_FRAME)
            continue;
        const uint64_t here = framing->skip < (uint64_t)(end - at) ? framing->skip : (uint64_t)(end - at);
        at += here;
        framing->skip -= here;
        if (framing->skip == 0)
            framing->place = (uint8_t)end_frame(framing);
    }
    return framing->place != IN_ERROR;
}

uint64_t framing_bytes(const struct framing *framing)
{
    const bool in_frame = framing->place == IN_FRAME && !(framing->flags & COMMAND);
    return framing->frames == 0 ? 0 : framing->bytes - (in_frame ? framing->skip : 0);
}
