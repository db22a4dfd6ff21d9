#include "common/config_reference.h"

#include <stdlib.h>
#include <string.h>

#include "common/config_help.h"
#include "common/config_value.h"

/* In a cell of a table: a bar would end it, and '*', '_' and '<' mean something to Markdown. */
static void print_cell(FILE *out, const char *text)
{
    for (; *text; text++) {
        if (strchr("|*_<>[]\\", *text))
            fputc('\\', out);
        fputc(*text, out);
    }
}

static const char *kind_name(enum config_kind kind)
{
    switch (kind) {
    case CONFIG_PATH:
        return "path";
    case CONFIG_ENDPOINT:
        return "ZeroMQ endpoint";
    case CONFIG_STRINGS:
        return "list of texts";
    case CONFIG_BLOCK:
        return "name or path";
    case CONFIG_TREE:
        return "YAML";
    case CONFIG_STRING:
    case CONFIG_CHOICE:
    case CONFIG_UINT:
    case CONFIG_FLOAT:
    case CONFIG_BOOL:
        break;
    }
    return "text";
}

/* "4 to 64 threads"; or what kind of thing it is, where anything goes. */
static void print_values(FILE *out, const struct config_option *option)
{
    char *range = NULL;
    size_t size = 0;
    FILE *memory = open_memstream(&range, &size);
    if (!memory)
        return;
    config_value_print_range(memory, option);
    fclose(memory);
    print_cell(out, range[0] ? range + strspn(range, " ;") : kind_name(option->kind));
    free(range);
}

static void print_option(FILE *out, const struct config_section *section, const struct config_option *option)
{
    char flag[96];
    fprintf(out, "| `%s` | ", option->name);
    print_values(out, option);
    fputs(" | ", out);
    if (config_value_has_default(option)) {
        fputc('`', out);
        config_value_print_default(out, option);
        fputc('`', out);
    }
    fputs(" | ", out);
    print_cell(out, option->description);
    if (!section->list) {
        config_help_flag(section, option, flag, sizeof flag);
        fprintf(out, " (`--%s`)", flag);
    }
    fputs(" |\n", out);
}

void config_reference_print(FILE *out)
{
    fputs(
        "# The configuration, option by option\n\n"
        "One YAML file for all programs; what is not there has its default, and so has what is null. A flag of the "
        "same "
        "name overrides the file. An empty default is what the text tells. Relative paths are relative to the file.\n",
        out);
    for (unsigned s = 0; s < CONFIG_SECTIONS; s++) {
        const struct config_section *section = &config_sections[s];
        fprintf(out, "\n## `%s`\n%s%s\n\n| option | values | default | |\n|---|---|---|---|\n", section->name,
                section->description, section->list ? " A list; in the file only." : "");
        for (unsigned i = 0; i < section->count; i++)
            print_option(out, section, &section->options[i]);
    }
}
