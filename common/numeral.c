#include "common/numeral.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const char digits[] = "0123456789";

static bool goes_on(char next)
{
    return isalnum((unsigned char)next) || next == '_' || next == '.';
}

static size_t sign_length(const char *text)
{
    return *text == '+' || *text == '-';
}

/* Of a fraction and a power, behind so many digits. */
static size_t rest_length(const char *text, size_t whole)
{
    size_t length = 0;
    if (text[0] == '.') {
        const size_t fraction = strspn(text + 1, digits);
        length = whole + fraction > 0 ? 1 + fraction : 0;
    }
    if (whole + length > 0 && (text[length] == 'e' || text[length] == 'E')) {
        const size_t sign = sign_length(text + length + 1), power = strspn(text + length + 1 + sign, digits);
        length += power > 0 ? 1 + sign + power : 0;
    }
    return length;
}

size_t numeral_length(const char *text, enum numeral_kind kind)
{
    const size_t whole = strspn(text, digits);
    const size_t length = whole + (kind == NUMERAL_REAL ? rest_length(text + whole, whole) : 0);
    return (whole > 1 && text[0] == '0') || goes_on(text[length]) ? 0 : length;
}

/* The whole text is one. */
static bool is(const char *number, enum numeral_kind kind)
{
    const size_t length = numeral_length(number, kind);
    return length > 0 && number[length] == '\0';
}

int numeral_read_whole(const char *text, uint64_t *value)
{
    if (!is(text, NUMERAL_WHOLE))
        return -EINVAL;
    errno = 0;
    const uint64_t number = strtoull(text, NULL, 10);
    if (errno)
        return -ERANGE;
    *value = number;
    return 0;
}

int numeral_read_real(const char *text, double *value)
{
    if (!is(text + sign_length(text), NUMERAL_REAL))
        return -EINVAL;
    const double number = strtod(text, NULL);
    if (!isfinite(number))
        return -ERANGE;
    *value = number;
    return 0;
}

const char *numeral_hint(const char *text)
{
    const char *number = text + sign_length(text);
    const size_t whole = strspn(number, digits);
    if (whole > 1 && number[0] == '0')
        return " (a 0 in front makes it octal to some readers of YAML: leave it out)";
    const bool is_plain = number[strspn(number, "0123456789.")] == '\0'; /* and refused for something else */
    return whole > 0 && !is_plain ? " (it is written in decimal digits)" : "";
}
