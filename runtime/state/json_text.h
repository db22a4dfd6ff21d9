/* JSON from a file that nobody vouches for: one object, by json-c, with what json-c does not see refused. */
#ifndef EXPERTD_RUNTIME_JSON_TEXT_H
#define EXPERTD_RUNTIME_JSON_TEXT_H

#include <json-c/json.h>
#include <stddef.h>

/* Parses the whole of the text, in which spaces may follow the object. `depth` is that of its parts at most. *object:
 * json_object_put() it. 0; -EPROTO with a sentence, about "its header" or what `what` calls it, in error[error_size];
 * -ENOMEM. Refused are also a name that stands twice in an object, a NUL in a name or text, single quotes, and text
 * that is no UTF-8. */
int json_text_parse(struct json_object **object, const char *text, size_t length, int depth, const char *what,
                    char *error, size_t error_size);

#endif
