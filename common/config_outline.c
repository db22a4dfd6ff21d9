#include "common/config_outline.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_table.h"
#include "common/config_walk.h"
#include "common/log.h"
#include "common/suggest.h"

struct reading {
    struct config_outline *outline;
    const struct config_source *source;
    int rc;
    unsigned section_lines[CONFIG_SECTIONS]; /* where each stands; 0: not yet */
    unsigned section;                        /* where we are: number CONFIG_SECTIONS for none that we know */
    int index;
    unsigned option_lines[CONFIG_SECTION_OPTIONS_MAX]; /* of this record */
    unsigned option;
    size_t nulls_room;
};

static bool fail(struct reading *reading, int rc)
{
    reading->rc = rc;
    return true;
}

/* The option of another section that somebody means who writes the key into this one: by the same name, where one
 * section alone has it, or by the section's name before it. Of lists there is none. */
static bool find_elsewhere(const char *key, char found[128])
{
    unsigned count = 0;
    for (unsigned s = 0; s < CONFIG_SECTIONS; s++) {
        const struct config_section *section = &config_sections[s];
        const size_t length = strlen(section->name);
        const bool named = strncmp(key, section->name, length) == 0 && key[length] == '_';
        for (unsigned i = 0; !section->list && i < section->count; i++) {
            const char *option = section->options[i].name;
            if (strcmp(option, named ? key + length + 1 : key) != 0)
                continue;
            snprintf(found, 128, "%.60s.%.60s", section->name, option);
            count++;
        }
    }
    return count == 1;
}

static bool unknown(struct reading *reading, struct config_place place, unsigned line, const char *key,
                    const char *nearest)
{
    char elsewhere[128];
    const char *meant = find_elsewhere(key, elsewhere) ? elsewhere : nearest;
    return fail(reading,
                config_source_error_at(reading->source, line, place,
                                       "there is no option '%.100s' here%s%s%s (--print-config shows all)", key,
                                       meant ? ": is '" : "", meant ? meant : "", meant ? "' meant?" : ""));
}

static bool twice(struct reading *reading, struct config_place place, unsigned line, unsigned first)
{
    return fail(reading,
                config_source_error_at(reading->source, line, place, "stands twice; the first is in line %u", first));
}

static const char *nearest_section(const char *key)
{
    struct suggest suggest;
    suggest_begin(&suggest, key);
    for (unsigned s = 0; s < CONFIG_SECTIONS; s++)
        suggest_offer(&suggest, config_sections[s].name);
    return suggest.nearest;
}

static const char *nearest_option(const struct config_section *section, const char *key)
{
    struct suggest suggest;
    suggest_begin(&suggest, key);
    for (unsigned i = 0; i < section->count; i++)
        suggest_offer(&suggest, section->options[i].name);
    return suggest.nearest;
}

static bool on_section(struct reading *reading, struct config_place place, unsigned line)
{
    for (unsigned s = 0; s < CONFIG_SECTIONS; s++) {
        if (strcmp(place.section, config_sections[s].name) != 0)
            continue;
        if (reading->section_lines[s])
            return twice(reading, place, line, reading->section_lines[s]);
        reading->section_lines[s] = line;
        reading->section = s;
        reading->outline->has_trees |= strcmp(place.section, "blocks") == 0; /* one may lack all that it needs */
        reading->index = -1;
        memset(reading->option_lines, 0, sizeof reading->option_lines);
        return false;
    }
    return unknown(reading, (struct config_place){"", -1, NULL}, line, place.section, nearest_section(place.section));
}

static bool on_option(struct reading *reading, struct config_place place, unsigned line)
{
    const struct config_section *section = &config_sections[reading->section];
    for (unsigned i = 0; i < section->count; i++) {
        if (strcmp(place.option, section->options[i].name) != 0)
            continue;
        if (reading->option_lines[i])
            return twice(reading, place, line, reading->option_lines[i]);
        reading->option_lines[i] = line;
        reading->option = i;
        reading->outline->has_trees |= section->options[i].kind == CONFIG_TREE;
        return false;
    }
    return unknown(reading, (struct config_place){place.section, place.index, NULL}, line, place.option,
                   nearest_option(section, place.option));
}

static bool on_key(void *context, struct config_place place, unsigned line)
{
    struct reading *reading = context;
    if (!place.option && place.index < 0)
        return on_section(reading, place, line);
    if (!place.option) {
        reading->index = place.index;
        memset(reading->option_lines, 0, sizeof reading->option_lines);
        return false;
    }
    /* A mapping where a list belongs, or the reverse, is libcyaml's to refuse. */
    return config_sections[reading->section].list == (place.index >= 0) && on_option(reading, place, line);
}

static bool on_null(void *context, struct config_place place, bool of_list, unsigned line)
{
    struct reading *reading = context;
    struct config_outline *outline = reading->outline;
    if (config_sections[reading->section].list != (place.index >= 0))
        return false;
    if (of_list)
        return fail(reading, config_source_error_at(reading->source, line, place, "null is no entry of this list"));
    if (outline->nulls_count == reading->nulls_room) {
        reading->nulls_room = reading->nulls_room ? 2 * reading->nulls_room : 16;
        struct config_null *larger = realloc(outline->nulls, reading->nulls_room * sizeof *larger);
        if (!larger)
            return fail(reading, -ENOMEM);
        outline->nulls = larger;
    }
    outline->nulls[outline->nulls_count++] =
        (struct config_null){reading->section, place.index < 0 ? 0 : (unsigned)place.index, reading->option};
    return false;
}

int config_outline_read(struct config_outline *outline, const struct config_source *source)
{
    struct config_walk_end end;
    struct reading reading = {.outline = outline, .source = source};
    const struct config_visitor visitor = {.context = &reading, .key = on_key, .null = on_null};
    *outline = (struct config_outline){0};
    config_walk(source, &visitor, &end);
    if (reading.rc == -ENOMEM)
        log_error("out of memory");
    if (reading.rc == 0 && end.problem_line)
        return config_source_error_at(source, end.problem_line, (struct config_place){"", -1, NULL}, "%s", end.problem);
    return reading.rc;
}

void config_outline_destroy(struct config_outline *outline)
{
    free(outline->nulls);
    *outline = (struct config_outline){0};
}
