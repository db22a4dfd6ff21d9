// timeout: 600
#include <errno.h>
#include <poll.h>

#include "dht_world.h"

#include "dht/engine.h"

enum { NODES_MAX = 64 };

static struct {
    struct engine *engine;
    size_t found, ended, announced, pinged, kept;
    uint64_t kept_token;
    uint16_t kept_port;
    unsigned answered, silent, fullest;
} nodes[NODES_MAX];
static size_t count;

static void sink(void *context, const struct engine_event *event, struct moment now)
{
    const size_t i = (uintptr_t)context;
    (void)now;
    switch (event->kind) {
    case ENGINE_PEERS:
        nodes[i].found += event->count;
        return;
    case ENGINE_FOUND:
        nodes[i].ended++;
        break;
    case ENGINE_ANNOUNCED:
        nodes[i].announced++;
        break;
    case ENGINE_PINGED:
        nodes[i].pinged += event->answered;
        return;
    case ENGINE_MOVED:
        ck_abort_msg("an address that is given is kept");
        return;
    case ENGINE_KEPT:
        nodes[i].kept++;
        nodes[i].kept_token = event->token;
        nodes[i].kept_port = contact_port(event->addresses);
        return;
    }
    nodes[i].answered = event->answered;
    nodes[i].silent = event->silent;
    nodes[i].fullest = event->fullest;
}

static void step(void)
{
    struct pollfd items[NODES_MAX];
    nfds_t polled = 0;
    for (size_t i = 0; i < count; i++) {
        if (!nodes[i].engine)
            continue;
        engine_step(nodes[i].engine, moment_now(), sink, (void *)i);
        items[polled++] = (struct pollfd){.fd = engine_fd(nodes[i].engine), .events = POLLIN};
    }
    poll(items, polled, 5);
}

/* Until the condition holds: only a hang takes so long. */
#define AWAIT(condition)                                                                                               \
    do {                                                                                                               \
        const uint64_t await_end_ns = clock_now_ns() + 300 * NS_PER_S;                                                 \
        while (!(condition)) {                                                                                         \
            ck_assert_msg(clock_now_ns() < await_end_ns, "%s", #condition);                                            \
            step();                                                                                                    \
        }                                                                                                              \
    } while (0)

static size_t add(void)
{
    const struct engine_options options = {.address = "127.0.0.1"};
    memset(&nodes[count], 0, sizeof nodes[count]);
    ck_assert_int_eq(engine_start(&nodes[count].engine, &options), 0);
    if (count > 0) {
        const struct contact first = engine_address(nodes[0].engine);
        engine_bootstrap(nodes[count].engine, &first, 1);
    }
    return count++;
}

static void setup(void)
{
    log_open("test", LOG_LEVEL_ERROR);
    count = 0;
}

static void teardown(void)
{
    for (size_t i = 0; i < count; i++)
        engine_stop(&nodes[i].engine);
}

static void join(size_t number)
{
    while (count < number)
        add();
    for (size_t i = 1; i < number; i++)
        AWAIT(nodes[i].pinged > 0);
}

static size_t find(size_t i, const char *key)
{
    nodes[i].found = nodes[i].ended = 0;
    engine_find(nodes[i].engine, key, 2);
    AWAIT(nodes[i].ended == 1);
    return nodes[i].found;
}

static void announce(size_t i, const char *key, uint16_t port)
{
    const size_t before = nodes[i].announced;
    engine_announce(nodes[i].engine, key, port, 3);
    AWAIT(nodes[i].announced == before + 1);
}

START_TEST(what_one_announces_all_find)
{
    join(5);
    announce(1, "a", 1001);
    announce(2, "a", 1002);
    announce(1, "b", 1001);
    for (size_t i = 0; i < 5; i++) {
        ck_assert_uint_eq(find(i, "a"), 2);
        ck_assert_uint_eq(nodes[i].answered, 4);
        ck_assert_uint_eq(nodes[i].fullest, 2);
    }
    ck_assert_uint_eq(find(4, "b"), 1);
    ck_assert_uint_eq(find(4, "c"), 0);
    /* Once more is the same. */
    announce(1, "a", 1001);
    ck_assert_uint_eq(find(3, "a"), 2);
}
END_TEST

START_TEST(who_looked_for_a_key_is_told_of_what_is_announced_to_it)
{
    join(3);
    find(0, "a");
    announce(1, "b", 1001);
    announce(1, "a", 1002);
    AWAIT(nodes[0].kept == 1);
    ck_assert_uint_eq(nodes[0].kept_token, 2);
    ck_assert_uint_eq(nodes[0].kept_port, 1002);
    announce(1, "a", 1002);
    announce(2, "a", 1003);
    AWAIT(nodes[0].kept == 2);
    ck_assert_uint_eq(nodes[0].kept_port, 1003);
    ck_assert_uint_eq(nodes[2].kept, 0);
}
END_TEST

START_TEST(one_that_is_alone_finds_its_own)
{
    join(1);
    ck_assert_uint_eq(find(0, "a"), 0);
    ck_assert_uint_eq(nodes[0].answered, 0);
    announce(0, "a", 1001);
    ck_assert_uint_eq(find(0, "a"), 1);
    /* And whoever joins later does. */
    join(2);
    ck_assert_uint_eq(find(1, "a"), 1);
}
END_TEST

START_TEST(the_routing_table_has_nodes_that_nobody_asked)
{
    join(12);
    AWAIT(engine_table_nodes(nodes[0].engine) == 11);
    ck_assert_uint_eq(engine_nodes(nodes[0].engine), 0);
}
END_TEST

START_TEST(dead_nodes_are_passed_over)
{
    enum { NODES = 24, DEAD = 5 };
    join(NODES);
    /* Routing tables have met. */
    for (size_t i = 1; i < NODES; i++)
        announce(i, "a", (uint16_t)(1000 + i));
    for (size_t i = 1; i < NODES; i++)
        announce(i, "a", (uint16_t)(1000 + i));
    ck_assert_uint_eq(find(3, "a"), NODES - 1);
    for (size_t i = 0; i < DEAD; i++)
        engine_stop(&nodes[NODES - 1 - 3 * i].engine);
    add();
    AWAIT(nodes[NODES].pinged > 0);
    ck_assert_uint_eq(find(3, "a"), NODES - 1);
    ck_assert_uint_eq(find(NODES, "a"), NODES - 1);
    /* Those nearest to the key hand the dead ones on until they have asked them themselves, which they do one by one.
     */
    const uint64_t end_ns = clock_now_ns() + 300 * NS_PER_S;
    while (nodes[NODES].answered != ENGINE_NEAREST && clock_now_ns() < end_ns) {
        step();
        ck_assert_uint_eq(find(NODES, "a"), NODES - 1);
    }
    ck_assert_uint_eq(nodes[NODES].answered, ENGINE_NEAREST);
}
END_TEST

START_TEST(no_more_are_kept_than_a_reply_holds)
{
    enum { MANY = 130 };
    join(2);
    for (int i = 0; i < MANY; i++)
        announce(1, "a", (uint16_t)(1000 + i));
    find(1, "a");
    ck_assert_uint_eq(nodes[1].fullest, ENGINE_REPLY_PEERS);
}
END_TEST

START_TEST(a_taken_port_is_said_and_a_wrong_address_too)
{
    struct engine *engine;
    join(1);
    struct engine_options options = {.address = "127.0.0.1", .port = engine_port(nodes[0].engine)};
    ck_assert_int_eq(engine_start(&engine, &options), -EADDRINUSE);
    ck_assert_ptr_null(engine);
    options = (struct engine_options){.address = "no address"};
    ck_assert_int_eq(engine_start(&engine, &options), -EINVAL);
    options = (struct engine_options){.address = "198.51.100.1"};
    ck_assert_int_lt(engine_start(&engine, &options), 0);
}
END_TEST

START_TEST(it_is_reached_by_the_address_that_its_bootstrap_is_reached_from)
{
    struct contact local;
    ck_assert(contact_parse(&local, "127.0.0.1:4222"));
    const struct engine_options options = {.bootstrap = &local};
    ck_assert_int_eq(engine_start(&nodes[count].engine, &options), 0);
    struct contact contact = engine_address(nodes[count++].engine);
    ck_assert_uint_ne(contact_port(&contact), 0);
    /* A node of this machine reaches it there, also by a bootstrap of the loopback's. */
    engine_bootstrap(nodes[add()].engine, &contact, 1);
    AWAIT(nodes[1].pinged > 0);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("engine");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_set_timeout(all, 580);
    tcase_add_test(all, what_one_announces_all_find);
    tcase_add_test(all, who_looked_for_a_key_is_told_of_what_is_announced_to_it);
    tcase_add_test(all, one_that_is_alone_finds_its_own);
    tcase_add_test(all, the_routing_table_has_nodes_that_nobody_asked);
    tcase_add_test(all, dead_nodes_are_passed_over);
    tcase_add_test(all, no_more_are_kept_than_a_reply_holds);
    tcase_add_test(all, a_taken_port_is_said_and_a_wrong_address_too);
    tcase_add_test(all, it_is_reached_by_the_address_that_its_bootstrap_is_reached_from);
    return world_run(all, "engine");
}
