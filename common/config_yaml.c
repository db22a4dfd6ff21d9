#include "common/config_yaml.h"

#include <cyaml/cyaml.h>
#include <errno.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_blocks.h"
#include "common/config_memory.h"
#include "common/config_outline.h"
#include "common/config_value.h"
#include "common/log.h"

/* libcyaml fills a raw tree with what stands in the file: NULL where nothing does. All its records are rows of this
 * one type, so that the schema is made from the tables by a loop: a row per option, or per section. */
struct raw {
    void *value;    /* char * (one value), char ** (STRINGS), struct raw * (a section's row of options, or rows) */
    uint32_t count; /* of a list */
};

enum { TEXT_MAX = 4095, LIST_MAX = 1024, RECORDS_MAX = 65536 };

static const cyaml_schema_value_t text_schema = {
    .type = CYAML_STRING,
    .flags = CYAML_FLAG_POINTER,
    .data_size = sizeof(char),
    .string = {.min = 0, .max = TEXT_MAX},
};

struct schema_tree {
    cyaml_schema_value_t root;
    cyaml_schema_field_t sections[CONFIG_SECTIONS + 1];
    cyaml_schema_value_t records[CONFIG_SECTIONS]; /* of the lists */
    cyaml_schema_field_t options[CONFIG_SECTIONS][CONFIG_SECTION_OPTIONS_MAX + 1];
};

static cyaml_schema_field_t field_at(const char *key, unsigned row)
{
    return (cyaml_schema_field_t){
        .key = key,
        .data_offset = (uint32_t)(row * sizeof(struct raw) + offsetof(struct raw, value)),
        .count_offset = (uint32_t)(row * sizeof(struct raw) + offsetof(struct raw, count)),
        .count_size = sizeof(uint32_t),
    };
}

static cyaml_schema_value_t list_of(const cyaml_schema_value_t *entry, uint32_t max)
{
    return (cyaml_schema_value_t){
        .type = CYAML_SEQUENCE,
        .flags = CYAML_FLAG_OPTIONAL | CYAML_FLAG_POINTER_NULL_STR,
        .data_size = entry->flags & CYAML_FLAG_POINTER ? sizeof(void *) : entry->data_size,
        .sequence = {.entry = entry, .max = max},
    };
}

static cyaml_schema_value_t mapping_of(const cyaml_schema_field_t *fields, unsigned rows, enum cyaml_flag flags)
{
    return (cyaml_schema_value_t){
        .type = CYAML_MAPPING,
        .flags = flags,
        .data_size = (uint32_t)(rows * sizeof(struct raw)),
        .mapping = {.fields = fields},
    };
}

static void schema_make(struct schema_tree *tree)
{
    const enum cyaml_flag optional = CYAML_FLAG_OPTIONAL | CYAML_FLAG_POINTER_NULL_STR;
    *tree = (struct schema_tree){0};
    tree->root = mapping_of(tree->sections, CONFIG_SECTIONS, CYAML_FLAG_POINTER_NULL_STR);
    for (unsigned s = 0; s < CONFIG_SECTIONS; s++) {
        const struct config_section *section = &config_sections[s];
        for (unsigned i = 0; i < section->count; i++) {
            cyaml_schema_field_t *field = &tree->options[s][i];
            *field = field_at(section->options[i].name, i);
            field->value = text_schema;
            field->value.flags |= CYAML_FLAG_OPTIONAL;
            if (section->options[i].kind == CONFIG_STRINGS)
                field->value = list_of(&text_schema, LIST_MAX);
            if (section->options[i].kind == CONFIG_TREE)
                field->value = (cyaml_schema_value_t){.type = CYAML_IGNORE, .flags = CYAML_FLAG_OPTIONAL};
        }
        tree->sections[s] = field_at(section->name, s);
        tree->sections[s].value = mapping_of(tree->options[s], section->count, optional);
        if (section->list) {
            tree->records[s] = mapping_of(tree->options[s], section->count, CYAML_FLAG_DEFAULT);
            tree->sections[s].value = list_of(&tree->records[s], RECORDS_MAX);
        }
    }
}

/* --- libcyaml's messages: what is wrong, then from the inside out where ----------------------------------------------
 */

struct report {
    char problem[CONFIG_PROBLEM_SIZE];
    char path[CONFIG_PROBLEM_SIZE];
    unsigned line;
};

static void path_prepend(struct report *report, const char *step)
{
    char joined[CONFIG_PROBLEM_SIZE];
    const char *dot = report->path[0] && report->path[0] != '[' ? "." : "";
    snprintf(joined, sizeof joined, "%s%s%.200s", step, dot, report->path);
    memcpy(report->path, joined, sizeof joined);
}

/* "Expecting STRING, got event: SEQUENCE_START" */
static void say_kinds(char problem[CONFIG_PROBLEM_SIZE], const char *message)
{
    static const char *const kinds[][2] = {{"STRING", "one value"},
                                           {"SCALAR", "one value"},
                                           {"MAPPING", "options, as NAME: VALUE"},
                                           {"SEQUENCE", "a list"}};
    char wanted[24], found[24];
    const char *words[2] = {NULL, NULL};
    const bool both = sscanf(message, "Expecting %23[A-Z], got event: %23[A-Z]", wanted, found) == 2;
    for (size_t i = 0; both && i < sizeof kinds / sizeof kinds[0]; i++) {
        words[0] = strcmp(wanted, kinds[i][0]) == 0 ? kinds[i][1] : words[0];
        words[1] = strcmp(found, kinds[i][0]) == 0 ? kinds[i][1] : words[1];
    }
    if (words[0] && words[1])
        snprintf(problem, CONFIG_PROBLEM_SIZE, "must be %s, and is %s", words[0], words[1]);
    else
        snprintf(problem, CONFIG_PROBLEM_SIZE, "%s", message);
}

__attribute__((format(printf, 3, 0))) static void on_message(cyaml_log_t level, void *context, const char *format,
                                                             va_list args)
{
    struct report *report = context;
    char text[CONFIG_PROBLEM_SIZE];
    char name[72];
    char step[80];
    unsigned number;
    unsigned line = 0;
    vsnprintf(text, sizeof text, format, args);
    text[strcspn(text, "\n")] = 0;
    const char *message = strncmp(text, "Load: ", 6) == 0 ? text + 6 : text;
    if (sscanf(text, " in mapping field '%71[^']' (line: %u", name, &line) == 2) {
        path_prepend(report, name);
    } else if (sscanf(text, " in sequence entry '%u' (line: %u", &number, &line) == 2) {
        snprintf(step, sizeof step, "[%u]", number ? number - 1 : 0);
        path_prepend(report, step);
    } else if (sscanf(text, " in mapping (line: %u", &line) != 1 && strcmp(message, "Backtrace:") != 0 &&
               level >= CYAML_LOG_ERROR && !report->problem[0]) {
        say_kinds(report->problem, message);
    }
    if (!report->line)
        report->line = line;
}

static int refuse(const struct config_source *source, const struct report *report, cyaml_err_t err)
{
    log_error("%.120s:%u: %s%s%s", source->origin, report->line ? report->line : 1, report->path,
              report->path[0] ? ": " : "", report->problem[0] ? report->problem : cyaml_strerror(err));
    return err == CYAML_ERR_OOM ? -ENOMEM : -EINVAL;
}

/* --- the raw tree into the configuration -----------------------------------------------------------------------------
 */

static int merge_option(const struct config_option *option, void *record, struct config_memory **memory,
                        const struct raw *raw, const struct config_source *source, char *problem)
{
    char *const one = option->kind == CONFIG_STRINGS ? NULL : raw->value;
    char *const *items = option->kind == CONFIG_STRINGS ? raw->value : &one;
    const uint32_t count = option->kind == CONFIG_STRINGS ? raw->count : one != NULL;
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < count; i++) {
        const char *value = config_value_resolve(option, memory, items[i], source->folder, problem);
        rc = value ? config_value_set(option, record, memory, value, problem) : -EINVAL;
    }
    return rc;
}

static int merge_record(const struct config_section *section, int index, void *record, struct config_memory **memory,
                        const struct raw *raw, const struct config_source *source)
{
    char problem[CONFIG_PROBLEM_SIZE];
    for (unsigned i = 0; i < section->count; i++) {
        const struct config_option *option = &section->options[i];
        if (merge_option(option, record, memory, &raw[i], source, problem) < 0)
            return config_source_error(source, (struct config_place){section->name, index, option->name}, "%s",
                                       problem);
    }
    return 0;
}

static int merge_list(struct config *config, const struct config_section *section, const struct raw *raw,
                      const struct config_source *source)
{
    if (raw->count == 0)
        return 0;
    const struct raw *rows = raw->value;
    char *records = config_memory_alloc(&config->memory, raw->count * section->record_size);
    if (!records)
        return -ENOMEM;
    for (uint32_t i = 0; i < raw->count; i++) {
        void *record = records + i * section->record_size;
        config_value_defaults(section, record);
        const int rc =
            merge_record(section, (int)i, record, &config->memory, rows + (size_t)i * section->count, source);
        if (rc < 0)
            return rc;
    }
    *(void **)(void *)((char *)config + section->offset) = records;
    *(unsigned *)(void *)((char *)config + section->count_offset) = raw->count;
    return 0;
}

/* libcyaml makes a list one entry longer at a time: growing by half spares it a copy of the whole list for each. */
static void *reallocate(void *context, void *block, size_t size)
{
    (void)context;
    if (size == 0) {
        free(block);
        return NULL;
    }
    if (block && malloc_usable_size(block) >= size)
        return block;
    return realloc(block, block ? size + size / 2 : size);
}

/* libcyaml knows no null for texts, or takes quoted ones for it: what the outline says is null loses its value, and so
 * keeps its default. */
static void drop_nulls(struct raw *root, const struct config_outline *outline)
{
    for (size_t i = 0; i < outline->nulls_count; i++) {
        const struct config_null *null = &outline->nulls[i];
        const struct config_section *section = &config_sections[null->section];
        struct raw *rows = root[null->section].value;
        if (section->options[null->option].kind == CONFIG_STRINGS || section->options[null->option].kind == CONFIG_TREE)
            continue;
        void **value = &rows[(size_t)null->index * section->count + null->option].value;
        free(*value);
        *value = NULL;
    }
}

int config_yaml_read(struct config *config, const struct config_source *source)
{
    struct report report = {0};
    struct schema_tree schema;
    struct config_outline outline;
    struct raw *root = NULL;
    int rc = config_outline_read(&outline, source);
    if (rc < 0) {
        config_outline_destroy(&outline);
        return rc;
    }
    schema_make(&schema);
    /* No aliases: nobody needs them here, and a few lines of them can stand for gigabytes. */
    const cyaml_config_t how = {
        .log_fn = on_message,
        .log_ctx = &report,
        .mem_fn = reallocate,
        .log_level = CYAML_LOG_ERROR,
        .flags = CYAML_CFG_NO_ALIAS,
    };
    const cyaml_err_t err = cyaml_load_data((const uint8_t *)source->text, source->length, &how, &schema.root,
                                            (cyaml_data_t **)&root, NULL);
    if (err == CYAML_OK && root)
        drop_nulls(root, &outline);
    const bool has_trees = outline.has_trees;
    config_outline_destroy(&outline);
    if (err != CYAML_OK)
        return refuse(source, &report, err);
    for (unsigned s = 0; root && rc == 0 && s < CONFIG_SECTIONS; s++) {
        const struct config_section *section = &config_sections[s];
        if (section->list)
            rc = merge_list(config, section, &root[s], source);
        else if (root[s].value)
            rc = merge_record(section, -1, (char *)config + section->offset, &config->memory, root[s].value, source);
    }
    cyaml_free(&how, &schema.root, root, 0);
    return rc == 0 && has_trees ? config_blocks_read(config, source) : rc;
}
