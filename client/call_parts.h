/* What a server says of each part of a call for many experts. The client's thread. */
#ifndef EXPERTD_CLIENT_CALL_PARTS_H
#define EXPERTD_CLIENT_CALL_PARTS_H

#include <stdbool.h>

#include "client/expertd.h"
#include "proto/message.h"

struct call_parts {
    size_t count;
    struct {
        enum expertd_status status;
        uint32_t retry_after_ms;
        const char *message;
    } parts[];
};

/* Makes them of a reply, in one allocation. Statuses that are not known here are INTERNAL, texts are made printable.
 * False: no memory. */
bool call_parts_take(void **answer, const Expertd__ReplyHeader *header);

#endif
