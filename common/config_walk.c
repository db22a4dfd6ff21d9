#include "common/config_walk.h"

#include <stdio.h>
#include <string.h>
#include <yaml.h>

struct walk {
    yaml_parser_t parser;
    yaml_event_t event;
    bool failed;
    const char *refused; /* it failed at an event of which this is to be said; NULL */
    const struct config_visitor *visitor;
};

/* YAML's own of a text, a number or a collection say what a value is anyway. Others ask for something to be done with
 * it (!ENV, !include, !!binary), and who writes one expects that. */
static bool is_known_tag(const yaml_char_t *tag)
{
    static const char own[] = "tag:yaml.org,2002:", *const names[] = {"str",  "int", "float", "bool",
                                                                      "null", "seq", "map"};
    const char *text = (const char *)tag;
    if (!text || strcmp(text, "!") == 0)
        return true;
    for (size_t i = 0; strncmp(text, own, strlen(own)) == 0 && i < sizeof names / sizeof names[0]; i++)
        if (strcmp(text + strlen(own), names[i]) == 0)
            return true;
    return false;
}

static const yaml_char_t *event_tag(const yaml_event_t *event)
{
    switch (event->type) {
    case YAML_SCALAR_EVENT:
        return event->data.scalar.tag;
    case YAML_SEQUENCE_START_EVENT:
        return event->data.sequence_start.tag;
    case YAML_MAPPING_START_EVENT:
        return event->data.mapping_start.tag;
    default:
        return NULL;
    }
}

/* Where C would end a text, and what would be left out of one. */
static const char *refusal(const yaml_event_t *event)
{
    if (event->type == YAML_SCALAR_EVENT && strlen((const char *)event->data.scalar.value) != event->data.scalar.length)
        return "a text with a zero byte";
    return is_known_tag(event_tag(event)) ? NULL : "a tag (!...) means nothing here: write the value itself";
}

static bool next(struct walk *walk)
{
    yaml_event_delete(&walk->event);
    walk->failed = !yaml_parser_parse(&walk->parser, &walk->event);
    walk->refused = walk->failed ? NULL : refusal(&walk->event);
    walk->failed |= walk->refused != NULL;
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

/* Of YAML's core schema: a word in quotes, or with a tag that is not null's, is a word. */
static bool event_is_null(const struct walk *walk)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL"};
    const char *tag = (const char *)event_tag(&walk->event);
    if (walk->event.type != YAML_SCALAR_EVENT || walk->event.data.scalar.style != YAML_PLAIN_SCALAR_STYLE ||
        (tag && strcmp(tag, "tag:yaml.org,2002:null") != 0))
        return false;
    for (size_t i = 0; i < sizeof nulls / sizeof nulls[0]; i++)
        if (strcmp(event_scalar(walk), nulls[i]) == 0)
            return true;
    return false;
}

static bool visit_null(struct walk *walk, struct config_place place, bool of_list)
{
    return walk->visitor->null && event_is_null(walk) &&
           walk->visitor->null(walk->visitor->context, place, of_list, event_line(walk));
}

/* An option's value. False: stop, found or failed. */
static bool walk_value(struct walk *walk, struct config_place place)
{
    if (walk->event.type != YAML_SEQUENCE_START_EVENT)
        return !visit_null(walk, place, false) && skip_node(walk);
    while (next(walk) && walk->event.type != YAML_SEQUENCE_END_EVENT)
        if (visit_null(walk, place, true) || !skip_node(walk))
            return false;
    return walk->event.type == YAML_SEQUENCE_END_EVENT;
}

/* The options of one record. */
static bool walk_record(struct walk *walk, const char *section, int index)
{
    char option[64];
    while (next(walk) && walk->event.type != YAML_MAPPING_END_EVENT) {
        const struct config_place place = {section, index, option};
        snprintf(option, sizeof option, "%s", event_scalar(walk));
        if (walk->visitor->key(walk->visitor->context, place, event_line(walk)))
            return false;
        if (!skip_node(walk) || !next(walk) || !walk_value(walk, place))
            return false;
    }
    return walk->event.type == YAML_MAPPING_END_EVENT;
}

static bool walk_list(struct walk *walk, const char *section)
{
    for (int index = 0; next(walk) && walk->event.type != YAML_SEQUENCE_END_EVENT; index++) {
        if (walk->visitor->key(walk->visitor->context, (struct config_place){section, index, NULL}, event_line(walk)))
            return false;
        if (walk->event.type == YAML_MAPPING_START_EVENT ? !walk_record(walk, section, index) : !skip_node(walk))
            return false;
    }
    return walk->event.type == YAML_SEQUENCE_END_EVENT;
}

static bool walk_root(struct walk *walk)
{
    char section[64];
    while (next(walk) && walk->event.type != YAML_MAPPING_END_EVENT) {
        snprintf(section, sizeof section, "%s", event_scalar(walk));
        if (walk->visitor->key(walk->visitor->context, (struct config_place){section, -1, NULL}, event_line(walk)))
            return false;
        if (!skip_node(walk) || !next(walk))
            return false;
        const bool more = walk->event.type == YAML_MAPPING_START_EVENT    ? walk_record(walk, section, -1)
                          : walk->event.type == YAML_SEQUENCE_START_EVENT ? walk_list(walk, section)
                                                                          : skip_node(walk);
        if (!more)
            return false;
    }
    return walk->event.type == YAML_MAPPING_END_EVENT;
}

/* To the end of the stream, or to what is wrong with it; false where the visitor has stopped it. */
static bool walk_stream(struct walk *walk, struct config_walk_end *end)
{
    while (next(walk) && walk->event.type != YAML_DOCUMENT_START_EVENT)
        ;
    if (walk->failed || walk->event.type == YAML_STREAM_END_EVENT)
        return true;
    const bool whole = next(walk) && (walk->event.type == YAML_MAPPING_START_EVENT ? walk_root(walk) : skip_node(walk));
    if (!whole)
        return walk->failed;
    while (next(walk) && walk->event.type != YAML_DOCUMENT_START_EVENT)
        ;
    if (walk->event.type == YAML_DOCUMENT_START_EVENT) {
        end->problem_line = event_line(walk);
        snprintf(end->problem, sizeof end->problem, "a second document begins here, and a configuration is one");
    }
    return true;
}

/* Of bytes that are no text libyaml tells only how many come before them. */
static unsigned failed_line(const struct config_source *source, const yaml_parser_t *parser)
{
    if (parser->error != YAML_READER_ERROR)
        return (unsigned)parser->problem_mark.line + 1;
    unsigned line = 1;
    for (size_t i = 0; i < parser->problem_offset && i < source->length; i++)
        line += source->text[i] == '\n';
    return line;
}

void config_walk(const struct config_source *source, const struct config_visitor *visitor, struct config_walk_end *end)
{
    struct walk walk = {.visitor = visitor};
    *end = (struct config_walk_end){0};
    if (!source->text || !yaml_parser_initialize(&walk.parser))
        return;
    yaml_parser_set_input_string(&walk.parser, (const unsigned char *)source->text, source->length);
    if (walk_stream(&walk, end) && walk.refused) {
        end->problem_line = event_line(&walk);
        snprintf(end->problem, sizeof end->problem, "%s", walk.refused);
    } else if (walk.failed) {
        end->problem_line = failed_line(source, &walk.parser);
        snprintf(end->problem, sizeof end->problem, "%s", walk.parser.problem ? walk.parser.problem : "not YAML");
    }
    yaml_event_delete(&walk.event);
    yaml_parser_delete(&walk.parser);
}
