#include "common/config_flags.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/config_help.h"
#include "common/config_value.h"
#include "common/log.h"
#include "common/suggest.h"

enum {
    FLAG_CONFIG = 1,
    FLAG_HELP,
    FLAG_VERSION,
    FLAG_PRINT_CONFIG,
    FLAG_PROGRAM = 0x1000, /* + index among the program's own */
    FLAG_OPTION = 0x10000, /* + section * CONFIG_SECTION_OPTIONS_MAX + option */
    FLAGS_MAX = 4 + 32 + CONFIG_SECTIONS * CONFIG_SECTION_OPTIONS_MAX + 1,
    FLAG_NAME_SIZE = 64,
};

struct flags {
    struct option table[FLAGS_MAX];
    unsigned count;
    char names[CONFIG_SECTIONS][CONFIG_SECTION_OPTIONS_MAX][FLAG_NAME_SIZE];
};

static void add(struct flags *flags, const char *name, bool has_argument, int value)
{
    if (flags->count + 1 < FLAGS_MAX)
        flags->table[flags->count++] =
            (struct option){.name = name, .has_arg = has_argument ? required_argument : no_argument, .val = value};
}

/* Every program knows every option's flag, so that a script can give the same ones to all of them. */
static struct flags *flags_make(const struct config_program *program)
{
    struct flags *flags = calloc(1, sizeof *flags);
    if (!flags) {
        log_error("out of memory");
        return NULL;
    }
    add(flags, "config", true, FLAG_CONFIG);
    add(flags, "help", false, FLAG_HELP);
    add(flags, "version", false, FLAG_VERSION);
    add(flags, "print-config", false, FLAG_PRINT_CONFIG);
    for (int i = 0; program->flags && program->flags[i].name; i++)
        add(flags, program->flags[i].name, program->flags[i].argument != NULL, FLAG_PROGRAM + i);
    for (unsigned s = 0; s < CONFIG_SECTIONS; s++) {
        const struct config_section *section = &config_sections[s];
        for (unsigned i = 0; !section->list && i < section->count; i++) {
            config_help_flag(section, &section->options[i], flags->names[s][i], FLAG_NAME_SIZE);
            add(flags, flags->names[s][i], true, FLAG_OPTION + (int)(s * CONFIG_SECTION_OPTIONS_MAX + i));
        }
    }
    return flags;
}

static int way_out(const struct config_program *program)
{
    log_error("%s --help shows every flag", program->name);
    return -EINVAL;
}

/* What an argument that getopt_long does not take has wrong, and what may be meant: in the log, as all that is said. */
static int refuse(const struct config_program *program, const struct flags *flags, const char *argument, int option)
{
    char name[FLAG_NAME_SIZE];
    struct suggest suggest;
    unsigned beginnings = 0;
    if (option > ' ' && option <= '~') { /* of one letter */
        log_error("there is no flag '-%c'", option);
        return way_out(program);
    }
    argument += strspn(argument, "-");
    snprintf(name, sizeof name, "%.*s", (int)strcspn(argument, "="), argument);
    suggest_begin(&suggest, name);
    for (unsigned i = 0; i < flags->count; i++) {
        suggest_offer(&suggest, flags->table[i].name);
        beginnings += strncmp(flags->table[i].name, name, strlen(name)) == 0;
    }
    if (option != 0)
        log_error(strchr(argument, '=') ? "--%s takes no value" : "--%s needs a value", name);
    else if (beginnings > 1)
        log_error("--%s is the beginning of several flags: write it out", name);
    else if (suggest.nearest)
        log_error("there is no flag '--%s': is --%s meant?", name, suggest.nearest);
    else
        log_error("there is no flag '--%s'", name);
    return way_out(program);
}

/* As soon as it is known, so that what is wrong with the rest is said in it. */
static void take_log_format(const struct flags *flags, int flag, const char *value)
{
    const int number = flag - FLAG_OPTION;
    enum log_format format;
    if (strcmp(flags->names[number / CONFIG_SECTION_OPTIONS_MAX][number % CONFIG_SECTION_OPTIONS_MAX],
               "server-log-format") == 0 &&
        log_format_parse(value, &format) == 0)
        log_set_format(format);
}

static void print_and_exit(const struct config_program *program, int flag)
{
    if (flag == FLAG_HELP)
        config_help_print(stdout, program);
    else if (flag == FLAG_VERSION)
        printf("%s %s\n", program->name, EXPERTD_VERSION);
    else
        config_print_sample(stdout);
    exit(fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE);
}

int config_flags_begin(const struct config_program *program, int argc, char **argv, const char **file)
{
    struct flags *flags = flags_make(program);
    int rc = flags ? 0 : -ENOMEM;
    int asked = 0;
    int flag;
    *file = NULL;
    opterr = 0; /* refuse() says it */
    optind = 0; /* glibc: begin anew, also after an earlier call */
    while (rc == 0 && (flag = getopt_long(argc, argv, "h", flags->table, NULL)) != -1) {
        if (flag == '?')
            rc = refuse(program, flags, argv[optind - 1], optopt);
        else if (flag == 'h')
            asked = FLAG_HELP;
        else if (flag == FLAG_CONFIG)
            *file = optarg;
        else if (flag < FLAG_PROGRAM)
            asked = flag;
        else if (flag < FLAG_OPTION)
            *program->flags[flag - FLAG_PROGRAM].value = optarg ? optarg : "";
        else
            take_log_format(flags, flag, optarg);
    }
    if (rc == 0 && optind < argc) {
        log_error("'%s' is no flag", argv[optind]);
        rc = way_out(program);
    }
    free(flags);
    if (rc == 0 && asked)
        print_and_exit(program, asked);
    return rc;
}

int config_flags_apply(struct config *config, const struct config_program *program, int argc, char **argv)
{
    bool given[CONFIG_SECTIONS * CONFIG_SECTION_OPTIONS_MAX] = {false};
    char problem[CONFIG_PROBLEM_SIZE];
    struct flags *flags = flags_make(program);
    char *here = getcwd(NULL, 0); /* NULL: relative paths stay so */
    int rc = flags ? 0 : -ENOMEM;
    int flag;
    optind = 0;
    while (rc == 0 && (flag = getopt_long(argc, argv, "h", flags->table, NULL)) != -1) {
        if (flag < FLAG_OPTION)
            continue; /* 'h' too */
        const int number = flag - FLAG_OPTION;
        const struct config_section *section = &config_sections[number / CONFIG_SECTION_OPTIONS_MAX];
        const int index = number % CONFIG_SECTION_OPTIONS_MAX;
        const struct config_option *option = &section->options[index];
        void *record = (char *)config + section->offset;
        /* The first of a list's flags replaces what the file said; the others add to it. */
        if (!given[number])
            config_value_clear(option, record);
        given[number] = true;
        const char *value = config_value_resolve(option, &config->memory, optarg, here, problem);
        rc = value ? config_value_set(option, record, &config->memory, value, problem) : -EINVAL;
        if (rc < 0)
            log_error("--%s: %s", flags->names[number / CONFIG_SECTION_OPTIONS_MAX][index], problem);
    }
    free(here);
    free(flags);
    return rc;
}
