/* What the commands have in common: a connection, an answer that is waited for, and how one ends. */
#include "client/expertctl/expertctl.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum exit_code expertctl_usage(const struct expertctl *ctl, const char *problem)
{
    fprintf(stderr, "expertctl: %s: %s\nTry 'expertctl --help'.\n", ctl->command, problem);
    return EXIT_USAGE;
}

uint32_t expertctl_timeout_ms(const struct expertctl *ctl, double default_s)
{
    return (uint32_t)ceil((ctl->timeout_s > 0 ? ctl->timeout_s : default_s) * 1000);
}

struct expertd_client *expertctl_connect(const struct expertctl *ctl, enum exit_code *code)
{
    struct expertd_client *client;
    struct expertd_client_options with;
    expertd_client_options_init(&with);
    with.codec = with.reply_codec = ctl->codec;
    with.server_key = ctl->server_key;
    with.key_file = ctl->key_file;
    int rc = expertd_client_new(&client, ctl->endpoint, &with);
    if (rc == 0 && ((ctl->metadata && expertd_client_set_metadata(client, ctl->metadata, strlen(ctl->metadata)) < 0) ||
                    expertd_client_set_traceparent(client, ctl->traceparent) < 0)) {
        *code = expertctl_usage(ctl, "--metadata has at most 1024 bytes, and a --traceparent is written "
                                     "00-<32 hexadecimal digits>-<16>-<2>");
        expertd_client_destroy(&client);
        return NULL;
    }
    if (rc == -EINVAL) {
        char message[512];
        snprintf(message, sizeof message, "'%.400s' is no endpoint; one is written tcp://host:port", ctl->endpoint);
        *code = expertctl_usage(ctl, message);
    } else if (rc == -EKEYREJECTED) {
        *code = expertctl_bad_key(ctl);
    } else if (rc < 0) {
        *code = expertctl_fail_here(ctl, strerror(-rc));
    }
    return client;
}

enum exit_code expertctl_bad_key(const struct expertctl *ctl)
{
    return expertctl_fail_here(ctl, "--server-key (EXPERTD_SERVER_KEY) is no key or certificate, or --key-file "
                                    "(EXPERTD_KEY_FILE) is no certificate with its FILE_secret");
}

struct json expertctl_json_start(void)
{
    struct json json = {.stream = stdout};
    json_open(&json, NULL, '{');
    json_string(&json, "status", "OK");
    return json;
}

void expertctl_json_end(struct json *json)
{
    json_close(json, '}');
    fputc('\n', json->stream);
}

static enum exit_code exit_code(enum expertd_status status)
{
    switch (status) {
    case EXPERTD_OK:
        return EXIT_OK;
    case EXPERTD_UNAVAILABLE:
        return EXIT_UNAVAILABLE;
    case EXPERTD_NOT_FOUND:
        return EXIT_NOT_FOUND;
    case EXPERTD_INVALID_ARGUMENT:
        return EXIT_INVALID_ARGUMENT;
    case EXPERTD_DEADLINE_EXCEEDED:
        return EXIT_DEADLINE_EXCEEDED;
    case EXPERTD_PERMISSION_DENIED:
        return EXIT_PERMISSION_DENIED;
    case EXPERTD_RESOURCE_EXHAUSTED:
        return EXIT_RESOURCE_EXHAUSTED;
    case EXPERTD_ABORTED:
        return EXIT_ABORTED;
    case EXPERTD_ALREADY_EXISTS:
        return EXIT_ALREADY_EXISTS;
    default:
        return EXIT_OTHER;
    }
}

static void show_failure(const struct expertctl *ctl, const char *status, const char *message)
{
    if (!ctl->json)
        return;
    struct json json = {.stream = stdout};
    json_open(&json, NULL, '{');
    json_string(&json, "status", status);
    json_string(&json, "message", message);
    expertctl_json_end(&json);
}

enum exit_code expertctl_fail(const struct expertctl *ctl, enum expertd_status status, const char *message)
{
    fprintf(stderr, "expertctl: %s: %s: %s\n", ctl->command, expertd_status_name(status), message);
    show_failure(ctl, expertd_status_name(status), message);
    return exit_code(status);
}

enum exit_code expertctl_fail_here(const struct expertctl *ctl, const char *message)
{
    fprintf(stderr, "expertctl: %s: %s\n", ctl->command, message);
    show_failure(ctl, "LOCAL_ERROR", message);
    return EXIT_LOCAL;
}

enum exit_code expertctl_finish(const struct expertctl *ctl, int made, struct expertd_call **call)
{
    if (made < 0)
        return expertctl_fail_here(ctl, strerror(-made));
    while (expertd_call_wait(*call, -1) < 0)
        ;
    const enum expertd_status status = expertd_call_status(*call);
    if (status == EXPERTD_OK)
        return EXIT_OK;
    const enum exit_code code = expertctl_fail(ctl, status, expertd_call_message(*call));
    expertd_call_release(call);
    return code;
}
