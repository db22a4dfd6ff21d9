#include "client/dht_client.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/connection.h"
#include "client/decoder.h"
#include "common/clock.h"
#include "common/uid.h"
#include "proto/wire.h"

enum { VERSION = 1, HEARTBEAT_MS = 2000, ENDPOINT_MAX = 255 };
static const uint64_t frame_bytes_max = UINT64_C(64) << 20, message_bytes_max = UINT64_C(80) << 20;
static const size_t decoder_max = (size_t)1 << 30;

TAILQ_HEAD(question_list, dht_question);

/* A question that dht_client_ask() waits for. */
struct asking {
    struct dht_question question; /* first: what ended() gets is this */
    enum expertd_status status;
    const Expertd__Dht__Reply *reply; /* lives on: nothing is received any more */
    char *message;
    bool done;
};

struct dht_client {
    struct connection connection;
    char *endpoint;
    struct decoder decoder;
    uint64_t last_request_id;
    struct question_list questions; /* on their way */
    struct asking asking;
};

int dht_client_new(struct dht_client **result, const char *endpoint, void *context, const struct keys *keys)
{
    const struct connection_options options = {.context = context,
                                               .keys = keys,
                                               .max_frame_bytes = frame_bytes_max,
                                               .max_message_bytes = message_bytes_max,
                                               .heartbeat_ms = HEARTBEAT_MS};
    struct dht_client *client = calloc(1, sizeof *client);
    *result = NULL;
    if (!client)
        return -ENOMEM;
    client->connection.fd = -1;
    TAILQ_INIT(&client->questions);
    client->endpoint = strdup(endpoint);
    const int rc = client->endpoint ? connection_open(&client->connection, endpoint, &options) : -ENOMEM;
    if (rc < 0)
        dht_client_destroy(&client);
    *result = client;
    return rc;
}

void dht_client_destroy(struct dht_client **pointer)
{
    struct dht_client *client = *pointer;
    *pointer = NULL;
    if (!client)
        return;
    connection_close(&client->connection);
    decoder_clear(&client->decoder);
    free(client->endpoint);
    free(client);
}

/* ---- checks ---------------------------------------------------------------------------------------------------- */

static bool endpoints_good(const Expertd__Dht__Resolved *resolved)
{
    for (size_t i = 0; i < resolved->n_replicas; i++) {
        const char *endpoint = resolved->replicas[i]->endpoint;
        const size_t length = strlen(endpoint);
        if (length == 0 || length > ENDPOINT_MAX)
            return false;
        for (size_t c = 0; c < length; c++)
            if (endpoint[c] <= ' ' || endpoint[c] > '~')
                return false;
    }
    return true;
}

static const char *check_resolved(const Expertd__Dht__Request *request, const Expertd__Dht__Reply *reply)
{
    if (reply->n_resolved != request->n_uids)
        return "it has not one entry for each uid";
    for (size_t i = 0; i < reply->n_resolved; i++) {
        if (strcmp(reply->resolved[i]->uid, request->uids[i]) != 0)
            return "its entries are not in the order of the uids";
        if (!endpoints_good(reply->resolved[i]))
            return "an endpoint is none";
    }
    return NULL;
}

static const char *check_ranges(Expertd__Dht__Range *const *ranges, size_t count)
{
    uint64_t from = 0;
    for (size_t i = 0; i < count; i++) {
        if (ranges[i]->count == 0 || ranges[i]->first < from || ranges[i]->count > (UINT64_C(1) << 32) ||
            ranges[i]->first + ranges[i]->count > (UINT64_C(1) << 32))
            return "its ranges of coordinates are none";
        from = ranges[i]->first + ranges[i]->count;
    }
    return NULL;
}

static const char *check_prefixes(const Expertd__Dht__Request *request, const Expertd__Dht__Reply *reply)
{
    const char *problem = reply->n_prefixes == request->n_prefixes ? NULL : "it has not one entry for each prefix";
    for (size_t i = 0; i < reply->n_prefixes && !problem; i++) {
        const Expertd__Dht__PrefixContent *content = reply->prefixes[i];
        if (strcmp(content->prefix, request->prefixes[i]) != 0)
            return "its entries are not in the order of the prefixes";
        problem = check_ranges(content->experts, content->n_experts);
        if (!problem)
            problem = check_ranges(content->branches, content->n_branches);
    }
    return problem;
}

static const char *check_beam(const Expertd__Dht__BeamQuery *query, const Expertd__Dht__BeamResult *beam)
{
    uint64_t scores = 0;
    if (!beam)
        return "it has no beam";
    for (size_t i = 0; i < query->n_grid_size; i++)
        scores += query->grid_size[i];
    if (scores == 0 || beam->n_rows != query->n_scores / scores)
        return "it has not one row for each row of scores";
    for (size_t i = 0; i < beam->n_experts; i++)
        if (!uid_valid(beam->experts[i]->uid) || !endpoints_good(beam->experts[i]))
            return "an expert's uid or endpoint is none";
    for (size_t i = 0; i < beam->n_rows; i++) {
        const Expertd__Dht__BeamResult__Row *row = beam->rows[i];
        if (row->n_experts > query->beam_size || row->n_scores != row->n_experts)
            return "a row has more experts than were asked for, or not as many scores";
        for (size_t k = 0; k < row->n_experts; k++)
            if (row->experts[k] >= beam->n_experts || isnan(row->scores[k]))
                return "a row names an expert that is none";
    }
    return NULL;
}

static const char *check_draw(const Expertd__Dht__DrawQuery *query, const Expertd__Dht__DrawResult *draw)
{
    if (!draw)
        return "it has no draw";
    if (draw->n_uids > query->count)
        return "it has more uids than were asked for";
    for (size_t i = 0; i < draw->n_uids; i++)
        if (!uid_valid(draw->uids[i]))
            return "a uid is none";
    return NULL;
}

const char *dht_client_check(const Expertd__Dht__Request *request, const Expertd__Dht__Reply *reply)
{
    if (reply->version != VERSION)
        return "it is of another version of the protocol";
    if (reply->status != EXPERTD_OK && reply->status != EXPERTD_DEADLINE_EXCEEDED)
        return NULL;
    switch (request->method) {
    case EXPERTD__DHT__METHOD__RESOLVE:
        return check_resolved(request, reply);
    case EXPERTD__DHT__METHOD__PREFIX:
        return check_prefixes(request, reply);
    case EXPERTD__DHT__METHOD__BEAM_SEARCH:
        return check_beam(request->beam, reply->beam);
    case EXPERTD__DHT__METHOD__DRAW:
        return check_draw(request->draw, reply->draw);
    case EXPERTD__DHT__METHOD__STATUS:
        return reply->node ? NULL : "it has no node";
    default:
        return NULL;
    }
}

/* ---- asking ---------------------------------------------------------------------------------------------------- */

static Expertd__Dht__Reply *decode(struct dht_client *client, zmq_msg_t *frame)
{
    if (!decoder_ready(&client->decoder))
        return NULL;
    do {
        struct message_arena *arena = &client->decoder.arena;
        arena->used = 0;
        arena->exhausted = false;
        Expertd__Dht__Reply *reply =
            wire_unpack(&expertd__dht__reply__descriptor, &arena->allocator, zmq_msg_size(frame), zmq_msg_data(frame));
        if (reply || !arena->exhausted)
            return reply;
    } while (decoder_grow(&client->decoder, decoder_max));
    return NULL;
}

/* False when there is no connection to send over, yet. */
static bool transmit(struct dht_client *client, const Expertd__Dht__Request *request)
{
    zmq_msg_t frame;
    if (zmq_msg_init_size(&frame, expertd__dht__request__get_packed_size(request)) < 0)
        return false;
    expertd__dht__request__pack(request, zmq_msg_data(&frame));
    const bool sent = connection_send(&client->connection, &frame, 1, CONNECTION_NOT_LOCAL) == 0;
    zmq_msg_close(&frame);
    return sent;
}

static void send_waiting(struct dht_client *client)
{
    struct dht_question *question;
    for (question = TAILQ_FIRST(&client->questions); question; question = TAILQ_NEXT(question, link))
        if (!question->sent && !question->cheated)
            question->sent = transmit(client, question->request);
}

void dht_client_start(struct dht_client *client, struct dht_question *question, Expertd__Dht__Request *request,
                      uint32_t timeout_ms, dht_question_ended *ended)
{
    request->version = VERSION;
    request->request_id = ++client->last_request_id;
    request->deadline_ms = timeout_ms;
    question->request = request;
    question->ended = ended;
    question->timeout_ms = timeout_ms;
    question->end_ns = clock_now_ns() + timeout_ms * NS_PER_MS;
    question->sent = question->cheated = false;
    TAILQ_INSERT_TAIL(&client->questions, question, link);
}

void dht_client_drop(struct dht_client *client, struct dht_question *question)
{
    TAILQ_REMOVE(&client->questions, question, link);
}

/* ---- ending ---------------------------------------------------------------------------------------------------- */

static void end(struct dht_client *client, struct dht_question *question, enum expertd_status status,
                const Expertd__Dht__Reply *reply, const char *message)
{
    TAILQ_REMOVE(&client->questions, question, link);
    question->ended(question, status, reply, message);
}

static void end_unanswered(struct dht_client *client, struct dht_question *question)
{
    char message[DHT_CLIENT_MESSAGE];
    const char *trouble = client->connection.trouble;
    if (question->cheated)
        snprintf(message, sizeof message, "%s: " CONNECTION_ENDLESS, client->endpoint);
    else if (question->sent)
        snprintf(message, sizeof message, "%s: no answer within %u ms", client->endpoint, question->timeout_ms);
    else
        snprintf(message, sizeof message, "%s: no connection within %u ms: %s", client->endpoint, question->timeout_ms,
                 trouble ? trouble : "is expertd-dht running there?");
    end(client, question, question->sent ? EXPERTD_DEADLINE_EXCEEDED : EXPERTD_UNAVAILABLE, NULL, message);
}

static void end_answered(struct dht_client *client, struct dht_question *question, const Expertd__Dht__Reply *reply)
{
    char message[DHT_CLIENT_MESSAGE] = "";
    const char *problem = dht_client_check(question->request, reply);
    enum expertd_status status = (enum expertd_status)reply->status;
    const bool has_content = !problem && (status == EXPERTD_OK || status == EXPERTD_DEADLINE_EXCEEDED);
    if (status == EXPERTD_OK && problem) {
        status = EXPERTD_INTERNAL;
        snprintf(message, sizeof message, "%s: the reply is malformed: %s", client->endpoint, problem);
    } else if (status != EXPERTD_OK) {
        snprintf(message, sizeof message, "%s", reply->message[0] ? reply->message : "no reason given");
        message_clean(message);
        if (strcmp(expertd_status_name(status), "UNKNOWN") == 0)
            status = EXPERTD_INTERNAL;
    }
    end(client, question, status, has_content ? reply : NULL, message);
}

static struct dht_question *find(const struct dht_client *client, uint64_t request_id)
{
    struct dht_question *question;
    for (question = TAILQ_FIRST(&client->questions); question; question = TAILQ_NEXT(question, link))
        if (question->request->request_id == request_id)
            return question;
    return NULL; /* it was given up */
}

/* True: one has ended, and there may be more to receive. */
static bool take_reply(struct dht_client *client)
{
    zmq_msg_t frame;
    while (connection_receive(&client->connection, &frame, 1) > 0) {
        const Expertd__Dht__Reply *reply = decode(client, &frame);
        zmq_msg_close(&frame);
        struct dht_question *question = reply ? find(client, reply->request_id) : NULL;
        if (question) {
            end_answered(client, question, reply);
            return true;
        }
    }
    return false;
}

static bool take_time(struct dht_client *client)
{
    const uint64_t now_ns = clock_now_ns();
    struct dht_question *question;
    for (question = TAILQ_FIRST(&client->questions); question; question = TAILQ_NEXT(question, link)) {
        if (question->cheated || question->end_ns <= now_ns) {
            end_unanswered(client, question);
            return true;
        }
    }
    return false;
}

static void take_loss(struct dht_client *client)
{
    struct dht_question *question;
    for (question = TAILQ_FIRST(&client->questions); question; question = TAILQ_NEXT(question, link)) {
        question->cheated |= question->sent && client->connection.endless;
        question->sent = false;
    }
}

/* The answer is to no question. */
static void ask_for_word(struct dht_client *client)
{
    Expertd__Dht__Request request = EXPERTD__DHT__REQUEST__INIT;
    request.version = VERSION;
    request.method = EXPERTD__DHT__METHOD__STATUS;
    (void)transmit(client, &request);
}

/* At most one question ends, so that what its end does finds the others in order. */
bool dht_client_progress(struct dht_client *client)
{
    if (connection_hear(&client->connection) == CONNECTION_LOST)
        take_loss(client);
    if (connection_in_doubt(&client->connection))
        ask_for_word(client);
    send_waiting(client);
    return take_reply(client) || take_time(client);
}

bool dht_client_idle(const struct dht_client *client)
{
    return TAILQ_EMPTY(&client->questions);
}

int dht_client_fd(const struct dht_client *client)
{
    return client->connection.fd;
}

uint64_t dht_client_next_ns(const struct dht_client *client)
{
    const struct dht_question *question;
    uint64_t next_ns = dht_client_idle(client) ? UINT64_MAX : connection_look_ns(&client->connection);
    for (question = TAILQ_FIRST(&client->questions); question; question = TAILQ_NEXT(question, link))
        next_ns = question->end_ns < next_ns ? question->end_ns : next_ns;
    return next_ns;
}

/* ---- one question, waited for ---------------------------------------------------------------------------------- */

static void keep(struct dht_question *question, enum expertd_status status, const Expertd__Dht__Reply *reply,
                 const char *message)
{
    struct asking *asking = (struct asking *)question;
    asking->status = status;
    asking->reply = reply;
    asking->done = true;
    snprintf(asking->message, DHT_CLIENT_MESSAGE, "%s", message);
}

enum expertd_status dht_client_ask(struct dht_client *client, Expertd__Dht__Request *request, uint32_t timeout_ms,
                                   const Expertd__Dht__Reply **reply, char message[DHT_CLIENT_MESSAGE])
{
    struct asking *asking = &client->asking;
    *asking = (struct asking){.message = message};
    dht_client_start(client, &asking->question, request, timeout_ms, keep);
    while (!asking->done) {
        if (dht_client_progress(client))
            continue;
        const uint64_t now_ns = clock_now_ns();
        const uint64_t next_ns = dht_client_next_ns(client);
        const uint64_t ms = next_ns <= now_ns ? 0 : (next_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS;
        connection_wait(&client->connection, ms > INT32_MAX ? INT32_MAX : (int)ms);
    }
    *reply = asking->reply;
    return asking->status;
}
