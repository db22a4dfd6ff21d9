#include "client/method_answer.h"

#include <stdlib.h>
#include <string.h>

#include "client/expertd.h"
#include "common/uid.h"
#include "proto/codec.h"
#include "proto/message.h"

static const char no_memory[] = "no memory for it";
static const char no_uid[] = "a uid is none";

/* Copies text to *room, moves *room behind it. */
static char *store(char **room, const char *text)
{
    char *copy = *room;
    const size_t size = strlen(text) + 1;
    memcpy(copy, text, size);
    *room += size;
    return copy;
}

/* A uid is not cleaned: altered, it would name another expert. It is printable, or none. */
static char *store_text(char **room, const char *text)
{
    return message_clean(store(room, text));
}

const char *method_answer_take_pong(void **answer, const Expertd__Pong *pong)
{
    size_t bytes = strlen(pong->server) + strlen(pong->software) + 2;
    for (size_t i = 0; i < pong->n_frontends; i++)
        bytes += strlen(pong->frontends[i]->server) + strlen(pong->frontends[i]->endpoint) + 2;
    struct expertd_pong *copy = malloc(sizeof *copy + pong->n_frontends * sizeof *copy->frontends + bytes);
    if (!copy)
        return no_memory;
    struct expertd_frontend *frontends = (struct expertd_frontend *)(copy + 1);
    char *room = (char *)(frontends + pong->n_frontends);
    for (size_t i = 0; i < pong->n_frontends; i++) {
        frontends[i].server = store_text(&room, pong->frontends[i]->server);
        frontends[i].endpoint = store_text(&room, pong->frontends[i]->endpoint);
    }
    copy->frontends = frontends;
    copy->frontends_count = pong->n_frontends;
    copy->server = store_text(&room, pong->server);
    copy->software = store_text(&room, pong->software);
    copy->experts = pong->experts;
    copy->experts_alive = pong->experts_alive;
    *answer = copy;
    return NULL;
}

const char *method_answer_take_changes(void **answer, const Expertd__Changes *changes)
{
    struct expertd_changes *copy = malloc(sizeof *copy + strlen(changes->note) + 1);
    if (!copy)
        return no_memory;
    char *room = (char *)(copy + 1);
    copy->loaded = changes->loaded;
    copy->unloaded = changes->unloaded;
    copy->replaced = changes->replaced;
    copy->set = changes->set;
    copy->note = store_text(&room, changes->note);
    *answer = copy;
    return NULL;
}

const char *method_answer_take_list(void **answer, const Expertd__ExpertList *list)
{
    size_t bytes = 0;
    for (size_t i = 0; i < list->n_experts; i++) {
        if (!uid_valid(list->experts[i]->uid))
            return no_uid;
        bytes += sizeof(struct expertd_list_entry) + sizeof(char *) + strlen(list->experts[i]->uid) +
                 strlen(list->experts[i]->device) + strlen(list->experts[i]->endpoint) + 3;
    }
    struct expertd_list *copy = malloc(sizeof *copy + bytes);
    if (!copy)
        return no_memory;
    struct expertd_list_entry *entries = (struct expertd_list_entry *)(copy + 1);
    const char **endpoints = (const char **)(entries + list->n_experts);
    char *room = (char *)(endpoints + list->n_experts);
    for (size_t i = 0; i < list->n_experts; i++) {
        endpoints[i] = store_text(&room, list->experts[i]->endpoint);
        entries[i].uid = store(&room, list->experts[i]->uid);
        entries[i].device = store_text(&room, list->experts[i]->device);
        entries[i].alive = list->experts[i]->alive;
    }
    copy->entries = entries;
    copy->endpoints = endpoints;
    copy->count = list->n_experts;
    copy->total = list->total;
    copy->generation = list->generation;
    *answer = copy;
    return NULL;
}

static const char *check_stats(const Expertd__Stats *stats, size_t *bytes)
{
    *bytes = sizeof(struct expertd_stats);
    for (size_t i = 0; i < stats->n_counters; i++)
        *bytes += sizeof(struct expertd_counter) + strlen(stats->counters[i]->name) + 1;
    for (size_t i = 0; i < stats->n_histograms; i++) {
        const Expertd__Stats__Histogram *histogram = stats->histograms[i];
        if (histogram->n_counts != histogram->n_bounds + 1)
            return "a histogram has not one more counts than bounds";
        *bytes += sizeof(struct expertd_histogram) + (histogram->n_bounds + histogram->n_counts) * sizeof(double) +
                  strlen(histogram->name) + 1;
    }
    for (size_t i = 0; i < stats->n_experts; i++) {
        if (!uid_valid(stats->experts[i]->uid))
            return no_uid;
        *bytes += sizeof(struct expertd_expert_stats) + strlen(stats->experts[i]->uid) +
                  strlen(stats->experts[i]->device) + 2;
    }
    return NULL;
}

/* The numbers of all histograms lie at `numbers`; returns where they end. */
static char *take_histograms(struct expertd_histogram *to, const Expertd__Stats *stats, char *numbers)
{
    _Static_assert(sizeof(uint64_t) == sizeof(double), "check_stats counts them alike");
    for (size_t i = 0; i < stats->n_histograms; i++) {
        const Expertd__Stats__Histogram *histogram = stats->histograms[i];
        double *bounds = (double *)(void *)numbers;
        uint64_t *counts = (uint64_t *)(bounds + histogram->n_bounds);
        for (size_t b = 0; b < histogram->n_bounds; b++)
            bounds[b] = histogram->bounds[b];
        for (size_t c = 0; c < histogram->n_counts; c++)
            counts[c] = histogram->counts[c];
        to[i] = (struct expertd_histogram){
            .bounds = bounds, .counts = counts, .bounds_count = histogram->n_bounds, .sum = histogram->sum};
        numbers = (char *)(counts + histogram->n_counts);
    }
    return numbers;
}

static struct expertd_times take_times(const Expertd__Stats__Times *times)
{
    if (!times)
        return (struct expertd_times){0};
    return (struct expertd_times){times->request_ns, times->tasks, times->batches, times->queue_ns, times->compute_ns};
}

static void take_expert_stats(struct expertd_expert_stats *to, const Expertd__Stats__Expert *expert, char **room)
{
    *to = (struct expertd_expert_stats){
        .uid = store(room, expert->uid),
        .device = store_text(room, expert->device),
        .forward_tasks = expert->forward_tasks,
        .forward_rows = expert->forward_rows,
        .backward_tasks = expert->backward_tasks,
        .backward_rows = expert->backward_rows,
        .pending = expert->pending,
        .oldest_seconds = expert->oldest_seconds,
        .update_count = expert->update_count,
        .skipped_steps = expert->skipped_steps,
        .forward = take_times(expert->forward),
        .backward = take_times(expert->backward),
    };
}

const char *method_answer_take_stats(void **answer, const Expertd__Stats *stats)
{
    size_t bytes;
    const char *wrong = check_stats(stats, &bytes);
    if (wrong)
        return wrong;
    struct expertd_stats *copy = malloc(bytes);
    if (!copy)
        return no_memory;
    struct expertd_counter *counters = (struct expertd_counter *)(copy + 1);
    struct expertd_histogram *histograms = (struct expertd_histogram *)(counters + stats->n_counters);
    struct expertd_expert_stats *experts = (struct expertd_expert_stats *)(histograms + stats->n_histograms);
    char *room = take_histograms(histograms, stats, (char *)(experts + stats->n_experts));
    for (size_t i = 0; i < stats->n_counters; i++) {
        counters[i].name = store_text(&room, stats->counters[i]->name);
        counters[i].value = stats->counters[i]->value;
    }
    for (size_t i = 0; i < stats->n_histograms; i++)
        histograms[i].name = store_text(&room, stats->histograms[i]->name);
    for (size_t i = 0; i < stats->n_experts; i++)
        take_expert_stats(&experts[i], stats->experts[i], &room);
    *copy = (struct expertd_stats){
        .counters = counters,
        .count = stats->n_counters,
        .histograms = histograms,
        .histograms_count = stats->n_histograms,
        .experts = experts,
        .experts_count = stats->n_experts,
    };
    *answer = copy;
    return NULL;
}

static size_t schema_text(const Expertd__Schema *schema)
{
    size_t bytes = 0;
    for (size_t i = 0; schema && i < schema->n_tensors; i++)
        bytes += strlen(schema->tensors[i]->name) + 1;
    return bytes;
}

static const char *take_schema(struct expertd_schema *copy, const Expertd__Schema *schema, char **room)
{
    if (!schema || schema->n_tensors == 0 || schema->n_tensors > SCHEMA_MAX_TENSORS)
        return "a schema has no tensors, or too many";
    for (size_t i = 0; i < schema->n_tensors; i++) {
        const Expertd__Schema__Field *field = schema->tensors[i];
        struct expertd_field *to = &copy->fields[i];
        uint64_t bytes = dtype_size((uint32_t)field->dtype);
        if (bytes == 0 || field->n_row_shape > TENSOR_MAX_DIMS)
            return "a schema has a tensor without dtype, or with too many dimensions";
        for (size_t d = 0; d < field->n_row_shape; d++) {
            if (field->row_shape[d] == 0 || __builtin_mul_overflow(bytes, field->row_shape[d], &bytes) ||
                bytes > INT64_MAX)
                return "a schema has an impossible shape";
            to->row_shape[d] = field->row_shape[d];
        }
        to->name = store_text(room, field->name);
        to->dtype = (enum expertd_dtype)field->dtype;
        to->ndim = (uint32_t)field->n_row_shape;
    }
    copy->count = schema->n_tensors;
    return NULL;
}

static const char gradient_of[] = "grad_";

/* What a backward takes is a rule of the protocol: it needs no third copy from the wire. */
static void join_schemas(struct expertd_schema *joined, const struct expertd_schema *inputs,
                         const struct expertd_schema *outputs, char **room)
{
    _Static_assert(2 * SCHEMA_MAX_TENSORS <= EXPERTD_MAX_TENSORS, "both schemas fit into one");
    memcpy(joined->fields, inputs->fields, inputs->count * sizeof inputs->fields[0]);
    memcpy(joined->fields + inputs->count, outputs->fields, outputs->count * sizeof outputs->fields[0]);
    joined->count = inputs->count + outputs->count;
    for (size_t i = inputs->count; i < joined->count; i++) {
        const char *name = joined->fields[i].name;
        joined->fields[i].name = *room;
        *room = stpcpy(stpcpy(*room, gradient_of), name) + 1;
    }
}

static void take_settings(struct expertd_info *copy, const Expertd__ExpertInfo *info)
{
    copy->alive = info->alive;
    copy->max_batch_size = info->max_batch_size;
    copy->hidden_dim = info->hidden_dim;
    copy->learning_rate = info->learning_rate;
    copy->beta1 = info->beta1;
    copy->beta2 = info->beta2;
    copy->epsilon = info->epsilon;
    copy->momentum = info->momentum;
    copy->clip_norm = info->clip_norm;
    copy->warmup_steps = info->warmup_steps;
    copy->total_steps = info->total_steps;
    copy->grad_accumulation = info->grad_accumulation;
    copy->forward_only = info->forward_only;
    copy->update_count = info->update_count;
    copy->examples_processed = info->examples_processed;
    copy->skipped_steps = info->skipped_steps;
    copy->compression =
        (enum expertd_codec)((uint32_t)info->compression < CODEC_COUNT ? (uint32_t)info->compression : CODEC_NONE);
}

static size_t arguments_bytes(const Expertd__ExpertInfo *info)
{
    size_t bytes = info->n_arguments * sizeof(struct expertd_argument);
    for (size_t i = 0; i < info->n_arguments; i++)
        bytes += strlen(info->arguments[i]->name) + strlen(info->arguments[i]->text) + 2;
    return bytes;
}

static void take_arguments(struct expertd_argument *to, const Expertd__ExpertInfo *info, char **room)
{
    for (size_t i = 0; i < info->n_arguments; i++)
        to[i] = (struct expertd_argument){.name = store_text(room, info->arguments[i]->name),
                                          .value = info->arguments[i]->value,
                                          .text = store_text(room, info->arguments[i]->text)};
}

const char *method_answer_take_info(void **answer, const Expertd__ExpertInfo *info)
{
    if (!uid_valid(info->uid))
        return no_uid;
    struct expertd_info *copy = calloc(
        1, sizeof *copy + strlen(info->uid) + strlen(info->block) + strlen(info->device) + strlen(info->optimizer) +
               strlen(info->schedule) + 5 + schema_text(info->forward_schema) + 2 * schema_text(info->outputs_schema) +
               SCHEMA_MAX_TENSORS * sizeof gradient_of + arguments_bytes(info));
    if (!copy)
        return no_memory;
    struct expertd_argument *arguments = (struct expertd_argument *)(copy + 1);
    char *room = (char *)(arguments + info->n_arguments);
    copy->arguments = arguments;
    copy->arguments_count = info->n_arguments;
    take_arguments(arguments, info, &room);
    copy->uid = store(&room, info->uid);
    copy->block = store_text(&room, info->block);
    copy->device = store_text(&room, info->device);
    copy->optimizer = store_text(&room, info->optimizer);
    copy->schedule = store_text(&room, info->schedule);
    take_settings(copy, info);
    const char *problem = take_schema(&copy->forward_schema, info->forward_schema, &room);
    if (!problem)
        problem = take_schema(&copy->outputs_schema, info->outputs_schema, &room);
    if (problem) {
        free(copy);
        return problem;
    }
    join_schemas(&copy->backward_schema, &copy->forward_schema, &copy->outputs_schema, &room);
    *answer = copy;
    return NULL;
}
