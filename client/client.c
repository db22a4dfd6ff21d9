#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "client/away.h"
#include "client/backoff.h"
#include "client/call_doubt.h"
#include "client/call_reply.h"
#include "client/call_request.h"
#include "client/client.h"
#include "client/client_private.h"
#include "client/expertd.h"
#include "client/struct_size.h"
#include "common/clock.h"
#include "common/uid.h"
#include "proto/codec.h"

enum { DEADLINE_MS = 30000, QUEUE_LIMIT = 1000, HEARTBEAT_MS = 2000, CALLS_KEPT = 64, ROOM_ALIGN = 64 };
static const uint64_t frame_bytes_max = UINT64_C(1) << 31, local_bytes_default = UINT64_C(256) << 20;

/* ---- a call's way ---------------------------------------------------------------------------------------------- */

void client_move(struct expertd_call *call, enum call_state state)
{
    struct expertd_client *client = call->client;
    TAILQ_REMOVE(&client->calls[call->state], call, link);
    client->count[call->state]--;
    call->state = state;
    TAILQ_INSERT_TAIL(&client->calls[state], call, link);
    client->count[state]++;
}

void client_finish(struct expertd_call *call)
{
    struct expertd_client *client = call->client;
    call_table_remove(&client->table, call);
    if (!call_keeps_request(call))
        call_drop_request(call);
    away_forget(call);
    if (call->leg_of) {
        client->own_legs -= call->leg_of->client == client;
        client_move(call, CALL_LEG_ENDED);
        return;
    }
    call_doubt_at_end(call);
    client_move(call, CALL_DONE);
    client->ended++;
    call->ended_before = client->polls;
}

/* A call that was DONE is to be counted no more, if it was not yet. */
static void discount(struct expertd_call *call)
{
    if (call->ended_before == call->client->polls)
        call->client->ended--;
    call->ended_before = UINT64_MAX;
}

void client_keep(struct expertd_call *call)
{
    call_drop_request(call);
    call_drop_answer(call);
    client_move(call, CALL_FREE);
}

struct expertd_call *client_new_call(struct expertd_client *client, Expertd__Method method)
{
    struct expertd_call *call = TAILQ_FIRST(&client->calls[CALL_FREE]);
    if (!call) {
        call = malloc(sizeof *call);
        if (!call)
            return NULL;
        TAILQ_INSERT_TAIL(&client->calls[CALL_FREE], call, link);
        client->count[CALL_FREE]++;
        call->client = client;
        call->state = CALL_FREE;
    }
    call->bucket_next = NULL;
    call->user = NULL;
    call->leg_of = NULL;
    call->away = NULL;
    call->followed = false;
    call->named[0] = 0;
    call->uid_hash = 0;
    call->method = method;
    call->not_applied = true;
    call->unanswered = false;
    memset(call->in_doubt, 0, sizeof call->in_doubt);
    call->refusals = call->retry_after_ms = 0;
    call->status = EXPERTD_OK;
    call->n_request = call->n_outputs = call->n_gradients = call->n_parts = 0;
    call->metadata_bytes = 0;
    call->answer = NULL;
    call->message[0] = 0;
    return call;
}

/* Whether the request may have to be sent once more while the call is in flight, or after it. */
static bool may_resend(const struct expertd_call *call)
{
    switch (call->method) {
    case EXPERTD__METHOD__FORWARD:
    case EXPERTD__METHOD__INFO:
    case EXPERTD__METHOD__CHECKPOINT:
    case EXPERTD__METHOD__LOAD:
    case EXPERTD__METHOD__UNLOAD:
    case EXPERTD__METHOD__SET:
        return true; /* at another frontend of the server, if the expert is there */
    default:
        return call_keeps_request(call);
    }
}

/* -EAGAIN: it has to wait. Else the request is on its way, or lost with the connection. */
static int transmit(struct expertd_client *client, struct expertd_call *call)
{
    zmq_msg_t copies[1 + EXPERTD_MAX_TENSORS];
    zmq_msg_t *frames = call->request;
    const size_t count = call->n_request;
    if (may_resend(call)) {
        frames = copies;
        for (size_t i = 0; i < count; i++) {
            zmq_msg_init(&copies[i]);
            zmq_msg_copy(&copies[i], &call->request[i]); /* of a large one, a reference */
        }
    }
    const int rc = connection_send(&client->connection, frames, count, call->room_bytes);
    if (frames == copies) {
        for (size_t i = 0; i < count; i++)
            zmq_msg_close(&copies[i]);
    } else if (rc != -EAGAIN) {
        call_drop_request(call);
    }
    return rc;
}

static void fail_unsent(struct expertd_call *call, int rc)
{
    call_set_status(call, EXPERTD_UNAVAILABLE, "%s: the request could not be sent: %s", call->client->endpoint,
                    strerror(-rc));
    client_finish(call);
}

/* In the order in which they came, for as long as ZeroMQ takes them. */
static void send_waiting(struct expertd_client *client)
{
    struct expertd_call *call;
    while ((call = TAILQ_FIRST(&client->calls[CALL_UNSENT])) != NULL) {
        const int rc = transmit(client, call);
        if (rc == -EAGAIN)
            return;
        if (rc < 0) {
            fail_unsent(call, rc);
        } else {
            call->not_applied = call->method != EXPERTD__METHOD__BACKWARD;
            client_move(call, CALL_SENT);
        }
    }
}

/* After a refusal with a hint: the call goes on, unless its deadline comes first. */
static bool pause_call(struct expertd_client *client, struct expertd_call *call)
{
    if (call->status != EXPERTD_RESOURCE_EXHAUSTED || call->retry_after_ms == 0 || client->impatient ||
        call->n_request == 0)
        return false;
    const uint64_t resend_ns = clock_now_ns() + backoff_ns(call->retry_after_ms, call->refusals, &client->random);
    if (resend_ns >= call->deadline_ns)
        return false;
    call->refusals++;
    call->resend_ns = resend_ns;
    if (client->count[CALL_PAUSED] == 0 || resend_ns < client->resume_ns)
        client->resume_ns = resend_ns;
    client->counters.resent++;
    client_move(call, CALL_PAUSED);
    return true;
}

int client_set_time_left(struct expertd_call *call, uint64_t now_ns)
{
    const uint32_t deadline_ms = call->deadline_ms;
    const uint64_t left_ns = call->deadline_ns > now_ns ? call->deadline_ns - now_ns : 0;
    call->deadline_ms = (uint32_t)(left_ns / NS_PER_MS) + 1;
    const int rc = call_request_set_deadline(call);
    call->deadline_ms = deadline_ms;
    return rc;
}

/* Those whose pause is over wait to be sent, with what is left of their time. */
static void resume_paused(struct expertd_client *client)
{
    const uint64_t now_ns = client->count[CALL_PAUSED] > 0 ? clock_now_ns() : 0;
    if (client->count[CALL_PAUSED] == 0 || now_ns < client->resume_ns)
        return;
    client->resume_ns = UINT64_MAX;
    for (struct expertd_call *call = TAILQ_FIRST(&client->calls[CALL_PAUSED]), *next; call; call = next) {
        next = TAILQ_NEXT(call, link);
        if (call->resend_ns > now_ns) {
            if (call->resend_ns < client->resume_ns)
                client->resume_ns = call->resend_ns;
            continue;
        }
        if (client_set_time_left(call, now_ns) < 0) {
            client_finish(call); /* refused, as it was */
        } else {
            call->retry_after_ms = 0;
            call_drop_answer(call); /* what it says of parts is not what becomes of them now */
            client_move(call, CALL_UNSENT);
        }
    }
}

/* ---- shared memory ---------------------------------------------------------------------------------------------- */

/* Asks a server on this host, once on each connection, where its shared memory is; the answer is to no call. */
static void ask_for_local(struct expertd_client *client)
{
    unsigned char buffer[64];
    zmq_msg_t frame;
    if (client->asked_connects == client->connection.connects || !connection_wants_local(&client->connection))
        return;
    client->asked_connects = client->connection.connects;
    Expertd__RequestHeader header = EXPERTD__REQUEST_HEADER__INIT;
    header.version = MESSAGE_VERSION;
    header.method = EXPERTD__METHOD__PING;
    const long size = message_encode_request(&header, buffer, sizeof buffer);
    if (size < 0 || zmq_msg_init_size(&frame, (size_t)size) < 0)
        return;
    memcpy(zmq_msg_data(&frame), buffer, (size_t)size);
    (void)connection_send(&client->connection, &frame, 1, CONNECTION_NOT_LOCAL);
    zmq_msg_close(&frame);
}

static void take_offer(struct expertd_client *client, const Expertd__Pong *pong)
{
    if (pong->local && pong->local->instance.len == LOCAL_INSTANCE)
        connection_offer_local(&client->connection, pong->local->path, pong->local->instance.data);
}

/* What a reply's tensors take: each begins at a multiple of 64. Of a backward they are the inputs' gradients; of a
 * forward as many rows of what came the last time, or else as much as the inputs. */
static uint64_t expected_room(const struct expertd_client *client, const struct expertd_call *call,
                              const struct call_request *request)
{
    uint64_t bytes = ROOM_ALIGN;
    const uint64_t known = client->rooms[call->uid_hash % CLIENT_ROOMS].uid_hash == call->uid_hash
                               ? client->rooms[call->uid_hash % CLIENT_ROOMS].row_bytes
                               : 0;
    if (request->method == EXPERTD__METHOD__FORWARD && known)
        return bytes + (uint64_t)EXPERTD_MAX_TENSORS / 2 * ROOM_ALIGN + known * call->rows;
    for (size_t i = 0; i < request->count[0]; i++)
        if (!request->requires_grad || request->requires_grad[i])
            bytes += request->tensors[0][i].bytes + ROOM_ALIGN;
    return bytes;
}

static void remember_room(struct expertd_client *client, const struct expertd_call *call)
{
    uint64_t row_bytes = 0;
    if (call->method != EXPERTD__METHOD__FORWARD || call->status != EXPERTD_OK || call->rows == 0)
        return;
    for (size_t i = 0; i < call->n_outputs; i++)
        row_bytes += call->outputs[i].bytes / call->rows;
    client->rooms[call->uid_hash % CLIENT_ROOMS].uid_hash = call->uid_hash;
    client->rooms[call->uid_hash % CLIENT_ROOMS].row_bytes = row_bytes;
}

bool client_has_tensors(Expertd__Method method)
{
    return method == EXPERTD__METHOD__FORWARD || method == EXPERTD__METHOD__BACKWARD;
}

/* ---- taking in --------------------------------------------------------------------------------------------------- */

/* Frames' owner: this function. */
static void take_message(struct expertd_client *client, zmq_msg_t *frames, size_t count)
{
    const char *why;
    Expertd__ReplyHeader *header = call_reply_decode(&client->decoder, &frames[0], &why);
    struct expertd_call *call = header ? call_table_find(&client->table, header->request_id) : NULL;
    if (!header) {
        client->counters.malformed_replies++;
    } else if (header->request_id == 0 && header->pong && client->asked_connects) {
        take_offer(client, header->pong);
    } else if (!call || call->state != CALL_SENT) {
        client->counters.late_replies++;
    } else {
        client->counters.malformed_replies += !call_reply_take(call, header, frames + 1, count - 1, why);
        remember_room(client, call);
        if (!pause_call(client, call) && !away_follow(call, header->endpoint))
            client_finish(call);
        if (call->status == EXPERTD_OK && client_has_tensors(call->method))
            ask_for_local(client); /* after the first answer: whoever makes one call does not need it */
    }
}

/* Takes in the messages that are there; stops early when `wanted` (NULL: none) has ended. */
static void receive(struct expertd_client *client, const struct expertd_call *wanted)
{
    zmq_msg_t frames[1 + EXPERTD_MAX_TENSORS];
    const size_t limit = sizeof frames / sizeof frames[0];
    size_t count;
    while ((!wanted || call_in_flight(wanted)) &&
           (count = connection_receive(&client->connection, frames, limit)) > 0) {
        take_message(client, frames, count);
        for (size_t i = 0; i < count && i < limit; i++)
            zmq_msg_close(&frames[i]);
    }
}

/* Answers that came before a loss count; the other calls that were sent end. True if there was any news. */
static bool take_news(struct expertd_client *client)
{
    struct expertd_call *call;
    const enum connection_news news = connection_hear(&client->connection);
    if (news != CONNECTION_LOST)
        return news == CONNECTION_NEWS;
    receive(client, NULL);
    while ((call = TAILQ_FIRST(&client->calls[CALL_SENT])) != NULL) {
        call_set_status(call, EXPERTD_UNAVAILABLE, "%s: the connection was lost before the answer came%s",
                        client->endpoint, call->not_applied ? "" : "; the backward may have been applied");
        client_finish(call);
    }
    return true;
}

static void expire_call(struct expertd_call *call)
{
    const struct connection *connection = &call->client->connection;
    call->unanswered |= call->state == CALL_SENT;
    if (call->state == CALL_PAUSED)
        ; /* it ends with the refusal */
    else if (call->state == CALL_SENT)
        call_set_status(call, EXPERTD_DEADLINE_EXCEEDED, "%s: no answer within %u ms%s", call->client->endpoint,
                        call->deadline_ms, call->not_applied ? "" : "; the backward may have been applied");
    else if (connection->up)
        call_set_status(call, EXPERTD_DEADLINE_EXCEEDED, "%s: it takes no requests; this one waited for %u ms",
                        call->client->endpoint, call->deadline_ms);
    else
        call_set_status(call, EXPERTD_UNAVAILABLE, "%s: no connection within %u ms: %s", call->client->endpoint,
                        call->deadline_ms,
                        connection->handshake ? connection->handshake : "is a server running there?");
    client_finish(call);
}

static void expire(struct expertd_client *client)
{
    static const enum call_state in_flight[] = {CALL_UNSENT, CALL_SENT, CALL_PAUSED};
    uint64_t earliest_ns = UINT64_MAX;
    if (client->earliest_ns == UINT64_MAX || clock_now_ns() < client->earliest_ns)
        return;
    const uint64_t now_ns = clock_now_ns();
    for (size_t i = 0; i < sizeof in_flight / sizeof in_flight[0]; i++) {
        for (struct expertd_call *call = TAILQ_FIRST(&client->calls[in_flight[i]]), *next; call; call = next) {
            next = TAILQ_NEXT(call, link);
            if (call->deadline_ns <= now_ns)
                expire_call(call);
            else if (call->deadline_ns < earliest_ns)
                earliest_ns = call->deadline_ns;
        }
    }
    client->earliest_ns = earliest_ns;
}

static void progress_here(struct expertd_client *client, const struct expertd_call *wanted)
{
    receive(client, wanted);
    if (wanted && !call_in_flight(wanted))
        return;
    const bool news = take_news(client);
    resume_paused(client);
    if (news || client->count[CALL_UNSENT] > 0) {
        send_waiting(client);
        receive(client, wanted);
    }
    expire(client);
}

/* If `wanted` has not ended, the last thing that was done to each connection is an attempt to receive that found
 * nothing, as connection_wait() demands: here calls are given to siblings, and those are looked at behind it; what that
 * puts on its way, here or there, is sent, and then it begins anew. */
void client_progress(struct expertd_client *client, const struct expertd_call *wanted)
{
    do {
        progress_here(client, wanted);
        if (wanted && !call_in_flight(wanted))
            return;
    } while (client->siblings.count > 0 && away_take_back(client));
}

/* ---- making calls ---------------------------------------------------------------------------------------------- */

void client_queue(struct expertd_call *call)
{
    struct expertd_client *client = call->client;
    if (call->deadline_ns < client->earliest_ns)
        client->earliest_ns = call->deadline_ns;
    client_move(call, CALL_UNSENT);
    send_waiting(client);
}

int client_launch(struct expertd_call *call, uint64_t deadline_ns)
{
    struct expertd_client *client = call->client;
    call->deadline_ns = deadline_ns;
    if (away_begin(call))
        return 0;
    if (call_table_insert(&client->table, call) < 0) {
        call_set_status(call, EXPERTD_RESOURCE_EXHAUSTED, "no memory for the call");
        return -ENOMEM;
    }
    take_news(client); /* before the call could be counted among the lost ones */
    send_waiting(client);
    if (client->count[CALL_UNSENT] >= client->queue_limit) {
        call_set_status(call, EXPERTD_RESOURCE_EXHAUSTED, "%s: %u requests wait to be sent already", client->endpoint,
                        client->queue_limit);
        client_finish(call);
        return 0;
    }
    client_queue(call);
    return 0;
}

static int launch(struct expertd_call *call)
{
    return client_launch(call, clock_now_ns() + call->deadline_ms * NS_PER_MS);
}

static void doubt_repeats(struct expertd_call *call, const struct expertd_part *parts)
{
    for (size_t p = 0; p < call->n_parts; p++)
        if (parts[p].request_id)
            call_doubt_part(call, p);
}

int client_make_call(struct expertd_client *client, struct call_request *request, uint32_t deadline_ms,
                     struct expertd_call **result)
{
    struct expertd_call *call = client_new_call(client, request->method);
    *result = NULL;
    if (!call) {
        call_request_free_tensors(request);
        return -ENOMEM;
    }
    request->client_id = client->id;
    request->metadata = client->metadata;
    request->metadata_bytes = client->metadata_bytes;
    request->traceparent = client->traceparent;
    const bool tensors = client_has_tensors(request->method);
    const char *uid = request->many && request->parts && request->n_parts ? request->parts[0].uid : request->uid;
    call->uid_hash = tensors && uid ? uid_hash(uid, strlen(uid)) : 0;
    struct expertd_client *sibling =
        tensors && !request->many ? siblings_find(&client->siblings, call->uid_hash) : NULL;
    const struct expertd_client *at = sibling ? sibling : client;
    request->heap = tensors ? connection_heap(&at->connection) : NULL;
    request->codec = client->codec;
    request->reply_codec = client->reply_codec;
    call->request_id = client_next_id(client);
    call->deadline_ms = deadline_ms ? deadline_ms : client->deadline_ms;
    client->counters.calls++;
    call->room_bytes = CONNECTION_NOT_LOCAL;
    const bool made = call_request_make(call, request) == EXPERTD_OK;
    if (made && tensors)
        call->room_bytes = expected_room(at, call, request);
    if (made && request->method == EXPERTD__METHOD__BACKWARD && request->parts)
        doubt_repeats(call, request->parts);
    if (!made) {
        client_finish(call);
    } else if (launch(call) < 0) {
        client_keep(call);
        return -ENOMEM;
    }
    *result = call;
    return 0;
}

int expertd_call_retry(struct expertd_call *call, uint32_t deadline_ms)
{
    if (call_in_flight(call) || !call_keeps_request(call) || call->n_request == 0)
        return -EINVAL;
    call->deadline_ms = deadline_ms ? deadline_ms : call->client->deadline_ms;
    const int rc = call_request_set_deadline(call);
    if (rc < 0)
        return rc;
    call_doubt_before(call);
    call_drop_answer(call);
    call->refusals = call->retry_after_ms = 0;
    call->followed = false;
    if (call->state == CALL_DONE)
        discount(call);
    call->client->counters.calls++;
    return launch(call);
}

/* ---- waiting --------------------------------------------------------------------------------------------------- */

static size_t in_flight(const struct expertd_client *client)
{
    return client->count[CALL_UNSENT] + client->count[CALL_SENT] + client->count[CALL_AWAY] +
           client->count[CALL_PAUSED];
}

/* Milliseconds from now to a time, rounded up so that the time has come when they are over. */
static int until_ms(uint64_t time_ns)
{
    const uint64_t now_ns = clock_now_ns();
    const uint64_t ms = time_ns <= now_ns ? 0 : (time_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS;
    return ms > INT32_MAX ? INT32_MAX : (int)ms;
}

/* The next deadline, or look at the connection from which an answer has to come. */
static uint64_t next_ns(const struct expertd_client *client)
{
    const uint64_t look_ns = client->count[CALL_SENT] > 0 ? connection_look_ns(&client->connection) : UINT64_MAX;
    const uint64_t resume_ns = client->count[CALL_PAUSED] > 0 ? client->resume_ns : UINT64_MAX;
    uint64_t due_ns = look_ns < resume_ns ? look_ns : resume_ns;
    for (size_t i = 0; i < client->siblings.count; i++) {
        const struct expertd_client *sibling = client->siblings.clients[i];
        if (in_flight(sibling) == 0)
            continue;
        const uint64_t sibling_ns = next_ns(sibling),
                       patient_until_ns = sibling->patient_until_ns; /* which is minded here */
        due_ns = sibling_ns < due_ns ? sibling_ns : due_ns;
        due_ns = patient_until_ns < due_ns ? patient_until_ns : due_ns;
    }
    return due_ns < client->earliest_ns ? due_ns : client->earliest_ns;
}

int expertd_client_timeout_ms(const struct expertd_client *client)
{
    size_t count = in_flight(client);
    for (size_t i = 0; i < client->siblings.count && count == 0; i++)
        count = in_flight(client->siblings.clients[i]);
    return count > 0 ? until_ms(next_ns(client)) : -1;
}

/* Until `wanted` (NULL: any call) has ended or the time has come. -EINTR for a signal. */
static int await(struct expertd_client *client, const struct expertd_call *wanted, int timeout_ms)
{
    uint64_t end_ns = UINT64_MAX, spin_until_ns = 0;
    for (;;) {
        client_progress(client, wanted);
        if (wanted ? !call_in_flight(wanted) : client->ended > 0 || in_flight(client) == 0)
            return 0;
        if (timeout_ms == 0)
            return 0;
        if (timeout_ms > 0 && end_ns == UINT64_MAX)
            end_ns = clock_now_ns() + (uint64_t)timeout_ms * NS_PER_MS;
        const uint64_t due_ns = next_ns(client);
        const uint64_t wake_ns = end_ns < due_ns ? end_ns : due_ns;
        const uint64_t now_ns = client->spin_ns ? clock_now_ns() : 0;
        if (client->spin_ns && spin_until_ns == 0)
            spin_until_ns = now_ns + client->spin_ns;
        if (now_ns < spin_until_ns && now_ns < wake_ns) {
            sched_yield(); /* whoever is to answer may have this core alone */
            continue;
        }
        const int sleep_ms = until_ms(wake_ns);
        if (sleep_ms == 0 && wake_ns == end_ns)
            return 0;
        const int rc = connection_wait(&client->connection, sleep_ms);
        if (rc < 0)
            return rc;
    }
}

int expertd_poll(struct expertd_client *client, int timeout_ms)
{
    const int rc = await(client, NULL, timeout_ms);
    if (rc < 0)
        return rc;
    const int ended = client->ended;
    client->ended = 0;
    client->polls++;
    return ended;
}

static void report(struct expertd_call *call)
{
    discount(call);
    client_move(call, CALL_REPORTED);
}

int expertd_call_wait(struct expertd_call *call, int timeout_ms)
{
    const int rc = call_in_flight(call) ? await(call->client, call, timeout_ms) : 0;
    if (call_in_flight(call))
        return rc < 0 ? rc : -ETIMEDOUT;
    if (call->state == CALL_DONE)
        report(call);
    return 0;
}

struct expertd_call *expertd_next_done(struct expertd_client *client)
{
    struct expertd_call *call = TAILQ_FIRST(&client->calls[CALL_DONE]);
    if (call)
        report(call);
    return call;
}

void expertd_call_release(struct expertd_call **pointer)
{
    struct expertd_call *call = *pointer;
    *pointer = NULL;
    if (!call)
        return;
    struct expertd_client *client = call->client;
    if (call_in_flight(call)) {
        call_table_remove(&client->table, call);
        client->own_legs -= call->leg_of && call->leg_of->client == client;
    }
    away_drop(call);
    if (call->state == CALL_DONE)
        report(call);
    client_keep(call);
    if (client->count[CALL_FREE] > CALLS_KEPT) {
        TAILQ_REMOVE(&client->calls[CALL_FREE], call, link);
        client->count[CALL_FREE]--;
        free(call);
    }
}

/* ---- the client itself ----------------------------------------------------------------------------------------- */

static int set_up(struct expertd_client *client, const char *endpoint, const struct expertd_client_options *options)
{
    struct keys keys;
    client->max_frame_bytes = options->max_frame_bytes ? options->max_frame_bytes : frame_bytes_max;
    const struct connection_options connection = {
        .keys = &keys,
        .context = options->zmq_context,
        .max_frame_bytes = client->max_frame_bytes,
        .heartbeat_ms = options->heartbeat_ms ? options->heartbeat_ms : HEARTBEAT_MS,
        .local_bytes = options->local_off      ? 0
                       : options->local_memory ? options->local_memory
                                               : local_bytes_default,
    };
    client->connection.fd = -1;
    client->spin_ns = options->spin_us * UINT64_C(1000);
    client->deadline_ms = options->deadline_ms ? options->deadline_ms : DEADLINE_MS;
    client->queue_limit = options->queue_limit ? options->queue_limit : QUEUE_LIMIT;
    client->codec = (uint32_t)options->codec;
    client->reply_codec = (uint32_t)options->reply_codec;
    if (client->codec >= CODEC_COUNT || client->reply_codec >= CODEC_COUNT)
        return -EINVAL;
    client->impatient = options->impatient;
    client->earliest_ns = client->patient_until_ns = UINT64_MAX;
    for (size_t i = 0; i < CALL_STATES; i++)
        TAILQ_INIT(&client->calls[i]);
    client->endpoint = strdup(endpoint);
    if (!client->endpoint)
        return -ENOMEM;
    if (getrandom(client->id, sizeof client->id, 0) != (ssize_t)sizeof client->id)
        return -errno;
    memcpy(&client->random, client->id, sizeof client->random);
    int rc = siblings_init(&client->siblings, options);
    if (rc < 0)
        return rc;
    rc = keys_take(&keys, options->server_key, options->key_file);
    if (rc == 0)
        rc = connection_open(&client->connection, endpoint, &connection);
    explicit_bzero(&keys, sizeof keys);
    return rc;
}

int expertd_client_new(struct expertd_client **result, const char *endpoint,
                       const struct expertd_client_options *options)
{
    struct expertd_client_options own = {.size = sizeof own};
    *result = NULL;
    int rc = options ? struct_size_take(&own, sizeof own, options) : 0;
    if (rc < 0)
        return rc;
    struct expertd_client *client = calloc(1, sizeof *client);
    if (!client)
        return -ENOMEM;
    rc = set_up(client, endpoint, &own);
    if (rc < 0)
        expertd_client_destroy(&client);
    *result = client;
    return rc;
}

void expertd_client_destroy(struct expertd_client **pointer)
{
    struct expertd_client *client = *pointer;
    *pointer = NULL;
    if (!client)
        return;
    siblings_clear(&client->siblings); /* their calls are twins of these, and their sockets in this one's context */
    for (size_t i = 0; i < CALL_STATES; i++) {
        struct expertd_call *call;
        while ((call = TAILQ_FIRST(&client->calls[i])) != NULL) {
            TAILQ_REMOVE(&client->calls[i], call, link);
            if (i != CALL_FREE) {
                call_drop_request(call);
                call_drop_answer(call);
                away_forget(call);
            }
            free(call);
        }
    }
    connection_close(&client->connection);
    call_table_clear(&client->table);
    decoder_clear(&client->decoder);
    free(client->endpoint);
    free(client);
}

const char *expertd_client_endpoint(const struct expertd_client *client)
{
    return client->endpoint;
}

int expertd_client_set_metadata(struct expertd_client *client, const void *data, size_t bytes)
{
    if (bytes > sizeof client->metadata || (bytes > 0 && !data))
        return -EINVAL;
    client->metadata_bytes = bytes;
    if (bytes > 0)
        memcpy(client->metadata, data, bytes);
    return 0;
}

int expertd_client_set_traceparent(struct expertd_client *client, const char *traceparent)
{
    const char *text = traceparent ? traceparent : "";
    if (text[0] && strlen(text) != sizeof client->traceparent - 1)
        return -EINVAL;
    memcpy(client->traceparent, text, strlen(text) + 1);
    return 0;
}

bool expertd_client_local(const struct expertd_client *client)
{
    return connection_heap(&client->connection) != NULL;
}

int expertd_memory_new(struct expertd_client *client, size_t bytes, void **data, void **hint)
{
    struct local_heap *heap = connection_heap(&client->connection);
    struct local_block *block = heap ? local_heap_take(heap, bytes) : NULL;
    *hint = block;
    *data = block ? local_block_data(block) : malloc(bytes ? bytes : 1);
    return *data ? 0 : -ENOMEM;
}

void expertd_memory_free(void *data, void *hint)
{
    if (hint)
        local_block_release(hint);
    else
        free(data);
}

bool expertd_client_connected(const struct expertd_client *client)
{
    return client->connection.up;
}

bool client_call_connected(const struct expertd_call *call)
{
    return call->away ? away_connected(call) : call->client->connection.up;
}

int expertd_client_fd(const struct expertd_client *client)
{
    return client->connection.fd;
}

void expertd_client_read_counters(const struct expertd_client *client, struct expertd_client_counters *counters)
{
    struct expertd_client_counters own = client->counters;
    own.in_flight = in_flight(client) - client->own_legs;
    own.connects = client->connection.connects;
    own.disconnects = client->connection.disconnects;
    for (size_t i = 0; i < client->siblings.count; i++) {
        const struct expertd_client *sibling = client->siblings.clients[i];
        const struct expertd_client_counters *theirs = &sibling->counters;
        own.connects += sibling->is_bulk ? sibling->connection.connects : 0;
        own.disconnects += sibling->is_bulk ? sibling->connection.disconnects : 0;
        own.late_replies += theirs->late_replies;
        own.malformed_replies += theirs->malformed_replies;
        own.resent += theirs->resent;
    }
    struct_size_give(counters, &own, sizeof own);
}
