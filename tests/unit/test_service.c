/* Look-ups over ZeroMQ: envelopes, what is no request, what waits, and clients that go. */
#include <zmq.h>

#include "dht_world.h"

#include "dht/askers.h"
#include "dht/service.h"

static void *context;
static struct service *service;
static const struct guard open_to_all;
static char endpoint[64];

static int fill_status(void *unused, struct arena *arena, Expertd__Dht__NodeStatus *status, struct moment now)
{
    (void)unused;
    (void)now;
    status->frontend = arena_text(arena, "tcp://here:1");
    return status->frontend ? 0 : -ENOMEM;
}

static void setup(void)
{
    size_t size = sizeof endpoint;
    world_begin(64);
    context = zmq_ctx_new();
    ck_assert_int_eq(
        service_create(&service, context, "tcp://127.0.0.1:*", &open_to_all, &world.cache, fill_status, NULL), 0);
    ck_assert_int_eq(zmq_getsockopt(service_socket(service), ZMQ_LAST_ENDPOINT, endpoint, &size), 0);
}

static void teardown(void)
{
    service_destroy(&service);
    zmq_ctx_term(context);
    world_end();
}

static void *client(int type)
{
    const int none = 0;
    void *socket = zmq_socket(context, type);
    zmq_setsockopt(socket, ZMQ_LINGER, &none, sizeof none);
    ck_assert_int_eq(zmq_connect(socket, endpoint), 0);
    return socket;
}

static void ask(void *socket, Expertd__Dht__Method method, uint64_t id, uint32_t deadline_ms, const char *uid)
{
    Expertd__Dht__Request request = EXPERTD__DHT__REQUEST__INIT;
    uint8_t bytes[512];
    char *uids[] = {(char *)uid};
    request.version = 1;
    request.request_id = id;
    request.method = method;
    request.deadline_ms = deadline_ms;
    request.n_uids = uid ? 1 : 0;
    request.uids = uids;
    const size_t size = expertd__dht__request__pack(&request, bytes);
    ck_assert_int_eq(zmq_send(socket, bytes, size, 0), (int)size);
}

/* The next answer, while the service goes on; the test's time stands still. */
static Expertd__Dht__Reply *answer(void *socket)
{
    const uint64_t end_ns = clock_now_ns() + 300 * NS_PER_S;
    zmq_msg_t frame;
    zmq_msg_init(&frame);
    while (zmq_msg_recv(&frame, socket, ZMQ_DONTWAIT) < 0) {
        zmq_pollitem_t items[] = {{.socket = socket, .events = ZMQ_POLLIN},
                                  {.socket = service_socket(service), .events = ZMQ_POLLIN}};
        ck_assert_msg(clock_now_ns() < end_ns, "no answer");
        service_step(service, world.now);
        zmq_poll(items, 2, 5);
    }
    ck_assert(!zmq_msg_more(&frame));
    Expertd__Dht__Reply *reply = expertd__dht__reply__unpack(NULL, zmq_msg_size(&frame), zmq_msg_data(&frame));
    ck_assert_ptr_nonnull(reply);
    zmq_msg_close(&frame);
    return reply;
}

static void check_answer(void *socket, uint64_t id, unsigned status)
{
    Expertd__Dht__Reply *reply = answer(socket);
    ck_assert_uint_eq(reply->request_id, id);
    ck_assert_msg(reply->status == status, "%u instead of %u: %s", (unsigned)reply->status, status, reply->message);
    expertd__dht__reply__free_unpacked(reply, NULL);
}

static void taken(uint64_t requests)
{
    const uint64_t end_ns = clock_now_ns() + 300 * NS_PER_S;
    while (service_counters(service)->requests < requests) {
        zmq_pollitem_t item = {.socket = service_socket(service), .events = ZMQ_POLLIN};
        ck_assert_msg(clock_now_ns() < end_ns, "a request does not come");
        service_step(service, world.now);
        zmq_poll(&item, 1, 5);
    }
}

START_TEST(dealers_and_those_that_wait_for_each_answer_are_served_alike)
{
    void *dealer = client(ZMQ_DEALER), *req = client(ZMQ_REQ);
    for (uint64_t id = 1; id < 4; id++)
        ask(dealer, EXPERTD__DHT__METHOD__STATUS, id, 0, NULL);
    for (uint64_t id = 1; id < 4; id++)
        check_answer(dealer, id, STATUS_OK);
    ask(req, EXPERTD__DHT__METHOD__STATUS, 9, 0, NULL);
    Expertd__Dht__Reply *reply = answer(req);
    ck_assert_uint_eq(reply->request_id, 9);
    ck_assert_str_eq(reply->node->frontend, "tcp://here:1");
    expertd__dht__reply__free_unpacked(reply, NULL);
    zmq_close(dealer);
    zmq_close(req);
}
END_TEST

START_TEST(what_is_no_request_is_said_to_be_none)
{
    void *dealer = client(ZMQ_DEALER);
    zmq_send(dealer, "\xff\xff\xff", 3, 0);
    check_answer(dealer, 0, STATUS_INVALID_ARGUMENT);
    zmq_send(dealer, "two", 3, ZMQ_SNDMORE);
    zmq_send(dealer, "frames", 6, 0);
    check_answer(dealer, 0, STATUS_INVALID_ARGUMENT);
    ask(dealer, 77, 5, 0, NULL);
    check_answer(dealer, 5, STATUS_UNIMPLEMENTED);
    ask(dealer, EXPERTD__DHT__METHOD__RESOLVE, 6, 0, "no uid");
    check_answer(dealer, 6, STATUS_INVALID_ARGUMENT);
    ck_assert_uint_eq(service_counters(service)->refused, 4);
    zmq_close(dealer);
}
END_TEST

START_TEST(what_waits_is_answered_when_it_is_known_and_others_before)
{
    void *dealer = client(ZMQ_DEALER);
    world_host(world_server(1), "ffn.0.0");
    ask(dealer, EXPERTD__DHT__METHOD__RESOLVE, 1, 60000, "ffn.0.0");
    ask(dealer, EXPERTD__DHT__METHOD__STATUS, 2, 0, NULL);
    check_answer(dealer, 2, STATUS_OK);
    world_answer();
    Expertd__Dht__Reply *reply = answer(dealer);
    ck_assert_uint_eq(reply->request_id, 1);
    ck_assert_uint_eq(reply->resolved[0]->n_replicas, 1);
    expertd__dht__reply__free_unpacked(reply, NULL);
    zmq_close(dealer);
}
END_TEST

START_TEST(a_deadline_ends_the_wait)
{
    void *dealer = client(ZMQ_DEALER);
    ask(dealer, EXPERTD__DHT__METHOD__RESOLVE, 1, 1000, "ffn.0.0");
    taken(1);
    world_pass(999);
    ck_assert_uint_eq(service_counters(service)->late, 0);
    ck_assert_uint_le(service_step(service, world.now), world.now.ns + NS_PER_MS);
    world_pass(1);
    check_answer(dealer, 1, STATUS_DEADLINE_EXCEEDED);
    ck_assert_uint_eq(service_counters(service)->late, 1);
    zmq_close(dealer);
}
END_TEST

START_TEST(a_client_that_goes_leaves_nothing_behind)
{
    void *dealer = client(ZMQ_DEALER), *other = client(ZMQ_DEALER);
    ask(dealer, EXPERTD__DHT__METHOD__RESOLVE, 1, 60000, "ffn.0.0");
    taken(1);
    zmq_close(dealer);
    /* It is gone when its place is free: the answer finds nobody, now or when it comes. */
    world_answer();
    ask(other, EXPERTD__DHT__METHOD__STATUS, 2, 0, NULL);
    check_answer(other, 2, STATUS_OK);
    zmq_close(other);
}
END_TEST

START_TEST(no_more_look_ups_wait_than_there_is_room_for)
{
    void *dealer = client(ZMQ_DEALER);
    const int none = 0;
    zmq_setsockopt(dealer, ZMQ_SNDHWM, &none, sizeof none);
    for (uint64_t id = 1; id <= ASKERS_KEPT_MAX + 1; id++)
        ask(dealer, EXPERTD__DHT__METHOD__RESOLVE, id, 60000, "ffn.0.0");
    Expertd__Dht__Reply *reply = answer(dealer);
    ck_assert_uint_eq(reply->status, STATUS_RESOURCE_EXHAUSTED);
    ck_assert_uint_gt(reply->request_id, ASKERS_KEPT_MAX / 2);
    expertd__dht__reply__free_unpacked(reply, NULL);
    /* Another one's waits all the same, and is answered. */
    void *other = client(ZMQ_DEALER);
    world_host(world_server(1), "ffn.0.0");
    ask(other, EXPERTD__DHT__METHOD__RESOLVE, 1, 60000, "ffn.0.0");
    taken(ASKERS_KEPT_MAX + 2);
    world_answer();
    check_answer(other, 1, STATUS_OK);
    /* All that waited is answered, and there is room again. */
    for (unsigned i = 0; i < ASKERS_KEPT_MAX; i++)
        expertd__dht__reply__free_unpacked(answer(dealer), NULL);
    ask(dealer, EXPERTD__DHT__METHOD__RESOLVE, UINT64_MAX, 60000, "ffn.0.0");
    check_answer(dealer, UINT64_MAX, STATUS_OK);
    zmq_close(other);
    zmq_close(dealer);
}
END_TEST

/* Requests whose answers are much larger than they are. */
static void ask_much(void *socket, uint64_t id)
{
    enum { UIDS = 20000 };
    static char *uids[UIDS], uid[] = "ffn.0.0";
    Expertd__Dht__Request request = EXPERTD__DHT__REQUEST__INIT;
    for (size_t i = 0; i < UIDS; i++)
        uids[i] = uid;
    request.version = 1;
    request.request_id = id;
    request.method = EXPERTD__DHT__METHOD__RESOLVE;
    request.n_uids = UIDS;
    request.uids = uids;
    const size_t size = expertd__dht__request__get_packed_size(&request);
    uint8_t *bytes = malloc(size);
    expertd__dht__request__pack(&request, bytes);
    ck_assert_int_eq(zmq_send(socket, bytes, size, 0), (int)size);
    free(bytes);
}

START_TEST(a_client_that_does_not_read_is_refused_and_nobody_else)
{
    enum { FEW = 4, MOST = 2000 };
    const int few = FEW, none = 0, bytes = 1 << 16;
    void *deaf = zmq_socket(context, ZMQ_DEALER);
    zmq_setsockopt(deaf, ZMQ_LINGER, &none, sizeof none);
    zmq_setsockopt(deaf, ZMQ_RCVHWM, &few, sizeof few);
    zmq_setsockopt(deaf, ZMQ_RCVBUF, &bytes, sizeof bytes);
    ck_assert_int_eq(zmq_connect(deaf, endpoint), 0);
    world_host(world_server(1), "ffn.0.0");
    ask_much(deaf, 1);
    taken(1);
    world_answer();
    check_answer(deaf, 1, STATUS_OK);
    uint64_t asked = 1;
    for (; service_counters(service)->unread == 0 && asked < MOST; asked++) {
        ask_much(deaf, asked + 1);
        taken(asked + 1);
    }
    ck_assert_uint_lt(asked, MOST);
    void *dealer = client(ZMQ_DEALER);
    ask(dealer, EXPERTD__DHT__METHOD__RESOLVE, 1, 0, "ffn.0.0");
    check_answer(dealer, 1, STATUS_OK);
    /* When it reads, the refusal is the last that it gets, and then it is served again. */
    for (uint64_t id = 2; id < asked; id++)
        check_answer(deaf, id, STATUS_OK);
    check_answer(deaf, asked, STATUS_RESOURCE_EXHAUSTED);
    ask_much(deaf, asked + 1);
    check_answer(deaf, asked + 1, STATUS_OK);
    zmq_close(dealer);
    zmq_close(deaf);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("service");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, dealers_and_those_that_wait_for_each_answer_are_served_alike);
    tcase_add_test(all, what_is_no_request_is_said_to_be_none);
    tcase_add_test(all, what_waits_is_answered_when_it_is_known_and_others_before);
    tcase_add_test(all, a_deadline_ends_the_wait);
    tcase_add_test(all, a_client_that_goes_leaves_nothing_behind);
    tcase_add_test(all, no_more_look_ups_wait_than_there_is_room_for);
    tcase_add_test(all, a_client_that_does_not_read_is_refused_and_nobody_else);
    return world_run(all, "service");
}
