#include "examples/digits/flags.h"

#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

size_t flags_count(const char *name, const char *text, size_t most)
{
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (errno || text[0] < '0' || text[0] > '9' || *end || value < 1 || value > most) {
        fprintf(stderr, "%s: --%s must be a whole number from 1 to %zu, not \"%s\"\n", program_invocation_short_name,
                name, most, text);
        exit(2);
    }
    return value;
}

static double parse_number(const struct flag *flag, const char *text)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= flag->least && value <= flag->most)) {
        fprintf(stderr, "%s: --%s must be a number from %g to %g, not \"%s\"\n", program_invocation_short_name,
                flag->name, flag->least, flag->most, text);
        exit(2);
    }
    return value;
}

/* "name VALUE" */
static int print_name(const struct flag *flag, char *to, size_t size)
{
    return snprintf(to, size, "%s%s%s", flag->name, flag->value ? " " : "", flag->value ? flag->value : "");
}

static void print_help(const struct flags *flags, FILE *to)
{
    char name[64];
    int widest = 0;
    fprintf(to, "usage: %s %s\n%s\n\n", program_invocation_short_name, flags->usage, flags->purpose);
    for (const struct flag *flag = flags->all; flag->name; flag++) {
        int width = print_name(flag, name, sizeof name);
        widest = width > widest ? width : widest;
    }
    for (const struct flag *flag = flags->all; flag->name; flag++) {
        print_name(flag, name, sizeof name);
        fprintf(to, "  --%-*s   %s", widest, name, flag->help);
        if (flag->text && *flag->text) {
            fprintf(to, " (%s)", *flag->text);
        } else if (flag->count) {
            fprintf(to, " (%zu)", *flag->count);
        } else if (flag->number) {
            fprintf(to, " (%g)", *flag->number);
        }
        fputc('\n', to);
    }
}

_Noreturn void flags_refuse(const char *message)
{
    fprintf(stderr, "%s: %s\n", program_invocation_short_name, message);
    exit(2);
}

static void take(const struct flag *flag, const char *text)
{
    if (flag->text) {
        *flag->text = text;
    } else if (flag->count) {
        *flag->count = flags_count(flag->name, text, (size_t)flag->most);
    } else if (flag->number) {
        *flag->number = parse_number(flag, text);
    } else {
        *flag->given = true;
    }
}

enum { WORD_MAX = 40 };

/* How many letters have to be changed, added or left out to make one word of the other. */
static size_t edits(const char *from, const char *to)
{
    size_t row[WORD_MAX + 1], length = strlen(to);
    for (size_t j = 0; j <= length; j++) {
        row[j] = j;
    }
    for (size_t i = 1; from[i - 1]; i++) {
        size_t corner = row[0];
        row[0] = i;
        for (size_t j = 1; j <= length; j++) {
            size_t change = corner + (from[i - 1] != to[j - 1]);
            corner = row[j];
            size_t add = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            row[j] = change < add ? change : add;
        }
    }
    return row[length];
}

/* Nobody knows this word, or it has a value that it may not have; what may have been meant is said. */
static void explain_option(const char *word, const struct option *known)
{
    size_t length = strcspn(word, "="), least = length / 2 + 1;
    const char *nearest = NULL;
    char name[WORD_MAX];
    snprintf(name, sizeof name, "%.*s", (int)length, word);
    for (; known->name; known++) {
        size_t distance = strlen(known->name) < WORD_MAX ? edits(name + strspn(name, "-"), known->name) : WORD_MAX;
        if (distance < least) {
            least = distance;
            nearest = known->name;
        }
    }
    if (nearest && least == 0) {
        fprintf(stderr, "%s: %s takes no value\n", program_invocation_short_name, name);
    } else {
        fprintf(stderr, "%s: there is no option %s%s%s%s\n", program_invocation_short_name, name,
                nearest ? ": is --" : "", nearest ? nearest : "", nearest ? " meant?" : "");
    }
}

void flags_parse(const struct flags *flags, int argc, char **argv)
{
    enum { FIRST = 256, HELP = FIRST + FLAGS_MAX, VERSION }; /* no characters: the only short flag is -h */
    struct option known[FLAGS_MAX + 3] = {{"help", no_argument, NULL, HELP}, {"version", no_argument, NULL, VERSION}};
    const char *given[FLAGS_MAX] = {NULL};
    int option, count = 0;
    for (; flags->all[count].name; count++) {
        const struct flag *flag = &flags->all[count];
        assert(count < FLAGS_MAX);
        known[count + 2] =
            (struct option){flag->name, flag->value ? required_argument : no_argument, NULL, FIRST + count};
    }
    opterr = 0; /* the message is ours */
    while ((option = getopt_long(argc, argv, ":h", known, NULL)) >= FIRST && option < HELP) {
        given[option - FIRST] = optarg ? optarg : "";
    }
    option = option == 'h' ? HELP : option;
    if (option == VERSION) {
        printf("%s %s\n", program_invocation_short_name, EXPERTD_VERSION);
        exit(0);
    }
    if (option == ':') {
        fprintf(stderr, "%s: %s needs a value\n", program_invocation_short_name, argv[optind - 1]);
    }
    if (option == '?') {
        explain_option(argv[optind - 1], known);
    }
    size_t words = argc > optind ? (size_t)(argc - optind) : 0;
    if (option != -1 || (flags->words ? words < 1 || words > flags->most_words : words > 0)) {
        print_help(flags, option == HELP ? stdout : stderr);
        exit(option == HELP ? 0 : 2);
    }
    /* Only now: the help shows what was there before. */
    for (int i = 0; i < count; i++) {
        if (given[i]) {
            take(&flags->all[i], given[i]);
        }
    }
    for (size_t i = 0; i < words; i++) {
        flags->words[i] = argv[(size_t)optind + i];
    }
    if (flags->words) {
        *flags->words_count = words;
    }
}
