/* The Open Inference Protocol's names of element types, and elements as JSON numbers. */
#ifndef EXPERTD_HTTP_DATATYPE_H
#define EXPERTD_HTTP_DATATYPE_H

#include <stdbool.h>

#include "client/expertd.h"
#include "http/text.h"

struct json_object;

/* "FP32", ...; NULL for a number that is none. BF16 is not in the protocol's table, but its servers speak it. */
const char *datatype_name(enum expertd_dtype dtype);
/* 0 for a name that is none. */
enum expertd_dtype datatype_find(const char *name);
/* Whether elements can be written as JSON numbers (those of 16-bit floats cannot, as the protocol says). */
bool datatype_has_json(enum expertd_dtype dtype);

/* Stores a JSON number (BOOL: true, false, or a number) as element i. False: it is none, or does not fit. */
bool datatype_store(enum expertd_dtype dtype, void *data, size_t i, struct json_object *value);
/* Writes element i; a float that is not finite is null, since JSON has no other. */
void datatype_write(enum expertd_dtype dtype, const void *data, size_t i, struct text *text);

#endif
