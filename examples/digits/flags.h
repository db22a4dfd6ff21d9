/* Values of the example programs' flags. Each exits with 2, after a message, when the text is no such value. */
#ifndef EXPERTD_EXAMPLES_DIGITS_FLAGS_H
#define EXPERTD_EXAMPLES_DIGITS_FLAGS_H

#include <stddef.h>

/* A whole number from 1 to most; name is the flag's, for the message. */
size_t flags_count(const char *name, const char *text, size_t most);
/* A number from least to most. */
double flags_number(const char *name, const char *text, double least, double most);

#endif
