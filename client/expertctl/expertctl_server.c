/* Commands that ask a server about itself. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/expertctl/expertctl.h"
#include "client/frontends.h"
#include "common/clock.h"

static const double default_timeout_s = 10;
static const double checkpoint_timeout_s = 60;

enum exit_code expertctl_ping(struct expertctl *ctl)
{
    enum exit_code code = EXIT_OK;
    struct expertd_client *client = expertctl_connect(ctl, &code);
    struct expertd_call *call = NULL;
    if (!client)
        return code;
    /* The first one connects; the second is what a request costs. */
    uint64_t start_ns = 0;
    for (int i = 0; i < 2 && code == EXIT_OK; i++) {
        expertd_call_release(&call);
        start_ns = clock_now_ns();
        code = expertctl_finish(ctl, expertd_ping(client, expertctl_timeout_ms(ctl, default_timeout_s), &call), &call);
    }
    if (code == EXIT_OK) {
        const double latency_ms = (double)(clock_now_ns() - start_ns) / 1e6;
        const struct expertd_pong *pong = expertd_call_pong(call);
        if (ctl->json) {
            struct json json = expertctl_json_start();
            json_string(&json, "endpoint", ctl->endpoint);
            json_string(&json, "server", pong->server);
            json_string(&json, "software", pong->software);
            json_unsigned(&json, "experts", pong->experts);
            json_unsigned(&json, "experts_alive", pong->experts_alive);
            json_number(&json, "latency_ms", latency_ms);
            expertctl_json_end(&json);
        } else {
            printf("%s at %s: %s, %" PRIu32 " experts, %" PRIu32 " alive, %.3f ms\n", pong->server, ctl->endpoint,
                   pong->software, pong->experts, pong->experts_alive, latency_ms);
        }
    }
    expertd_client_destroy(&client);
    return code;
}

/* ---- list ------------------------------------------------------------------------------------------------------ */

struct pages {
    struct expertd_call **calls; /* released with the client */
    size_t count;
    size_t experts;
};

static int add_page(struct pages *pages, struct expertd_call *call)
{
    struct expertd_call **calls = realloc(pages->calls, (pages->count + 1) * sizeof(struct expertd_call *));
    if (!calls)
        return -1;
    pages->calls = calls;
    pages->calls[pages->count++] = call;
    pages->experts += expertd_call_list(call)->count;
    return 0;
}

/* All pages of one generation of the list; a list that changes meanwhile is begun again, a few times. */
static enum exit_code read_list(struct expertctl *ctl, struct expertd_client *client, struct pages *pages)
{
    enum { TRIES = 10 };
    const char *prefix = ctl->n_arguments ? ctl->arguments[0] : NULL;
    uint64_t generation = 0;
    for (int tries = 0; tries < TRIES;) {
        struct expertd_call *call;
        const enum exit_code code = expertctl_finish(ctl,
                                                     expertd_list(client, prefix, (uint32_t)pages->experts, 0,
                                                                  expertctl_timeout_ms(ctl, default_timeout_s), &call),
                                                     &call);
        if (code != EXIT_OK)
            return code;
        const struct expertd_list *list = expertd_call_list(call);
        if (pages->count > 0 && list->generation != generation) {
            pages->count = pages->experts = 0;
            tries++;
            continue;
        }
        generation = list->generation;
        if (add_page(pages, call) < 0)
            return expertctl_fail_here(ctl, strerror(ENOMEM));
        if (list->count == 0 || pages->experts >= list->total)
            return EXIT_OK;
    }
    return expertctl_fail_here(ctl, "the list changes faster than it can be read");
}

static void show_entry(const struct expertctl *ctl, struct json *json, const struct expertd_list_entry *entry,
                       const char *endpoint)
{
    if (ctl->json) {
        json_open(json, NULL, '{');
        json_string(json, "uid", entry->uid);
        json_bool(json, "alive", entry->alive);
        json_string(json, "device", entry->device);
        if (endpoint[0])
            json_string(json, "endpoint", endpoint);
        json_close(json, '}');
    } else {
        printf("%s\t%s\t%s%s%s\n", entry->uid, entry->alive ? "alive" : "down", entry->device, endpoint[0] ? "\t" : "",
               endpoint);
    }
}

/* The entries of the frontend with that endpoint ("": of the one that was asked). How many. */
static size_t show_pages(const struct expertctl *ctl, struct json *json, const struct pages *pages, const char *of,
                         const char *named)
{
    size_t count = 0;
    for (size_t p = 0; p < pages->count; p++) {
        const struct expertd_list *list = expertd_call_list(pages->calls[p]);
        for (size_t i = 0; i < list->count; i++)
            if (strcmp(list->endpoints[i], of) == 0) {
                show_entry(ctl, json, &list->entries[i], named);
                count++;
            }
    }
    return count;
}

/* What another frontend of the server has, as it says itself; where it does not answer, as the first one knows it: not
 * alive. How many. */
static size_t show_other(const struct expertctl *ctl, struct json *json, const struct pages *first,
                         struct expertd_client *client)
{
    struct expertctl quiet = *ctl;
    struct pages pages = {0};
    const char *endpoint = expertd_client_endpoint(client);
    quiet.json = false; /* why not is said on stderr alone */
    const bool answered = read_list(&quiet, client, &pages) == EXIT_OK;
    const size_t count =
        answered ? show_pages(ctl, json, &pages, "", endpoint) : show_pages(ctl, json, first, endpoint, endpoint);
    free(pages.calls);
    return count;
}

/* What is at endpoints that cannot be asked from here. */
static size_t show_unreachable(const struct expertctl *ctl, struct json *json, struct expertd_client *client,
                               const struct pages *pages)
{
    size_t count = 0;
    for (size_t p = 0; p < pages->count; p++) {
        const struct expertd_list *list = expertd_call_list(pages->calls[p]);
        for (size_t i = 0; i < list->count; i++)
            if (list->endpoints[i][0] && !expertd_client_frontend(client, list->endpoints[i])) {
                show_entry(ctl, json, &list->entries[i], list->endpoints[i]);
                count++;
            }
    }
    return count;
}

/* The other frontends that the list names. */
static void learn(struct frontends *frontends, const struct pages *pages)
{
    for (size_t p = 0; p < pages->count; p++) {
        const struct expertd_list *list = expertd_call_list(pages->calls[p]);
        for (size_t i = 0; i < list->count; i++) {
            struct expertd_client *other =
                list->endpoints[i][0] ? expertd_client_frontend(frontends->clients[0], list->endpoints[i]) : NULL;
            size_t at = 0;
            while (at < frontends->count && frontends->clients[at] != other)
                at++;
            if (other && at == frontends->count && at < FRONTENDS_MAX)
                frontends->clients[frontends->count++] = other;
        }
    }
}

enum exit_code expertctl_list(struct expertctl *ctl)
{
    enum exit_code code = EXIT_OK;
    struct expertd_client *client = expertctl_connect(ctl, &code);
    struct pages pages = {0};
    struct frontends frontends;
    if (!client)
        return code;
    frontends_begin(&frontends, client);
    code = read_list(ctl, client, &pages);
    struct json json = {0};
    if (code == EXIT_OK && ctl->json) {
        json = expertctl_json_start();
        json_open(&json, "experts", '[');
    }
    size_t total = code == EXIT_OK ? show_pages(ctl, &json, &pages, "", "") : 0;
    if (code == EXIT_OK)
        learn(&frontends, &pages);
    for (size_t f = 1; f < frontends.count; f++)
        total += show_other(ctl, &json, &pages, frontends.clients[f]);
    total += code == EXIT_OK ? show_unreachable(ctl, &json, client, &pages) : 0;
    if (code == EXIT_OK && ctl->json) {
        json_close(&json, ']');
        json_unsigned(&json, "total", total);
        expertctl_json_end(&json);
    }
    free(pages.calls);
    expertd_client_destroy(&client);
    return code;
}

/* ---- info ------------------------------------------------------------------------------------------------------ */

static void json_schema(struct json *json, const char *key, const struct expertd_schema *schema)
{
    json_open(json, key, '[');
    for (size_t i = 0; i < schema->count; i++) {
        const struct expertd_field *field = &schema->fields[i];
        json_open(json, NULL, '{');
        json_string(json, "name", field->name);
        json_string(json, "dtype", expertd_dtype_name(field->dtype));
        json_open(json, "row_shape", '[');
        for (uint32_t d = 0; d < field->ndim; d++)
            json_unsigned(json, NULL, field->row_shape[d]);
        json_close(json, ']');
        json_close(json, '}');
    }
    json_close(json, ']');
}

static void print_schema(const char *key, const struct expertd_schema *schema)
{
    printf("%s:", key);
    for (size_t i = 0; i < schema->count; i++) {
        const struct expertd_field *field = &schema->fields[i];
        printf("%s %s%s%s[rows", i ? "," : "", field->name, field->name[0] ? " " : "",
               expertd_dtype_name(field->dtype));
        for (uint32_t d = 0; d < field->ndim; d++)
            printf(", %" PRIu64, field->row_shape[d]);
        printf("]");
    }
    printf("\n");
}

static void json_arguments(struct json *json, const struct expertd_info *info)
{
    json_open(json, "arguments", '{');
    for (size_t i = 0; i < info->arguments_count; i++) {
        if (info->arguments[i].text[0])
            json_string(json, info->arguments[i].name, info->arguments[i].text);
        else
            json_number(json, info->arguments[i].name, info->arguments[i].value);
    }
    json_close(json, '}');
}

static void print_arguments(const struct expertd_info *info)
{
    printf("arguments:");
    for (size_t i = 0; i < info->arguments_count; i++) {
        printf("%s %s ", i ? "," : "", info->arguments[i].name);
        if (info->arguments[i].text[0])
            printf("%s", info->arguments[i].text);
        else
            printf("%.15g", info->arguments[i].value);
    }
    printf("\n");
}

static void show_info(struct json *json, const struct expertd_info *info)
{
    const struct {
        const char *key, *text;
    } texts[] = {{"uid", info->uid},           {"block", info->block},
                 {"device", info->device},     {"optimizer", info->optimizer},
                 {"schedule", info->schedule}, {"compression", expertd_codec_name(info->compression)}};
    const struct {
        const char *key;
        double value;
    } numbers[] = {{"max_batch_size", (double)info->max_batch_size},
                   {"hidden_dim", (double)info->hidden_dim},
                   {"learning_rate", info->learning_rate},
                   {"beta1", info->beta1},
                   {"beta2", info->beta2},
                   {"epsilon", info->epsilon},
                   {"momentum", info->momentum},
                   {"clip_norm", info->clip_norm},
                   {"warmup_steps", (double)info->warmup_steps},
                   {"total_steps", (double)info->total_steps},
                   {"grad_accumulation", (double)info->grad_accumulation},
                   {"update_count", (double)info->update_count},
                   {"examples_processed", (double)info->examples_processed},
                   {"skipped_steps", (double)info->skipped_steps}};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (json->stream)
            json_string(json, texts[i].key, texts[i].text);
        else
            printf("%s: %s\n", texts[i].key, texts[i].text);
    }
    if (json->stream) {
        json_bool(json, "alive", info->alive);
        json_bool(json, "backward", !info->forward_only);
        json_arguments(json, info);
        json_schema(json, "forward_schema", &info->forward_schema);
        json_schema(json, "outputs_schema", &info->outputs_schema);
        json_schema(json, "backward_schema", &info->backward_schema);
    } else {
        printf("alive: %s\n", info->alive ? "yes" : "no");
        printf("backward: %s\n", info->forward_only ? "no" : "yes");
        print_arguments(info);
        print_schema("forward_schema", &info->forward_schema);
        print_schema("outputs_schema", &info->outputs_schema);
        print_schema("backward_schema", &info->backward_schema);
    }
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (json->stream)
            json_number(json, numbers[i].key, numbers[i].value);
        else
            printf("%s: %.15g\n", numbers[i].key, numbers[i].value);
    }
}

enum exit_code expertctl_info(struct expertctl *ctl)
{
    enum exit_code code = EXIT_OK;
    struct expertd_client *client = expertctl_connect(ctl, &code);
    struct expertd_call *call;
    if (!client)
        return code;
    code = expertctl_finish(
        ctl, expertd_info(client, ctl->arguments[0], expertctl_timeout_ms(ctl, default_timeout_s), &call), &call);
    if (code == EXIT_OK) {
        struct json json = {0};
        if (ctl->json)
            json = expertctl_json_start();
        show_info(&json, expertd_call_info(call));
        if (ctl->json)
            expertctl_json_end(&json);
    }
    expertd_client_destroy(&client);
    return code;
}

/* ---- checkpoint ------------------------------------------------------------------------------------------------ */

/* Of one expert, wherever it is; or, uid NULL, of all, at all frontends at once. */
static enum exit_code checkpoint(struct expertctl *ctl, struct frontends *frontends, const char *uid)
{
    struct expertd_call *calls[FRONTENDS_MAX];
    const uint32_t deadline_ms = expertctl_timeout_ms(ctl, checkpoint_timeout_s);
    const size_t count = uid ? 1 : frontends->count;
    enum exit_code code = EXIT_OK;
    int made[FRONTENDS_MAX];
    for (size_t f = 0; f < count; f++)
        made[f] = expertd_checkpoint(frontends->clients[f], uid, deadline_ms, &calls[f]);
    for (size_t f = 0; f < count; f++) {
        const enum exit_code own = expertctl_finish(ctl, made[f], &calls[f]);
        code = code == EXIT_OK ? own : code;
    }
    return code;
}

enum exit_code expertctl_checkpoint(struct expertctl *ctl)
{
    enum exit_code code = EXIT_OK;
    struct expertd_client *client = expertctl_connect(ctl, &code);
    struct expertd_call *call;
    struct frontends frontends;
    const char *uid = ctl->n_arguments ? ctl->arguments[0] : NULL;
    if (!client)
        return code;
    frontends_begin(&frontends, client);
    if (!uid) {
        code = expertctl_finish(ctl, expertd_ping(client, expertctl_timeout_ms(ctl, default_timeout_s), &call), &call);
        if (code == EXIT_OK)
            frontends_learn(&frontends, expertd_call_pong(call));
    }
    if (code == EXIT_OK)
        code = checkpoint(ctl, &frontends, uid);
    if (code == EXIT_OK && ctl->json) {
        struct json json = expertctl_json_start();
        expertctl_json_end(&json);
    } else if (code == EXIT_OK) {
        printf("%s: saved\n", uid ? uid : "all experts");
    }
    expertd_client_destroy(&client);
    return code;
}
