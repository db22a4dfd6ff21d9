#include "client/expertctl/sweep.h"

#include <errno.h>
#include <stdlib.h>

#include "common/numeral.h"

/* A number at *text, which moves behind it. */
static int parse_number(const char **text, uint32_t *number)
{
    const size_t length = numeral_length(*text, NUMERAL_WHOLE);
    errno = 0;
    const unsigned long value = strtoul(*text, NULL, 10);
    if (length == 0 || errno || value < 1 || value > SWEEP_MAX_CONCURRENCY)
        return -EINVAL;
    *number = (uint32_t)value;
    *text += length;
    return 0;
}

static int add(struct sweep *sweep, uint32_t level)
{
    if (sweep->count == SWEEP_MAX_LEVELS)
        return -EINVAL;
    sweep->levels[sweep->count++] = level;
    return 0;
}

static int add_range(struct sweep *sweep, uint32_t first, const char *text)
{
    uint32_t last, step = 0;
    if (parse_number(&text, &last) < 0 || last < first)
        return -EINVAL;
    if (*text == ':') {
        text++;
        if (parse_number(&text, &step) < 0)
            return -EINVAL;
    }
    if (*text)
        return -EINVAL;
    int result = 0;
    uint32_t level = first;
    for (; result == 0 && level <= last; level += step ? step : level)
        result = add(sweep, level);
    if (result == 0 && !step && sweep->levels[sweep->count - 1] < last)
        result = add(sweep, last);
    return result;
}

int sweep_parse(struct sweep *sweep, const char *text)
{
    uint32_t level;
    sweep->count = 0;
    for (;;) {
        if (parse_number(&text, &level) < 0)
            return -EINVAL;
        if (*text == ':' && sweep->count == 0)
            return add_range(sweep, level, text + 1);
        if (add(sweep, level) < 0)
            return -EINVAL;
        if (!*text)
            return 0;
        if (*text++ != ',')
            return -EINVAL;
    }
}
