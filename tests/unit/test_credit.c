// timeout: 300
/* What a server may send before its message ends: client/credit.c, and what becomes of the calls of a client whose
 * server sends on and on, over client/connection.c. */
#include <arpa/inet.h>
#include <check.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/credit.h"
#include "common/clock.h"
#include "tests/unit/support_session.h"

static const uint64_t MiB = 1 << 20, GiB = 1 << 30;

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

START_TEST(the_default_follows_from_the_memory)
{
    ck_assert_uint_eq(credit_default(1), 64 * MiB);
    ck_assert_uint_eq(credit_default(GiB), 256 * MiB);
    ck_assert_uint_eq(credit_default(UINT64_MAX), 2 * GiB);
}
END_TEST

START_TEST(whole_messages_use_nothing_up)
{
    struct credit credit = {.most_bytes = 32 * MiB};
    credit_begin(&credit, 0);
    for (uint64_t received = 0; received < GiB; received += 20 * MiB) {
        ck_assert(!credit_used_up(&credit, received, 0));
        ck_assert(!credit_used_up(&credit, received + 20 * MiB, 0)); /* a large one, half of it and all */
        credit_taken(&credit);
    }
}
END_TEST

START_TEST(a_message_without_end_does)
{
    struct credit credit = {.most_bytes = 32 * MiB};
    credit_begin(&credit, 0);
    credit_taken(&credit);
    ck_assert(!credit_used_up(&credit, 100 * MiB, 0));
    ck_assert(!credit_used_up(&credit, 132 * MiB, 0));
    ck_assert(credit_used_up(&credit, 132 * MiB + 1, 0));
    credit_begin(&credit, 0); /* on another connection */
    ck_assert(!credit_used_up(&credit, 32 * MiB, 0));
}
END_TEST

START_TEST(so_does_the_memory_that_small_frames_become)
{
    struct credit credit = {.most_bytes = 32 * MiB};
    credit_begin(&credit, 0);
    ck_assert(!credit_used_up(&credit, 0, 0));
    ck_assert(!credit_used_up(&credit, 2 * MiB, 0));
    char *made = malloc(64 * MiB);
    ck_assert_ptr_nonnull(made);
    explicit_bzero(made, 64 * MiB);                  /* which no compiler leaves out */
    ck_assert(!credit_used_up(&credit, 3 * MiB, 0)); /* of which the frames cannot have made so much */
    ck_assert(credit_used_up(&credit, 3 * MiB + 1, 0));
    credit_taken(&credit);
    ck_assert(!credit_used_up(&credit, 3 * MiB + 2, 0)); /* the program's own then */
    free(made);
}
END_TEST

START_TEST(pings_of_a_year_are_no_message)
{
    const uint64_t ping_ns = 2000 * NS_PER_MS;
    struct credit credit = {.most_bytes = 64 * MiB, .ping_ns = ping_ns};
    uint64_t received = 0, now_ns = 5;
    credit_begin(&credit, now_ns);
    for (unsigned pings = 0; pings < 16 * 1000 * 1000; pings += 5) {
        now_ns += 5 * ping_ns;
        received += 5 * 100;
        ck_assert(!credit_used_up(&credit, received, now_ns));
    }
    ck_assert_uint_eq(credit.whole_bytes, received);
    ck_assert(!credit_used_up(&credit, received + 64 * MiB, now_ns));
    ck_assert(credit_used_up(&credit, received + 64 * MiB + 1, now_ns));
}
END_TEST

/* ---- servers ----------------------------------------------------------------------------------------------------- */

enum { MOST = 16 << 20, ENOUGH = 4 * MOST };

/* Answers the first message on its only connection with one that does not end: ENOUGH of it, and then waits. */
struct endless {
    pthread_t thread;
    int listener;
    char endpoint[64];
    const char *frame;
    size_t frame_bytes;
    atomic_bool closed; /* by the client */
};

static void read_all(int fd, size_t bytes)
{
    unsigned char some[256];
    while (bytes > 0) {
        const ssize_t n = recv(fd, some, bytes < sizeof some ? bytes : sizeof some, 0);
        ck_assert_int_gt(n, 0);
        bytes -= (size_t)n;
    }
}

static void send_all(int fd, const void *data, size_t bytes)
{
    ck_assert_int_eq(send(fd, data, bytes, MSG_NOSIGNAL), (ssize_t)bytes);
}

/* ZMTP 3.0, without keys. */
static void shake_hands(int fd)
{
    static const char ready[] = "\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06ROUTER";
    static const char greeting[64] = "\xff\0\0\0\0\0\0\0\0\x7f\x03\0NULL";
    unsigned char head[2];
    send_all(fd, greeting, sizeof greeting);
    read_all(fd, sizeof greeting);
    send_all(fd, ready, sizeof ready - 1);
    ck_assert_int_eq(recv(fd, head, sizeof head, MSG_WAITALL), sizeof head); /* the other's */
    read_all(fd, head[1]);
}

static void *serve(void *context)
{
    struct endless *server = context;
    static char many[256 << 10];
    const size_t bytes = sizeof many / server->frame_bytes * server->frame_bytes;
    char request;
    for (size_t at = 0; at < bytes; at += server->frame_bytes)
        memcpy(many + at, server->frame, server->frame_bytes);
    const int fd = accept(server->listener, NULL, NULL);
    shake_hands(fd);
    read_all(fd, 1); /* the request begins */
    for (uint64_t sent = 0; sent < ENOUGH; sent += bytes)
        if (send(fd, many, bytes, MSG_NOSIGNAL) != (ssize_t)bytes)
            break;
    while (recv(fd, &request, 1, 0) > 0)
        ;
    server->closed = true;
    close(fd);
    return NULL;
}

static void endless_start(struct endless *server)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    server->listener = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_eq(bind(server->listener, (struct sockaddr *)&address, sizeof address), 0);
    ck_assert_int_eq(listen(server->listener, 1), 0);
    getsockname(server->listener, (struct sockaddr *)&address, &size);
    snprintf(server->endpoint, sizeof server->endpoint, "tcp://127.0.0.1:%d", ntohs(address.sin_port));
    ck_assert_int_eq(pthread_create(&server->thread, NULL, serve, server), 0);
}

static char frame_of_255_bytes[257] = "\x01\xff";
static char empty_frame[2] = "\x01";

START_TEST(who_sends_on_and_on_is_left_and_others_notice_nothing)
{
    static struct endless server;
    server.frame = _i ? empty_frame : frame_of_255_bytes;
    server.frame_bytes = _i ? sizeof empty_frame : sizeof frame_of_255_bytes;
    struct expertd_client_options options = {
        .size = sizeof options, .zmq_context = zmq_ctx_new(), .max_message_bytes = MOST};
    struct expertd_client *deceived = NULL;
    endless_start(&server);
    session.router = router_start(NULL, router_nop, NULL);
    ck_assert_int_eq(expertd_client_new(&session.client, router_endpoint(session.router), &options), 0);
    session_ping();
    ck_assert_int_eq(expertd_client_new(&deceived, server.endpoint, &options), 0);
    ck_assert_int_eq(expertd_ping(deceived, SESSION_LONG_MS, &session.call), 0);
    session_finish_as(session.call, EXPERTD_UNAVAILABLE);
    ck_assert_msg(strstr(expertd_call_message(session.call), "a message that does not end") != NULL, "%s",
                  expertd_call_message(session.call));
    expertd_call_release(&session.call);
    while (!server.closed) /* what ZeroMQ needs its caller for is done by the way */
        ck_assert_int_eq(expertd_poll(deceived, 1), 0);
    pthread_join(server.thread, NULL);
    session_ping();
    struct expertd_client_counters counters;
    expertd_client_counters(session.client, &counters);
    ck_assert_uint_eq(counters.disconnects, 0);
    expertd_client_destroy(&deceived);
    expertd_client_destroy(&session.client);
    zmq_ctx_term(options.zmq_context);
    close(server.listener);
}
END_TEST

/* Long enough for some looks. */
START_TEST(many_whole_answers_are_no_reason)
{
    static float rows[1 << 20];
    struct expertd_client_options options = {.size = sizeof options, .max_message_bytes = MOST};
    struct expertd_client_counters counters;
    session.router = router_start(NULL, router_nop, NULL);
    ck_assert_int_eq(expertd_client_new(&session.client, router_endpoint(session.router), &options), 0);
    const struct expertd_tensor input = expertd_tensor_f32(rows, 1 << 10, 1 << 10);
    const uint64_t until_ns = clock_now_ns() + 500 * NS_PER_MS;
    for (size_t bytes = 0; bytes < 4 * (size_t)MOST || clock_now_ns() < until_ns; bytes += sizeof rows) {
        ck_assert_int_eq(expertd_forward(session.client, "nop.0", &input, 1, SESSION_LONG_MS, &session.call), 0);
        session_finish_as(session.call, EXPERTD_OK);
        expertd_call_release(&session.call);
    }
    expertd_client_counters(session.client, &counters);
    ck_assert_uint_eq(counters.disconnects, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("credit");
    TCase *bytes = tcase_create("bytes");
    tcase_add_test(bytes, the_default_follows_from_the_memory);
    tcase_add_test(bytes, whole_messages_use_nothing_up);
    tcase_add_test(bytes, a_message_without_end_does);
    tcase_add_test(bytes, so_does_the_memory_that_small_frames_become);
    tcase_add_test(bytes, pings_of_a_year_are_no_message);
    suite_add_tcase(suite, bytes);
    TCase *servers = tcase_create("servers");
    tcase_add_checked_fixture(servers, session_open, session_close);
    tcase_set_timeout(servers, 250);
    tcase_add_test(servers, many_whole_answers_are_no_reason);
    tcase_add_loop_test(servers, who_sends_on_and_on_is_left_and_others_notice_nothing, 0, 2);
    suite_add_tcase(suite, servers);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
