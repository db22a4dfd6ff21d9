/* Numbers as people write them in a configuration, a flag or an expression: in decimal digits, so that everybody who
 * reads them reads the same. 010 is eight to readers of YAML 1.1 and ten to those of 1.2, 0x10, 0o10, 0b10, 1_000 and
 * 1:30 are numbers to some of them and texts to others: none is one here. */
#ifndef EXPERTD_COMMON_NUMERAL_H
#define EXPERTD_COMMON_NUMERAL_H

#include <stddef.h>
#include <stdint.h>

enum numeral_kind {
    NUMERAL_WHOLE, /* digits alone */
    NUMERAL_REAL,  /* and a fraction, and a power of ten: 1.5, .5, 2., 1e-12 */
};

/* The length of the number that the text begins with, which has no sign and ends where no letter, digit, _ or .
 * follows. 0: it begins with none. */
size_t numeral_length(const char *text, enum numeral_kind kind);
/* The number that the whole text is; a real one may have a sign. 0; -EINVAL: it is none; -ERANGE: it is beyond what the
 * type has. Unless 0 the value is left as it was. */
int numeral_read_whole(const char *text, uint64_t *value);
int numeral_read_real(const char *text, double *value);
/* For a person, behind what was said of a text that was refused: how to write what was perhaps meant. "" where it looks
 * like no number at all, or like one that was refused for something else. */
const char *numeral_hint(const char *text);

#endif
