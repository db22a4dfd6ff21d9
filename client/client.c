#include "client/client.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "client/away.h"
#include "client/call_doubt.h"
#include "client/call_request.h"
#include "client/expertd.h"
#include "client/struct_size.h"
#include "client/switchboard.h"
#include "common/clock.h"
#include "common/uid.h"

/* ---- making calls ---------------------------------------------------------------------------------------------- */

static int launch(struct expertd_call *call)
{
    return away_launch(call, clock_now_ns() + call->deadline_ms * NS_PER_MS);
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
    struct expertd_call *call = switchboard_new_call(client, request->method);
    *result = NULL;
    if (!call) {
        call_request_free_tensors(request);
        return -ENOMEM;
    }
    request->client_id = client->id;
    request->metadata = client->metadata;
    request->metadata_bytes = client->metadata_bytes;
    request->traceparent = client->traceparent;
    const bool tensors = call_has_tensors(request->method);
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
        call->room_bytes = switchboard_room(at, call, request);
    if (made && request->method == EXPERTD__METHOD__BACKWARD && request->parts)
        doubt_repeats(call, request->parts);
    if (!made) {
        switchboard_finish(call);
    } else if (launch(call) < 0) {
        switchboard_keep(call);
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
    call->retry_after_ms = 0;
    call->followed = false;
    if (call->state == CALL_DONE)
        switchboard_discount(call);
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
    const bool waits = client->count[CALL_SENT] + client->count[CALL_UNSENT] > 0;
    const uint64_t look_ns = waits ? connection_look_ns(&client->connection) : UINT64_MAX;
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
        away_progress(client, wanted);
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

int expertd_call_wait(struct expertd_call *call, int timeout_ms)
{
    const int rc = call_in_flight(call) ? await(call->client, call, timeout_ms) : 0;
    if (call_in_flight(call))
        return rc < 0 ? rc : -ETIMEDOUT;
    if (call->state == CALL_DONE)
        switchboard_report(call);
    return 0;
}

struct expertd_call *expertd_next_done(struct expertd_client *client)
{
    struct expertd_call *call = TAILQ_FIRST(&client->calls[CALL_DONE]);
    if (call)
        switchboard_report(call);
    return call;
}

void expertd_call_release(struct expertd_call **pointer)
{
    struct expertd_call *call = *pointer;
    *pointer = NULL;
    if (call)
        away_release(call);
}

/* ---- the client itself ----------------------------------------------------------------------------------------- */

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
