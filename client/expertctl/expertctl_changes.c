/* Commands that change which experts a server has. */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/expertctl/expertctl.h"
#include "client/frontends.h"

static const double default_timeout_s = 600; /* an expert's first kernels may have to be compiled */
enum { CONNECT_S = 10 };

/* Options whose value is a path, seen from where this program stands. */
static bool is_path(const char *option, const char *value)
{
    const size_t length = strlen(value);
    const bool object = strchr(value, '/') || (length > 3 && strcmp(value + length - 3, ".so") == 0);
    return strcmp(option, "weights") == 0 || (strcmp(option, "block") == 0 && object);
}

void expertctl_add_setting(struct expertctl *ctl, const char *option, const char *value)
{
    char folder[PATH_MAX], *text = NULL;
    const bool relative = *value && *value != '/' && is_path(option, value);
    if (ctl->n_settings == EXPERTCTL_MAX_SETTINGS) {
        ctl->too_many_settings = true;
        return;
    }
    /* {uid} in a path is the server's to replace. */
    const int length = relative && getcwd(folder, sizeof folder) ? asprintf(&text, "%s=%s/%s", option, folder, value)
                                                                 : asprintf(&text, "%s=%s", option, value);
    if (length >= 0)
        ctl->settings[ctl->n_settings++] = text;
    else
        ctl->too_many_settings = true;
}

/* Whether there is a server at all: a change may take minutes, and what a dead server has left behind is no reason to
 * wait for them. */
static enum exit_code find_server(const struct expertctl *ctl, struct expertd_client *client)
{
    struct expertd_call *call;
    const uint32_t most_ms = expertctl_timeout_ms(ctl, CONNECT_S), connect_ms = CONNECT_S * 1000;
    const enum exit_code code =
        expertctl_finish(ctl, expertd_ping(client, most_ms < connect_ms ? most_ms : connect_ms, &call), &call);
    if (code == EXIT_OK)
        expertd_call_release(&call);
    return code;
}

/* Over the socket of the server of this box, unless another endpoint was given. NULL, and why in *code: there is none.
 */
static struct expertd_client *connect_as_owner(struct expertctl *ctl, enum exit_code *code)
{
    static char endpoint[EXPERTCTL_SOCKET_SIZE];
    if (!ctl->endpoint_given) {
        *code = expertctl_own_socket(ctl, endpoint);
        if (*code != EXIT_OK)
            return NULL;
        ctl->endpoint = endpoint;
    }
    struct expertd_client *client = expertctl_connect(ctl, code);
    if (client && (*code = find_server(ctl, client)) != EXIT_OK)
        expertd_client_destroy(&client);
    return client;
}

static void show(const struct expertctl *ctl, const struct expertd_changes *changes)
{
    if (ctl->json) {
        struct json json = expertctl_json_start();
        json_unsigned(&json, "loaded", changes->loaded);
        json_unsigned(&json, "unloaded", changes->unloaded);
        json_unsigned(&json, "replaced", changes->replaced);
        json_unsigned(&json, "set", changes->set);
        json_string(&json, "note", changes->note);
        expertctl_json_end(&json);
        return;
    }
    printf("%" PRIu32 " loaded, %" PRIu32 " unloaded, %" PRIu32 " replaced, %" PRIu32 " set\n", changes->loaded,
           changes->unloaded, changes->replaced, changes->set);
    if (*changes->note)
        printf("note: %s\n", changes->note);
}

static enum exit_code finish(struct expertctl *ctl, int made, struct expertd_client *client, struct expertd_call **call)
{
    const enum exit_code code = expertctl_finish(ctl, made, call);
    if (code == EXIT_OK)
        show(ctl, expertd_call_changes(*call));
    expertd_client_destroy(&client);
    return code;
}

/* The arguments behind the uid. */
static bool add_arguments(struct expertctl *ctl)
{
    for (size_t i = 1; i < ctl->n_arguments; i++) {
        char option[64];
        const char *equals = strchr(ctl->arguments[i], '=');
        if (!equals || (size_t)(equals - ctl->arguments[i]) >= sizeof option)
            return false;
        snprintf(option, sizeof option, "%.*s", (int)(equals - ctl->arguments[i]), ctl->arguments[i]);
        expertctl_add_setting(ctl, option, equals + 1);
    }
    return true;
}

/* expertd_load or expertd_set, with the settings of the flags and of the command's arguments. */
static enum exit_code change(struct expertctl *ctl,
                             int ask(struct expertd_client *, const char *uid, const char *const *settings,
                                     size_t n_settings, uint32_t deadline_ms, struct expertd_call **))
{
    enum exit_code code = EXIT_OK;
    struct expertd_call *call = NULL;
    if (!add_arguments(ctl) || ctl->too_many_settings)
        return expertctl_usage(ctl, "settings are written OPTION=VALUE");
    struct expertd_client *client = connect_as_owner(ctl, &code);
    if (!client)
        return code;
    const int made = ask(client, ctl->arguments[0], (const char *const *)ctl->settings, ctl->n_settings,
                         expertctl_timeout_ms(ctl, default_timeout_s), &call);
    return finish(ctl, made, client, &call);
}

enum exit_code expertctl_load(struct expertctl *ctl)
{
    return change(ctl, expertd_load);
}

enum exit_code expertctl_set(struct expertctl *ctl)
{
    return change(ctl, expertd_set);
}

enum exit_code expertctl_unload(struct expertctl *ctl)
{
    enum exit_code code = EXIT_OK;
    struct expertd_call *call = NULL;
    struct expertd_client *client = connect_as_owner(ctl, &code);
    if (!client)
        return code;
    const int made = expertd_unload(client, ctl->arguments[0], expertctl_timeout_ms(ctl, default_timeout_s), &call);
    return finish(ctl, made, client, &call);
}

/* The server's other frontends, where a whole server and not one of them was named. */
static enum exit_code learn(struct expertctl *ctl, struct frontends *frontends)
{
    struct expertd_call *call;
    char endpoint[EXPERTCTL_SOCKET_SIZE];
    const enum exit_code code = expertctl_finish(
        ctl, expertd_ping(frontends->clients[0], expertctl_timeout_ms(ctl, default_timeout_s), &call), &call);
    if (code != EXIT_OK)
        return code;
    const struct expertd_pong *pong = expertd_call_pong(call);
    const bool one = ctl->server && strcmp(ctl->server, pong->server) == 0;
    if (ctl->endpoint_given && pong->frontends_count > 0)
        frontends_learn(frontends, pong); /* an operator, from wherever */
    for (size_t i = 0; !ctl->endpoint_given && !one && i < pong->frontends_count; i++) {
        struct expertd_client *other = expertctl_socket_of(ctl, pong->frontends[i].server, endpoint)
                                           ? expertd_client_frontend(frontends->clients[0], endpoint)
                                           : NULL;
        if (other && frontends->count < FRONTENDS_MAX)
            frontends->clients[frontends->count++] = other;
    }
    expertd_call_release(&call);
    return EXIT_OK;
}

/* All of them read the configuration again, one after the other: what is said of the others then is past. */
static enum exit_code reload(struct expertctl *ctl, const struct frontends *frontends)
{
    static const char others[] = "another frontend";
    char note[1024] = "";
    struct expertd_changes all = {.note = note};
    enum exit_code code = EXIT_OK;
    for (size_t f = 0; f < frontends->count && code == EXIT_OK; f++) {
        struct expertd_call *call;
        code = expertctl_finish(
            ctl, expertd_reload(frontends->clients[f], expertctl_timeout_ms(ctl, default_timeout_s), &call), &call);
        if (code != EXIT_OK)
            break;
        const struct expertd_changes *changes = expertd_call_changes(call);
        all.loaded += changes->loaded;
        all.unloaded += changes->unloaded;
        all.replaced += changes->replaced;
        all.set += changes->set;
        if (frontends->count == 1 || strncmp(changes->note, others, strlen(others)) != 0)
            snprintf(note, sizeof note, "%s", changes->note); /* of each it is the same */
        expertd_call_release(&call);
    }
    if (code == EXIT_OK)
        show(ctl, &all);
    return code;
}

enum exit_code expertctl_reload(struct expertctl *ctl)
{
    enum exit_code code = EXIT_OK;
    struct frontends frontends;
    struct expertd_client *client = connect_as_owner(ctl, &code);
    if (!client)
        return code;
    frontends_begin(&frontends, client);
    code = learn(ctl, &frontends);
    if (code == EXIT_OK)
        code = reload(ctl, &frontends);
    expertd_client_destroy(&client);
    return code;
}
