#include "frontend/inspect.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/uid.h"
#include "frontend/elsewhere.h"
#include "frontend/local.h"
#include "proto/codec.h"

static bool place_alive(const struct server *server, const struct expert_place *place)
{
    return place->expert != EXPERT_ABSENT && !place->closing &&
           device_link_serves(server->devices[place->device], place->expert);
}

static uint32_t count_alive(const struct server *server)
{
    uint32_t count = 0;
    bool broken = false;
    for (unsigned d = 0; d < server->devices_count; d++) {
        if (server->devices[d]->state == DEVICE_UP)
            count += server->devices[d]->experts_placed;
        broken |= server->devices[d]->broken;
    }
    if (!broken)
        return count;
    count = 0;
    for (uint32_t i = 0; i < expert_table_count(server->experts); i++)
        count += place_alive(server, expert_table_at(server->experts, i));
    return count;
}

void inspect_ping(struct server *server, const struct reply_to *to)
{
    char software[] = "expertd " EXPERTD_VERSION;
    Expertd__Pong pong = EXPERTD__PONG__INIT;
    Expertd__ReplyHeader header = EXPERTD__REPLY_HEADER__INIT;
    pong.server = (char *)(uintptr_t)server->config->server.name;
    pong.software = software;
    pong.experts = expert_table_count(server->experts);
    pong.experts_alive = count_alive(server);
    Expertd__Pong__Local local = EXPERTD__PONG__LOCAL__INIT;
    const char *path = local_path(server->local);
    if (path) {
        local.path = (char *)(uintptr_t)path;
        local.instance = (ProtobufCBinaryData){LOCAL_INSTANCE, (uint8_t *)(uintptr_t)local_instance(server->local)};
        pong.local = &local;
    }
    Expertd__Pong__Frontend others[CONFIG_FRONTENDS_MAX], *pointers[CONFIG_FRONTENDS_MAX];
    const char *name, *endpoint;
    for (unsigned i = 0; i < CONFIG_FRONTENDS_MAX && elsewhere_frontend(server->elsewhere, i, &name, &endpoint); i++) {
        expertd__pong__frontend__init(&others[i]);
        others[i].server = (char *)(uintptr_t)name;
        others[i].endpoint = (char *)(uintptr_t)endpoint;
        pointers[pong.n_frontends++] = &others[i];
    }
    pong.frontends = pointers;
    header.pong = &pong;
    reply_header(&server->replier, to, &header);
}

/* --- LIST -----------------------------------------------------------------------------------------------------------
 */

struct listing {
    Expertd__ExpertList__Entry *entries;
    Expertd__ExpertList__Entry **pointers;
    size_t count;
};

/* One that matches: its entry, or NULL where it is not on this page. */
static Expertd__ExpertList__Entry *add_entry(struct listing *listing, uint32_t number, uint32_t offset, uint32_t limit)
{
    if (number < offset || listing->count == limit)
        return NULL;
    Expertd__ExpertList__Entry *entry = &listing->entries[listing->count];
    expertd__expert_list__entry__init(entry);
    listing->pointers[listing->count++] = entry;
    return entry;
}

/* The entries from offset on, at most limit of them; returns how many match in all. */
static uint32_t collect(struct server *server, const char *prefix, uint32_t offset, uint32_t limit,
                        struct listing *listing)
{
    const size_t prefix_length = strlen(prefix);
    uint32_t total = 0;
    for (uint32_t i = 0; i < expert_table_count(server->experts); i++) {
        const struct expert_place *place = expert_table_at(server->experts, i);
        const char *uid = expert_table_uid(server->experts, place);
        if (strncmp(uid, prefix, prefix_length) != 0)
            continue;
        Expertd__ExpertList__Entry *entry = add_entry(listing, total++, offset, limit);
        if (!entry)
            continue;
        entry->uid = (char *)(uintptr_t)uid;
        entry->alive = place_alive(server, place);
        entry->device = (char *)(uintptr_t)server->devices[place->device]->name;
    }
    for (uint32_t i = 0; i < elsewhere_count(server->elsewhere); i++) {
        struct elsewhere_expert expert;
        elsewhere_at(server->elsewhere, i, &expert);
        if (strncmp(expert.uid, prefix, prefix_length) != 0 || expert_table_find(server->experts, expert.uid))
            continue;
        Expertd__ExpertList__Entry *entry = add_entry(listing, total++, offset, limit);
        if (!entry)
            continue;
        entry->uid = (char *)(uintptr_t)expert.uid;
        entry->device = (char *)(uintptr_t)expert.device;
        entry->endpoint = (char *)(uintptr_t)expert.endpoint;
    }
    return total;
}

void inspect_list(struct server *server, const struct reply_to *to, const Expertd__RequestHeader *header)
{
    const char *prefix = header->list ? header->list->prefix : "";
    const uint32_t offset = header->list ? header->list->offset : 0;
    uint32_t limit = header->list ? header->list->limit : 0;
    if (limit == 0 || limit > MESSAGE_MAX_LIST)
        limit = MESSAGE_MAX_LIST;
    struct listing listing = {.entries = malloc(limit * sizeof *listing.entries),
                              .pointers = malloc(limit * sizeof(Expertd__ExpertList__Entry *))};
    if (listing.entries && listing.pointers) {
        Expertd__ExpertList list = EXPERTD__EXPERT_LIST__INIT;
        Expertd__ReplyHeader reply = EXPERTD__REPLY_HEADER__INIT;
        list.total = collect(server, prefix, offset, limit, &listing);
        list.n_experts = listing.count;
        list.experts = listing.pointers;
        list.generation = server->list_generation;
        reply.list = &list;
        reply_header(&server->replier, to, &reply);
    } else {
        reply_status(&server->replier, to, STATUS_RESOURCE_EXHAUSTED, "no memory for the answer");
    }
    free(listing.entries);
    free(listing.pointers);
}

/* --- INFO -----------------------------------------------------------------------------------------------------------
 */

/* A schema as a message, in place. */
struct schema_message {
    Expertd__Schema schema;
    Expertd__Schema__Field fields[SCHEMA_MAX_TENSORS];
    Expertd__Schema__Field *pointers[SCHEMA_MAX_TENSORS];
};

static Expertd__Codec float32_codecs[] = {EXPERTD__CODEC__CODEC_MEANSTD_16BIT,  EXPERTD__CODEC__CODEC_FLOAT16,
                                          EXPERTD__CODEC__CODEC_QUANTILE_8BIT,  EXPERTD__CODEC__CODEC_UNIFORM_8BIT,
                                          EXPERTD__CODEC__CODEC_BLOCKWISE_8BIT, EXPERTD__CODEC__CODEC_BFLOAT16};

static Expertd__Schema *describe(struct schema_message *message, struct schema *schema)
{
    expertd__schema__init(&message->schema);
    message->schema.n_tensors = schema->count;
    message->schema.tensors = message->pointers;
    for (uint32_t i = 0; i < schema->count; i++) {
        Expertd__Schema__Field *field = message->pointers[i] = &message->fields[i];
        expertd__schema__field__init(field);
        field->name = message_clean(schema->tensors[i].name);
        field->dtype = (Expertd__DType)schema->tensors[i].dtype;
        field->n_row_shape = schema->tensors[i].ndim;
        field->row_shape = schema->tensors[i].dims;
        if (codec_takes(CODEC_FLOAT16, schema->tensors[i].dtype)) {
            field->n_codecs = sizeof float32_codecs / sizeof float32_codecs[0];
            field->codecs = float32_codecs;
        }
    }
    return &message->schema;
}

/* The tensors of a backward: the inputs, then the outputs' gradients. */
struct backward_message {
    Expertd__Schema schema;
    Expertd__Schema__Field *pointers[2 * SCHEMA_MAX_TENSORS];
    struct schema grad_outputs;
    struct schema_message gradients;
};

static Expertd__Schema *describe_backward(struct backward_message *message, const Expertd__Schema *inputs,
                                          const struct schema *outputs)
{
    schema_gradients(&message->grad_outputs, outputs);
    const Expertd__Schema *gradients = describe(&message->gradients, &message->grad_outputs);
    expertd__schema__init(&message->schema);
    message->schema.tensors = message->pointers;
    memcpy(message->pointers, inputs->tensors, inputs->n_tensors * sizeof *inputs->tensors);
    memcpy(message->pointers + inputs->n_tensors, gradients->tensors,
           gradients->n_tensors * sizeof *gradients->tensors);
    message->schema.n_tensors = inputs->n_tensors + gradients->n_tensors;
    return &message->schema;
}

/* One copy of what control_attach had checked; ended strings, since it lies where the runtime can write. */
static bool copy_expert(struct device_link *device, uint32_t expert, struct control_expert_shared *copy)
{
    if (control_expert_copy(control_expert(device->control, expert), copy) < 0)
        return false;
    copy->uid[sizeof copy->uid - 1] = copy->block[sizeof copy->block - 1] = 0;
    copy->optimizer[sizeof copy->optimizer - 1] = copy->schedule[sizeof copy->schedule - 1] = 0;
    message_clean(copy->block);
    message_clean(copy->optimizer);
    message_clean(copy->schedule);
    return schema_valid(&copy->inputs) && schema_valid(&copy->outputs);
}

struct arguments_message {
    Expertd__ExpertInfo__Argument arguments[BLOCK_ARGUMENTS_MAX], *pointers[BLOCK_ARGUMENTS_MAX];
};

static void fill_arguments(Expertd__ExpertInfo *info, struct arguments_message *message,
                           struct control_expert_shared *copy)
{
    info->n_arguments = copy->arguments_count < BLOCK_ARGUMENTS_MAX ? copy->arguments_count : BLOCK_ARGUMENTS_MAX;
    info->arguments = message->pointers;
    for (size_t i = 0; i < info->n_arguments; i++) {
        struct control_argument_shared *argument = &copy->arguments[i];
        argument->name[sizeof argument->name - 1] = 0;
        message_clean(argument->name);
        expertd__expert_info__argument__init(&message->arguments[i]);
        message->arguments[i].name = argument->name;
        message->arguments[i].value = argument->value;
        argument->text[sizeof argument->text - 1] = 0;
        message_clean(argument->text);
        message->arguments[i].text = argument->text;
        message->pointers[i] = &message->arguments[i];
    }
}

static void fill_info(Expertd__ExpertInfo *info, struct control_expert_shared *copy)
{
    info->block = copy->block;
    info->max_batch_size = copy->max_batch_size;
    info->hidden_dim = copy->hidden_dim;
    info->optimizer = copy->optimizer;
    info->learning_rate = copy->learning_rate;
    info->beta1 = copy->beta1;
    info->beta2 = copy->beta2;
    info->epsilon = copy->epsilon;
    info->momentum = copy->momentum;
    info->clip_norm = copy->clip_norm;
    info->schedule = copy->schedule;
    info->warmup_steps = copy->warmup_steps;
    info->total_steps = copy->total_steps;
    info->grad_accumulation = copy->grad_accumulation;
    info->forward_only = copy->forward_only != 0;
}

void inspect_info(struct server *server, const struct reply_to *to, const Expertd__RequestHeader *header)
{
    char text[UID_SIZE + 64];
    const struct expert_place *place = expert_table_find(server->experts, header->uid);
    if (!place) {
        server_refuse_unknown(server, to, header->uid);
        return;
    }
    struct device_link *device = server->devices[place->device];
    struct control_expert_shared copy;
    if (place->expert == EXPERT_ABSENT || !device->control || place->expert >= device->experts_count ||
        !copy_expert(device, place->expert, &copy)) {
        const char *refusal = device_link_refusal(device, text, sizeof text);
        reply_status(&server->replier, to, STATUS_UNAVAILABLE,
                     refusal ? refusal : "the expert's device does not have it now");
        return;
    }
    struct schema_message inputs, outputs;
    struct backward_message backward;
    Expertd__ExpertInfo info = EXPERTD__EXPERT_INFO__INIT;
    Expertd__ReplyHeader reply = EXPERTD__REPLY_HEADER__INIT;
    struct arguments_message arguments = {0};
    fill_info(&info, &copy);
    fill_arguments(&info, &arguments, &copy);
    info.uid = (char *)(uintptr_t)expert_table_uid(server->experts, place);
    info.device = (char *)(uintptr_t)device->name;
    info.alive = place_alive(server, place);
    info.compression = (Expertd__Codec)place->compression;
    info.forward_schema = describe(&inputs, &copy.inputs);
    info.outputs_schema = describe(&outputs, &copy.outputs);
    info.backward_schema = describe_backward(&backward, info.forward_schema, &copy.outputs);
    struct control_expert_shared *shared = control_expert(device->control, place->expert);
    info.update_count = atomic_load_explicit(&shared->runtime.updates, memory_order_relaxed);
    info.examples_processed = atomic_load_explicit(&shared->runtime.examples, memory_order_relaxed);
    info.skipped_steps = atomic_load_explicit(&shared->runtime.skipped_steps, memory_order_relaxed);
    reply.info = &info;
    reply_header(&server->replier, to, &reply);
}
