#include "frontend/dispatch.h"

#include <inttypes.h>
#include <stdio.h>

#include "frontend/access.h"
#include "common/log.h"
#include "common/uid.h"
#include "frontend/changes.h"
#include "frontend/checkpoint.h"
#include "frontend/connections.h"
#include "proto/gate.h"
#include "frontend/inspect.h"
#include "frontend/lookout.h"
#include "frontend/task.h"

static void refuse(struct server *server, const struct reply_to *to, enum status status, const char *message)
{
    reply_status(&server->replier, to, status, message);
}

static void refuse_unknown(struct server *server, const struct reply_to *to, const Expertd__RequestHeader *header)
{
    char text[96];
    snprintf(text, sizeof text, "method %d is not known here", (int)header->method);
    refuse(server, to, STATUS_UNIMPLEMENTED, text);
}

/* Whether the methods that take no tensors got none. */
static bool bare(struct server *server, const struct reply_to *to, const Expertd__RequestHeader *header)
{
    if (header->n_tensors == 0 && server->message.tensor_frames == 0)
        return true;
    refuse(server, to, STATUS_INVALID_ARGUMENT, "this method takes no tensors, but some came with it");
    return false;
}

/* Questions about who is alive, which are answered as a call would be. */
static bool asks_for_state(const Expertd__RequestHeader *header)
{
    switch ((int)header->method) {
    case EXPERTD__METHOD__PING:
    case EXPERTD__METHOD__LIST:
    case EXPERTD__METHOD__INFO:
    case EXPERTD__METHOD__STATS:
        return true;
    default:
        return false;
    }
}

/* Whether the client may ask for that. One whose key is known no more has to go: its key may be another's hands. */
static bool allowed(struct server *server, const struct reply_to *to, const Expertd__RequestHeader *header)
{
    const char *why;
    bool known;
    if (access_allows(server, to->peer, header->method, &why, &known))
        return true;
    server->counters.denied++;
    refuse(server, to, STATUS_PERMISSION_DENIED, why);
    if (!known)
        connections_end(server->connections, incoming_fd(&server->incoming),
                        "whose client's key is not known any more");
    return false;
}

static void route(struct server *server, const struct reply_to *to, const Expertd__RequestHeader *header,
                  uint64_t now_ns)
{
    if (asks_for_state(header))
        lookout_refresh(server, now_ns);
    switch ((int)header->method) {
    case EXPERTD__METHOD__FORWARD:
    case EXPERTD__METHOD__BACKWARD:
        task_begin(server, to, header, now_ns);
        break;
    case EXPERTD__METHOD__PING:
        if (bare(server, to, header))
            inspect_ping(server, to);
        break;
    case EXPERTD__METHOD__LIST:
        if (bare(server, to, header))
            inspect_list(server, to, header);
        break;
    case EXPERTD__METHOD__INFO:
        if (bare(server, to, header))
            inspect_info(server, to, header);
        break;
    case EXPERTD__METHOD__STATS:
        if (bare(server, to, header))
            inspect_stats(server, to, header);
        break;
    case EXPERTD__METHOD__CHECKPOINT:
        if (bare(server, to, header))
            checkpoint_begin(server, to, header, now_ns);
        break;
    case EXPERTD__METHOD__LOAD:
    case EXPERTD__METHOD__UNLOAD:
    case EXPERTD__METHOD__SET:
    case EXPERTD__METHOD__RELOAD:
        if (bare(server, to, header))
            changes_begin(server, to, header, incoming_fd(&server->incoming), now_ns);
        break;
    default:
        refuse_unknown(server, to, header);
    }
}

/* The header in the message: NULL after the reply when it cannot be used. */
static const Expertd__RequestHeader *read_header(struct server *server, struct reply_to *to)
{
    const struct incoming_message *message = &server->message;
    Expertd__RequestHeader *header = NULL;
    const char *why = "the request has no header frame";
    int rc = -1;
    if (message->header)
        rc = message_decode_request(&server->arena, message->header, message->header_bytes, &header, &why);
    if (header)
        to->request_id = header->request_id;
    if (rc == 0 && header && header->version == MESSAGE_VERSION)
        return header;
    server->counters.requests[0]++;
    char text[96];
    if (rc == 0 && header) {
        snprintf(text, sizeof text, "protocol version %u is not spoken here; version %d is", (unsigned)header->version,
                 MESSAGE_VERSION);
        why = text;
    }
    refuse(server, to, STATUS_INVALID_ARGUMENT, why);
    return NULL;
}

void dispatch_message(struct server *server, struct reply_to *to, uint64_t now_ns)
{
    server->counters.bytes_in += server->message.bytes;
    const Expertd__RequestHeader *header = read_header(server, to);
    if (!header)
        return;
    const unsigned method = (unsigned)header->method;
    to->method = method < COUNTERS_METHODS ? method : 0;
    server->counters.requests[to->method]++;
    if (!notes_read(&to->notes, header)) {
        refuse(server, to, STATUS_INVALID_ARGUMENT, "metadata has at most 1024 bytes");
        return;
    }
    if (notes_any(&to->notes)) {
        char text[NOTES_TEXT_SIZE], uid[UID_SIZE];
        snprintf(uid, sizeof uid, "%s", header->uid);
        log_debug("request %" PRIu64 ", method %u of '%s': %s", to->request_id, method, message_clean(uid),
                  notes_text(&to->notes, text));
    }
    if (allowed(server, to, header))
        route(server, to, header, now_ns);
}

void dispatch(struct server *server, uint64_t now_ns)
{
    struct incoming *incoming = &server->incoming;
    struct reply_to to = {.envelope = incoming->envelope};
    to.peer = client_peers_find(server->peers, zmq_msg_data(&incoming->id), zmq_msg_size(&incoming->id));
    if (!to.peer)
        return;
    connections_heard(server->connections, incoming_fd(incoming), to.peer, incoming->wire_bytes, now_ns);
    incoming_message(incoming, &server->message);
    dispatch_message(server, &to, now_ns);
    client_peer_release(to.peer);
    if (incoming->tensor_frames > GATE_FRAMES) /* the gate has not seen it: encrypted */
        connections_end(server->connections, incoming_fd(incoming), "that sent a message of too many frames");
}
