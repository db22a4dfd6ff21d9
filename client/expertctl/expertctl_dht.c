/* Commands that ask an expertd-dht. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <zmq.h>

#include "client/expertctl/expertctl.h"
#include "common/certificate.h"
#include "proto/message.h"

static const double default_timeout_s = 10;

/* Connects, asks and has *reply, or says why not; NULL then. */
static struct dht_client *ask(struct expertctl *ctl, Expertd__Dht__Request *request, const Expertd__Dht__Reply **reply,
                              enum exit_code *code)
{
    struct dht_client *client = NULL;
    char message[DHT_CLIENT_MESSAGE];
    struct keys keys;
    int rc = keys_take(&keys, ctl->server_key, ctl->key_file);
    if (rc == 0)
        rc = dht_client_new(&client, ctl->dht, NULL, &keys);
    explicit_bzero(&keys, sizeof keys);
    if (rc == -EKEYREJECTED) {
        *code = expertctl_bad_key(ctl);
        return NULL;
    }
    if (rc == -EINVAL) {
        snprintf(message, sizeof message, "'%.400s' is no endpoint; one is written tcp://host:port", ctl->dht);
        *code = expertctl_usage(ctl, message);
        return NULL;
    }
    if (rc < 0) {
        *code = expertctl_fail_here(ctl, strerror(-rc));
        return NULL;
    }
    const enum expertd_status status =
        dht_client_ask(client, request, expertctl_timeout_ms(ctl, default_timeout_s), reply, message);
    *code = status == EXPERTD_OK ? EXIT_OK : expertctl_fail(ctl, status, message);
    if (*code != EXIT_OK)
        dht_client_destroy(&client);
    return client;
}

/* "": its frontend takes plain connections. */
static void show_key(const ProtobufCBinaryData *key, struct json *json)
{
    char text[CERTIFICATE_KEY_SIZE] = "";
    if (key->len * 5 / 4 == sizeof text - 1 && key->len % 4 == 0)
        zmq_z85_encode(text, key->data, key->len);
    json_string(json, NULL, text);
}

static void show_resolved(const Expertd__Dht__Resolved *resolved, struct json *json)
{
    if (json) {
        json_open(json, NULL, '{');
        json_string(json, "uid", resolved->uid);
        json_open(json, "endpoints", '[');
        for (size_t i = 0; i < resolved->n_replicas; i++)
            json_string(json, NULL, resolved->replicas[i]->endpoint);
        json_close(json, ']');
        json_open(json, "server_keys", '[');
        for (size_t i = 0; i < resolved->n_replicas; i++)
            show_key(&resolved->replicas[i]->curve_key, json);
        json_close(json, ']');
        json_close(json, '}');
        return;
    }
    printf("%s", resolved->uid);
    for (size_t i = 0; i < resolved->n_replicas; i++)
        printf("\t%s", resolved->replicas[i]->endpoint);
    printf("%s\n", resolved->n_replicas ? "" : "\t-");
}

enum exit_code expertctl_resolve(struct expertctl *ctl)
{
    Expertd__Dht__Request request = EXPERTD__DHT__REQUEST__INIT;
    const Expertd__Dht__Reply *reply;
    enum exit_code code;
    request.method = EXPERTD__DHT__METHOD__RESOLVE;
    request.uids = ctl->arguments;
    request.n_uids = ctl->n_arguments;
    struct dht_client *client = ask(ctl, &request, &reply, &code);
    if (!client)
        return code;
    for (size_t i = 0; i < reply->n_resolved; i++)
        if (reply->resolved[i]->n_replicas == 0)
            code = EXIT_NOT_FOUND;
    struct json json = {0};
    if (ctl->json) {
        json = (struct json){.stream = stdout};
        json_open(&json, NULL, '{');
        json_string(&json, "status", code == EXIT_OK ? "OK" : "NOT_FOUND");
        if (code != EXIT_OK)
            json_string(&json, "message", "not every uid is hosted by a live server");
        json_open(&json, "experts", '[');
    }
    for (size_t i = 0; i < reply->n_resolved; i++)
        show_resolved(reply->resolved[i], ctl->json ? &json : NULL);
    if (ctl->json) {
        json_close(&json, ']');
        expertctl_json_end(&json);
    }
    dht_client_destroy(&client);
    return code;
}

static void show_ranges(const char *prefix, Expertd__Dht__Range *const *ranges, size_t count, const char *end)
{
    for (size_t i = 0; i < count; i++) {
        if (ranges[i]->count == 1)
            printf("%s%" PRIu32 "%s\n", prefix, ranges[i]->first, end);
        else
            printf("%s[%" PRIu32 ":%" PRIu64 "]%s\n", prefix, ranges[i]->first, ranges[i]->first + ranges[i]->count,
                   end);
    }
}

static void json_ranges(struct json *json, const char *key, Expertd__Dht__Range *const *ranges, size_t count)
{
    json_open(json, key, '[');
    for (size_t i = 0; i < count; i++) {
        json_open(json, NULL, '[');
        json_unsigned(json, NULL, ranges[i]->first);
        json_unsigned(json, NULL, ranges[i]->first + ranges[i]->count);
        json_close(json, ']');
    }
    json_close(json, ']');
}

enum exit_code expertctl_search(struct expertctl *ctl)
{
    Expertd__Dht__Request request = EXPERTD__DHT__REQUEST__INIT;
    const Expertd__Dht__Reply *reply;
    enum exit_code code;
    request.method = EXPERTD__DHT__METHOD__PREFIX;
    request.prefixes = ctl->arguments;
    request.n_prefixes = ctl->n_arguments;
    struct dht_client *client = ask(ctl, &request, &reply, &code);
    if (!client)
        return code;
    struct json json = {0};
    if (ctl->json) {
        json = expertctl_json_start();
        json_open(&json, "prefixes", '[');
    }
    for (size_t i = 0; i < reply->n_prefixes; i++) {
        const Expertd__Dht__PrefixContent *content = reply->prefixes[i];
        if (ctl->json) {
            json_open(&json, NULL, '{');
            json_string(&json, "prefix", content->prefix);
            json_ranges(&json, "experts", content->experts, content->n_experts);
            json_ranges(&json, "branches", content->branches, content->n_branches);
            json_close(&json, '}');
        } else {
            show_ranges(content->prefix, content->experts, content->n_experts, "");
            show_ranges(content->prefix, content->branches, content->n_branches, ".");
        }
    }
    if (ctl->json) {
        json_close(&json, ']');
        expertctl_json_end(&json);
    }
    dht_client_destroy(&client);
    return code;
}

enum exit_code expertctl_draw(struct expertctl *ctl)
{
    Expertd__Dht__Request request = EXPERTD__DHT__REQUEST__INIT;
    Expertd__Dht__DrawQuery query = EXPERTD__DHT__DRAW_QUERY__INIT;
    const Expertd__Dht__Reply *reply;
    enum exit_code code;
    query.pattern = ctl->arguments[0];
    query.count = ctl->count;
    request.method = EXPERTD__DHT__METHOD__DRAW;
    request.draw = &query;
    struct dht_client *client = ask(ctl, &request, &reply, &code);
    if (!client)
        return code;
    struct json json = {0};
    if (ctl->json) {
        json = expertctl_json_start();
        json_unsigned(&json, "free", reply->draw->free);
        json_open(&json, "uids", '[');
    }
    for (size_t i = 0; i < reply->draw->n_uids; i++) {
        if (ctl->json)
            json_string(&json, NULL, reply->draw->uids[i]);
        else
            puts(reply->draw->uids[i]);
    }
    if (ctl->json) {
        json_close(&json, ']');
        expertctl_json_end(&json);
    }
    if (reply->draw->n_uids < ctl->count)
        fprintf(stderr, "expertctl: draw: %zu of %" PRIu32 " uids: no more of the pattern are free\n",
                reply->draw->n_uids, ctl->count);
    dht_client_destroy(&client);
    return code;
}

/* A failure stands inside the object that `stats` prints, not in one of its own. */
enum exit_code expertctl_dht_status(struct expertctl *ctl, struct json *json)
{
    Expertd__Dht__Request request = EXPERTD__DHT__REQUEST__INIT;
    const Expertd__Dht__Reply *reply;
    enum exit_code code;
    struct expertctl quiet = *ctl;
    quiet.json = false;
    request.method = EXPERTD__DHT__METHOD__STATUS;
    struct dht_client *client = ask(&quiet, &request, &reply, &code);
    if (json)
        json_open(json, "dht", '{');
    for (size_t i = 0; client && i < reply->node->n_counters; i++) {
        const Expertd__Dht__NodeStatus__Counter *counter = reply->node->counters[i];
        if (json)
            json_number(json, counter->name, counter->value);
        else
            printf("%s %.15g\n", message_clean(counter->name), counter->value);
    }
    if (json)
        json_close(json, '}');
    dht_client_destroy(&client);
    return code;
}
