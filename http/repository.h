/* The model repository of the Open Inference Protocol: models are loaded and unloaded.
 *
 *     POST /v2/repository/models/UID/load     {"parameters": {"config": "{\"block\": \"ffn\", \"hidden_dim\": 64}"}}
 *     POST /v2/repository/models/UID/unload
 *
 * The parameters, and the members of the JSON text in "config", are options of an entry of `experts`; without any, the
 * model is as the server's configuration has it. Only where http.changes is set, which a token has to guard. Any
 * thread. */
#ifndef EXPERTD_HTTP_REPOSITORY_H
#define EXPERTD_HTTP_REPOSITORY_H

#include <stdbool.h>
#include <stddef.h>

#include "client/expertd.h"

/* Whether the path (behind "/v2") is one of these, and of which model. */
bool repository_path(const char *path, char uid[EXPERTD_MAX_UID + 1], bool *load);

enum { REPOSITORY_SETTINGS_MAX = 64, REPOSITORY_WHY_SIZE = 160 };
struct repository_settings {
    char *items[REPOSITORY_SETTINGS_MAX]; /* "option=value" */
    size_t count;
};
/* What the body of a load says. 0; or -EINVAL and a sentence in `why`, -ENOMEM. To be freed in every case. */
int repository_parse(struct repository_settings *settings, const char *body, size_t bytes,
                     char why[REPOSITORY_WHY_SIZE]);
void repository_free(struct repository_settings *settings);

#endif
