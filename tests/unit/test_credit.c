// timeout: 300
/* What a server may send before its message ends: client/credit.c, and what becomes of the calls of a client whose
 * server sends on and on, over client/connection.c. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "client/client_state.h"
#include "client/credit.h"
#include "common/clock.h"
#include "tests/unit/support_endless.h"
#include "tests/unit/support_session.h"

enum { MiB = 1 << 20 };
static const uint64_t GiB = 1 << 30;

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

START_TEST(the_default_follows_from_the_memory)
{
    ck_assert_uint_eq(credit_default(1, 0), 64 * MiB);
    ck_assert_uint_eq(credit_default(GiB, 0), 256 * MiB);
    ck_assert_uint_eq(credit_default(UINT64_MAX, 0), 2 * GiB);
}
END_TEST

START_TEST(and_has_room_for_the_largest_frame_and_a_header)
{
    ck_assert_uint_eq(credit_default(GiB, 1), 256 * MiB);
    ck_assert_uint_eq(credit_default(GiB, 255 * MiB), 256 * MiB);
    ck_assert_uint_eq(credit_default(GiB, 255 * MiB + 1), 256 * MiB + 1);
    ck_assert_uint_eq(credit_default(GiB, 256 * MiB), 257 * MiB);
    ck_assert_uint_eq(credit_default(GiB, GiB), GiB + MiB);
    ck_assert_uint_eq(credit_default(GiB, UINT64_MAX), UINT64_MAX);
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

/* Who answers was not in the middle of a message; who does not is no longer believed. */
START_TEST(but_what_comes_like_pings_is_asked_about)
{
    struct credit credit = {.most_bytes = 32 * MiB, .ping_ns = 1};
    uint64_t received = 0, now_ns = 0;
    credit_begin(&credit, now_ns);
    credit_asked(&credit); /* without a doubt, which says nothing about what comes later */
    for (unsigned round = 0; round < 2; round++) {
        const uint64_t before = received;
        while (!credit_in_doubt(&credit)) {
            received += 100;
            ck_assert(!credit_used_up(&credit, received, ++now_ns));
        }
        ck_assert_uint_gt(received - before, MiB);
        ck_assert_uint_le(received - before, MiB + 200);
        credit_asked(&credit);
        ck_assert(!credit_in_doubt(&credit));
        if (round == 0)
            credit_taken(&credit);
    }
    const uint64_t most = received + 32 * MiB;
    const uint64_t step = MiB / 16; /* not as small as pings: each look costs a sanitizer some memory, which counts */
    while (received + step <= most) {
        received += step;
        ck_assert(!credit_used_up(&credit, received, ++now_ns));
    }
    ck_assert(credit_used_up(&credit, received + step, ++now_ns));
}
END_TEST

/* ---- servers ----------------------------------------------------------------------------------------------------- */

/* A call there, until the connection is closed. */
static void fall_for(struct expertd_client *deceived, const struct endless *server)
{
    const unsigned closed = server->closed;
    ck_assert_int_eq(expertd_ping(deceived, SESSION_LONG_MS, &session.call), 0);
    session_finish_as(session.call, EXPERTD_UNAVAILABLE);
    ck_assert_msg(strstr(expertd_call_message(session.call), "a message that does not end") != NULL, "%s",
                  expertd_call_message(session.call));
    expertd_call_release(&session.call);
    while (server->closed == closed) /* what ZeroMQ needs its caller for is done by the way */
        ck_assert_int_eq(expertd_poll(deceived, 1), 0);
}

START_TEST(who_sends_on_and_on_is_left_and_others_notice_nothing)
{
    static struct endless server;
    server.frame = _i ? endless_empty_frame : endless_frame;
    server.frame_bytes = _i ? sizeof endless_empty_frame : sizeof endless_frame;
    struct expertd_client_options options = {
        .size = sizeof options, .zmq_context = zmq_ctx_new(), .max_message_bytes = ENDLESS_MOST};
    struct expertd_client *deceived = NULL;
    endless_start(&server);
    session.router = router_start(NULL, router_nop, NULL);
    ck_assert_int_eq(expertd_client_new(&session.client, router_endpoint(session.router), &options), 0);
    session_ping();
    ck_assert_int_eq(expertd_client_new(&deceived, server.endpoint, &options), 0);
    fall_for(deceived, &server);
    session_ping();
    struct expertd_client_counters counters;
    expertd_client_counters(session.client, &counters);
    ck_assert_uint_eq(counters.disconnects, 0);
    expertd_client_destroy(&deceived);
    expertd_client_destroy(&session.client);
    zmq_ctx_term(options.zmq_context);
    endless_stop(&server);
}
END_TEST

/* Each time it may cost as much as a message may take. */
START_TEST(who_was_left_is_connected_to_again_for_a_call_after_longer_and_longer_pauses)
{
    static struct endless server = {.frame = endless_frame, .frame_bytes = sizeof endless_frame};
    struct expertd_client_options options = {.size = sizeof options, .max_message_bytes = ENDLESS_MOST};
    endless_start(&server);
    ck_assert_int_eq(expertd_client_new(&session.client, server.endpoint, &options), 0);
    const struct connection *connection = &session.client->connection;
    fall_for(session.client, &server);
    const uint64_t first_ns = connection->pause_ns;
    ck_assert_uint_gt(first_ns, 0);
    while (clock_now_ns() < connection->again_ns)
        ck_assert_int_eq(expertd_poll(session.client, 1), 0);
    ck_assert_int_eq(expertd_poll(session.client, 0), 0);
    ck_assert(connection->left); /* as there is no call */

    fall_for(session.client, &server);
    ck_assert_uint_eq(connection->pause_ns, 2 * first_ns);
    ck_assert_int_eq(expertd_ping(session.client, 1, &session.call), 0);
    session_finish_as(session.call, EXPERTD_UNAVAILABLE); /* its time is over first */
    ck_assert_msg(strstr(expertd_call_message(session.call), "a message that does not end") != NULL, "%s",
                  expertd_call_message(session.call));
    ck_assert_uint_eq(connection->connects, 2);
    expertd_client_destroy(&session.client);
    endless_stop(&server);
}
END_TEST

/* Of hundreds of heartbeats a second, so that it is soon as much as it is of others in weeks. */
START_TEST(who_sends_as_slowly_as_heartbeats_come_is_asked)
{
    static const char frame[2 + 64] = "\x01\x40";
    static struct endless server = {.frame = frame, .frame_bytes = sizeof frame, .slow = true};
    struct expertd_client_options options = {.size = sizeof options, .max_message_bytes = MiB, .heartbeat_ms = 1};
    endless_start(&server);
    ck_assert_int_eq(expertd_client_new(&session.client, server.endpoint, &options), 0);
    while (server.asked == 0)
        ck_assert_int_eq(expertd_poll(session.client, 1), 0);
    expertd_client_destroy(&session.client);
    endless_stop(&server);
}
END_TEST

/* Long enough for some looks. */
START_TEST(many_whole_answers_are_no_reason)
{
    static float rows[1 << 20];
    struct expertd_client_options options = {.size = sizeof options, .max_message_bytes = ENDLESS_MOST};
    struct expertd_client_counters counters;
    session.router = router_start(NULL, router_nop, NULL);
    ck_assert_int_eq(expertd_client_new(&session.client, router_endpoint(session.router), &options), 0);
    const struct expertd_tensor input = expertd_tensor_f32(rows, 1 << 10, 1 << 10);
    const uint64_t until_ns = clock_now_ns() + 500 * NS_PER_MS;
    for (size_t bytes = 0; bytes < 4 * (size_t)ENDLESS_MOST || clock_now_ns() < until_ns; bytes += sizeof rows) {
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
    tcase_add_test(bytes, and_has_room_for_the_largest_frame_and_a_header);
    tcase_add_test(bytes, whole_messages_use_nothing_up);
    tcase_add_test(bytes, a_message_without_end_does);
    tcase_add_test(bytes, so_does_the_memory_that_small_frames_become);
    tcase_add_test(bytes, pings_of_a_year_are_no_message);
    tcase_add_test(bytes, but_what_comes_like_pings_is_asked_about);
    suite_add_tcase(suite, bytes);
    TCase *servers = tcase_create("servers");
    tcase_add_checked_fixture(servers, session_open, session_close);
    tcase_set_timeout(servers, 250);
    tcase_add_test(servers, many_whole_answers_are_no_reason);
    tcase_add_loop_test(servers, who_sends_on_and_on_is_left_and_others_notice_nothing, 0, 2);
    tcase_add_test(servers, who_was_left_is_connected_to_again_for_a_call_after_longer_and_longer_pauses);
    tcase_add_test(servers, who_sends_as_slowly_as_heartbeats_come_is_asked);
    suite_add_tcase(suite, servers);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
