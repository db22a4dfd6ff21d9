/* Writes JSON (RFC 8259) to a stream, one value on one line: objects and arrays are opened and closed, commas come by
 * themselves. One thread at a time. */
#ifndef EXPERTD_CLIENT_JSON_H
#define EXPERTD_CLIENT_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct json {
    FILE *stream;
    bool comma; /* something stands before the next value */
};

/* key NULL: an element of an array, or the whole. */
void json_open(struct json *json, const char *key, char bracket);        /* '{' or '[' */
void json_close(struct json *json, char bracket);                        /* '}' or ']' */
void json_string(struct json *json, const char *key, const char *value); /* what is no UTF-8 becomes U+FFFD */
void json_unsigned(struct json *json, const char *key, uint64_t value);
void json_number(struct json *json, const char *key, double value); /* NaN and infinities, which JSON lacks: null */
void json_bool(struct json *json, const char *key, bool value);

#endif
