/* UTF-8, as uids, the log and JSON have it. */
#ifndef EXPERTD_COMMON_UTF8_H
#define EXPERTD_COMMON_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* The character at the start of a NUL-terminated text (shortest form, no surrogates, nothing beyond U+10FFFF): its
 * bytes; 0 if there is none. Reads no further than the NUL. */
size_t utf8_decode(const unsigned char *text, uint32_t *character);

#endif
