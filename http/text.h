/* Text that grows: what an answer is written into. Out of memory is remembered, not reported by each call. */
#ifndef EXPERTD_HTTP_TEXT_H
#define EXPERTD_HTTP_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* All zero is empty. */
struct text {
    char *data; /* malloc'd, NUL-terminated; NULL while empty */
    size_t length, capacity;
    bool failed; /* there was no memory: what is there is not whole */
};

void text_add(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_add_bytes(struct text *text, const void *bytes, size_t count);
/* A JSON string, with its quotes; bytes that are no UTF-8 are the sender's affair. */
void text_add_json(struct text *text, const char *string);
/* Frees; safe on zeros. */
void text_free(struct text *text);

#endif
