#include "dht/service.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <zmq.h>

#include "common/log.h"
#include "dht/askers.h"
#include "dht/frames.h"
#include "dht/lookup_kinds.h"
#include "proto/binding.h"
#include "proto/wire.h"

enum { VERSION = 1, ENVELOPE_MAX = 3, BURST = 64 };

/* A lookup with the way back of its reply. */
struct call {
    struct lookup lookup;
    struct service *service;
    struct asker *asker;
    Expertd__Dht__Request *request;
    zmq_msg_t envelope[ENVELOPE_MAX]; /* the peer's routing id, and what REQ puts in front */
    int envelope_count;
    size_t bytes; /* that its asker is charged for */
    bool runnable;
    bool kept, charged;
    TAILQ_ENTRY(call) entry; /* of all that are kept */
    struct call *next_runnable;
};

struct service {
    void *socket;
    struct cache *cache;
    service_status status;
    void *status_context;
    TAILQ_HEAD(calls, call) kept; /* the latest last */
    struct askers *askers;
    struct call *runnable;
    struct service_counters counters;
    struct bindings bindings;
};

int service_create(struct service **service, void *context, const char *endpoint, const struct guard *guard,
                   struct cache *cache, service_status status, void *status_context)
{
    const int none = 0, one = 1, water = 10000;
    const int64_t frame_max = SERVICE_FRAME_MAX;
    struct service *made = calloc(1, sizeof *made);
    *service = NULL;
    if (!made)
        return -ENOMEM;
    made->cache = cache;
    made->status = status;
    made->status_context = status_context;
    TAILQ_INIT(&made->kept);
    if (askers_create(&made->askers) < 0) {
        service_destroy(&made);
        return -ENOMEM;
    }
    made->socket = zmq_socket(context, ZMQ_ROUTER);
    if (!made->socket || zmq_setsockopt(made->socket, ZMQ_LINGER, &none, sizeof none) != 0 ||
        zmq_setsockopt(made->socket, ZMQ_ROUTER_MANDATORY, &one, sizeof one) != 0 ||
        zmq_setsockopt(made->socket, ZMQ_SNDHWM, &water, sizeof water) != 0 ||
        zmq_setsockopt(made->socket, ZMQ_MAXMSGSIZE, &frame_max, sizeof frame_max) != 0 ||
        guard_socket(guard, made->socket) < 0 || bindings_bind(&made->bindings, made->socket, endpoint) != 0) {
        const int error = zmq_errno();
        log_error("cannot answer look-ups at '%s': %s (set dht.listen)", endpoint, zmq_strerror(error));
        service_destroy(&made);
        return -EADDRINUSE;
    }
    *service = made;
    return 0;
}

void service_keep(struct service *service)
{
    bindings_keep(&service->bindings, service->socket);
}

void *service_socket(const struct service *service)
{
    return service->socket;
}

const struct service_counters *service_counters(const struct service *service)
{
    return &service->counters;
}

/* ---- calls ---------------------------------------------------------------------------------------------------------
 */

static void free_call(struct call *call)
{
    if (call->kept)
        TAILQ_REMOVE(&call->service->kept, call, entry);
    if (call->charged)
        asker_let_go(call->service->askers, call->asker, call->bytes);
    lookup_destroy(&call->lookup);
    if (call->request)
        expertd__dht__request__free_unpacked(call->request, NULL);
    for (int i = 0; i < call->envelope_count; i++)
        zmq_msg_close(&call->envelope[i]);
    free(call);
}

void service_destroy(struct service **service)
{
    struct service *old = *service;
    *service = NULL;
    if (!old)
        return;
    while (!TAILQ_EMPTY(&old->kept))
        free_call(TAILQ_FIRST(&old->kept));
    if (old->socket)
        zmq_close(old->socket);
    askers_destroy(&old->askers);
    free(old);
}

static void make_runnable(struct lookup *lookup)
{
    struct call *call = (struct call *)lookup; /* its first member */
    if (call->runnable)
        return;
    call->runnable = true;
    call->next_runnable = call->service->runnable;
    call->service->runnable = call;
}

/* ---- replies -------------------------------------------------------------------------------------------------------
 */

/* A reply on its way; its asker is charged for it. */
struct packed {
    struct asker *asker; /* NULL: nobody is */
    size_t size;
    uint8_t bytes[];
};

static void free_packed(void *data, void *hint)
{
    struct packed *packed = hint;
    (void)data;
    if (packed->asker)
        asker_credit(packed->asker, packed->size);
    free(packed);
}

/* Of one that has too much unread, a short refusal takes the answer's place: so few bytes are nobody's concern. */
static struct packed *pack(struct call *call, Expertd__Dht__Reply *reply)
{
    static char full[] =
        "answers that this client has not read take too much memory: read them, or ask for less at once";
    Expertd__Dht__Reply refusal = EXPERTD__DHT__REPLY__INIT;
    size_t size = expertd__dht__reply__get_packed_size(reply);
    const bool charged = asker_charge(call->asker, size);
    if (!charged) {
        refusal.version = VERSION;
        refusal.request_id = reply->request_id;
        refusal.status = STATUS_RESOURCE_EXHAUSTED;
        refusal.message = full;
        reply = &refusal;
        size = expertd__dht__reply__get_packed_size(reply);
        call->service->counters.unread++;
    }
    struct packed *packed = malloc(sizeof *packed + size);
    if (packed) {
        *packed = (struct packed){charged ? call->asker : NULL, size};
        expertd__dht__reply__pack(reply, packed->bytes);
    } else if (charged) {
        asker_credit(call->asker, size);
    }
    return packed;
}

/* The peer may be gone, or slow: then its reply is dropped, and counted. */
static void send_reply(struct call *call)
{
    struct service *service = call->service;
    Expertd__Dht__Reply *reply = &call->lookup.reply;
    zmq_msg_t frame;
    reply->version = VERSION;
    reply->request_id = call->request ? call->request->request_id : 0;
    struct packed *packed = pack(call, reply);
    if (!packed) {
        service->counters.unsent++;
        return;
    }
    if (zmq_msg_init_data(&frame, packed->bytes, packed->size, free_packed, packed) != 0) {
        free_packed(NULL, packed);
        service->counters.unsent++;
        return;
    }
    bool sent = true;
    for (int i = 0; i < call->envelope_count && sent; i++)
        sent = zmq_msg_send(&call->envelope[i], service->socket, ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0;
    if (!sent || zmq_msg_send(&frame, service->socket, ZMQ_DONTWAIT) < 0) {
        zmq_msg_close(&frame);
        service->counters.unsent++;
    }
    if (reply->status == STATUS_INVALID_ARGUMENT || reply->status == STATUS_RESOURCE_EXHAUSTED ||
        reply->status == STATUS_UNIMPLEMENTED)
        service->counters.refused++;
    if (reply->status == STATUS_DEADLINE_EXCEEDED)
        service->counters.late++;
}

/* Runs the call's lookup, and ends the call with it. */
static void run(struct call *call, struct moment now)
{
    switch (lookup_run(&call->lookup, now)) {
    case LOOKUP_DONE:
        send_reply(call);
        free_call(call);
        break;
    case LOOKUP_AGAIN:
        make_runnable(&call->lookup);
        break;
    case LOOKUP_WAITING:
        break;
    }
}

/* ---- requests ------------------------------------------------------------------------------------------------------
 */

static const struct lookup_kind *kind_of(const Expertd__Dht__Request *request)
{
    switch ((int)request->method) {
    case EXPERTD__DHT__METHOD__RESOLVE:
        return &resolve_kind;
    case EXPERTD__DHT__METHOD__PREFIX:
        return &listing_kind;
    case EXPERTD__DHT__METHOD__BEAM_SEARCH:
        return &search_kind;
    case EXPERTD__DHT__METHOD__DRAW:
        return &draw_kind;
    default:
        return NULL;
    }
}

Expertd__Dht__Request *service_decode(const void *frame, size_t size, struct cache *cache, struct lookup *lookup,
                                      struct moment now)
{
    static const Expertd__Dht__Request nothing = EXPERTD__DHT__REQUEST__INIT;
    Expertd__Dht__Request *request =
        size <= SERVICE_FRAME_MAX ? wire_unpack(&expertd__dht__request__descriptor, NULL, size, frame) : NULL;
    *lookup = (struct lookup){.cache = cache, .request = request ? request : &nothing};
    expertd__dht__reply__init(&lookup->reply);
    if (!request)
        lookup_fail(lookup, STATUS_INVALID_ARGUMENT, "the frame is no Request of dht.proto");
    else if (request->version != VERSION)
        lookup_fail(lookup, STATUS_INVALID_ARGUMENT, "protocol version %u is not spoken here: this is version %d",
                    (unsigned)request->version, VERSION);
    else if (request->method != EXPERTD__DHT__METHOD__STATUS)
        lookup_init(lookup, cache, kind_of(request), request, now);
    return request;
}

static void answer_status(struct call *call, struct moment now)
{
    Expertd__Dht__NodeStatus *status = arena_take(&call->lookup.arena, sizeof *status);
    if (status)
        expertd__dht__node_status__init(status);
    if (!status || call->service->status(call->service->status_context, &call->lookup.arena, status, now) != 0)
        lookup_fail(&call->lookup, STATUS_RESOURCE_EXHAUSTED, "out of memory");
    else
        call->lookup.reply.node = status;
}

static void begin(struct call *call, zmq_msg_t *frame, struct moment now)
{
    struct service *service = call->service;
    const size_t size = zmq_msg_size(frame);
    call->request = service_decode(zmq_msg_data(frame), size, service->cache, &call->lookup, now);
    call->lookup.wake = make_runnable;
    if (call->request && !call->lookup.failed && call->request->method == EXPERTD__DHT__METHOD__STATUS) {
        answer_status(call, now);
        send_reply(call);
        free_call(call);
        return;
    }
    /* What is decoded takes a few times what it took on the wire. */
    call->bytes = sizeof *call + 4 * size + call->lookup.arena.bytes;
    call->charged = !call->lookup.failed && asker_keep(service->askers, call->asker, call->bytes);
    if (!call->lookup.failed && !call->charged)
        lookup_fail(&call->lookup, STATUS_RESOURCE_EXHAUSTED, "too many look-ups wait for the DHT: try again later");
    call->kept = true;
    TAILQ_INSERT_TAIL(&service->kept, call, entry);
    run(call, now);
}

/* Whether the frames before the last are an envelope: a DEALER has only its routing id, a REQ an empty frame too, and
 * before that perhaps the number of the request. */
static bool envelope_valid(zmq_msg_t *frames, int count)
{
    if (count == 1)
        return true;
    if (count == 2)
        return zmq_msg_size(&frames[1]) == 0;
    return count == 3 && zmq_msg_size(&frames[1]) == 4 && zmq_msg_size(&frames[2]) == 0;
}

static void take_message(struct service *service, struct frames *message, struct moment now)
{
    struct call *call = calloc(1, sizeof *call);
    zmq_msg_t *frames = message->items;
    const int count = message->count;
    const bool valid = count >= 2 && count - 1 <= ENVELOPE_MAX && envelope_valid(frames, count - 1);
    service->counters.requests++;
    if (call)
        call->asker = askers_find(service->askers, zmq_msg_data(&frames[0]), zmq_msg_size(&frames[0]));
    if (!call || !call->asker) {
        free(call);
        return;
    }
    call->service = service;
    /* Whoever sends something else gets his answer without an envelope that he did not send. */
    call->envelope_count = valid ? count - 1 : count >= 2 && zmq_msg_size(&frames[1]) == 0 ? 2 : 1;
    for (int i = 0; i < call->envelope_count; i++) {
        zmq_msg_init(&call->envelope[i]);
        zmq_msg_move(&call->envelope[i], &frames[i]);
    }
    if (valid) {
        begin(call, &frames[count - 1], now);
        return;
    }
    lookup_fail(&call->lookup, STATUS_INVALID_ARGUMENT,
                "a request is one frame, and from a REQ socket an empty one before");
    send_reply(call);
    free_call(call);
}

uint64_t service_step(struct service *service, struct moment now)
{
    struct frames frames;
    bool left = true;
    askers_tidy(service->askers);
    for (int i = 0; i < BURST && (left = frames_receive(&frames, service->socket)); i++) {
        take_message(service, &frames, now);
        frames_close(&frames);
    }
    struct call *runnable = service->runnable;
    service->runnable = NULL;
    for (struct call *next; runnable; runnable = next) {
        next = runnable->next_runnable;
        runnable->runnable = false;
        run(runnable, now);
    }
    uint64_t next_ns = left || service->runnable ? now.ns : UINT64_MAX;
    for (struct call *call = TAILQ_FIRST(&service->kept), *next; call; call = next) {
        next = TAILQ_NEXT(call, entry);
        if (now.ns >= call->lookup.deadline_ns && !call->runnable)
            run(call, now);
        else if (call->lookup.deadline_ns < next_ns)
            next_ns = call->lookup.deadline_ns;
    }
    return next_ns;
}
