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

enum { SENTENCE_SIZE = 1024 };

static int report(const struct config_source *source, unsigned line, struct config_place place, const char *sentence)
{
    char where[160] = "";
    char index[24] = "";
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
    char sentence[SENTENCE_SIZE];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    unsigned line = config_source_line(source, place);
    if (!line && place.index >= 0) /* an option that is missed: the entry's line */
        line = config_source_line(source, (struct config_place){place.section, place.index, NULL});
    return report(source, line, place, sentence);
}

int config_source_error_at(const struct config_source *source, unsigned line, struct config_place place,
                           const char *format, ...)
{
    char sentence[SENTENCE_SIZE];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    return report(source, line, place, sentence);
}
