#include "runtime/state/json_text.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

struct output {
    char *error;
    size_t size;
};

static int refuse(const struct output *output, const char *format, ...) __attribute__((format(printf, 2, 3)));
static int refuse(const struct output *output, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(output->error, output->size, format, args);
    va_end(args);
    return -EPROTO;
}

/* What json-c does not see. It keeps the last of two members with one name and says nothing; but every member has
 * exactly one colon outside of strings, so more colons than members are duplicates. It takes names in single quotes,
 * which JSON has not and which would mislead the count. And a name ends for it where it has a NUL, so that
 * "ffn.weight\\u0000x" would be ffn.weight. NULL, or what is wrong. */
static const char *count_colons(const char *text, size_t length, size_t *colons)
{
    bool quoted = false;
    *colons = 0;
    for (size_t i = 0; i < length; i++) {
        if (quoted && text[i] == '\\') {
            if (length - i > 5 && memcmp(text + i, "\\u0000", 6) == 0)
                return "a name or text in it has a NUL";
            i++;
        } else if (text[i] == '"')
            quoted = !quoted;
        else if (!quoted && text[i] == '\'')
            return "single quotes";
        else if (!quoted && text[i] == ':')
            ++*colons;
    }
    return NULL;
}

/* Of the object and of all that are in it. The parser bounded the depth. */
static size_t count_members(struct json_object *value) // NOLINT(misc-no-recursion)
{
    size_t members = 0;
    if (json_object_is_type(value, json_type_array)) {
        for (size_t i = 0; i < json_object_array_length(value); i++)
            members += count_members(json_object_array_get_idx(value, i));
    } else if (json_object_is_type(value, json_type_object)) {
        json_object_object_foreach(value, name, entry)
        {
            (void)name;
            members += 1 + count_members(entry);
        }
    }
    return members;
}

static int check(struct json_object *object, const char *text, size_t length, const char *what,
                 const struct output *output)
{
    size_t colons;
    if (!json_object_is_type(object, json_type_object))
        return refuse(output, "%s is no JSON object", what);
    const char *wrong = count_colons(text, length, &colons);
    if (wrong)
        return refuse(output, "%s is no valid JSON: %s", what, wrong);
    return count_members(object) == colons ? 0 : refuse(output, "a name stands in it twice");
}

int json_text_parse(struct json_object **object, const char *text, size_t length, int depth, const char *what,
                    char *error, size_t error_size)
{
    const struct output output = {error, error_size};
    *object = NULL;
    while (length > 0 && strchr(" \t\r\n", text[length - 1]) && text[length - 1])
        length--;
    if (length > INT_MAX)
        return refuse(&output, "%s is too long", what);
    struct json_tokener *tokener = json_tokener_new_ex(depth);
    if (!tokener)
        return -ENOMEM;
    json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
    struct json_object *parsed = json_tokener_parse_ex(tokener, text, (int)length);
    const enum json_tokener_error problem = json_tokener_get_error(tokener);
    const size_t end = json_tokener_get_parse_end(tokener);
    json_tokener_free(tokener);
    int rc = 0;
    if (!parsed || problem != json_tokener_success || end != length)
        rc = refuse(&output, "%s is no valid JSON, at byte %zu: %s", what, end,
                    problem == json_tokener_success    ? "more than one object"
                    : problem == json_tokener_continue ? "it ends too early"
                                                       : json_tokener_error_desc(problem));
    if (rc == 0)
        rc = check(parsed, text, length, what, &output);
    if (rc < 0)
        json_object_put(parsed);
    else
        *object = parsed;
    return rc;
}
