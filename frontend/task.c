#include "frontend/task.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/uid.h"
#include "frontend/admission.h"
#include "frontend/elsewhere.h"
#include "frontend/group.h"
#include "frontend/task_end.h"
#include "frontend/validate.h"
#include "proto/codec.h"

/* The hint of a server whose requests are all taken. */
enum { FULL_RETRY_MS = 20 };

/* A request on its way in. */
struct order {
    const Expertd__RequestHeader *header;
    const struct reply_to *to;
    const struct expert_place *place;
    enum pool_kind kind;
    bool keyed;
    struct repeat_key key;
    struct group *group; /* that it is a part of, `part`, with the message's rows from `row` on; NULL: it is no part */
    uint32_t part, row, rows;
    uint64_t all_rows;            /* of the message */
    uint64_t now_ns, deadline_ns; /* 0: none */
    uint32_t retry_after_ms;      /* of a refusal; 0: no hint */
    uint32_t unwanted;            /* outputs, a bit each */
    char why[VALIDATE_WHY_SIZE];
};

static enum status read_ids(struct order *order)
{
    const ProtobufCBinaryData *id = &order->header->client_id;
    if (id->len == 0)
        return STATUS_OK;
    uint64_t client[2] = {0};
    if (id->len == MESSAGE_CLIENT_ID_SIZE)
        memcpy(client, id->data, sizeof client);
    if ((client[0] | client[1]) == 0) {
        snprintf(order->why, sizeof order->why, "client_id has to be 16 random bytes, or absent");
        return STATUS_INVALID_ARGUMENT;
    }
    order->keyed = order->kind == POOL_BACKWARD;
    if (order->keyed && order->place)
        order->key = (struct repeat_key){.uid_hash = order->place->uid_hash,
                                         .client = {client[0], client[1]},
                                         .request_id = order->header->request_id};
    return STATUS_OK;
}

/* Somebody else is the asker now. */
static void leave_asker(struct server *server, struct request *request)
{
    if (request->group) {
        group_refuse(request->group, request->part, STATUS_UNAVAILABLE, "a repeat has taken this part's place", 0);
        group_end(&server->replier, request);
    } else {
        reply_withdraw(&server->replier, &request->to);
    }
    client_peer_release(request->to.peer);
    notes_free(&request->to.notes);
}

static void take_asker(struct request *request, const struct order *order)
{
    request->to = *order->to;
    client_peer_hold(request->to.peer);
    if (order->group) {
        request->to.notes = (struct notes){0}; /* the group has them */
        group_hold(order->group, order->part, request);
    } else {
        notes_keep(&request->to.notes);
    }
}

/* Whether what its first got, or will get, is no answer to it: part of a call that has other rows, other gradients. */
static bool asks_otherwise(const struct order *order, const struct repeat_found *found)
{
    const uint32_t rows = order->group ? order->rows : 0;
    if (found->kept)
        return !reply_answers(found->kept, rows, order->unwanted);
    return found->running &&
           (found->running->unwanted != order->unwanted || (rows != 0 && found->running->rows != rows));
}

/* A BACKWARD that was here before: true if that settles it. */
static bool meet_first(struct server *server, struct order *order)
{
    const struct repeat_found found = repeats_find(server->repeats, &order->key);
    /* What does not learn is as it was before the first: one that asks for something else is a request of its own. */
    if (asks_otherwise(order, &found) &&
        !device_link_learns(server->devices[order->place->device], order->place->expert)) {
        order->keyed = false;
        order->key = (struct repeat_key){0};
        return false;
    }
    if (found.kept) {
        server->counters.repeats_answered++;
        if (order->group)
            group_take_answer(&server->replier, order->group, order->part, found.kept);
        else
            reply_send_kept(&server->replier, order->to, found.kept, order->unwanted);
        return true;
    }
    /* One that was given up is cancelled, so it may never run: then the repeat is queued behind it, and the runtime,
     * or the first's answer, tells whether it is still to be done. */
    struct request *first = found.running;
    if (!first || first->state != REQUEST_WAITING)
        return false;
    if (first->unwanted != order->unwanted) { /* whether it will have been applied is open */
        static const char other[] = "the first request of this id, which wants other gradients, goes on";
        if (order->group)
            group_refuse(order->group, order->part, STATUS_UNAVAILABLE, other, 0);
        else
            reply_status(&server->replier, order->to, STATUS_UNAVAILABLE, other);
        return true;
    }
    server->counters.repeats_joined++;
    struct schema some;
    const struct schema *outputs = request_outputs(first, &pool_header(first->pool->pool)->outputs, &some);
    if (!order->group && !reply_has_room(&server->replier, order->to, outputs, first->rows))
        return true;
    client_peer_hold(order->to->peer); /* it may be the same one's last */
    leave_asker(server, first);
    take_asker(first, order);
    client_peer_release(order->to->peer);
    deadline_set(server->deadlines, &first->deadline, order->deadline_ns);
    if (first->parked)
        first->parked->deadline_ns = order->deadline_ns;
    return true;
}

static enum status find_pool(struct server *server, struct order *order, struct pool_link **link)
{
    struct device_link *device = server->devices[order->place->device];
    const char *refusal = device_link_refusal(device, order->why, sizeof order->why);
    int rc = -ENOENT;
    if (!refusal && order->place->closing) {
        snprintf(order->why, sizeof order->why, "the expert is being unloaded");
        return STATUS_UNAVAILABLE;
    }
    if (!refusal && order->place->expert != EXPERT_ABSENT)
        rc = device_link_pool(device, order->place->expert, order->kind, link);
    if (rc == 0) {
        pool_prefetch_handle((*link)->pool);
        return STATUS_OK;
    }
    if (rc == -EOPNOTSUPP) {
        snprintf(order->why, sizeof order->why,
                 "the expert answers forward alone (its configuration: backward: false)");
        return STATUS_UNIMPLEMENTED;
    }
    if (!refusal)
        snprintf(order->why, sizeof order->why, "the expert's task pool cannot be used now");
    return STATUS_UNAVAILABLE;
}

/* What a claim that failed means. */
static enum status refuse_claim(struct server *server, struct order *order, struct pool_link *link, int rc)
{
    switch (rc) {
    case -EAGAIN:
        snprintf(order->why, sizeof order->why, "the expert's pool is full: %" PRIu32 " requests are in it",
                 pool_tasks_held(link->pool));
        return STATUS_RESOURCE_EXHAUSTED;
    case -ENOSPC:
    case -ENOMEM:
        snprintf(order->why, sizeof order->why, "the server's shared memory is full");
        return STATUS_RESOURCE_EXHAUSTED;
    default:
        if (rc == -EPROTO || rc == -ENOENT)
            task_break_pool(server, link);
        snprintf(order->why, sizeof order->why, "the expert's task pool cannot be used now");
        return STATUS_UNAVAILABLE;
    }
}

/* What the sizes do not tell of encoded tensors. */
static enum status check_frames(struct server *server, struct order *order)
{
    for (size_t i = 0; i < order->header->n_tensors; i++) {
        const Expertd__Tensor *tensor = order->header->tensors[i];
        struct message_tensor_size size;
        if (tensor->codec == EXPERTD__CODEC__RAW || !message_tensor_size(tensor, &size))
            continue;
        const char *problem = codec_check((uint32_t)tensor->codec, server->message.tensors[i], size.elements);
        if (!problem)
            continue;
        snprintf(order->why, sizeof order->why, "input %zu as %s: %s", i, codec_name((uint32_t)tensor->codec), problem);
        return STATUS_INVALID_ARGUMENT;
    }
    return STATUS_OK;
}

/* The rows of the frame that are the part's. */
static void describe_part(const struct order *order, struct task_inputs *inputs, size_t i)
{
    if (inputs->tensors[i].codec != CODEC_NONE) {
        const uint64_t row_elements = inputs->tensors[i].elements / order->all_rows;
        inputs->tensors[i].first = order->row * row_elements;
        inputs->tensors[i].count = order->rows * row_elements;
    } else {
        const uint64_t row_bytes = inputs->tensors[i].bytes / order->all_rows;
        inputs->tensors[i].data = (const unsigned char *)inputs->tensors[i].data + order->row * row_bytes;
        inputs->tensors[i].bytes = order->rows * row_bytes;
    }
}

static void describe_inputs(struct server *server, const struct order *order, struct task_inputs *inputs)
{
    for (size_t i = 0; i < order->header->n_tensors; i++) {
        struct message_tensor_size size = {0};
        inputs->tensors[i].data = server->message.tensors[i];
        inputs->tensors[i].bytes = server->message.tensor_bytes[i];
        inputs->tensors[i].codec = (uint32_t)order->header->tensors[i]->codec;
        if (inputs->tensors[i].codec != CODEC_NONE)
            message_tensor_size(order->header->tensors[i], &size);
        inputs->tensors[i].elements = inputs->tensors[i].count = size.elements;
        inputs->tensors[i].first = 0;
        inputs->tensors[i].last = size.last;
        if (order->group)
            describe_part(order, inputs, i);
    }
}

static void wish_codecs(uint8_t codecs[SCHEMA_MAX_TENSORS], const Expertd__RequestHeader *header)
{
    for (size_t i = 0; i < SCHEMA_MAX_TENSORS; i++)
        codecs[i] = (uint8_t)message_reply_codec(header, i);
}

/* The task of a request that has its claim. */
static void commit(struct server *server, struct request *request, const struct pool_claim *claim,
                   const struct task_inputs *inputs, uint64_t deadline_ns)
{
    struct pool_link *link = request->pool;
    control_prefetch_ready(link->device->control, link->index);
    task_inputs_copy(inputs, link->pool, claim, server->copier);
    const struct pool_task task = {.queued_ns = request->began_ns,
                                   .deadline_ns = deadline_ns,
                                   .client = {request->key.client[0], request->key.client[1]},
                                   .request_id = request->key.request_id,
                                   .unwanted = request->unwanted};
    pool_commit(link->pool, claim, &task);
    request->task = claim->task;
    request_list_append(&link->requests, request);
    device_link_ready(link->device, link->index);
}

/* A place in the pool, or in the queue before it: then the claim has no rows. */
static enum status find_room(struct server *server, struct order *order, struct pool_link *link, uint32_t rows,
                             const struct task_inputs *inputs, struct pool_claim *claim)
{
    const int rc = admission_queued(link) ? -EAGAIN : pool_claim(link->pool, rows, claim);
    if (rc == 0)
        return STATUS_OK;
    *claim = (struct pool_claim){0};
    if (rc == -EAGAIN && link->requests.count &&
        admission_may_wait(server, link, order->to->peer, rows,
                           task_inputs_bytes(inputs, pool_header(link->pool)->inputs.count)))
        return STATUS_OK;
    link->refused++;
    order->retry_after_ms = admission_retry_after_ms(link);
    return refuse_claim(server, order, link, rc);
}

static void fill_request(struct request *request, const struct order *order, struct pool_link *link, uint32_t rows)
{
    request->keyed = order->keyed;
    request->key = order->key;
    request->pool = link;
    request->began_ns = order->now_ns;
    request->rows = rows;
    request->unwanted = order->unwanted;
    request->to = *order->to;
    request->group = order->group;
    if (!order->group) /* a group encodes what it has got together */
        wish_codecs(request->codecs, order->header);
}

static enum status queue(struct server *server, struct order *order, struct pool_link *link, uint32_t rows)
{
    struct pool_claim claim;
    struct task_inputs inputs;
    struct request *request = admission_slot(server, order->to->peer);
    if (!request) {
        snprintf(order->why, sizeof order->why, "the server is full: %" PRIu32 " requests are in it",
                 requests_taken(server->requests));
        order->retry_after_ms = FULL_RETRY_MS;
        return STATUS_RESOURCE_EXHAUSTED;
    }
    fill_request(request, order, link, rows);
    describe_inputs(server, order, &inputs);
    enum status status = find_room(server, order, link, rows, &inputs, &claim);
    if (status == STATUS_OK && order->keyed && repeats_begin(server->repeats, &order->key, request) < 0) {
        snprintf(order->why, sizeof order->why, "no memory");
        status = STATUS_RESOURCE_EXHAUSTED; /* the claim is forgotten, and then nothing happened */
    }
    if (status == STATUS_OK && claim.rows == 0 && !admission_park(server, request, &inputs, order->deadline_ns)) {
        repeats_end(server->repeats, &order->key, request);
        snprintf(order->why, sizeof order->why, "no memory");
        status = STATUS_RESOURCE_EXHAUSTED;
    }
    if (status != STATUS_OK) {
        requests_give(server->requests, request);
        return status;
    }
    request->share = shares_charge(server->shares, link, order->to->peer, rows);
    take_asker(request, order);
    deadline_set(server->deadlines, &request->deadline, order->deadline_ns);
    link->device->in_flight++;
    if (!request->parked)
        commit(server, request, &claim, &inputs, order->deadline_ns);
    return STATUS_OK;
}

void task_admit(struct server *server, struct pool_link *link)
{
    while (link->parked.first && !link->broken) {
        struct request *request = link->parked.first;
        struct order order = {.why = ""};
        struct pool_claim claim;
        const int rc = pool_claim(link->pool, request->rows, &claim);
        if (rc == -EAGAIN)
            return;
        if (rc < 0) {
            const enum status status = refuse_claim(server, &order, link, rc);
            if (request == link->parked.first) /* else the pool's end was theirs, too */
                task_end_early(server, request, status, order.why);
            continue;
        }
        struct request_parked *parked = admission_unpark(server, request);
        commit(server, request, &claim, &parked->inputs, parked->deadline_ns);
        admission_free(parked);
    }
}

static bool has_room(struct server *server, const struct order *order, const struct schema *outputs, uint32_t rows)
{
    struct schema wanted;
    if (order->unwanted == 0)
        return reply_has_room(&server->replier, order->to, outputs, rows);
    schema_without(&wanted, outputs, order->unwanted);
    return reply_has_room(&server->replier, order->to, &wanted, rows);
}

static enum status begin(struct server *server, struct order *order)
{
    enum status status = read_ids(order);
    if (status != STATUS_OK)
        return status;
    if (order->keyed)
        order->unwanted = validate_unwanted(order->header); /* a repeat meets its first before it is checked */
    if (order->keyed && meet_first(server, order))
        return STATUS_OK;
    struct pool_link *link;
    uint32_t rows;
    status = find_pool(server, order, &link);
    if (status == STATUS_OK) {
        const struct pool_shared *header = pool_header(link->pool);
        status = validate_tensors(&header->inputs, header->max_batch_size, order->header, server->message.tensor_bytes,
                                  server->message.tensor_frames, &rows, order->why);
        if (status == STATUS_OK)
            status = check_frames(server, order);
        if (status == STATUS_OK && order->kind == POOL_BACKWARD)
            status = validate_wishes(&header->outputs, order->header, &order->unwanted, order->why);
        if (status == STATUS_OK && !has_room(server, order, &header->outputs, rows))
            return STATUS_OK;
    }
    return status == STATUS_OK ? queue(server, order, link, rows) : status;
}

/* --- of several parts -----------------------------------------------------------------------------------------------
 */

/* A call for many experts while it is taken apart. */
struct parts {
    const struct expert_place *places[MESSAGE_MAX_PARTS]; /* NULL: no such expert */
    struct pool_link *links[MESSAGE_MAX_PARTS];           /* those that were checked; NULL: it cannot be asked now */
    const struct schema *inputs, *outputs;                /* that its experts have; NULL: none can be asked now */
    uint64_t rows;
};

static enum status say(struct order *order, const char *uid, const char *what)
{
    char clean[UID_SIZE];
    snprintf(clean, sizeof clean, "%s", uid);
    snprintf(order->why, sizeof order->why, "part \"%s\": %s", message_clean(clean), what);
    return STATUS_INVALID_ARGUMENT;
}

static bool same_schema(const struct schema *a, const struct schema *b)
{
    bool same = a->count == b->count;
    for (uint32_t i = 0; i < a->count && same; i++)
        same = tensor_desc_equal(&a->tensors[i], &b->tensors[i]);
    return same;
}

static bool named_before(const struct parts *parts, size_t p)
{
    for (size_t other = 0; other < p; other++) {
        if (parts->places[other] == parts->places[p])
            return true;
    }
    return false;
}

/* Whether the part fits the others, as far as its expert can be asked now, and the limits. */
static enum status check_part(struct server *server, struct order *order, struct parts *parts, size_t p)
{
    const Expertd__RequestHeader__Part *part = order->header->parts[p];
    struct pool_link *link;
    parts->links[p] = NULL;
    parts->places[p] = order->place = expert_table_find(server->experts, part->uid);
    if (part->rows == 0)
        return say(order, part->uid, "it has 0 rows; a part has at least 1");
    if (order->place && named_before(parts, p))
        return say(order, part->uid, "it is named twice");
    parts->rows += part->rows;
    if (!order->place || find_pool(server, order, &link) != STATUS_OK)
        return STATUS_OK; /* its own status will say so */
    const struct pool_shared *header = pool_header(link->pool);
    if (part->rows > header->max_batch_size) {
        char text[96];
        snprintf(text, sizeof text, "%" PRIu32 " rows are more than its max_batch_size, %" PRIu32, part->rows,
                 header->max_batch_size);
        return say(order, part->uid, text);
    }
    if (parts->inputs &&
        (!same_schema(parts->inputs, &header->inputs) || !same_schema(parts->outputs, &header->outputs)))
        return say(order, part->uid, "its tensors have other shapes than those of the parts before; ask it by itself");
    parts->links[p] = link;
    parts->inputs = &header->inputs;
    parts->outputs = &header->outputs;
    return STATUS_OK;
}

static enum status check_parts(struct server *server, struct order *order, struct parts *parts)
{
    const Expertd__RequestHeader *header = order->header;
    uint32_t rows;
    if (header->uid[0]) {
        snprintf(order->why, sizeof order->why, "a request has a uid or parts, not both");
        return STATUS_INVALID_ARGUMENT;
    }
    enum status status = STATUS_OK;
    for (size_t p = 0; p < header->n_parts && status == STATUS_OK; p++)
        status = check_part(server, order, parts, p);
    if (status != STATUS_OK || !parts->inputs)
        return status;
    status = validate_tensors(parts->inputs, UINT32_MAX, header, server->message.tensor_bytes,
                              server->message.tensor_frames, &rows, order->why);
    if (status == STATUS_OK && rows != parts->rows) {
        snprintf(order->why, sizeof order->why, "the parts have %" PRIu64 " rows, the tensors %" PRIu32, parts->rows,
                 rows);
        status = STATUS_INVALID_ARGUMENT;
    }
    return status == STATUS_OK ? check_frames(server, order) : status;
}

/* One of them: it is a request from here on, or its status says why not. */
static void begin_part(struct server *server, struct order *order, const struct parts *parts)
{
    const Expertd__RequestHeader__Part *part = order->header->parts[order->part];
    struct pool_link *link;
    enum status status = STATUS_NOT_FOUND;
    order->place = parts->places[order->part];
    order->rows = part->rows;
    order->retry_after_ms = 0;
    group_set_part(order->group, order->part, order->row, order->rows);
    server->counters.parts++;
    if (order->place) {
        (void)read_ids(order); /* of this expert; they were looked at before */
        if (part->request_id)
            order->key.request_id = part->request_id;
        if (order->keyed && parts->outputs && meet_first(server, order))
            return;
        status = find_pool(server, order, &link);
        if (status == STATUS_OK && link == parts->links[order->part]) {
            status = queue(server, order, link, part->rows);
        } else if (status == STATUS_OK) {
            snprintf(order->why, sizeof order->why, "the expert has just become ready; repeat it");
            status = STATUS_UNAVAILABLE;
        }
    } else {
        const char *endpoint = elsewhere_where(server->elsewhere, part->uid, order->why, sizeof order->why);
        if (endpoint)
            group_refer(order->group, order->part, endpoint);
    }
    if (status != STATUS_OK)
        group_refuse(order->group, order->part, status, message_clean(order->why), order->retry_after_ms);
}

/* The status of the whole where nothing comes of it. */
static enum status begin_parts(struct server *server, struct order *order)
{
    struct parts parts = {.rows = 0};
    struct schema wanted;
    uint8_t codecs[SCHEMA_MAX_TENSORS];
    enum status status = read_ids(order);
    if (status == STATUS_OK)
        status = check_parts(server, order, &parts);
    if (status != STATUS_OK)
        return status;
    if (parts.outputs && order->kind == POOL_BACKWARD)
        status = validate_wishes(parts.outputs, order->header, &order->unwanted, order->why);
    if (status != STATUS_OK)
        return status;
    schema_without(&wanted, parts.outputs ? parts.outputs : &(struct schema){0}, order->unwanted);
    if (parts.outputs && !reply_has_room(&server->replier, order->to, &wanted, (uint32_t)parts.rows))
        return STATUS_OK;
    wish_codecs(codecs, order->header);
    order->group = group_open(order->to, (uint32_t)order->header->n_parts, codecs);
    if (!order->group) {
        snprintf(order->why, sizeof order->why, "no memory");
        return STATUS_RESOURCE_EXHAUSTED;
    }
    if (parts.outputs)
        group_set_outputs(order->group, &wanted, order->unwanted, parts.rows);
    order->all_rows = parts.rows;
    for (size_t p = 0; p < order->header->n_parts; p++) {
        order->part = (uint32_t)p;
        begin_part(server, order, &parts);
        order->row += order->rows;
    }
    group_close(&server->replier, order->group);
    return STATUS_OK;
}

/* --- either ---------------------------------------------------------------------------------------------------------
 */

void task_begin(struct server *server, const struct reply_to *to, const Expertd__RequestHeader *header, uint64_t now_ns)
{
    const uint64_t deadline_ms = header->deadline_ms ? header->deadline_ms : server->config->frontend.default_deadline;
    struct order order = {.header = header,
                          .to = to,
                          .place = header->n_parts ? NULL : expert_table_find(server->experts, header->uid),
                          .kind = header->method == EXPERTD__METHOD__BACKWARD ? POOL_BACKWARD : POOL_FORWARD,
                          .now_ns = now_ns,
                          .deadline_ns = deadline_ms ? now_ns + deadline_ms * NS_PER_MS : 0};
    enum status status;
    if (!header->n_parts && !order.place) {
        server_refuse_unknown(server, to, header->uid);
        return;
    }
    status = header->n_parts ? begin_parts(server, &order) : begin(server, &order);
    if (status != STATUS_OK)
        reply_refusal(&server->replier, to, status, message_clean(order.why),
                      status == STATUS_RESOURCE_EXHAUSTED ? order.retry_after_ms : 0);
}
