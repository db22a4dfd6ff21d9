#include "common/config_source.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

#include "common/log.h"

/* libcyaml tells the line of what it refuses, but not of what it took. So once there is a message to write, and only
 * then, libyaml (which libcyaml stands on) reads the text again and every key that the schema could know is shown to
 * `visit`, until it says that it has found its own. */
struct walk {
    yaml_parser_t parser;
    yaml_event_t event;
    bool failed;
    bool (*visit)(void *context, struct config_place place, unsigned line);
    void *context;
};

static bool next(struct walk *walk)
{
    yaml_event_delete(&walk->event);
    walk->failed = !yaml_parser_parse(&walk->parser, &walk->event);
    return !walk->failed && walk->event.type != YAML_STREAM_END_EVENT;
}

static bool opens(yaml_event_type_t type)
{
    return type == YAML_MAPPING_START_EVENT || type == YAML_SEQUENCE_START_EVENT;
}

/* Goes over the node that the current event begins. */
static bool skip_node(struct walk *walk)
{
    unsigned depth = 0;
    do {
        depth += opens(walk->event.type);
        depth -= walk->event.type == YAML_MAPPING_END_EVENT || walk->event.type == YAML_SEQUENCE_END_EVENT;
    } while (depth > 0 && next(walk));
    return depth == 0;
}

static unsigned event_line(const struct walk *walk)
{
    return (unsigned)walk->event.start_mark.line + 1;
}

static const char *event_scalar(const struct walk *walk)
{
    return walk->event.type == YAML_SCALAR_EVENT ? (const char *)walk->event.data.scalar.value : "";
}

/* The options of one record. False: stop, found or failed. */
static bool walk_record(struct walk *walk, const char *section, int index)
{
    while (next(walk) && walk->event.type != YAML_MAPPING_END_EVENT) {
        if (walk->visit(walk->context, (struct config_place){section, index, event_scalar(walk)}, event_line(walk)))
            return false;
        if (!skip_node(walk) || !next(walk) || !skip_node(walk))
            return false;
    }
    return walk->event.type == YAML_MAPPING_END_EVENT;
}

static bool walk_list(struct walk *walk, const char *section)
{
    for (int index = 0; next(walk) && walk->event.type != YAML_SEQUENCE_END_EVENT; index++) {
        if (walk->visit(walk->context, (struct config_place){section, index, NULL}, event_line(walk)))
            return false;
        if (walk->event.type == YAML_MAPPING_START_EVENT ? !walk_record(walk, section, index) : !skip_node(walk))
            return false;
    }
    return walk->event.type == YAML_SEQUENCE_END_EVENT;
}

static void walk_root(struct walk *walk)
{
    char section[64];
    while (next(walk) && walk->event.type != YAML_MAPPING_END_EVENT) {
        snprintf(section, sizeof section, "%s", event_scalar(walk));
        if (walk->visit(walk->context, (struct config_place){section, -1, NULL}, event_line(walk)))
            return;
        if (!skip_node(walk) || !next(walk))
            return;
        const bool more = walk->event.type == YAML_MAPPING_START_EVENT    ? walk_record(walk, section, -1)
                          : walk->event.type == YAML_SEQUENCE_START_EVENT ? walk_list(walk, section)
                                                                          : skip_node(walk);
        if (!more)
            return;
    }
}

/* Line of a syntax error (with libyaml's words in problem), 0 if the walk met none. */
static unsigned walk_source(const struct config_source *source, struct walk *walk, char *problem, size_t problem_size)
{
    unsigned line = 0;
    if (!source->text || !yaml_parser_initialize(&walk->parser))
        return 0;
    yaml_parser_set_input_string(&walk->parser, (const unsigned char *)source->text, source->length);
    while (next(walk) && walk->event.type != YAML_MAPPING_START_EVENT && walk->event.type != YAML_SEQUENCE_START_EVENT)
        ;
    if (!walk->failed && walk->event.type == YAML_MAPPING_START_EVENT)
        walk_root(walk);
    if (walk->failed) {
        line = (unsigned)walk->parser.problem_mark.line + 1;
        snprintf(problem, problem_size, "%s", walk->parser.problem ? walk->parser.problem : "not YAML");
    }
    yaml_event_delete(&walk->event);
    yaml_parser_delete(&walk->parser);
    return line;
}

struct search {
    struct config_place place;
    unsigned from;
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

static bool same_key(void *context, struct config_place place, unsigned line)
{
    struct search *search = context;
    if (line < search->from || strcmp(place.option ? place.option : place.section, search->place.option) != 0)
        return false;
    search->line = line;
    return true;
}

static bool never(void *context, struct config_place place, unsigned line)
{
    (void)context, (void)place, (void)line;
    return false;
}

unsigned config_source_line(const struct config_source *source, struct config_place place)
{
    char problem[8];
    struct search search = {.place = place};
    struct walk walk = {.visit = same_place, .context = &search};
    walk_source(source, &walk, problem, sizeof problem);
    return search.line;
}

unsigned config_source_key_line(const struct config_source *source, const char *key, unsigned from)
{
    char problem[8];
    struct search search = {.place = {.option = key}, .from = from, .line = from};
    struct walk walk = {.visit = same_key, .context = &search};
    walk_source(source, &walk, problem, sizeof problem);
    return search.line;
}

unsigned config_source_syntax(const struct config_source *source, char *problem, size_t problem_size)
{
    struct walk walk = {.visit = never};
    return walk_source(source, &walk, problem, problem_size);
}

int config_source_error(const struct config_source *source, struct config_place place, const char *format, ...)
{
    char sentence[1024];
    char where[160] = "";
    char index[24] = "";
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    unsigned line = config_source_line(source, place);
    if (!line && place.index >= 0) /* an option that is missed: the entry's line */
        line = config_source_line(source, (struct config_place){place.section, place.index, NULL});
    if (line)
        snprintf(where, sizeof where, "%.120s:%u: ", source->origin, line);
    if (place.index >= 0)
        snprintf(index, sizeof index, "[%d]", place.index);
    log_error("%s%s%s%s%s: %s", where, place.section, index, place.option ? "." : "", place.option ? place.option : "",
              sentence);
    return -EINVAL;
}
