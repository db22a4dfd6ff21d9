/* A whole configuration as the file it could have come from. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_print.h"
#include "common/config_tree.h"
#include "common/config_value.h"
#include "common/utf8.h"

void config_print_text(FILE *out, const char *text)
{
    fputc('"', out);
    for (const unsigned char *at = (const unsigned char *)text; *at;) {
        uint32_t character = *at;
        const size_t length = utf8_decode(at, &character);
        /* Of YAML's line breaks, and of what no YAML may have as it is, some are no ASCII. */
        const bool special = length > 1 && (character <= 0x9f || character == 0x2028 || character == 0x2029 ||
                                            character == 0xfeff || character == 0xfffe || character == 0xffff);
        if (*at == '"' || *at == '\\')
            fprintf(out, "\\%c", *at);
        else if (*at < ' ' || *at == 0x7f)
            fprintf(out, "\\x%02x", *at);
        else if (special)
            fprintf(out, "\\u%04x", (unsigned)character);
        else
            fwrite(at, 1, length ? length : 1, out);
        at += length ? length : 1;
    }
    fputc('"', out);
}

static void print_strings(FILE *out, const struct config_strings *list)
{
    fputc('[', out);
    for (unsigned i = 0; i < list->count; i++) {
        fputs(i ? ", " : "", out);
        config_print_text(out, list->items[i]);
    }
    fputc(']', out);
}

/* In one line. */
static void print_node(FILE *out, const struct config_node *node)
{
    const bool map = node->kind == CONFIG_NODE_MAP;
    if (node->kind == CONFIG_NODE_SCALAR) {
        if (node->null)
            fputc('~', out);
        else
            config_print_text(out, node->text);
        return;
    }
    fputc(map ? '{' : '[', out);
    for (unsigned i = 0; i < node->count; i++) {
        fputs(i ? ", " : "", out);
        if (map) {
            config_print_text(out, node->children[i].key);
            fputs(": ", out);
        }
        print_node(out, &node->children[i]);
    }
    fputc(map ? '}' : ']', out);
}

/* The entry of a list as the file has it; NULL: there is no such. */
static const struct config_node *find_entry(const struct config *config, const char *section, unsigned index)
{
    const struct config_node *list = config->tree ? config_tree_find(config->tree, section) : NULL;
    return list && list->kind == CONFIG_NODE_LIST && index < list->count ? &list->children[index] : NULL;
}

static void print_value(FILE *out, const struct config_option *option, const void *value)
{
    switch (option->kind) {
    case CONFIG_STRING:
    case CONFIG_PATH:
    case CONFIG_BLOCK:
    case CONFIG_ENDPOINT:
    case CONFIG_CHOICE:
        config_print_text(out, *(const char *const *)value);
        break;
    case CONFIG_STRINGS:
        print_strings(out, value);
        break;
    case CONFIG_UINT:
        fprintf(out, "%" PRIu64, *(const uint64_t *)value);
        break;
    case CONFIG_FLOAT:
        fprintf(out, "%.17g", *(const double *)value);
        break;
    case CONFIG_BOOL:
        fputs(*(const bool *)value ? "true" : "false", out);
        break;
    case CONFIG_TREE:
        break;
    }
}

static void print_record(FILE *out, const struct config_section *section, const char *record,
                         const struct config_node *entry, config_print_filter *leave_out)
{
    const char *lead = section->list ? "  - " : "  ";
    for (unsigned i = 0; i < section->count; i++) {
        const struct config_option *option = &section->options[i];
        const bool is_tree = option->kind == CONFIG_TREE;
        const struct config_node *node = is_tree && entry ? config_tree_find(entry, option->name) : NULL;
        if ((is_tree && !node) || (leave_out && leave_out(option->name)))
            continue;
        fprintf(out, "%s%s: ", lead, option->name);
        if (is_tree)
            print_node(out, node);
        else
            print_value(out, option, record + option->offset);
        fputc('\n', out);
        lead = section->list ? "    " : "  ";
    }
}

static void print_entry(FILE *out, const struct config *config, const struct config_section *section, unsigned index,
                        config_print_filter *leave_out)
{
    const char *records = *(const char *const *)(const void *)((const char *)config + section->offset);
    print_record(out, section, records + index * section->record_size, find_entry(config, section->name, index),
                 leave_out);
}

void config_print_entry(FILE *out, const struct config *config, const char *section, unsigned index,
                        config_print_filter *leave_out)
{
    print_entry(out, config, config_section_find(section), index, leave_out);
}

void config_print_section(FILE *out, const struct config *config, const struct config_section *section)
{
    fprintf(out, "%s:\n", section->name);
    if (!section->list) {
        print_record(out, section, (const char *)config + section->offset, NULL, NULL);
        return;
    }
    const unsigned count = *(const unsigned *)(const void *)((const char *)config + section->count_offset);
    for (unsigned i = 0; i < count; i++)
        print_entry(out, config, section, i, NULL);
}

/* malloc'd; NULL: out of memory. */
static char *value_text(const struct config *config, const struct config_section *section,
                        const struct config_option *option)
{
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    if (!out)
        return NULL;
    print_value(out, option, (const char *)config + section->offset + option->offset);
    return fclose(out) == 0 ? text : NULL;
}

void config_print_changed(FILE *out, const struct config *config, const struct config *base)
{
    for (unsigned s = 0; s < CONFIG_SECTIONS; s++) {
        const struct config_section *section = &config_sections[s];
        bool headed = false;
        for (unsigned i = 0; !section->list && i < section->count; i++) {
            const struct config_option *option = &section->options[i];
            char *now = value_text(config, section, option), *before = value_text(base, section, option);
            if (now && before && strcmp(now, before) != 0) {
                fprintf(out, "%s%s%s  %s: %s\n", headed ? "" : section->name, headed ? "" : ":", headed ? "" : "\n",
                        option->name, now);
                headed = true;
            }
            free(now);
            free(before);
        }
    }
}

void config_print(FILE *out, const struct config *config)
{
    for (unsigned s = 0; s < CONFIG_SECTIONS; s++)
        config_print_section(out, config, &config_sections[s]);
}
