// timeout: 600
/* What becomes of calls when the server is late, away or back, over client/connection.c. */
#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/connection.h"
#include "common/clock.h"
#include "tests/unit/support_proxy.h"
#include "tests/unit/support_session.h"

/* ---- time, loss and return ------------------------------------------------------------------------------------- */

/* Counts what is no ping, and answers only pings. */
static void ignore(void *context, struct router_request *request)
{
    const Expertd__RequestHeader *header = router_header(request);
    if (header->method == EXPERTD__METHOD__PING)
        router_nop(NULL, request);
    else
        ++*(atomic_int *)context;
}

START_TEST(a_call_without_answer_ends_at_its_deadline)
{
    atomic_int ignored = 0;
    session_start(ignore, &ignored);
    session_ping();
    const uint64_t start_ns = clock_now_ns();
    session_forward(1, SESSION_SHORT_MS, &session.call);
    ck_assert_int_eq(expertd_call_wait(session.call, 0), -ETIMEDOUT);
    session_finish_as(session.call, EXPERTD_DEADLINE_EXCEEDED);
    ck_assert(clock_now_ns() - start_ns >= SESSION_SHORT_MS * NS_PER_MS);
    expertd_call_release(&session.call);
    session_backward(SESSION_SHORT_MS, &session.call);
    session_finish_as(session.call, EXPERTD_DEADLINE_EXCEEDED);
    ck_assert(!expertd_call_not_applied(session.call));
    session_ping();
    ck_assert_int_eq(ignored, 2);
}
END_TEST

START_TEST(a_wait_shorter_than_the_deadline_leaves_the_call_in_flight)
{
    atomic_int ignored = 0;
    session_start(ignore, &ignored);
    session_forward(1, SESSION_LONG_MS, &session.call);
    ck_assert_int_eq(expertd_call_wait(session.call, 20), -ETIMEDOUT);
    ck_assert_int_eq(expertd_poll(session.client, 20), 0);
    ck_assert(!expertd_call_done(session.call));
}
END_TEST

static void answer_late(void *context, struct router_request *request)
{
    static Expertd__RequestHeader first;
    const Expertd__RequestHeader *header = router_header(request);
    (void)context;
    if (header->method != EXPERTD__METHOD__PING) {
        first = *header; /* only its id is used */
        return;
    }
    router_reply_status(request, &first, EXPERTD__STATUS__OK, "");
    router_nop(NULL, request);
}

START_TEST(the_answer_to_a_given_up_call_is_dropped)
{
    struct expertd_client_counters counters;
    session_start(answer_late, NULL);
    session_forward(1, SESSION_LONG_MS, &session.call);
    expertd_call_release(&session.call);
    session_ping();
    session_forward(1, 1, &session.call);
    session_finish_as(session.call, EXPERTD_DEADLINE_EXCEEDED);
    session_ping();
    expertd_client_counters(session.client, &counters);
    ck_assert_uint_eq(counters.late_replies, 2);
    ck_assert_uint_eq(counters.in_flight, 0);
    ck_assert_uint_eq(counters.calls, 4);
}
END_TEST

START_TEST(without_a_server_a_call_ends_unavailable_and_was_not_applied)
{
    ck_assert_int_eq(expertd_client_new(&session.client, session_free_endpoint(), NULL), 0);
    session_backward(SESSION_SHORT_MS, &session.call);
    session_finish_as(session.call, EXPERTD_UNAVAILABLE);
    ck_assert(expertd_call_not_applied(session.call));
    ck_assert(!expertd_client_connected(session.client));
}
END_TEST

START_TEST(a_call_waits_for_a_server_that_starts_later)
{
    const char *endpoint = session_free_endpoint();
    ck_assert_int_eq(expertd_client_new(&session.client, endpoint, NULL), 0);
    session_forward(1, SESSION_LONG_MS, &session.call);
    ck_assert_int_eq(expertd_call_wait(session.call, 30), -ETIMEDOUT);
    session.router = router_start(endpoint, router_nop, NULL);
    session_finish_as(session.call, EXPERTD_OK);
    ck_assert(expertd_client_connected(session.client));
}
END_TEST

START_TEST(a_request_that_expired_unsent_is_never_sent)
{
    atomic_int received = 0;
    const char *endpoint = session_free_endpoint();
    ck_assert_int_eq(expertd_client_new(&session.client, endpoint, NULL), 0);
    session_backward(SESSION_SHORT_MS, &session.call);
    session_finish_as(session.call, EXPERTD_UNAVAILABLE);
    session.router = router_start(endpoint, ignore, &received);
    session_ping();
    ck_assert_int_eq(received, 0);
}
END_TEST

START_TEST(a_lost_connection_ends_what_was_sent)
{
    atomic_int ignored = 0;
    struct expertd_call *other;
    session_start(ignore, &ignored);
    session_ping();
    session_backward(SESSION_LONG_MS, &session.call);
    session_forward(1, SESSION_LONG_MS, &other);
    session_ping();
    router_stop(&session.router);
    session_finish_as(session.call, EXPERTD_UNAVAILABLE);
    session_finish_as(other, EXPERTD_UNAVAILABLE);
    ck_assert(!expertd_call_not_applied(session.call));
    ck_assert(expertd_call_not_applied(other));
}
END_TEST

START_TEST(a_restarted_server_is_found_again)
{
    char endpoint[256];
    struct expertd_client_counters counters;
    session_start(router_nop, NULL);
    strcpy(endpoint, router_endpoint(session.router));
    for (int i = 0; i < 5; i++) {
        session_ping();
        router_stop(&session.router);
        session.router = router_start(endpoint, router_nop, NULL);
        /* The loss that happened while the client looked elsewhere is not blamed on the next call: at worst it ends
         * with the old connection, if that had not been seen to break. */
        do {
            expertd_call_release(&session.call);
            session_forward(1, SESSION_LONG_MS, &session.call);
            session_wait(session.call);
        } while (expertd_call_status(session.call) == EXPERTD_UNAVAILABLE);
        ck_assert_int_eq(expertd_call_status(session.call), EXPERTD_OK);
    }
    expertd_client_counters(session.client, &counters);
    ck_assert_uint_eq(counters.connects, 6);
    ck_assert_uint_eq(counters.disconnects, 5);
}
END_TEST

START_TEST(more_unsent_requests_than_the_limit_are_refused)
{
    struct expertd_client_options options = {.size = sizeof options, .queue_limit = 2};
    struct expertd_call *calls[3];
    ck_assert_int_eq(expertd_client_new(&session.client, session_free_endpoint(), &options), 0);
    for (size_t i = 0; i < 3; i++)
        session_forward(1, SESSION_LONG_MS, &calls[i]);
    ck_assert(!expertd_call_done(calls[1]));
    session_finish_as(calls[2], EXPERTD_RESOURCE_EXHAUSTED);
    expertd_call_release(&calls[0]);
    session_forward(1, SESSION_LONG_MS, &calls[2]);
    ck_assert(!expertd_call_done(calls[2]));
}
END_TEST

START_TEST(a_handshake_that_fails_is_named)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    char endpoint[64];
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_eq(bind(listener, (struct sockaddr *)&address, size), 0);
    ck_assert_int_eq(listen(listener, 8), 0);
    ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&address, &size), 0);
    snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%d", ntohs(address.sin_port));
    ck_assert_int_eq(expertd_client_new(&session.client, endpoint, NULL), 0);
    session_forward(1, 500, &session.call);
    const int connection = accept(listener, NULL, NULL);
    /* ZMTP 3.0's greeting, of a peer that wants names and passwords. */
    static const char greeting[64] = "\xff\0\0\0\0\0\0\0\1\x7f\3\0PLAIN";
    ck_assert_int_eq(write(connection, greeting, sizeof greeting), sizeof greeting);
    session_finish_as(session.call, EXPERTD_UNAVAILABLE);
    ck_assert_msg(strstr(expertd_call_message(session.call), "handshake"), "%s", expertd_call_message(session.call));
    close(connection);
    close(listener);
}
END_TEST

START_TEST(a_client_with_calls_in_flight_can_be_destroyed)
{
    atomic_int ignored = 0;
    session_start(ignore, &ignored);
    session_forward(1, SESSION_LONG_MS, &session.call);
    session_backward(SESSION_LONG_MS, &session.call);
    session_ping();
    session_forward(1, SESSION_LONG_MS, &session.call);
    expertd_client_destroy(&session.client);
    ck_assert_ptr_null(session.client);
    expertd_client_destroy(&session.client);
}
END_TEST

/* ---- slow links, and peers that are gone without a word --------------------------------------------------------- */

static struct proxy *proxy;

static void session_through_proxy(router_handler *handler, void *context, uint32_t heartbeat_ms)
{
    const struct expertd_client_options options = {.size = sizeof options, .heartbeat_ms = heartbeat_ms};
    session.router = router_start(NULL, handler, context);
    proxy = proxy_start(router_endpoint(session.router));
    ck_assert_int_eq(expertd_client_new(&session.client, proxy_endpoint(proxy), &options), 0);
    session_ping();
}

enum { LARGE_BYTES = 4 << 20, SLOW = 448 << 10 }; /* 9 s, while 5 count as silence */

static void answer_large(void *context, struct router_request *request)
{
    Expertd__RequestHeader *header = router_header(request);
    Expertd__ReplyHeader reply = EXPERTD__REPLY_HEADER__INIT;
    if (header->method != EXPERTD__METHOD__FORWARD) {
        router_nop(context, request);
        return;
    }
    uint64_t shape[] = {1, LARGE_BYTES};
    header->tensors[0]->dtype = EXPERTD__DTYPE__UINT8;
    header->tensors[0]->shape = shape;
    reply.n_tensors = 1;
    reply.tensors = header->tensors;
    router_reply(request, header, &reply, &(struct router_frame){context, LARGE_BYTES}, 1);
}

START_TEST(a_reply_may_take_longer_than_silence_would)
{
    struct expertd_client_counters counters;
    void *large = calloc(1, LARGE_BYTES);
    session_through_proxy(answer_large, large, 1000);
    proxy_set_speed(proxy, SLOW);
    session_forward(1, 500000, &session.call);
    session_finish_as(session.call, EXPERTD_OK);
    ck_assert_uint_eq(expertd_call_output(session.call, 0)->bytes, LARGE_BYTES);
    expertd_client_counters(session.client, &counters);
    ck_assert_uint_eq(counters.disconnects, 0);
    proxy_stop(&proxy);
    expertd_client_destroy(&session.client);
    router_stop(&session.router);
    free(large);
}
END_TEST

START_TEST(so_may_a_request)
{
    struct expertd_client_counters counters;
    struct expertd_tensor input = {.dtype = EXPERTD_UINT8, .ndim = 2, .shape = {1, LARGE_BYTES}, .bytes = LARGE_BYTES};
    void *large = calloc(1, LARGE_BYTES);
    input.data = large;
    session_through_proxy(router_nop, NULL, 1000);
    proxy_set_speed(proxy, SLOW);
    ck_assert_int_eq(expertd_backward(session.client, "nop.0", &input, 1, &input, 0, 500000, &session.call), 0);
    /* Half of no tensors comes back: what counts is that the request has arrived, and by one connection. */
    session_wait(session.call);
    ck_assert_int_eq(expertd_call_status(session.call), EXPERTD_INTERNAL);
    expertd_client_counters(session.client, &counters);
    ck_assert_uint_eq(counters.disconnects, 0);
    proxy_stop(&proxy);
    free(large);
}
END_TEST

START_TEST(a_peer_that_is_silent_is_gone_and_found_again)
{
    struct expertd_client_counters counters;
    session_through_proxy(router_nop, NULL, 200);
    proxy_set_speed(proxy, 0);
    session_backward(500000, &session.call);
    session_finish_as(session.call, EXPERTD_UNAVAILABLE);
    ck_assert(!expertd_call_not_applied(session.call));
    ck_assert(!expertd_client_connected(session.client));
    proxy_set_speed(proxy, SIZE_MAX);
    session_ping();
    expertd_client_counters(session.client, &counters);
    ck_assert_uint_ge(counters.disconnects, 1);
    ck_assert_uint_gt(proxy_accepted(proxy), 1);
    proxy_stop(&proxy);
}
END_TEST

/* ---- what a process has no room for ------------------------------------------------------------------------------ */

/* However few are left: ZeroMQ would end the process. */
START_TEST(without_descriptors_there_is_no_client)
{
    struct rlimit before, few;
    struct expertd_client *client = NULL;
    int rc = -EMFILE;
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    few = before;
    for (few.rlim_cur = 3; few.rlim_cur < 256 && rc < 0; few.rlim_cur++) {
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
        rc = expertd_client_new(&client, "tcp://127.0.0.1:1", NULL);
        ck_assert_msg(rc == 0 || (rc == -EMFILE && !client), "%d files: %d", (int)few.rlim_cur, rc);
    }
    ck_assert_int_eq(rc, 0);
    ck_assert_int_eq(expertd_poll(client, 20), 0); /* it connects, which needs one more */
    expertd_client_destroy(&client);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
}
END_TEST

/* ---- what clients of one ZeroMQ context do to each other -------------------------------------------------------- */

static struct expertd_client_options shared_context(void)
{
    struct expertd_client_options options = {.size = sizeof options, .zmq_context = zmq_ctx_new()};
    zmq_ctx_set(options.zmq_context, ZMQ_MAX_SOCKETS, 65535);
    return options;
}

START_TEST(clients_can_be_made_anew_for_ever)
{
    const struct expertd_client_options options = shared_context();
    session.router = router_start(NULL, router_nop, NULL);
    for (int i = 0; i < 2000; i++) {
        ck_assert_msg(expertd_client_new(&session.client, router_endpoint(session.router), &options) == 0, "%d", i);
        if (i % 20 == 0)
            session_ping();
        expertd_client_destroy(&session.client);
    }
    router_stop(&session.router);
    zmq_ctx_term(options.zmq_context);
}
END_TEST

/* Connections that end as soon as they begin: some 1,500, each of which the monitor tells of more than once. */
START_TEST(a_client_that_is_not_polled_does_not_stop_others)
{
    enum { ENOUGH = 1500 };
    const struct expertd_client_options options = shared_context();
    const struct connection_options plain = {.context = options.zmq_context, .heartbeat_ms = 2000};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    struct connection restless;
    char endpoint[64];
    const int at_once = 1;
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_eq(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    ck_assert_int_eq(listen(listener, 16), 0);
    getsockname(listener, (struct sockaddr *)&address, &size);
    snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%d", ntohs(address.sin_port));
    ck_assert_int_eq(connection_open(&restless, endpoint, &plain), 0);
    ck_assert_int_eq(zmq_disconnect(restless.socket, endpoint), 0);
    ck_assert_int_eq(zmq_setsockopt(restless.socket, ZMQ_RECONNECT_IVL, &at_once, sizeof at_once), 0);
    ck_assert_int_eq(zmq_connect(restless.socket, endpoint), 0);
    for (int i = 0; i < ENOUGH; i++)
        close(accept(listener, NULL, NULL)); /* for ever, if the thread that connects has stopped */
    session.router = router_start(NULL, router_nop, NULL);
    ck_assert_int_eq(expertd_client_new(&session.client, router_endpoint(session.router), &options), 0);
    session_ping();
    expertd_client_destroy(&session.client);
    connection_close(&restless);
    close(listener);
    router_stop(&session.router);
    zmq_ctx_term(options.zmq_context);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("connection");
    TCase *tests = tcase_create("connection");
    tcase_add_checked_fixture(tests, session_open, session_close);
    tcase_add_test(tests, a_call_without_answer_ends_at_its_deadline);
    tcase_add_test(tests, a_wait_shorter_than_the_deadline_leaves_the_call_in_flight);
    tcase_add_test(tests, the_answer_to_a_given_up_call_is_dropped);
    tcase_add_test(tests, without_a_server_a_call_ends_unavailable_and_was_not_applied);
    tcase_add_test(tests, a_call_waits_for_a_server_that_starts_later);
    tcase_add_test(tests, a_request_that_expired_unsent_is_never_sent);
    tcase_add_test(tests, a_lost_connection_ends_what_was_sent);
    tcase_add_test(tests, a_restarted_server_is_found_again);
    tcase_add_test(tests, more_unsent_requests_than_the_limit_are_refused);
    tcase_add_test(tests, a_handshake_that_fails_is_named);
    tcase_add_test(tests, a_client_with_calls_in_flight_can_be_destroyed);
    tcase_add_test(tests, without_descriptors_there_is_no_client);
    suite_add_tcase(suite, tests);
    TCase *names = tcase_create("names");
    tcase_add_checked_fixture(names, session_open, session_close);
    tcase_set_timeout(names, 100);
    suite_add_tcase(suite, names);
    TCase *links = tcase_create("links");
    tcase_add_checked_fixture(links, session_open, session_close);
    tcase_set_timeout(links, 300);
    tcase_add_test(links, a_reply_may_take_longer_than_silence_would);
    tcase_add_test(links, so_may_a_request);
    tcase_add_test(links, a_peer_that_is_silent_is_gone_and_found_again);
    suite_add_tcase(suite, links);
    TCase *contexts = tcase_create("contexts");
    tcase_add_checked_fixture(contexts, session_open, session_close);
    tcase_set_timeout(contexts, 300);
    tcase_add_test(contexts, clients_can_be_made_anew_for_ever);
    tcase_add_test(contexts, a_client_that_is_not_polled_does_not_stop_others);
    suite_add_tcase(suite, contexts);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
