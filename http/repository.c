#include "http/repository.h"

#include <errno.h>
#include <json-c/json.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 8 };

bool repository_path(const char *path, char uid[EXPERTD_MAX_UID + 1], bool *load)
{
    static const char models[] = "/repository/models/";
    if (strncmp(path, models, sizeof models - 1) != 0)
        return false;
    const char *name = path + sizeof models - 1;
    const size_t length = strcspn(name, "/");
    if (length == 0 || length > EXPERTD_MAX_UID)
        return false;
    memcpy(uid, name, length);
    uid[length] = 0;
    *load = strcmp(name + length, "/load") == 0;
    return *load || strcmp(name + length, "/unload") == 0;
}

static int add(struct repository_settings *settings, const char *key, struct json_object *value, char *why)
{
    const json_type type = json_object_get_type(value);
    const char *text = type == json_type_object || type == json_type_array || type == json_type_null
                           ? NULL
                           : json_object_get_string(value);
    if (!text || (type == json_type_string && strlen(text) != (size_t)json_object_get_string_len(value))) {
        snprintf(why, REPOSITORY_WHY_SIZE, "the parameter '%.60s' is neither a text, a number nor true or false", key);
        return -EINVAL;
    }
    if (settings->count == REPOSITORY_SETTINGS_MAX) {
        snprintf(why, REPOSITORY_WHY_SIZE, "more than %d parameters", REPOSITORY_SETTINGS_MAX);
        return -EINVAL;
    }
    if (asprintf(&settings->items[settings->count], "%s=%s", key, text) < 0)
        return -ENOMEM;
    settings->count++;
    return 0;
}

static struct json_object *parse(const char *text, size_t bytes)
{
    struct json_object *parsed = NULL;
    struct json_tokener *tokener = bytes <= INT_MAX ? json_tokener_new_ex(MAX_DEPTH) : NULL;
    if (!tokener)
        return NULL;
    parsed = json_tokener_parse_ex(tokener, text, (int)bytes);
    size_t end = json_tokener_get_parse_end(tokener);
    while (end < bytes && strchr(" \t\r\n", text[end]) && text[end])
        end++;
    if (json_tokener_get_error(tokener) != json_tokener_success || end != bytes) {
        json_object_put(parsed);
        parsed = NULL;
    }
    json_tokener_free(tokener);
    if (parsed && json_object_is_type(parsed, json_type_object))
        return parsed;
    json_object_put(parsed);
    return NULL;
}

static int add_all(struct repository_settings *settings, struct json_object *object, char *why)
{
    int rc = 0;
    json_object_object_foreach(object, key, value)
    {
        if (rc == 0)
            rc = add(settings, key, value, why);
    }
    return rc;
}

static int add_config(struct repository_settings *settings, struct json_object *config, char *why)
{
    const char *text = json_object_is_type(config, json_type_string) ? json_object_get_string(config) : "";
    struct json_object *object = parse(text, strlen(text));
    const int rc = object ? add_all(settings, object, why) : -EINVAL;
    if (!object)
        snprintf(why, REPOSITORY_WHY_SIZE, "the parameter 'config' is no text of a JSON object");
    json_object_put(object);
    return rc;
}

static int add_parameters(struct repository_settings *settings, struct json_object *parameters, char *why)
{
    int rc = 0;
    json_object_object_foreach(parameters, key, value)
    {
        if (rc == 0)
            rc = strcmp(key, "config") == 0 ? add_config(settings, value, why) : add(settings, key, value, why);
    }
    return rc;
}

int repository_parse(struct repository_settings *settings, const char *body, size_t bytes,
                     char why[REPOSITORY_WHY_SIZE])
{
    struct json_object *parameters = NULL;
    *settings = (struct repository_settings){0};
    if (bytes == 0)
        return 0;
    struct json_object *root = parse(body, bytes);
    int rc = root ? 0 : -EINVAL;
    if (!root)
        snprintf(why, REPOSITORY_WHY_SIZE, "the body is no JSON object");
    if (root && json_object_object_get_ex(root, "parameters", &parameters) &&
        !json_object_is_type(parameters, json_type_object)) {
        snprintf(why, REPOSITORY_WHY_SIZE, "'parameters' is no object");
        rc = -EINVAL;
    } else if (parameters) {
        rc = add_parameters(settings, parameters, why);
    }
    json_object_put(root);
    return rc;
}

void repository_free(struct repository_settings *settings)
{
    for (size_t i = 0; i < settings->count; i++)
        free(settings->items[i]);
    settings->count = 0;
}
