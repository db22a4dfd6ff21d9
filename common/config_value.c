#include "common/config_value.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/config_memory.h"
#include "common/numeral.h"

/* libcyaml has types for numbers and booleans too, but takes "-1" for the largest number, "010" for 8 and any word for
 * true, and knows no bounds. So its schema says "a single value" and the value is read here, for flags as for the file.
 */

static void *field(const struct config_option *option, void *record)
{
    return (char *)record + option->offset;
}

static int set_uint(const struct config_option *option, uint64_t *value, const char *text, char *problem)
{
    uint64_t number = 0;
    const int rc = numeral_read_whole(text, &number);
    if (rc == -EINVAL) {
        snprintf(problem, CONFIG_PROBLEM_SIZE, "'%.100s' is not a whole number%s", text, numeral_hint(text));
        return -EINVAL;
    }
    if (rc < 0 || number < option->uint_min || number > option->uint_max) {
        snprintf(problem, CONFIG_PROBLEM_SIZE, "%.100s is out of range: %" PRIu64 " to %" PRIu64 "%s%s", text,
                 option->uint_min, option->uint_max, *option->unit ? " " : "", option->unit);
        return -EINVAL;
    }
    *value = number;
    return 0;
}

static int set_float(const struct config_option *option, double *value, const char *text, char *problem)
{
    double number;
    if (numeral_read_real(text, &number) < 0) {
        snprintf(problem, CONFIG_PROBLEM_SIZE, "'%.100s' is not a number%s", text, numeral_hint(text));
        return -EINVAL;
    }
    if (number < option->number_min || number > option->number_max) {
        snprintf(problem, CONFIG_PROBLEM_SIZE, "%.100s is out of range: %.15g to %.15g%s%s", text, option->number_min,
                 option->number_max, *option->unit ? " " : "", option->unit);
        return -EINVAL;
    }
    *value = number;
    return 0;
}

static int set_bool(bool *value, const char *text, char *problem)
{
    static const char *const words[][2] = {{"false", "true"}, {"no", "yes"}, {"off", "on"}};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        for (int truth = 0; truth < 2; truth++)
            if (strcasecmp(text, words[i][truth]) == 0) {
                *value = truth;
                return 0;
            }
    snprintf(problem, CONFIG_PROBLEM_SIZE, "'%.100s' is neither true nor false", text);
    return -EINVAL;
}

bool config_value_is_choice(const char *choices, const char *word)
{
    const size_t length = strlen(word);
    for (const char *at = choices; length && !strchr(word, '|') && at; at = strchr(at, '|')) {
        at += *at == '|';
        if (strncmp(at, word, length) == 0 && (at[length] == '|' || at[length] == 0))
            return true;
    }
    return false;
}

static int set_string(const char **value, struct config_memory **memory, const char *text)
{
    *value = config_memory_copy(memory, text);
    return *value ? 0 : -ENOMEM;
}

/* Nothing is freed singly, so the list grows by doubling: it is full whenever its count is 0 or a power of two. */
static int append_string(struct config_strings *list, struct config_memory **memory, const char *text)
{
    if ((list->count & (list->count - 1)) == 0) {
        const char **items = config_memory_alloc(memory, (list->count ? 2 * (size_t)list->count : 1) * sizeof *items);
        if (!items)
            return -ENOMEM;
        if (list->count)
            memcpy(items, list->items, list->count * sizeof *items);
        list->items = items;
    }
    const int rc = set_string(&list->items[list->count], memory, text);
    if (rc == 0)
        list->count++;
    return rc;
}

int config_value_set(const struct config_option *option, void *record, struct config_memory **memory, const char *text,
                     char problem[CONFIG_PROBLEM_SIZE])
{
    int rc = 0;
    switch (option->kind) {
    case CONFIG_CHOICE:
        if (!config_value_is_choice(option->unit, text)) {
            snprintf(problem, CONFIG_PROBLEM_SIZE, "'%.100s' is not one of %s", text, option->unit);
            return -EINVAL;
        }
        rc = set_string(field(option, record), memory, text);
        break;
    case CONFIG_STRING:
    case CONFIG_PATH:
    case CONFIG_BLOCK:
    case CONFIG_ENDPOINT:
        rc = set_string(field(option, record), memory, text);
        break;
    case CONFIG_STRINGS:
        rc = append_string(field(option, record), memory, text);
        break;
    case CONFIG_TREE:
        break; /* common/config_blocks.c reads it */
    case CONFIG_UINT:
        return set_uint(option, field(option, record), text, problem);
    case CONFIG_FLOAT:
        return set_float(option, field(option, record), text, problem);
    case CONFIG_BOOL:
        return set_bool(field(option, record), text, problem);
    }
    if (rc < 0)
        snprintf(problem, CONFIG_PROBLEM_SIZE, "%s", strerror(-rc));
    return rc;
}

void config_value_clear(const struct config_option *option, void *record)
{
    if (option->kind == CONFIG_STRINGS)
        *(struct config_strings *)field(option, record) = (struct config_strings){0};
}

void config_value_defaults(const struct config_section *section, void *record)
{
    for (unsigned i = 0; i < section->count; i++) {
        const struct config_option *option = &section->options[i];
        void *value = field(option, record);
        switch (option->kind) {
        case CONFIG_STRING:
        case CONFIG_PATH:
        case CONFIG_BLOCK:
        case CONFIG_ENDPOINT:
        case CONFIG_CHOICE:
            *(const char **)value = option->string;
            break;
        case CONFIG_STRINGS:
            config_value_clear(option, record);
            break;
        case CONFIG_TREE:
            *(bool *)value = false;
            break;
        case CONFIG_UINT:
            *(uint64_t *)value = option->uint;
            break;
        case CONFIG_FLOAT:
            *(double *)value = option->number;
            break;
        case CONFIG_BOOL:
            *(bool *)value = option->boolean;
            break;
        }
    }
}

void config_value_print_range(FILE *out, const struct config_option *option)
{
    const char *space = *option->unit ? " " : "";
    switch (option->kind) {
    case CONFIG_UINT:
        fprintf(out, "%" PRIu64 " to %" PRIu64 "%s%s", option->uint_min, option->uint_max, space, option->unit);
        break;
    case CONFIG_FLOAT:
        fprintf(out, "%.15g to %.15g%s%s", option->number_min, option->number_max, space, option->unit);
        break;
    case CONFIG_CHOICE:
        fputs(option->unit, out);
        break;
    case CONFIG_BOOL:
        fputs("true or false", out);
        break;
    case CONFIG_STRING:
    case CONFIG_PATH:
    case CONFIG_BLOCK:
    case CONFIG_ENDPOINT:
    case CONFIG_STRINGS:
    case CONFIG_TREE:
        break;
    }
}

bool config_value_is_path(const char *block)
{
    const size_t length = strlen(block);
    return strchr(block, '/') || (length > 3 && strcmp(block + length - 3, ".so") == 0);
}

const char *config_value_resolve(const struct config_option *option, struct config_memory **memory, const char *text,
                                 const char *folder, char problem[CONFIG_PROBLEM_SIZE])
{
    static const char ipc[] = "ipc://";
    const char *scheme = "";
    if (option->kind == CONFIG_ENDPOINT || option->kind == CONFIG_STRINGS) {
        if (strncmp(text, ipc, strlen(ipc)) != 0 || strchr("@*/", text[strlen(ipc)]))
            return text;
        scheme = ipc;
        text += strlen(ipc);
    } else if (option->kind == CONFIG_BLOCK ? !config_value_is_path(text) : option->kind != CONFIG_PATH || !*text) {
        return text;
    }
    if (text[0] == '~' && (text[1] == '/' || !text[1])) {
        snprintf(problem, CONFIG_PROBLEM_SIZE, "'~' stands for no folder here: write it in full");
        return NULL;
    }
    if (text[0] == '/' || !folder)
        return *scheme ? text - strlen(ipc) : text;
    const char *path = config_memory_format(memory, "%s%s/%s", scheme, strcmp(folder, "/") == 0 ? "" : folder, text);
    if (!path)
        snprintf(problem, CONFIG_PROBLEM_SIZE, "%s", strerror(ENOMEM));
    return path;
}

bool config_value_is_text(const struct config_option *option)
{
    return option->kind == CONFIG_STRING || option->kind == CONFIG_PATH || option->kind == CONFIG_BLOCK ||
           option->kind == CONFIG_ENDPOINT;
}

bool config_value_is_default(const struct config_option *option, const void *record)
{
    const void *value = (const char *)record + option->offset;
    switch (option->kind) {
    case CONFIG_STRING:
    case CONFIG_PATH:
    case CONFIG_BLOCK:
    case CONFIG_ENDPOINT:
    case CONFIG_CHOICE:
        return strcmp(*(const char *const *)value, option->string) == 0;
    case CONFIG_UINT:
        return *(const uint64_t *)value == option->uint;
    case CONFIG_FLOAT:
        return !(*(const double *)value < option->number || *(const double *)value > option->number);
    case CONFIG_BOOL:
        return *(const bool *)value == option->boolean;
    case CONFIG_STRINGS:
        return ((const struct config_strings *)value)->count == 0;
    case CONFIG_TREE:
        return !*(const bool *)value;
    }
    return false;
}

bool config_value_has_default(const struct config_option *option)
{
    return option->kind != CONFIG_STRINGS && option->kind != CONFIG_TREE &&
           (!config_value_is_text(option) || option->string[0]);
}

void config_value_print_default(FILE *out, const struct config_option *option)
{
    switch (option->kind) {
    case CONFIG_UINT:
        fprintf(out, "%" PRIu64, option->uint);
        break;
    case CONFIG_FLOAT:
        fprintf(out, "%.15g", option->number);
        break;
    case CONFIG_BOOL:
        fputs(option->boolean ? "true" : "false", out);
        break;
    case CONFIG_STRING:
    case CONFIG_PATH:
    case CONFIG_BLOCK:
    case CONFIG_ENDPOINT:
    case CONFIG_CHOICE:
        fputs(option->string, out);
        break;
    case CONFIG_STRINGS:
    case CONFIG_TREE:
        break;
    }
}
