#include "frontend/notes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* version-trace-parent-flags, in small hexadecimal digits (W3C Trace Context, 3.2). */
static bool is_trace(const char *text)
{
    static const char form[] = "hh-hhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhh-hhhhhhhhhhhhhhhh-hh";
    static const char zeros[] = "00000000000000000000000000000000";
    if (strlen(text) != sizeof form - 1)
        return false;
    for (size_t i = 0; i < sizeof form - 1; i++) {
        const bool digit = (text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'f');
        if (form[i] == 'h' ? !digit : text[i] != form[i])
            return false;
    }
    return memcmp(text, "ff", 2) != 0 && memcmp(text + 3, zeros, 32) != 0 && memcmp(text + 36, zeros, 16) != 0;
}

bool notes_read(struct notes *notes, const Expertd__RequestHeader *header)
{
    *notes = (struct notes){0};
    if (header->metadata.len > MESSAGE_METADATA_MAX)
        return false;
    if (header->metadata.len > 0) {
        notes->metadata = header->metadata.data;
        notes->metadata_bytes = header->metadata.len;
    }
    if (is_trace(header->traceparent))
        notes->trace = header->traceparent;
    return true;
}

void notes_keep(struct notes *notes)
{
    if (!notes_any(notes))
        return;
    char *own = malloc(NOTES_TRACE_SIZE + notes->metadata_bytes);
    if (!own) {
        *notes = (struct notes){0};
        return;
    }
    if (notes->trace)
        notes->trace = memcpy(own, notes->trace, NOTES_TRACE_SIZE);
    if (notes->metadata_bytes)
        notes->metadata = memcpy(own + NOTES_TRACE_SIZE, notes->metadata, notes->metadata_bytes);
    notes->own = own;
}

void notes_free(struct notes *notes)
{
    free(notes->own);
    *notes = (struct notes){0};
}

const char *notes_text(const struct notes *notes, char text[NOTES_TEXT_SIZE])
{
    int n =
        snprintf(text, NOTES_TEXT_SIZE, "%s%s", notes->trace ? "traceparent " : "", notes->trace ? notes->trace : "");
    if (notes->metadata_bytes)
        snprintf(text + n, NOTES_TEXT_SIZE - (size_t)n, "%smetadata \"%.*s\"", n ? ", " : "",
                 (int)strnlen(notes->metadata, notes->metadata_bytes < 64 ? notes->metadata_bytes : 64),
                 (const char *)notes->metadata);
    return message_clean(text);
}
