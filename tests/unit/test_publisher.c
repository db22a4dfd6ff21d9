// timeout: 600
#include <zmq.h>

#include "dht_world.h"

#include "dht/publisher.h"

static void *context;
static struct engine *engine;
static struct world places;
static struct identity *identity;
static struct publisher *publisher;
static struct moment now;
static uint8_t instance[INSTANCE_SIZE] = {1, 2, 3};
static struct dialogue_tell told;

static void sink(void *unused, const struct engine_event *event, struct moment at)
{
    (void)unused;
    if (event->kind == ENGINE_ANNOUNCED)
        announcer_on_announced(publisher_announcer(publisher), event->token, event->answered, event->fullest, at);
}

static void setup(void)
{
    const struct engine_options node = {.address = "127.0.0.1"};
    const struct publisher_options options = {.network_id = WORLD_NETWORK,
                                              .endpoint = "tcp://127.0.0.1:31330",
                                              .update_period_ns = 10 * NS_PER_S,
                                              .expiration_ns = 30 * NS_PER_S,
                                              .single = true,
                                              .instance = instance};
    log_open("test", LOG_LEVEL_ERROR);
    now = moment_now();
    context = zmq_ctx_new();
    ck_assert_int_eq(engine_start(&engine, &node), 0);
    ck_assert_int_eq(identity_create(&identity, ""), 0);
    ck_assert_int_eq(publisher_create(&publisher, context, engine, &places, identity, &options, now), 0);
}

static void teardown(void)
{
    dialogue_tell_destroy(&told);
    publisher_destroy(&publisher);
    ck_assert_uint_eq(places.holdings, 0);
    world_destroy(&places);
    engine_stop(&engine);
    identity_destroy(&identity);
    zmq_ctx_term(context);
}

/* Time is the test's, but for what sockets take. */
static void step(uint64_t ms)
{
    now.ns += ms * NS_PER_MS;
    publisher_step(publisher, now);
}

static void *subscribe(uint32_t network_id, struct dialogue_ask *ask)
{
    const int none = 0;
    char endpoint[64];
    uint8_t *bytes;
    size_t size;
    void *socket = zmq_socket(context, ZMQ_DEALER);
    zmq_setsockopt(socket, ZMQ_LINGER, &none, sizeof none);
    snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%u", publisher_port(publisher));
    ck_assert_int_eq(zmq_connect(socket, endpoint), 0);
    *ask = (struct dialogue_ask){.network_id = network_id, .challenge = {7}};
    ck_assert_int_eq(dialogue_pack_ask(ask, &bytes, &size), 0);
    ck_assert_int_ge(zmq_send(socket, bytes, size, 0), 0);
    free(bytes);
    return socket;
}

/* The next message, into told. */
static void hear(void *socket)
{
    const uint64_t end_ns = clock_now_ns() + 300 * NS_PER_S;
    zmq_msg_t frame;
    zmq_msg_init(&frame);
    while (zmq_msg_recv(&frame, socket, ZMQ_DONTWAIT) < 0) {
        zmq_pollitem_t item = {.socket = socket, .events = ZMQ_POLLIN};
        ck_assert_msg(clock_now_ns() < end_ns, "nothing is told");
        step(0);
        zmq_poll(&item, 1, 5);
    }
    dialogue_tell_destroy(&told);
    ck_assert_int_eq(dialogue_unpack_tell(&told, zmq_msg_data(&frame), zmq_msg_size(&frame)), 0);
    zmq_msg_close(&frame);
}

static void set(const char *uids)
{
    struct catalog catalog = world_catalog(uids);
    ck_assert_int_eq(publisher_set(publisher, &catalog, now.ns, now), 0);
}

START_TEST(who_asks_is_told_all_and_then_news)
{
    struct dialogue_ask ask;
    set("ffn.4.1 ffn.4.2 !ffn.5.0");
    void *socket = subscribe(WORLD_NETWORK, &ask);
    hear(socket);
    ck_assert(told.introduced && !told.whole && dialogue_proven(&told.introduction, &ask));
    ck_assert_mem_eq(told.introduction.server_id, identity_id(identity), SERVER_ID_SIZE);
    ck_assert_mem_eq(told.introduction.instance, instance, INSTANCE_SIZE);
    ck_assert_str_eq(told.introduction.endpoint, "tcp://127.0.0.1:31330");
    hear(socket);
    ck_assert(told.whole);
    ck_assert_str_eq(told.contents[0].prefix, "ffn.4.");
    ck_assert_str_eq(world_text(&told.contents[0].experts), "1-2");
    ck_assert_uint_gt(told.expiration_ms, 29000);
    set("ffn.4.1 ffn.4.2 ffn.5.0");
    hear(socket);
    ck_assert_uint_eq(told.contents_count, 1);
    ck_assert_str_eq(told.contents[0].prefix, "ffn.5.");
    ck_assert_str_eq(world_text(&told.contents[0].experts), "0");
    ck_assert_str_eq(world_text(&world_find(&places, "ffn.")->branches), "4-5");
    zmq_close(socket);
}
END_TEST

START_TEST(heartbeats_vouch_only_for_what_the_frontend_confirmed)
{
    struct dialogue_ask ask;
    set("ffn.4.1");
    void *socket = subscribe(WORLD_NETWORK, &ask);
    hear(socket);
    hear(socket);
    step(10000);
    hear(socket);
    ck_assert_uint_eq(told.contents_count, 0);
    ck_assert_uint_eq(told.expiration_ms, 20000);
    publisher_confirm(publisher, now.ns, now);
    step(10000);
    hear(socket);
    ck_assert_uint_eq(told.expiration_ms, 20000);
    publisher_lose(publisher, now);
    hear(socket);
    ck_assert_uint_eq(told.contents_count, 1);
    ck_assert_uint_eq(told.contents[0].experts.count, 0);
    ck_assert_uint_eq(places.holdings, 0);
    publisher_confirm(publisher, now.ns, now);
    do
        hear(socket);
    while (told.contents_count == 0);
    ck_assert_str_eq(world_text(&told.contents[0].experts), "1");
    publisher_leave(publisher, now);
    do
        hear(socket);
    while (told.expiration_ms > 0);
    zmq_close(socket);
}
END_TEST

START_TEST(one_of_another_network_is_told_nothing)
{
    struct dialogue_ask ask;
    set("ffn.4.1");
    void *socket = subscribe(WORLD_NETWORK + 1, &ask);
    hear(socket);
    ck_assert_uint_eq(told.network_id, WORLD_NETWORK);
    ck_assert_uint_eq(told.contents_count, 0);
    ck_assert_uint_eq(publisher_subscribers(publisher), 0);
    zmq_close(socket);
}
END_TEST

START_TEST(a_large_catalog_comes_in_pieces_that_fit)
{
    enum { EXPERTS = 200000 };
    struct catalog catalog = {0};
    struct dialogue_ask ask;
    struct world seen = {0};
    struct resident server = {0};
    char uid[UID_SIZE];
    for (int i = 0; i < EXPERTS; i++) {
        /* One prefix with a list that is longer than a message, and many with short ones. */
        snprintf(uid, sizeof uid, i % 2 ? "big.%d" : "ffn.%d.0", i * 3);
        ck_assert_int_eq(catalog_add(&catalog, uid, true), 0);
    }
    ck_assert_int_eq(catalog_finish(&catalog), 0);
    ck_assert_int_eq(publisher_set(publisher, &catalog, now.ns, now), 0);
    void *socket = subscribe(WORLD_NETWORK, &ask);
    do {
        hear(socket);
        for (size_t i = 0; i < told.contents_count; i++)
            ck_assert_int_eq(world_put(&seen, &server, &told.contents[i]), 0);
    } while (!told.whole);
    ck_assert_int_eq(world_branch(&seen, &server), 0);
    ck_assert(ranges_equal(&world_find(&seen, "big.")->experts, &world_find(&places, "big.")->experts));
    ck_assert(ranges_equal(&world_find(&seen, "ffn.")->branches, &world_find(&places, "ffn.")->branches));
    ck_assert_uint_eq(ranges_members(&world_find(&seen, "big.")->experts, UINT64_MAX), EXPERTS / 2);
    world_remove(&seen, &server);
    world_destroy(&seen);
    zmq_close(socket);
}
END_TEST

START_TEST(one_that_does_not_read_is_told_all_when_it_does)
{
    struct dialogue_ask ask;
    set("ffn.0.0");
    void *socket = subscribe(WORLD_NETWORK, &ask);
    hear(socket);
    hear(socket);
    char uids[2048];
    for (int i = 0; i < 5000; i++) {
        int used = 0;
        for (int k = 0; k < 60; k++)
            used += snprintf(uids + used, sizeof uids - (size_t)used, "ffn.%d.%d ", k, i + k);
        set(uids);
    }
    do
        hear(socket);
    while (!told.introduced);
    do
        hear(socket);
    while (!told.whole);
    ck_assert_uint_eq(told.contents_count, 60);
    ck_assert_str_eq(told.contents[0].prefix, "ffn.0.");
    ck_assert_str_eq(world_text(&told.contents[0].experts), "4999");
    zmq_close(socket);
}
END_TEST

START_TEST(garbage_is_passed_over_and_one_that_is_gone_is_forgotten)
{
    struct dialogue_ask ask;
    set("ffn.4.1");
    void *socket = subscribe(WORLD_NETWORK, &ask);
    hear(socket);
    hear(socket);
    ck_assert_uint_eq(publisher_subscribers(publisher), 1);
    ck_assert_int_ge(zmq_send(socket, "garbage", 7, 0), 0);
    ck_assert_int_ge(zmq_send(socket, "two", 3, ZMQ_SNDMORE), 0);
    ck_assert_int_ge(zmq_send(socket, "frames", 6, 0), 0);
    step(10000);
    hear(socket);
    ck_assert_uint_eq(publisher_subscribers(publisher), 1);
    zmq_close(socket);
    const uint64_t end_ns = clock_now_ns() + 300 * NS_PER_S;
    while (publisher_subscribers(publisher) > 0) {
        ck_assert(clock_now_ns() < end_ns);
        step(10000);
        zmq_poll(NULL, 0, 5);
    }
}
END_TEST

START_TEST(every_prefix_is_announced)
{
    set("ffn.4.1 ffn.5.0 top.3");
    struct announcer *announcer = publisher_announcer(publisher);
    ck_assert(!announcer_done(announcer));
    const uint64_t end_ns = clock_now_ns() + 300 * NS_PER_S;
    while (!announcer_done(announcer)) {
        ck_assert(clock_now_ns() < end_ns);
        step(0);
        engine_step(engine, moment_now(), sink, NULL);
        zmq_poll(NULL, 0, 5);
    }
    /* ffn. ffn.4. ffn.5. top., and the id. */
    ck_assert_uint_eq(announcer_counters(announcer)->made, 5);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("publisher");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_set_timeout(all, 580);
    tcase_add_test(all, who_asks_is_told_all_and_then_news);
    tcase_add_test(all, heartbeats_vouch_only_for_what_the_frontend_confirmed);
    tcase_add_test(all, one_of_another_network_is_told_nothing);
    tcase_add_test(all, a_large_catalog_comes_in_pieces_that_fit);
    tcase_add_test(all, one_that_does_not_read_is_told_all_when_it_does);
    tcase_add_test(all, garbage_is_passed_over_and_one_that_is_gone_is_forgotten);
    tcase_add_test(all, every_prefix_is_announced);
    return world_run(all, "publisher");
}
