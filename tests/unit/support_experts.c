#include "tests/unit/support_experts.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/uid.h"

/* ---- experts --------------------------------------------------------------------------------------------------- */

/* The index-th parameter of an expert, within -1 ... 1. */
static double parameter(const char *uid, size_t index)
{
    char text[160];
    const int length = snprintf(text, sizeof text, "%s#%zu", uid, index);
    uint64_t hash = uid_hash(text, (size_t)length);
    hash = (hash ^ hash >> 31) * UINT64_C(0x9e3779b97f4a7c15);
    return (double)(hash >> 11) / (double)(UINT64_C(1) << 52) - 1;
}

static double activation(const char *uid, size_t o, const float *x)
{
    double sum = parameter(uid, EXPERTS_IN * EXPERTS_OUT + o);
    for (size_t i = 0; i < EXPERTS_IN; i++)
        sum += parameter(uid, o * EXPERTS_IN + i) * x[i];
    return tanh(sum);
}

void experts_forward(const char *uid, const float *x, float *y)
{
    for (size_t o = 0; o < EXPERTS_OUT; o++)
        y[o] = (float)activation(uid, o, x);
}

static void experts_backward(const char *uid, const float *x, const float *grad_y, float *grad_x)
{
    double sums[EXPERTS_IN] = {0};
    for (size_t o = 0; o < EXPERTS_OUT; o++) {
        const double y = activation(uid, o, x);
        for (size_t i = 0; i < EXPERTS_IN; i++)
            sums[i] += grad_y[o] * (1 - y * y) * parameter(uid, o * EXPERTS_IN + i);
    }
    for (size_t i = 0; i < EXPERTS_IN; i++)
        grad_x[i] = (float)sums[i];
}

/* Frames lie anywhere in ZeroMQ's buffers. */
static float *aligned(zmq_msg_t *frame)
{
    float *copy = malloc(zmq_msg_size(frame));
    assert(copy);
    return memcpy(copy, zmq_msg_data(frame), zmq_msg_size(frame));
}

static void compute(struct experts *experts, struct router_request *request, const Expertd__RequestHeader *header)
{
    const bool backward = header->method == EXPERTD__METHOD__BACKWARD;
    const uint64_t rows = header->tensors[0]->shape[0];
    float *x = aligned(&request->frames[1]);
    float *g = backward ? aligned(&request->frames[2]) : NULL;
    const size_t width = backward ? EXPERTS_IN : EXPERTS_OUT + (experts->wrong_shape ? 1 : 0);
    float *out = calloc(rows * width, sizeof *out);
    assert(out && request->count == (backward ? 3 : 2));
    assert(zmq_msg_size(&request->frames[1]) == rows * EXPERTS_IN * sizeof *x);
    for (uint64_t r = 0; r < rows; r++) {
        if (backward)
            experts_backward(header->uid, x + r * EXPERTS_IN, g + r * EXPERTS_OUT, out + r * width);
        else
            experts_forward(header->uid, x + r * EXPERTS_IN, out + r * width);
        if (experts->nan)
            out[r * width] = NAN;
    }
    Expertd__ReplyHeader reply = EXPERTD__REPLY_HEADER__INIT;
    Expertd__Tensor tensor = EXPERTD__TENSOR__INIT, *tensors[] = {&tensor};
    uint64_t shape[] = {rows, width};
    tensor.dtype = EXPERTD__DTYPE__FLOAT32;
    tensor.n_shape = 2;
    tensor.shape = shape;
    const bool wanted = header->n_requires_grad == 0 || header->requires_grad[0];
    reply.n_tensors = wanted;
    reply.tensors = tensors;
    experts->backwards += backward;
    experts->forwards += !backward;
    if (!backward)
        experts->rows += (int)rows;
    router_reply(request, header, &reply, &(struct router_frame){out, rows * width * sizeof *out}, wanted);
    free(out);
    free(x);
    free(g);
}

static void serve(void *context, struct router_request *request)
{
    struct experts *experts = context;
    const Expertd__RequestHeader *header = router_header(request);
    if (header->method == EXPERTD__METHOD__BACKWARD) {
        experts->repeated_backwards += experts->last_backward_id == header->request_id;
        experts->last_backward_id = header->request_id;
    }
    if (experts->silent || strcmp(header->uid, experts->silent_uid) == 0)
        return;
    if (experts->failing == 0 && experts->then_failing > 0) {
        experts->status = (int)experts->then_status;
        experts->failing = (int)experts->then_failing;
        experts->then_failing = 0;
    }
    if (experts->status && experts->failing) {
        if (experts->failing > 0)
            experts->failing--;
        router_reply_status(request, header, (Expertd__Status)experts->status, "told to fail");
        return;
    }
    compute(experts, request, header);
}

void experts_start(struct experts *experts, const char *endpoint)
{
    experts->router = router_start(endpoint, serve, experts);
}

void experts_stop(struct experts *experts)
{
    router_stop(&experts->router);
}

/* ---- dht ------------------------------------------------------------------------------------------------------- */

void fake_dht_add(struct fake_dht *dht, const char *uid, const char *endpoint)
{
    pthread_mutex_lock(&dht->mutex);
    assert(dht->count < EXPERTS_MAX);
    snprintf(dht->known[dht->count].uid, sizeof dht->known[0].uid, "%s", uid);
    snprintf(dht->known[dht->count].endpoint, sizeof dht->known[0].endpoint, "%s", endpoint);
    dht->count++;
    pthread_mutex_unlock(&dht->mutex);
}

void fake_dht_remove(struct fake_dht *dht, const char *endpoint)
{
    pthread_mutex_lock(&dht->mutex);
    for (size_t i = dht->count; i-- > 0;)
        if (!endpoint || strcmp(dht->known[i].endpoint, endpoint) == 0)
            dht->known[i] = dht->known[--dht->count];
    pthread_mutex_unlock(&dht->mutex);
}

static Expertd__Dht__Resolved *resolve(struct fake_dht *dht, const char *uid)
{
    Expertd__Dht__Resolved *resolved = malloc(sizeof *resolved);
    expertd__dht__resolved__init(resolved);
    resolved->uid = strdup(uid);
    resolved->replicas = calloc(dht->count + 1, sizeof(Expertd__Dht__Replica *));
    for (size_t i = 0; i < dht->count; i++) {
        if (strcmp(dht->known[i].uid, uid) != 0)
            continue;
        Expertd__Dht__Replica *replica = malloc(sizeof *replica);
        expertd__dht__replica__init(replica);
        replica->endpoint = strdup(dht->known[i].endpoint);
        resolved->replicas[resolved->n_replicas++] = replica;
    }
    return resolved;
}

/* The score of a uid in a row; NaN if it is not in the grid. */
static double score(const Expertd__Dht__BeamQuery *query, const float *scores, const char *uid)
{
    size_t prefix;
    uint32_t coordinates[UID_MAX_DIMS];
    double sum = 0;
    const int dims = uid_split(uid, &prefix, coordinates), before = dims - (int)query->n_grid_size;
    size_t dots = 0;
    for (const char *at = query->prefix; *at; at++)
        dots += *at == '.';
    if (before < 0 || (int)dots != before + 1 || strncmp(uid, query->prefix, strlen(query->prefix)) != 0)
        return NAN;
    for (size_t d = 0; d < query->n_grid_size; d++) {
        const uint32_t coordinate = coordinates[(size_t)before + d];
        if (coordinate >= query->grid_size[d])
            return NAN;
        sum += scores[coordinate];
        scores += query->grid_size[d];
    }
    return sum;
}

/* The best live uid in a row that is not among those that the row has. */
static const char *best_uid(const struct fake_dht *dht, const Expertd__Dht__BeamQuery *query, const float *scores,
                            const Expertd__Dht__BeamResult *beam, const Expertd__Dht__BeamResult__Row *row)
{
    const char *best = NULL;
    for (size_t i = 0; i < dht->count; i++) {
        const char *uid = dht->known[i].uid;
        bool has = isnan(score(query, scores, uid));
        for (size_t k = 0; k < row->n_experts; k++)
            has |= strcmp(beam->experts[row->experts[k]]->uid, uid) == 0;
        if (!has && (!best || score(query, scores, uid) > score(query, scores, best)))
            best = uid;
    }
    return best;
}

static uint32_t expert_number(struct fake_dht *dht, Expertd__Dht__BeamResult *beam, const char *uid)
{
    for (size_t i = 0; i < beam->n_experts; i++)
        if (strcmp(beam->experts[i]->uid, uid) == 0)
            return (uint32_t)i;
    beam->experts[beam->n_experts++] = resolve(dht, uid);
    return (uint32_t)beam->n_experts - 1;
}

static Expertd__Dht__BeamResult *beam_search(struct fake_dht *dht, const Expertd__Dht__BeamQuery *query)
{
    Expertd__Dht__BeamResult *beam = malloc(sizeof *beam);
    size_t width = 0;
    for (size_t d = 0; d < query->n_grid_size; d++)
        width += query->grid_size[d];
    expertd__dht__beam_result__init(beam);
    beam->experts = calloc(dht->count + 1, sizeof(Expertd__Dht__Resolved *));
    beam->n_rows = query->n_scores / width;
    beam->rows = calloc(beam->n_rows, sizeof(Expertd__Dht__BeamResult__Row *));
    for (size_t r = 0; r < beam->n_rows; r++) {
        Expertd__Dht__BeamResult__Row *row = beam->rows[r] = malloc(sizeof *row);
        expertd__dht__beam_result__row__init(row);
        row->experts = calloc(query->beam_size, sizeof *row->experts);
        row->scores = calloc(query->beam_size, sizeof *row->scores);
        const float *scores = query->scores + r * width;
        const char *uid;
        while (row->n_experts < query->beam_size && (uid = best_uid(dht, query, scores, beam, row)) != NULL) {
            row->scores[row->n_scores++] = (float)score(query, scores, uid);
            row->experts[row->n_experts++] = expert_number(dht, beam, uid);
        }
    }
    return beam;
}

static void answer(void *context, struct router_request *request)
{
    struct fake_dht *dht = context;
    Expertd__Dht__Request *asked =
        expertd__dht__request__unpack(NULL, zmq_msg_size(&request->frames[0]), zmq_msg_data(&request->frames[0]));
    Expertd__Dht__Reply *reply = malloc(sizeof *reply);
    assert(asked && reply);
    expertd__dht__reply__init(reply);
    reply->version = 1;
    reply->request_id = asked->request_id;
    pthread_mutex_lock(&dht->mutex);
    if (asked->method == EXPERTD__DHT__METHOD__RESOLVE) {
        dht->resolves++;
        reply->resolved = calloc(asked->n_uids, sizeof(Expertd__Dht__Resolved *));
        for (size_t i = 0; i < asked->n_uids; i++)
            reply->resolved[reply->n_resolved++] = resolve(dht, asked->uids[i]);
    } else {
        dht->beams++;
        reply->beam = beam_search(dht, asked->beam);
    }
    pthread_mutex_unlock(&dht->mutex);
    const size_t size = expertd__dht__reply__get_packed_size(reply);
    unsigned char *buffer = malloc(size);
    expertd__dht__reply__pack(reply, buffer);
    if (!dht->silent)
        router_send(request, &(struct router_frame){buffer, size}, 1);
    free(buffer);
    expertd__dht__reply__free_unpacked(reply, NULL);
    expertd__dht__request__free_unpacked(asked, NULL);
}

void fake_dht_start(struct fake_dht *dht)
{
    pthread_mutex_init(&dht->mutex, NULL);
    dht->router = router_start(NULL, answer, dht);
}

void fake_dht_stop(struct fake_dht *dht)
{
    router_stop(&dht->router);
    pthread_mutex_destroy(&dht->mutex);
}
