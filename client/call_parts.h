/* What a server says of each part of a call for many experts. The client's thread. */
#ifndef EXPERTD_CLIENT_CALL_PARTS_H
#define EXPERTD_CLIENT_CALL_PARTS_H

#include <stdbool.h>

#include "client/expertd.h"
#include "proto/message.h"

struct call_part {
    enum expertd_status status;
    uint32_t retry_after_ms;
    bool not_applied;
    const char *message;
    const char *endpoint; /* of the server's frontend that has the part's expert; "": none was named */
};
struct call_parts {
    size_t count; /* at most MESSAGE_MAX_PARTS */
    struct call_part parts[];
};

/* Makes them of a reply, in one allocation, which takes the place of *answer. Statuses that are not known here are
 * INTERNAL, texts are made printable. False: no memory. */
bool call_parts_take(void **answer, const Expertd__ReplyHeader *header, bool backward);
/* The same of parts that nobody has been asked for yet, which is what they say. */
bool call_parts_begin(void **answer, size_t count);
/* Says something else of `count` of them, by their numbers; without memory all but the texts. */
void call_parts_say(void **answer, const uint32_t *numbers, const struct call_part *parts, size_t count);
/* Whether one of them is said to be at another frontend. */
bool call_parts_any_named(const struct call_parts *parts);

#endif
