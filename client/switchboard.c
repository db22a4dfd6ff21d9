#include "client/switchboard.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/backlog.h"
#include "client/call_doubt.h"
#include "client/call_parts.h"
#include "client/call_reply.h"
#include "client/call_request.h"
#include "common/clock.h"

enum { CALLS_KEPT = 64, ROOM_ALIGN = 64 };

/* ---- a call's way ---------------------------------------------------------------------------------------------- */

void switchboard_move(struct expertd_call *call, enum call_state state)
{
    struct expertd_client *client = call->client;
    backlog_note(call, state);
    TAILQ_REMOVE(&client->calls[call->state], call, link);
    client->count[call->state]--;
    call->state = state;
    TAILQ_INSERT_TAIL(&client->calls[state], call, link);
    client->count[state]++;
}

void switchboard_finish(struct expertd_call *call)
{
    struct expertd_client *client = call->client;
    key_table_remove(&client->table, &call->by_id);
    if (!call_keeps_request(call))
        call_drop_request(call);
    if (call->leg_of) {
        client->own_legs -= call->leg_of->client == client;
        switchboard_move(call, CALL_LEG_ENDED);
        backlog_settle(call);
        return;
    }
    call_doubt_at_end(call);
    switchboard_move(call, CALL_DONE);
    backlog_settle(call);
    client->ended++;
    call->ended_before = client->polls;
}

void switchboard_keep(struct expertd_call *call)
{
    call_drop_request(call);
    call_drop_answer(call);
    switchboard_move(call, CALL_FREE);
    backlog_leave(call);
}

struct expertd_call *switchboard_new_call(struct expertd_client *client, Expertd__Method method)
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
        call->backlog = NULL;
    }
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
    call->retry_after_ms = 0;
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

/* It ends with the status that it has, and without an answer. */
static void end_unanswered(struct expertd_call *call)
{
    const bool flew = call_state_flies(call->state);
    switchboard_finish(call);
    if (flew)
        backlog_stir(call);
}

static void fail_unsent(struct expertd_call *call, int rc)
{
    call_set_status(call, EXPERTD_UNAVAILABLE, "%s: the request could not be sent: %s", call->client->endpoint,
                    strerror(-rc));
    end_unanswered(call);
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
            switchboard_move(call, CALL_SENT);
        }
    }
}

/* The call, which has a status for the case that its deadline comes first, waits. */
static void pause_call(struct expertd_call *call)
{
    struct expertd_client *client = call->client;
    struct backlog *backlog = call->backlog;
    if (client->count[CALL_PAUSED] == 0 || backlog->comeback.due_ns < client->resume_ns)
        client->resume_ns = backlog->comeback.due_ns;
    switchboard_move(call, CALL_PAUSED);
    backlog_join(backlog, call);
}

/* After a refusal with a hint: the call goes on, unless its deadline comes first. */
static bool goes_on(struct expertd_client *client, struct expertd_call *call)
{
    if (call->status != EXPERTD_RESOURCE_EXHAUSTED || call->retry_after_ms == 0 || client->impatient ||
        call->n_request == 0)
        return false;
    struct backlog *backlog = backlog_of(call);
    if (!backlog)
        return false;
    const size_t others = backlog->flying - 1;
    comeback_refused(&backlog->comeback, call->retry_after_ms, others, clock_now_ns(), &client->random);
    if (others == 0 && backlog->comeback.due_ns >= call->deadline_ns)
        return false;
    client->counters.resent++;
    pause_call(call);
    return true;
}

/* A new call where others wait stands behind them. */
static bool stands_behind(struct expertd_call *call)
{
    const struct backlog *backlog = backlog_enter(call);
    if (!backlog || backlog->comeback.waiting == 0 ||
        (backlog->flying == 0 && backlog->comeback.due_ns >= call->deadline_ns))
        return false;
    call->retry_after_ms = backlog->comeback.hint_ms;
    call_set_status(call, EXPERTD_RESOURCE_EXHAUSTED, "%s: it waits behind calls of the expert that were refused",
                    call->client->endpoint);
    pause_call(call);
    return true;
}

int switchboard_set_time_left(struct expertd_call *call, uint64_t now_ns)
{
    const uint32_t deadline_ms = call->deadline_ms;
    const uint64_t left_ns = call->deadline_ns > now_ns ? call->deadline_ns - now_ns : 0;
    call->deadline_ms = (uint32_t)(left_ns / NS_PER_MS) + 1;
    const int rc = call_request_set_deadline(call);
    call->deadline_ms = deadline_ms;
    return rc;
}

/* The first one that waits there is to be sent, with what is left of its time. */
static void send_first(struct backlog *backlog, uint64_t now_ns)
{
    struct expertd_call *call = TAILQ_FIRST(&backlog->calls);
    if (switchboard_set_time_left(call, now_ns) < 0) {
        switchboard_finish(call); /* refused, as it was */
    } else {
        call->retry_after_ms = 0;
        call_drop_answer(call); /* what it says of parts is not what becomes of them now */
        switchboard_move(call, CALL_UNSENT);
    }
}

/* Where a pause is over some are tried. */
static void resume_paused(struct expertd_client *client)
{
    const uint64_t now_ns = client->count[CALL_PAUSED] > 0 ? clock_now_ns() : 0;
    if (client->count[CALL_PAUSED] == 0 || now_ns < client->resume_ns)
        return;
    client->resume_ns = UINT64_MAX;
    for (struct backlog *backlog = TAILQ_FIRST(&client->waiting_backlogs), *next; backlog; backlog = next) {
        next = TAILQ_NEXT(backlog, link);
        const uint32_t waiting = backlog->comeback.waiting;
        uint32_t tries = 0;
        if (backlog->comeback.due_ns <= now_ns)
            tries = comeback_try(&backlog->comeback, backlog->flying, now_ns, &client->random);
        if (waiting > tries && backlog->comeback.due_ns < client->resume_ns)
            client->resume_ns = backlog->comeback.due_ns;
        for (; tries > 0; tries--)
            send_first(backlog, now_ns);
    }
}

/* The server has a place, as it has answered this one. */
static void follow(const struct expertd_call *call)
{
    struct backlog *backlog = call->status == EXPERTD_RESOURCE_EXHAUSTED ? NULL : call->backlog;
    for (uint32_t some = backlog ? comeback_answered(&backlog->comeback) : 0; some > 0; some--)
        send_first(backlog, clock_now_ns());
}

/* ---- shared memory ---------------------------------------------------------------------------------------------- */

/* The answer is to no call. */
static void ping(struct expertd_client *client)
{
    unsigned char buffer[64];
    zmq_msg_t frame;
    Expertd__RequestHeader header = EXPERTD__REQUEST_HEADER__INIT;
    header.version = MESSAGE_VERSION;
    header.method = EXPERTD__METHOD__PING;
    const long size = message_encode_request(&header, buffer, sizeof buffer);
    if (size < 0 || zmq_msg_init_size(&frame, (size_t)size) < 0)
        return;
    memcpy(zmq_msg_data(&frame), buffer, (size_t)size);
    client->pings += connection_send(&client->connection, &frame, 1, CONNECTION_NOT_LOCAL) == 0;
    zmq_msg_close(&frame);
}

/* Asks a server on this host, once on each connection, where its shared memory is. */
static void ask_for_local(struct expertd_client *client)
{
    if (client->asked_connects == client->connection.connects || !connection_wants_local(&client->connection))
        return;
    client->asked_connects = client->connection.connects;
    ping(client);
}

static void take_offer(struct expertd_client *client, const Expertd__Pong *pong)
{
    if (pong->local && pong->local->instance.len == LOCAL_INSTANCE)
        connection_offer_local(&client->connection, pong->local->path, pong->local->instance.data);
}

uint64_t switchboard_room(const struct expertd_client *client, const struct expertd_call *call,
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

/* ---- taking in --------------------------------------------------------------------------------------------------- */

static void note_named(struct expertd_call *call, const char *endpoint)
{
    const size_t size = strlen(endpoint) + 1;
    call->named[0] = 0;
    if (size <= sizeof call->named)
        memcpy(call->named, endpoint, size);
}

/* Whether the answer says that the expert, or some of the parts', are at another frontend. A leg's is looked at by who
 * takes it. */
static bool may_go_on_elsewhere(const struct expertd_call *call)
{
    if (call->leg_of || call->client->is_sibling || call->n_request == 0)
        return false;
    if (call->n_parts == 0 || !call->answer)
        return call->named[0] && call->status == EXPERTD_NOT_FOUND;
    return call_parts_any_named(call->answer);
}

/* Frames' owner: this function. */
static void take_message(struct expertd_client *client, zmq_msg_t *frames, size_t count)
{
    const char *why;
    Expertd__ReplyHeader *header = call_reply_decode(&client->decoder, &frames[0], &why);
    struct expertd_call *call = header ? call_table_find(&client->table, header->request_id) : NULL;
    if (!header) {
        client->counters.malformed_replies++;
    } else if (header->request_id == 0 && header->pong && client->pings > 0) {
        client->pings--;
        take_offer(client, header->pong);
    } else if (!call || call->state != CALL_SENT) {
        client->counters.late_replies++;
    } else {
        client->counters.malformed_replies += !call_reply_take(call, header, frames + 1, count - 1, why);
        remember_room(client, call);
        note_named(call, header->endpoint);
        if (!goes_on(client, call)) {
            if (may_go_on_elsewhere(call))
                switchboard_move(call, CALL_NAMED);
            else
                switchboard_finish(call);
            follow(call);
        }
        if (call->status == EXPERTD_OK && call_has_tensors(call->method))
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
    if (connection_in_doubt(&client->connection))
        ping(client);
    if (news != CONNECTION_LOST)
        return news == CONNECTION_NEWS;
    receive(client, NULL);
    const char *why =
        client->connection.endless ? client->connection.trouble : "the connection was lost before the answer came";
    while ((call = TAILQ_FIRST(&client->calls[CALL_SENT])) != NULL) {
        call_set_status(call, EXPERTD_UNAVAILABLE, "%s: %s%s", client->endpoint, why,
                        call->not_applied ? "" : "; the backward may have been applied");
        end_unanswered(call);
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
                        call->deadline_ms, connection->trouble ? connection->trouble : "is a server running there?");
    end_unanswered(call);
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

void switchboard_progress(struct expertd_client *client, const struct expertd_call *wanted)
{
    receive(client, wanted);
    const bool ended = wanted && !call_in_flight(wanted);
    if (ended && client->count[CALL_UNSENT] == 0) /* else its answer has let others go */
        return;
    const bool news = take_news(client);
    resume_paused(client);
    if (news || client->count[CALL_UNSENT] > 0) {
        send_waiting(client);
        if (!ended)
            receive(client, wanted);
    }
    expire(client);
}

void switchboard_queue(struct expertd_call *call)
{
    struct expertd_client *client = call->client;
    if (call->deadline_ns < client->earliest_ns)
        client->earliest_ns = call->deadline_ns;
    if (stands_behind(call))
        return;
    switchboard_move(call, CALL_UNSENT);
    send_waiting(client);
}

int switchboard_launch(struct expertd_call *call)
{
    struct expertd_client *client = call->client;
    if (call_table_insert(&client->table, call) < 0) {
        call_set_status(call, EXPERTD_RESOURCE_EXHAUSTED, "no memory for the call");
        return -ENOMEM;
    }
    take_news(client); /* before the call could be counted among the lost ones */
    send_waiting(client);
    if (client->count[CALL_UNSENT] >= client->queue_limit) {
        call_set_status(call, EXPERTD_RESOURCE_EXHAUSTED, "%s: %u requests wait to be sent already", client->endpoint,
                        client->queue_limit);
        switchboard_finish(call);
        return 0;
    }
    switchboard_queue(call);
    return 0;
}

void switchboard_discount(struct expertd_call *call)
{
    if (call->ended_before == call->client->polls)
        call->client->ended--;
    call->ended_before = UINT64_MAX;
}

void switchboard_report(struct expertd_call *call)
{
    switchboard_discount(call);
    switchboard_move(call, CALL_REPORTED);
}

void switchboard_release(struct expertd_call *call)
{
    struct expertd_client *client = call->client;
    const bool gone = call_state_flies(call->state);
    if (call_in_flight(call)) {
        key_table_remove(&client->table, &call->by_id);
        client->own_legs -= call->leg_of && call->leg_of->client == client;
    }
    if (call->state == CALL_DONE)
        switchboard_report(call);
    if (gone)
        backlog_stir(call);
    switchboard_keep(call);
    if (client->count[CALL_FREE] > CALLS_KEPT) {
        TAILQ_REMOVE(&client->calls[CALL_FREE], call, link);
        client->count[CALL_FREE]--;
        free(call);
    }
}
