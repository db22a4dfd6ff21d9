/* Connections of a ROUTER in this process: who comes, goes, and is closed. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <unistd.h>
#include <zmq.h>

#include "frontend/client_peer.h"
#include "frontend/connections.h"
#include "frontend/incoming.h"

static void *context, *router;
static struct connections *connections;
static struct client_peers *peers;
static struct incoming incoming;
static char endpoint[64];

static void setup(void)
{
    size_t size = sizeof endpoint;
    context = zmq_ctx_new();
    router = zmq_socket(context, ZMQ_ROUTER);
    const int handover = 1;
    ck_assert_int_eq(zmq_setsockopt(router, ZMQ_ROUTER_HANDOVER, &handover, sizeof handover), 0);
    ck_assert_int_eq(connections_create(&connections, context, router), 0);
    ck_assert_int_eq(zmq_bind(router, "tcp://127.0.0.1:*"), 0);
    ck_assert_int_eq(zmq_getsockopt(router, ZMQ_LAST_ENDPOINT, endpoint, &size), 0);
    ck_assert_int_eq(client_peers_create(&peers, 16, 1 << 20), 0);
    incoming_init(&incoming);
}

static void teardown(void)
{
    incoming_clear(&incoming);
    connections_destroy(&connections);
    zmq_close(router);
    zmq_ctx_term(context);
    client_peers_destroy(&peers);
}

/* Waits, bounded, until the condition holds; takes events meanwhile. */
#define UNTIL(condition)                                                                                               \
    do {                                                                                                               \
        for (int i = 0; !(condition); i++) {                                                                           \
            ck_assert_msg(i < 60000, "waited too long for " #condition);                                               \
            usleep(1000);                                                                                              \
        }                                                                                                              \
    } while (0)

static bool take_until(uint32_t count)
{
    (void)connections_take(connections, 1);
    return connections_count(connections) == count;
}

static void *client_with(const char *id)
{
    void *client = zmq_socket(context, ZMQ_DEALER);
    const int at_once = 0;
    zmq_setsockopt(client, ZMQ_LINGER, &at_once, sizeof at_once);
    if (id)
        zmq_setsockopt(client, ZMQ_ROUTING_ID, id, strlen(id));
    ck_assert_int_eq(zmq_connect(client, endpoint), 0);
    return client;
}

/* The peer of the next message, with a reference, and heard. */
static struct client_peer *hear(void *client)
{
    ck_assert_int_ge(zmq_send(client, "header", 6, 0), 0);
    do { /* what a closed one had sent may be there as well */
        incoming_clear(&incoming);
        UNTIL(incoming_receive(&incoming, router) == 1);
    } while (incoming.wire_bytes != 8); /* as it travels */
    struct client_peer *peer = client_peers_find(peers, zmq_msg_data(&incoming.id), zmq_msg_size(&incoming.id));
    connections_heard(connections, incoming_fd(&incoming), peer, incoming.wire_bytes, 1);
    incoming_clear(&incoming);
    return peer;
}

START_TEST(a_peer_whose_connection_ends_is_gone)
{
    void *client = client_with(NULL), *other = client_with(NULL);
    struct client_peer *peer = hear(client), *stays = hear(other);
    ck_assert(client_peer_is_one_connection(peer));
    ck_assert_int_ge(peer->fd, 0);
    UNTIL(take_until(2));
    zmq_close(client);
    bool told = false;
    UNTIL((told |= connections_take(connections, 1), connections_count(connections) == 1));
    ck_assert(told);
    ck_assert(peer->gone && !stays->gone);
    ck_assert(!connections_take(connections, 1)); /* told once */
    zmq_close(other);
    client_peer_release(stays); /* without requests there is nothing to tell */
    UNTIL((told = connections_take(connections, 1), connections_count(connections) == 0));
    ck_assert(!told);
}
END_TEST

START_TEST(what_was_sent_before_the_end_is_known_to_be_of_one_who_has_gone)
{
    void *client = client_with(NULL);
    for (int i = 0; i < 3; i++)
        ck_assert_int_ge(zmq_send(client, "header", 6, 0), 0);
    UNTIL(take_until(1));
    usleep(20000);
    zmq_close(client);
    int rc;
    UNTIL((rc = incoming_receive(&incoming, router)) == 1);
    UNTIL(take_until(0));
    struct client_peer *peer = client_peers_find(peers, zmq_msg_data(&incoming.id), zmq_msg_size(&incoming.id));
    connections_heard(connections, incoming_fd(&incoming), peer, incoming.wire_bytes, 1);
    ck_assert(peer->gone);
    ck_assert(connections_take(connections, 1));
}
END_TEST

START_TEST(one_with_a_routing_id_of_its_own_may_come_back)
{
    void *client = client_with("chosen");
    struct client_peer *peer = hear(client);
    UNTIL(take_until(1));
    zmq_close(client);
    UNTIL(take_until(0));
    ck_assert(!peer->gone);
    client = client_with("chosen");
    ck_assert_ptr_eq(hear(client), peer);
    ck_assert_int_ge(peer->fd, 0);
    zmq_close(client);
}
END_TEST

static int connect_raw(void)
{
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(strrchr(endpoint, ':') + 1))};
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

START_TEST(when_there_are_too_many_the_silent_ones_go_first)
{
    struct rlimit files;
    void *client = client_with(NULL);
    struct client_peer *peer = hear(client);
    client_peer_release(peer);
    int held[40];
    for (int i = 0; i < 20; i++)
        held[i] = connect_raw();
    UNTIL(take_until(21));
    /* As many more as there are spare files, and one more; this process has both ends. */
    getrlimit(RLIMIT_NOFILE, &files);
    const struct rlimit before = files;
    const int next = dup(0);
    close(next);
    files.rlim_cur = (rlim_t)next + 21;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &files), 0);
    ck_assert_int_eq(connections_set_limit(connections), 0); /* some five beyond what is open now */
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
    for (int i = 20; i < 40; i++)
        held[i] = connect_raw();
    UNTIL((connections_take(connections, 1), connections_counters(connections)->closed_idle > 0));
    hear(client); /* it has spoken: it is there */
    for (int i = 0; i < 40; i++)
        close(held[i]);
    zmq_close(client);
}
END_TEST

START_TEST(too_few_files_are_an_error)
{
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    const struct rlimit before = files;
    files.rlim_cur = 20;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &files), 0);
    ck_assert_int_eq(connections_set_limit(connections), -EMFILE);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
}
END_TEST

START_TEST(who_sends_without_an_end_is_closed_and_no_other)
{
    static char part[1 << 16];
    void *endless = client_with(NULL), *other = client_with(NULL);
    hear(endless);
    hear(other);
    for (int i = 0; i < 64; i++)
        ck_assert_int_ge(zmq_send(endless, part, sizeof part, ZMQ_SNDMORE), 0);
    ck_assert_int_ge(zmq_send(endless, part, 1, 0),
                     0); /* they travel when the message is whole; it is not taken here */
    UNTIL(connections_shed(connections, 1) == 1);
    ck_assert_uint_eq(connections_counters(connections)->closed_large, 1);
    ck_assert_uint_eq(connections_shed(connections, 1), 0);
    UNTIL((connections_take(connections, 1), connections_count(connections) >= 1));
    hear(other);
    zmq_close(endless);
    zmq_close(other);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("connections");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, a_peer_whose_connection_ends_is_gone);
    tcase_add_test(all, what_was_sent_before_the_end_is_known_to_be_of_one_who_has_gone);
    tcase_add_test(all, one_with_a_routing_id_of_its_own_may_come_back);
    tcase_add_test(all, when_there_are_too_many_the_silent_ones_go_first);
    tcase_add_test(all, too_few_files_are_an_error);
    tcase_add_test(all, who_sends_without_an_end_is_closed_and_no_other);
    Suite *suite = suite_create("connections");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
