/* The files that a configuration names are there: for who checks one before it is used. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/config_check.h"
#include "common/config_value.h"

static int check_readable(const struct config_source *source, struct config_place place, const char *path)
{
    if (access(path, R_OK) == 0)
        return 0;
    return config_source_error(source, place, "cannot read '%.500s': %s", path, strerror(errno));
}

/* The path with each {uid} replaced, as far as it fits. */
static void expand(char path[PATH_MAX], const char *pattern, const char *uid)
{
    static const char mark[] = "{uid}";
    size_t used = 0;
    while (*pattern && used + 1 < PATH_MAX) {
        const bool is_mark = strncmp(pattern, mark, strlen(mark)) == 0;
        const int length = snprintf(path + used, PATH_MAX - used, is_mark ? "%s" : "%.1s", is_mark ? uid : pattern);
        used += length > 0 ? (size_t)length : 0;
        pattern += is_mark ? strlen(mark) : 1;
    }
    path[used < PATH_MAX ? used : PATH_MAX - 1] = 0;
}

static int check_weights(const struct config_expert *expert, const struct config_source *source,
                         struct config_place place)
{
    char path[PATH_MAX];
    char **uids = NULL;
    uint64_t count = 0;
    int rc = config_expert_uids(expert, &uids, &count);
    for (uint64_t i = 0; rc == 0 && i < count; i++) { /* one that is missing says enough */
        expand(path, expert->weights, uids[i]);
        rc = check_readable(source, place, path);
    }
    free(uids);
    return rc;
}

/* A certificate is of use with one of its two files. */
static int check_key(const struct config *config, const struct config_source *source)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s_secret", config->server.key_file);
    if (access(path, R_OK) == 0)
        return 0;
    return check_readable(source, (struct config_place){"server", -1, "key_file"}, config->server.key_file);
}

int config_files_check(const struct config *config, const struct config_source *source)
{
    int result = config->server.key_file[0] ? check_key(config, source) : 0;
    if (config->server.clients[0] &&
        check_readable(source, (struct config_place){"server", -1, "clients"}, config->server.clients) < 0)
        result = -EINVAL;
    if (config->http.token_file[0] &&
        check_readable(source, (struct config_place){"http", -1, "token_file"}, config->http.token_file) < 0)
        result = -EINVAL;
    for (unsigned i = 0; i < config->experts_count; i++) {
        const struct config_expert *expert = &config->experts[i];
        if (config_value_is_path(expert->block) &&
            check_readable(source, (struct config_place){"experts", (int)i, "block"}, expert->block) < 0)
            result = -EINVAL;
        if (expert->weights[0] &&
            check_weights(expert, source, (struct config_place){"experts", (int)i, "weights"}) < 0)
            result = -EINVAL;
    }
    return result;
}
