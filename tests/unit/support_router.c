#include "tests/unit/support_router.h"

#include <assert.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct router {
    void *context;
    void *socket;
    void *control; /* the thread's end of a PAIR whose other end tells it to stop */
    void *stop;
    char endpoint[256];
    router_handler *handler;
    void *handler_context;
    pthread_t thread;
    struct message_arena arena;
    _Alignas(16) unsigned char memory[MESSAGE_OWN_ARENA];
};

static void must(int rc)
{
    if (rc < 0) {
        fprintf(stderr, "router: %s\n", zmq_strerror(zmq_errno()));
        abort();
    }
}

/* libexpertd asks by itself where a server's shared memory is, by a PING of the id 0: it has none, and no test is about
 * that. */
static bool is_question_of_library(struct router_request *request)
{
    static const unsigned char ping[] = {0x08, 0x01, 0x18, 0x01};
    return request->count == 1 && zmq_msg_size(&request->frames[0]) == sizeof ping &&
           memcmp(zmq_msg_data(&request->frames[0]), ping, sizeof ping) == 0;
}

static void handle_one(struct router *router)
{
    zmq_msg_t frames[ROUTER_MAX_FRAMES];
    struct router_request request = {.router = router, .frames = frames};
    int size = zmq_recv(router->socket, request.identity, sizeof request.identity, 0);
    must(size);
    request.identity_size = (size_t)size;
    for (int more = 1; more; more = zmq_msg_more(&frames[request.count++])) {
        assert(request.count < ROUTER_MAX_FRAMES);
        must(zmq_msg_init(&frames[request.count]));
        must(zmq_msg_recv(&frames[request.count], router->socket, 0));
    }
    if (!is_question_of_library(&request))
        router->handler(router->handler_context, &request);
    for (size_t i = 0; i < request.count; i++)
        zmq_msg_close(&frames[i]);
}

static void *run(void *argument)
{
    struct router *router = argument;
    for (;;) {
        zmq_pollitem_t items[] = {{router->control, 0, ZMQ_POLLIN, 0}, {router->socket, 0, ZMQ_POLLIN, 0}};
        must(zmq_poll(items, 2, -1));
        if (items[0].revents)
            return NULL;
        handle_one(router);
    }
}

static void *open_socket(void *context, int type)
{
    const int linger = 0;
    void *socket = zmq_socket(context, type);
    must(socket ? 0 : -1);
    must(zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof linger));
    return socket;
}

struct router *router_start(const char *endpoint, router_handler *handler, void *context)
{
    struct router *router = calloc(1, sizeof *router);
    size_t size = sizeof router->endpoint;
    assert(router);
    router->handler = handler;
    router->handler_context = context;
    message_arena_init(&router->arena, router->memory, sizeof router->memory);
    router->context = zmq_ctx_new();
    router->socket = open_socket(router->context, ZMQ_ROUTER);
    router->control = open_socket(router->context, ZMQ_PAIR);
    router->stop = open_socket(router->context, ZMQ_PAIR);
    must(zmq_bind(router->control, "inproc://control"));
    must(zmq_connect(router->stop, "inproc://control"));
    const int ipv6 = endpoint && strchr(endpoint, '[');
    must(zmq_setsockopt(router->socket, ZMQ_IPV6, &ipv6, sizeof ipv6));
    must(zmq_bind(router->socket, endpoint ? endpoint : "tcp://127.0.0.1:*"));
    must(zmq_getsockopt(router->socket, ZMQ_LAST_ENDPOINT, router->endpoint, &size));
    assert(pthread_create(&router->thread, NULL, run, router) == 0);
    return router;
}

const char *router_endpoint(const struct router *router)
{
    return router->endpoint;
}

void router_stop(struct router **pointer)
{
    struct router *router = *pointer;
    *pointer = NULL;
    if (!router)
        return;
    must(zmq_send(router->stop, "", 0, 0));
    pthread_join(router->thread, NULL);
    zmq_close(router->stop);
    zmq_close(router->control);
    zmq_close(router->socket);
    zmq_ctx_term(router->context);
    free(router);
}

void router_send(struct router_request *request, const struct router_frame *frames, size_t count)
{
    void *socket = request->router->socket;
    must(zmq_send(socket, request->identity, request->identity_size, ZMQ_SNDMORE));
    for (size_t i = 0; i < count; i++)
        must(zmq_send(socket, frames[i].data, frames[i].size, i + 1 < count ? ZMQ_SNDMORE : 0));
}

Expertd__RequestHeader *router_header(struct router_request *request)
{
    Expertd__RequestHeader *header;
    const char *why;
    const int rc = message_decode_request(&request->router->arena, zmq_msg_data(&request->frames[0]),
                                          zmq_msg_size(&request->frames[0]), &header, &why);
    assert(rc == 0);
    (void)rc;
    return header;
}

void router_reply(struct router_request *request, const Expertd__RequestHeader *to, Expertd__ReplyHeader *reply,
                  const struct router_frame *frames, size_t count)
{
    struct router_frame all[ROUTER_MAX_FRAMES];
    const size_t room = expertd__reply_header__get_packed_size(reply) + 32;
    unsigned char *buffer = malloc(room);
    assert(buffer && count < ROUTER_MAX_FRAMES);
    if (reply->version == 0)
        reply->version = MESSAGE_VERSION;
    reply->request_id = to->request_id;
    const long size = message_encode_reply(reply, buffer, room);
    assert(size >= 0);
    all[0] = (struct router_frame){buffer, (size_t)size};
    for (size_t i = 0; i < count; i++)
        all[1 + i] = frames[i];
    router_send(request, all, 1 + count);
    free(buffer);
}

void router_reply_status(struct router_request *request, const Expertd__RequestHeader *to, Expertd__Status status,
                         const char *message)
{
    Expertd__ReplyHeader reply = EXPERTD__REPLY_HEADER__INIT;
    reply.status = status;
    reply.message = (char *)(uintptr_t)message;
    router_reply(request, to, &reply, NULL, 0);
}

/* ---- nop ------------------------------------------------------------------------------------------------------------
 */

static void reply_tensors(struct router_request *request, const Expertd__RequestHeader *to, size_t count)
{
    Expertd__ReplyHeader reply = EXPERTD__REPLY_HEADER__INIT;
    struct router_frame frames[ROUTER_MAX_FRAMES];
    for (size_t i = 0; i < count; i++)
        frames[i] = (struct router_frame){zmq_msg_data(&request->frames[1 + i]), zmq_msg_size(&request->frames[1 + i])};
    reply.n_tensors = count;
    reply.tensors = to->tensors;
    router_reply(request, to, &reply, frames, count);
}

static void reply_pong(struct router_request *request, const Expertd__RequestHeader *to)
{
    Expertd__ReplyHeader reply = EXPERTD__REPLY_HEADER__INIT;
    Expertd__Pong pong = EXPERTD__PONG__INIT;
    char server[] = "fake", software[] = "none 0";
    pong.server = server;
    pong.software = software;
    pong.experts = pong.experts_alive = 1;
    reply.pong = &pong;
    router_reply(request, to, &reply, NULL, 0);
}

static void reply_list(struct router_request *request, const Expertd__RequestHeader *to)
{
    Expertd__ReplyHeader reply = EXPERTD__REPLY_HEADER__INIT;
    Expertd__ExpertList list = EXPERTD__EXPERT_LIST__INIT;
    Expertd__ExpertList__Entry entry = EXPERTD__EXPERT_LIST__ENTRY__INIT, *entries[] = {&entry};
    char uid[] = "nop.0", device[] = "cpu0";
    entry.uid = uid;
    entry.device = device;
    entry.alive = 1;
    list.n_experts = list.total = to->list && strncmp(uid, to->list->prefix, strlen(to->list->prefix)) != 0 ? 0 : 1;
    list.experts = entries;
    list.generation = 7;
    reply.list = &list;
    router_reply(request, to, &reply, NULL, 0);
}

static void reply_info(struct router_request *request, const Expertd__RequestHeader *to)
{
    Expertd__ReplyHeader reply = EXPERTD__REPLY_HEADER__INIT;
    Expertd__ExpertInfo info = EXPERTD__EXPERT_INFO__INIT;
    Expertd__Schema schema = EXPERTD__SCHEMA__INIT;
    Expertd__Schema__Field field = EXPERTD__SCHEMA__FIELD__INIT, *fields[] = {&field};
    char name[] = "x", block[] = "nop", device[] = "cpu0", optimizer[] = "none", schedule[] = "none";
    uint64_t row_shape[] = {4};
    field.name = name;
    field.dtype = EXPERTD__DTYPE__FLOAT32;
    field.n_row_shape = 1;
    field.row_shape = row_shape;
    schema.n_tensors = 1;
    schema.tensors = fields;
    info.uid = to->uid;
    info.block = block;
    info.device = device;
    info.optimizer = optimizer;
    info.schedule = schedule;
    info.forward_schema = info.outputs_schema = &schema;
    info.max_batch_size = 2048;
    info.hidden_dim = 4;
    info.alive = 1;
    info.update_count = 3;
    reply.info = &info;
    router_reply(request, to, &reply, NULL, 0);
}

static void reply_stats(struct router_request *request, const Expertd__RequestHeader *to)
{
    Expertd__ReplyHeader reply = EXPERTD__REPLY_HEADER__INIT;
    Expertd__Stats stats = EXPERTD__STATS__INIT;
    Expertd__Stats__Counter counter = EXPERTD__STATS__COUNTER__INIT, *counters[] = {&counter};
    char name[] = "frontend.requests.ping";
    counter.name = name;
    counter.value = 5;
    stats.n_counters = 1;
    stats.counters = counters;
    reply.stats = &stats;
    router_reply(request, to, &reply, NULL, 0);
}

void router_nop(void *context, struct router_request *request)
{
    const Expertd__RequestHeader *header = router_header(request);
    (void)context;
    switch (header->method) {
    case EXPERTD__METHOD__PING:
        reply_pong(request, header);
        break;
    case EXPERTD__METHOD__LIST:
        reply_list(request, header);
        break;
    case EXPERTD__METHOD__INFO:
        reply_info(request, header);
        break;
    case EXPERTD__METHOD__STATS:
        reply_stats(request, header);
        break;
    case EXPERTD__METHOD__FORWARD:
        reply_tensors(request, header, header->n_tensors);
        break;
    case EXPERTD__METHOD__BACKWARD:
        reply_tensors(request, header, header->n_tensors / 2);
        break;
    default:
        router_reply_status(request, header, EXPERTD__STATUS__OK, "");
        break;
    }
}
