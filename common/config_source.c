#include "common/config_source.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/config_walk.h"
#include "common/log.h"

struct search {
    struct config_place place;
    unsigned line;
};

static bool same_place(void *context, struct config_place place, unsigned line)
{
    struct search *search = context;
    const struct config_place *wanted = &search->place;
    if (strcmp(place.section, wanted->section) != 0 || place.index != wanted->index || !place.option != !wanted->option)
        return false;
    if (place.option && strcmp(place.option, wanted->option) != 0)
        return false;
    search->line = line;
    return true;
}

unsigned config_source_line(const struct config_source *source, struct config_place place)
{
    struct search search = {.place = place};
    struct config_walk_end end;
    const struct config_visitor visitor = {.context = &search, .key = same_place};
    config_walk(source, &visitor, &end);
    return search.line;
}

__attribute__((format(printf, 4, 0))) static int report(const struct config_source *source, unsigned line,
                                                        struct config_place place, const char *format, va_list args)
{
    char sentence[1024];
    char where[160] = "";
    char index[24] = "";
    vsnprintf(sentence, sizeof sentence, format, args);
    if (line)
        snprintf(where, sizeof where, "%.120s:%u: ", source->origin, line);
    if (place.index >= 0)
        snprintf(index, sizeof index, "[%d]", place.index);
    log_error("%s%s%s%s%s%s%s", where, place.section, index, place.option && place.section[0] ? "." : "",
              place.option ? place.option : "", place.section[0] ? ": " : "", sentence);
    return -EINVAL;
}

int config_source_error(const struct config_source *source, struct config_place place, const char *format, ...)
{
    va_list args;
    unsigned line = config_source_line(source, place);
    if (!line && place.index >= 0) /* an option that is missed: the entry's line */
        line = config_source_line(source, (struct config_place){place.section, place.index, NULL});
    va_start(args, format);
    const int rc = report(source, line, place, format, args);
    va_end(args);
    return rc;
}

int config_source_error_at(const struct config_source *source, unsigned line, struct config_place place,
                           const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const int rc = report(source, line, place, format, args);
    va_end(args);
    return rc;
}
