#include "examples/digits/flags.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

size_t flags_count(const char *name, const char *text, size_t most)
{
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (errno || text[0] < '0' || text[0] > '9' || *end || value < 1 || value > most) {
        fprintf(stderr, "%s: --%s must be a whole number from 1 to %zu, not \"%s\"\n", program_invocation_short_name,
                name, most, text);
        exit(2);
    }
    return value;
}

double flags_number(const char *name, const char *text, double least, double most)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= least && value <= most)) {
        fprintf(stderr, "%s: --%s must be a number from %g to %g, not \"%s\"\n", program_invocation_short_name, name,
                least, most, text);
        exit(2);
    }
    return value;
}
