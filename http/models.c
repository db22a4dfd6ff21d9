#include "http/models.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "client/frontends.h"
#include "http/datatype.h"
#include "http/infer_request.h"
#include "http/repository.h"

static const char version[] = "1";

static void fail(struct response *response, unsigned status, const char *message)
{
    text_free(&response->body);
    response->status = status;
    response->json_bytes = 0;
    text_add(&response->body, "{\"error\":");
    text_add_json(&response->body, message);
    text_add(&response->body, "}");
}

static unsigned http_status(enum expertd_status status)
{
    switch (status) {
    case EXPERTD_OK:
        return 200;
    case EXPERTD_INVALID_ARGUMENT:
        return 400;
    case EXPERTD_NOT_FOUND:
        return 404;
    case EXPERTD_PERMISSION_DENIED:
        return 403;
    case EXPERTD_ALREADY_EXISTS:
        return 409;
    case EXPERTD_RESOURCE_EXHAUSTED:
        return 429;
    case EXPERTD_DEADLINE_EXCEEDED:
        return 504;
    case EXPERTD_UNAVAILABLE:
        return 503;
    default:
        return 500;
    }
}

/* Waits for a call that was made (rc) and answers for one that is not OK. (A pointer to it: it is set by another
 * argument of the call.) */
static bool settle(struct response *response, int rc, struct expertd_call *const *made)
{
    if (rc < 0)
        fail(response, 503, "no memory");
    else if (!upstream_wait(*made))
        fail(response, http_status(expertd_call_status(*made)), expertd_call_message(*made));
    return response->status == 200;
}

/* --- a model ---------------------------------------------------------------------------------------------------------
 */

static void write_schema(struct text *text, const struct expertd_schema *schema)
{
    text_add(text, "[");
    for (size_t i = 0; i < schema->count; i++) {
        const struct expertd_field *field = &schema->fields[i];
        text_add(text, "%s{\"name\":", i ? "," : "");
        text_add_json(text, field->name);
        text_add(text, ",\"datatype\":\"%s\",\"shape\":[-1", datatype_name(field->dtype));
        for (uint32_t d = 0; d < field->ndim; d++)
            text_add(text, ",%" PRIu64, field->row_shape[d]);
        text_add(text, "]}");
    }
    text_add(text, "]");
}

static void write_platform(struct text *text, const struct expertd_info *info)
{
    char platform[160];
    snprintf(platform, sizeof platform, "expertd_%s", info->block);
    text_add_json(text, platform);
}

static void write_model(struct response *response, const struct expertd_info *info)
{
    struct text *text = &response->body;
    text_add(text, "{\"name\":");
    text_add_json(text, info->uid);
    text_add(text, ",\"versions\":[\"%s\"],\"platform\":", version);
    write_platform(text, info);
    text_add(text, ",\"inputs\":");
    write_schema(text, &info->forward_schema);
    text_add(text, ",\"outputs\":");
    write_schema(text, &info->outputs_schema);
    text_add(text, "}");
}

/* As the protocol's most used server writes a model's configuration: shapes are without the batch's dimension. */
static void write_tensor_configs(struct text *text, const struct expertd_schema *schema)
{
    text_add(text, "[");
    for (size_t i = 0; i < schema->count; i++) {
        const struct expertd_field *field = &schema->fields[i];
        text_add(text, "%s{\"name\":", i ? "," : "");
        text_add_json(text, field->name);
        text_add(text, ",\"data_type\":\"TYPE_%s\",\"dims\":[", datatype_name(field->dtype));
        for (uint32_t d = 0; d < field->ndim; d++)
            text_add(text, "%s%" PRIu64, d ? "," : "", field->row_shape[d]);
        text_add(text, "]}");
    }
    text_add(text, "]");
}

static void write_config(struct response *response, const struct expertd_info *info)
{
    struct text *text = &response->body;
    text_add(text, "{\"name\":");
    text_add_json(text, info->uid);
    text_add(text, ",\"platform\":");
    write_platform(text, info);
    text_add(text, ",\"backend\":\"expertd\",\"max_batch_size\":%" PRIu64 ",\"input\":", info->max_batch_size);
    write_tensor_configs(text, &info->forward_schema);
    text_add(text, ",\"output\":");
    write_tensor_configs(text, &info->outputs_schema);
    text_add(text, ",\"dynamic_batching\":{},\"model_transaction_policy\":{\"decoupled\":false}}");
}

static void write_ready(struct response *response, const struct expertd_info *info)
{
    if (!info->alive) {
        fail(response, 503, "the expert's runtime is not alive");
        return;
    }
    text_add(&response->body, "{\"name\":");
    text_add_json(&response->body, info->uid);
    text_add(&response->body, ",\"ready\":true}");
}

/* --- inference -------------------------------------------------------------------------------------------------------
 */

static void write_tensor_head(struct text *text, const struct expertd_field *field, const struct expertd_tensor *tensor)
{
    text_add(text, "{\"name\":");
    text_add_json(text, field->name);
    text_add(text, ",\"datatype\":\"%s\",\"shape\":[", datatype_name(tensor->dtype));
    for (uint32_t d = 0; d < tensor->ndim; d++)
        text_add(text, "%s%" PRIu64, d ? "," : "", tensor->shape[d]);
    text_add(text, "]");
}

static void write_numbers(struct text *text, const struct expertd_tensor *tensor)
{
    const size_t count = tensor->bytes / expertd_dtype_size(tensor->dtype);
    text_add(text, ",\"data\":[");
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            text_add_bytes(text, ",", 1);
        datatype_write(tensor->dtype, tensor->data, i, text);
    }
    text_add(text, "]}");
}

/* The JSON, and then the bytes of the outputs that are wanted so. */
static void write_outputs(struct response *response, const struct infer_request *request,
                          const struct expertd_info *info, const struct expertd_call *call)
{
    struct text *text = &response->body;
    bool as_bytes[EXPERTD_MAX_TENSORS] = {false};
    bool any_bytes = false, first = true;
    text_add(text, "{\"model_name\":");
    text_add_json(text, info->uid);
    text_add(text, ",\"model_version\":\"%s\"", version);
    if (request->id) {
        text_add(text, ",\"id\":");
        text_add_json(text, request->id);
    }
    text_add(text, ",\"outputs\":[");
    for (size_t i = 0; i < info->outputs_schema.count; i++) {
        const struct expertd_tensor *tensor = expertd_call_output(call, i);
        bool binary;
        if (!tensor || !infer_request_wants(request, info->outputs_schema.fields[i].name, &binary))
            continue;
        as_bytes[i] = binary || !datatype_has_json(tensor->dtype);
        any_bytes |= as_bytes[i];
        text_add(text, "%s", first ? "" : ",");
        first = false;
        write_tensor_head(text, &info->outputs_schema.fields[i], tensor);
        if (as_bytes[i])
            text_add(text, ",\"parameters\":{\"binary_data_size\":%zu}}", tensor->bytes);
        else
            write_numbers(text, tensor);
    }
    text_add(text, "]}");
    if (any_bytes) {
        response->json_bytes = text->length;
        response->content_type = "application/octet-stream";
    }
    for (size_t i = 0; i < info->outputs_schema.count; i++)
        if (as_bytes[i])
            text_add_bytes(text, expertd_call_output(call, i)->data, expertd_call_output(call, i)->bytes);
}

static bool outputs_exist(const struct infer_request *request, const struct expertd_schema *schema,
                          char why[INFER_WHY_SIZE])
{
    for (size_t i = 0; i < request->outputs_count; i++) {
        size_t f = 0;
        while (f < schema->count && strcmp(schema->fields[f].name, request->outputs[i].name) != 0)
            f++;
        if (f == schema->count) {
            snprintf(why, INFER_WHY_SIZE, "the model has no output '%.80s'", request->outputs[i].name);
            return false;
        }
    }
    return true;
}

static void infer(struct response *response, struct upstream *upstream, struct expertd_client *client,
                  const struct expertd_info *info, const struct models_request *http)
{
    struct infer_request request;
    struct expertd_tensor tensors[EXPERTD_MAX_TENSORS];
    struct expertd_call *call = NULL;
    char why[INFER_WHY_SIZE] = "";
    int rc = infer_request_parse(&request, http->body, http->body_bytes, http->json_bytes, why);
    if (rc == 0)
        rc = infer_request_order(&request, &info->forward_schema, tensors, why);
    if (rc < 0 || !outputs_exist(&request, &info->outputs_schema, why)) {
        fail(response, 400, why);
    } else {
        rc = expertd_forward(client, info->uid, tensors, info->forward_schema.count, upstream_timeout_ms(upstream),
                             &call);
        if (settle(response, rc, &call))
            write_outputs(response, &request, info, call);
        expertd_call_release(&call);
    }
    infer_request_free(&request);
}

/* --- statistics, the index -------------------------------------------------------------------------------------------
 */

static void write_duration(struct text *text, const char *name, uint64_t count, uint64_t ns)
{
    text_add(text, "\"%s\":{\"count\":%" PRIu64 ",\"ns\":%" PRIu64 "}", name, count, ns);
}

/* Durations are sums over requests, as the protocol has them. Rows are computed where they lie: nothing is copied to
 * and from the model's tensors beside that. */
static void write_statistics(struct text *text, const struct expertd_expert_stats *expert)
{
    const struct expertd_times *times = &expert->forward;
    text_add(text, "{\"name\":");
    text_add_json(text, expert->uid);
    text_add(text,
             ",\"version\":\"%s\",\"inference_count\":%" PRIu64 ",\"execution_count\":%" PRIu64
             ",\"inference_stats\":{",
             version, expert->forward_rows, times->batches);
    write_duration(text, "success", expert->forward_tasks, times->request_ns);
    text_add(text, ",");
    write_duration(text, "queue", times->tasks, times->queue_ns);
    text_add(text, ",");
    write_duration(text, "compute_input", times->tasks, 0);
    text_add(text, ",");
    write_duration(text, "compute_infer", times->tasks, times->compute_ns);
    text_add(text, ",");
    write_duration(text, "compute_output", times->tasks, 0);
    text_add(text, "},\"pending\":%" PRIu32 "}", expert->pending);
}

/* Of one model, or of all (uid NULL), at whatever frontend they are. */
static void answer_statistics(struct response *response, struct upstream *upstream, struct expertd_client *client,
                              const char *uid)
{
    struct frontends frontends;
    struct frontends_look look;
    frontends_begin(&frontends, client);
    if (frontends_look(&frontends, &look, uid, 0, upstream_patience_ms(upstream)) < 0) {
        fail(response, 503, "no memory");
        return;
    }
    const bool asked = expertd_call_status(look.stats[0]) == EXPERTD_OK;
    const struct expertd_stats *stats = asked ? frontends_sum(&look) : NULL;
    if (stats) {
        bool first = true;
        text_add(&response->body, "{\"model_stats\":[");
        for (size_t i = 0; i < stats->experts_count; i++) {
            if (uid && strcmp(stats->experts[i].uid, uid) != 0)
                continue; /* the prefix of another */
            text_add(&response->body, "%s", first ? "" : ",");
            first = false;
            write_statistics(&response->body, &stats->experts[i]);
        }
        text_add(&response->body, "]}");
        if (uid && first)
            fail(response, 404, "there is no such model");
    } else if (asked) {
        fail(response, 503, "no memory");
    } else {
        fail(response, http_status(expertd_call_status(look.stats[0])), expertd_call_message(look.stats[0]));
    }
    frontends_release(&look);
}

static void write_entry(struct text *text, const struct expertd_list_entry *entry, bool alive, bool *first)
{
    text_add(text, "%s{\"name\":", *first ? "" : ",");
    *first = false;
    text_add_json(text, entry->uid);
    text_add(text, ",\"version\":\"%s\",\"state\":\"%s\",\"reason\":\"%s\"}", version, alive ? "READY" : "UNAVAILABLE",
             alive ? "" : "the runtime is not alive");
}

/* The entries of the list of the frontend at `client` that name this endpoint ("": its own). False: why not is said. */
static bool write_list(struct response *response, struct upstream *upstream, struct expertd_client *client,
                       const char *endpoint, bool *first)
{
    uint32_t seen = 0, total = 1;
    while (seen < total && response->status == 200) {
        struct expertd_call *call = NULL;
        if (settle(response, expertd_list(client, NULL, seen, 0, upstream_patience_ms(upstream), &call), &call)) {
            const struct expertd_list *list = expertd_call_list(call);
            for (size_t i = 0; i < list->count; i++)
                if (strcmp(list->endpoints[i], endpoint) == 0)
                    write_entry(&response->body, &list->entries[i], list->entries[i].alive, first);
            seen += (uint32_t)list->count;
            total = list->count > 0 ? list->total : 0;
        }
        expertd_call_release(&call);
    }
    return response->status == 200;
}

/* Each frontend says of its own whether they are alive; of one that does not answer, none is. */
static void answer_index(struct response *response, struct upstream *upstream, struct expertd_client *client)
{
    struct frontends frontends;
    struct frontends_look look;
    bool first = true;
    frontends_begin(&frontends, client);
    if (frontends_look(&frontends, &look, NULL, FRONTENDS_PING_ALONE, upstream_patience_ms(upstream)) < 0) {
        fail(response, 503, "no memory");
        return;
    }
    text_add(&response->body, "[");
    (void)write_list(response, upstream, client, "", &first);
    for (size_t f = 1; f < look.count && response->status == 200; f++) {
        const bool up = frontends_pong(&look, f) != NULL;
        (void)write_list(response, upstream, up ? frontends.clients[f] : client,
                         up ? "" : expertd_client_endpoint(frontends.clients[f]), &first);
    }
    frontends_release(&look);
    if (response->status == 200)
        text_add(&response->body, "]");
}

/* --- the repository --------------------------------------------------------------------------------------------------
 */

static void change(struct response *response, struct upstream *upstream, const char *uid, bool load,
                   const struct models_request *request)
{
    struct repository_settings settings = {0};
    struct expertd_call *call = NULL;
    char why[REPOSITORY_WHY_SIZE] = "";
    struct expertd_client *owner = NULL;
    const int parsed = load ? repository_parse(&settings, request->body, request->body_bytes, why) : 0;
    if (!upstream_changes(upstream))
        fail(response, 403, "models are not loaded here: http.changes is not set");
    else if (parsed < 0)
        fail(response, parsed == -ENOMEM ? 503 : 400, *why ? why : "no memory");
    else if (!(owner = upstream_own(upstream)))
        fail(response, 503, "no memory");
    if (response->status == 200) {
        const uint32_t timeout_ms = upstream_timeout_ms(upstream);
        const int rc =
            load ? expertd_load(owner, uid, (const char *const *)settings.items, settings.count, timeout_ms, &call)
                 : expertd_unload(owner, uid, timeout_ms, &call);
        if (settle(response, rc, &call))
            text_add(&response->body, "{}");
    }
    expertd_client_destroy(&owner);
    repository_free(&settings);
}

/* --- paths -----------------------------------------------------------------------------------------------------------
 */

enum action { ACTION_NONE, ACTION_MODEL, ACTION_CONFIG, ACTION_READY, ACTION_STATISTICS, ACTION_INFER };

/* "UID[/versions/1][/what]" into its parts. */
static enum action parse_model_path(const char *path, char uid[EXPERTD_MAX_UID + 1])
{
    const size_t length = strcspn(path, "/");
    if (length == 0 || length > EXPERTD_MAX_UID)
        return ACTION_NONE;
    memcpy(uid, path, length);
    uid[length] = 0;
    path += length;
    static const char versions[] = "/versions/1";
    if (strncmp(path, versions, sizeof versions - 1) == 0)
        path += sizeof versions - 1;
    return path[0] == 0                   ? ACTION_MODEL
           : strcmp(path, "/config") == 0 ? ACTION_CONFIG
           : strcmp(path, "/ready") == 0  ? ACTION_READY
           : strcmp(path, "/stats") == 0  ? ACTION_STATISTICS
           : strcmp(path, "/infer") == 0  ? ACTION_INFER
                                          : ACTION_NONE;
}

static void answer_model(struct response *response, struct upstream *upstream, struct expertd_client *client,
                         const char *uid, enum action action, const struct models_request *request)
{
    struct expertd_call *call = NULL;
    if (settle(response, expertd_info(client, uid, upstream_patience_ms(upstream), &call), &call)) {
        const struct expertd_info *info = expertd_call_info(call);
        if (action == ACTION_MODEL)
            write_model(response, info);
        else if (action == ACTION_CONFIG)
            write_config(response, info);
        else if (action == ACTION_READY)
            write_ready(response, info);
        else
            infer(response, upstream, client, info, request);
    }
    expertd_call_release(&call);
}

static void answer_path(struct response *response, struct upstream *upstream, struct expertd_client *client,
                        const struct models_request *request)
{
    static const char models[] = "/models/";
    char uid[EXPERTD_MAX_UID + 1];
    if (strcmp(request->path, "/models/stats") == 0 && !request->post) {
        answer_statistics(response, upstream, client, NULL);
        return;
    }
    if (strcmp(request->path, "/repository/index") == 0 && request->post) {
        answer_index(response, upstream, client);
        return;
    }
    bool load;
    if (repository_path(request->path, uid, &load)) {
        if (request->post)
            change(response, upstream, uid, load, request);
        else
            fail(response, 405, "POST, please");
        return;
    }
    const enum action action = strncmp(request->path, models, sizeof models - 1) == 0
                                   ? parse_model_path(request->path + sizeof models - 1, uid)
                                   : ACTION_NONE;
    if (action == ACTION_NONE)
        fail(response, 404, "there is nothing of that name");
    else if (request->post != (action == ACTION_INFER))
        fail(response, 405, action == ACTION_INFER ? "POST, please" : "GET, please");
    else if (action == ACTION_STATISTICS)
        answer_statistics(response, upstream, client, uid);
    else
        answer_model(response, upstream, client, uid, action, request);
}

void models_answer(struct response *response, struct upstream *upstream, const struct models_request *request)
{
    response->status = 200;
    response->content_type = "application/json";
    if (request->path[0] == 0 || strcmp(request->path, "/") == 0) {
        text_add(&response->body,
                 "{\"name\":\"expertd\",\"version\":\"%s\",\"extensions\":[\"binary_tensor_data\","
                 "\"model_repository\",\"statistics\"]}",
                 EXPERTD_VERSION);
        return;
    }
    struct expertd_client *client = upstream_take(upstream);
    answer_path(response, upstream, client, request);
    upstream_give(upstream, client);
}
