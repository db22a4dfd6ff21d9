/* What a client says of a request that means nothing to the server: metadata, returned with the reply, and the W3C
 * trace that the request is part of. Both stand in the log (debug). One thread. */
#ifndef EXPERTD_FRONTEND_NOTES_H
#define EXPERTD_FRONTEND_NOTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/message.h"

enum { NOTES_TRACE_SIZE = 56, NOTES_TEXT_SIZE = 160 };

/* Zeroed is none. */
struct notes {
    const void *metadata; /* the header's, or of `own` */
    size_t metadata_bytes;
    const char *trace; /* likewise; NULL: none */
    void *own;
};

/* The header's, where they are. A traceparent that is none is left out. False: the metadata is too long. */
bool notes_read(struct notes *notes, const Expertd__RequestHeader *header);
static inline bool notes_any(const struct notes *notes)
{
    return notes->metadata_bytes > 0 || notes->trace;
}
/* Makes them its own, as the header goes. Without memory for that they are none. */
void notes_keep(struct notes *notes);
void notes_free(struct notes *notes); /* of kept ones; zeroes */
/* "traceparent 00-..., metadata \"...\"": for the log, of printable characters. */
const char *notes_text(const struct notes *notes, char text[NOTES_TEXT_SIZE]);

#endif
