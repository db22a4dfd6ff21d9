#include "common/config_help.h"

#include <stdlib.h>
#include <string.h>

#include "common/config_value.h"

enum { LINE_WIDTH = 100, HELP_INDENT = 10 };

void config_help_flag(const struct config_section *section, const struct config_option *option, char *flag, size_t size)
{
    snprintf(flag, size, "%s-%s", section->name, option->name);
    for (char *at = flag; *at; at++)
        if (*at == '_')
            *at = '-';
}

/* The words of text in lines that begin with `lead`. */
static void print_wrapped(FILE *out, const char *lead, const char *text)
{
    size_t column = 0;
    while (*text) {
        const size_t word = strcspn(text, " ");
        if (column && column + 1 + word > LINE_WIDTH) {
            fputc('\n', out);
            column = 0;
        }
        column += (size_t)fprintf(out, "%s%.*s", column ? " " : lead, (int)word, text);
        text += word;
        text += strspn(text, " ");
    }
    fputc('\n', out);
}

/* "what it is (default 4; 1 to 64 threads)" */
static void print_description(FILE *out, const char *lead, const struct config_option *option)
{
    char *text = NULL;
    size_t size = 0;
    FILE *memory = open_memstream(&text, &size);
    if (!memory)
        return;
    fputs(option->description, memory);
    if (config_value_has_default(option)) {
        fputs(" (default ", memory);
        config_value_print_default(memory, option);
        fputs(config_value_is_text(option) ? "" : "; ", memory);
        config_value_print_range(memory, option);
        fputc(')', memory);
    }
    fclose(memory);
    print_wrapped(out, lead, text);
    free(text);
}

static const char *placeholder(enum config_kind kind)
{
    switch (kind) {
    case CONFIG_UINT:
        return "N";
    case CONFIG_FLOAT:
        return "NUMBER";
    case CONFIG_BOOL:
        return "BOOL";
    case CONFIG_CHOICE:
        return "WORD";
    case CONFIG_PATH:
        return "PATH";
    case CONFIG_STRING:
    case CONFIG_BLOCK:
    case CONFIG_ENDPOINT:
    case CONFIG_STRINGS:
        break;
    case CONFIG_TREE:
        return "...";
    }
    return "TEXT";
}

static void print_section(FILE *out, const struct config_section *section)
{
    char lead[HELP_INDENT + 1];
    char flag[96];
    memset(lead, ' ', HELP_INDENT);
    lead[HELP_INDENT] = 0;
    fprintf(out, "\n%s%s\n", section->description, section->list ? " In the configuration file only:" : "");
    if (section->list)
        fprintf(out, "  %s:\n", section->name);
    for (unsigned i = 0; i < section->count; i++) {
        const struct config_option *option = &section->options[i];
        config_help_flag(section, option, flag, sizeof flag);
        if (section->list)
            fprintf(out, "      %s: %s\n", option->name, placeholder(option->kind));
        else
            fprintf(out, "  --%s %s%s\n", flag, placeholder(option->kind),
                    option->kind == CONFIG_STRINGS ? "   (may be given several times)" : "");
        print_description(out, lead, option);
    }
}

void config_help_print(FILE *out, const struct config_program *program)
{
    const bool reads = !program->reads_no_file;
    fprintf(out, "%s: %s\n\nUsage: %s %s[flags]\n\n", program->name, program->purpose, program->name,
            reads ? "[--config FILE] " : "");
    if (reads)
        fputs("  --config FILE\n          configuration file (YAML); flags override what it says\n", out);
    fputs("  --print-config\n          print a sample configuration with every option, and exit\n"
          "  -h, --help, --version\n",
          out);
    for (const struct config_flag *flag = program->flags; flag && flag->name; flag++) {
        fprintf(out, "  --%s%s%s\n", flag->name, flag->argument ? " " : "", flag->argument ? flag->argument : "");
        print_wrapped(out, "          ", flag->description);
    }
    for (const char *const *name = program->sections; name && *name; name++) {
        const struct config_section *section = config_section_find(*name);
        if (section)
            print_section(out, section);
    }
}

/* What the sample writes where an entry cannot do without. */
static const char *required_value(const struct config_section *section, const struct config_option *option)
{
    if (strcmp(section->name, "devices") == 0 && strcmp(option->name, "name") == 0)
        return "device0";
    if (strcmp(section->name, "experts") == 0 && strcmp(option->name, "uid") == 0)
        return "ffn.[0:4].[0:16]";
    return NULL;
}

/* Whether an entry of the list can stand in the sample: it would need what only a user can tell. */
static bool has_required(const struct config_section *section)
{
    for (unsigned i = 0; i < section->count; i++)
        if (required_value(section, &section->options[i]))
            return true;
    return false;
}

static void print_sample_option(FILE *out, const struct config_section *section, const struct config_option *option)
{
    const char *indent = section->list ? "    " : "  ";
    const char *required = required_value(section, option);
    char lead[8];
    snprintf(lead, sizeof lead, "%s# ", indent);
    print_description(out, lead, option);
    if (required)
        fprintf(out, "%s%s: \"%s\"\n", indent, option->name, required);
    else if (option->kind == CONFIG_TREE)
        fprintf(out, "%s#%s:\n", indent, option->name);
    else if (option->kind == CONFIG_STRINGS)
        fprintf(out, "%s#%s: []\n", indent, option->name);
    else if (!config_value_has_default(option))
        fprintf(out, "%s#%s: \"\"\n", indent, option->name);
    else {
        const char *quote = config_value_is_text(option) ? "\"" : "";
        fprintf(out, "%s%s: %s", indent, option->name, quote);
        config_value_print_default(out, option);
        fprintf(out, "%s\n", quote);
    }
}

void config_print_sample(FILE *out)
{
    fputs("# expertd: every option, with its default. What is commented out has the default that its text tells.\n",
          out);
    for (unsigned s = 0; s < CONFIG_SECTIONS; s++) {
        const struct config_section *section = &config_sections[s];
        fputc('\n', out);
        print_wrapped(out, "# ", section->description);
        const bool example = !section->list || has_required(section);
        fprintf(out, "%s%s:\n%s", example ? "" : "#", section->name,
                !section->list ? ""
                : example      ? "  -\n"
                               : "#  -\n");
        for (unsigned i = 0; i < section->count; i++)
            print_sample_option(out, section, &section->options[i]);
    }
}
