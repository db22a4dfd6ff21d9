/* A call at the wrong frontend: two servers, of which one names the other. */
#include <check.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "client/siblings.h"
#include "tests/unit/support_session.h"

static struct router *right; /* has nop.0, which the session's server has not */
static atomic_int at_home, at_right, right_has_it;
static uint64_t ids[2]; /* of the last request at home, and at the right one */
static char named[256]; /* the endpoint that home names */

static void answer_right(void *context, struct router_request *request)
{
    const Expertd__RequestHeader *header = router_header(request);
    if (header->method != EXPERTD__METHOD__PING) {
        ids[1] = header->request_id;
        atomic_fetch_add(&at_right, 1);
    }
    if (!atomic_load(&right_has_it) && header->method != EXPERTD__METHOD__PING)
        router_reply_status(request, header, EXPERTD__STATUS__NOT_FOUND, "not here any more");
    else
        router_nop(context, request);
}

/* Names the other one, or when nothing is named has the expert itself. */
static void answer_home(void *context, struct router_request *request)
{
    const Expertd__RequestHeader *header = router_header(request);
    Expertd__ReplyHeader reply = EXPERTD__REPLY_HEADER__INIT;
    if (header->method != EXPERTD__METHOD__PING) {
        ids[0] = header->request_id;
        atomic_fetch_add(&at_home, 1);
    }
    if (!named[0] || header->method == EXPERTD__METHOD__PING) {
        router_nop(context, request);
        return;
    }
    reply.status = EXPERTD__STATUS__NOT_FOUND;
    reply.message = (char *)(uintptr_t) "it is at another frontend";
    reply.endpoint = named;
    router_reply(request, header, &reply, NULL, 0);
}

static void set_up(void)
{
    session_open();
    right = router_start(NULL, answer_right, NULL);
    snprintf(named, sizeof named, "%s", router_endpoint(right));
    atomic_store(&at_home, 0);
    atomic_store(&at_right, 0);
    atomic_store(&right_has_it, 1);
    session_start(answer_home, NULL);
}

static void tear_down(void)
{
    session_close();
    router_stop(&right);
}

static void forward_as(enum expertd_status status)
{
    session_forward(3, SESSION_LONG_MS, &session.call);
    session_finish_as(session.call, status);
}

START_TEST(a_call_follows_and_the_next_goes_there_at_once)
{
    for (int i = 1; i <= 3; i++) {
        forward_as(EXPERTD_OK);
        ck_assert_uint_eq(expertd_call_output_count(session.call), 1);
        ck_assert_mem_eq(expertd_call_output(session.call, 0)->data, session_floats, 48);
        expertd_call_release(&session.call);
        ck_assert_int_eq(atomic_load(&at_home), 1);
        ck_assert_int_eq(atomic_load(&at_right), i);
    }
    struct expertd_client_counters counters = {.size = sizeof counters};
    expertd_client_read_counters(session.client, &counters);
    ck_assert_uint_eq(counters.followed, 1);
    ck_assert_uint_eq(counters.in_flight, 0);
    ck_assert_uint_eq(counters.calls, 3);
}
END_TEST

START_TEST(a_backward_keeps_its_id_and_can_be_repeated)
{
    session_backward(SESSION_LONG_MS, &session.call);
    session_finish_as(session.call, EXPERTD_OK);
    ck_assert_uint_eq(ids[0], ids[1]);
    const uint64_t id = ids[1];
    ck_assert_int_eq(expertd_call_retry(session.call, SESSION_LONG_MS), 0);
    session_finish_as(session.call, EXPERTD_OK);
    ck_assert_uint_eq(ids[1], id);
    ck_assert_int_eq(atomic_load(&at_right), 2);
    ck_assert(!expertd_call_not_applied(session.call));
}
END_TEST

START_TEST(info_and_checkpoint_follow_too)
{
    ck_assert_int_eq(expertd_info(session.client, "nop.0", SESSION_LONG_MS, &session.call), 0);
    session_finish_as(session.call, EXPERTD_OK);
    ck_assert_str_eq(expertd_call_info(session.call)->uid, "nop.0");
    expertd_call_release(&session.call);
    ck_assert_int_eq(expertd_checkpoint(session.client, "nop.0", SESSION_LONG_MS, &session.call), 0);
    session_finish_as(session.call, EXPERTD_OK);
    ck_assert_int_eq(atomic_load(&at_right), 2);
}
END_TEST

START_TEST(what_is_not_there_any_more_is_looked_for_at_home)
{
    forward_as(EXPERTD_OK);
    expertd_call_release(&session.call);
    atomic_store(&right_has_it, 0);
    named[0] = 0;
    forward_as(EXPERTD_OK); /* remembered to be at the right one, which says no, and then at home */
    expertd_call_release(&session.call);
    ck_assert_int_eq(atomic_load(&at_right), 2);
    ck_assert_int_eq(atomic_load(&at_home), 2);
    forward_as(EXPERTD_OK); /* which is remembered */
    ck_assert_int_eq(atomic_load(&at_right), 2);
}
END_TEST

START_TEST(nobody_is_sent_round_in_circles)
{
    atomic_store(&right_has_it, 0);
    forward_as(EXPERTD_NOT_FOUND);
    ck_assert_str_eq(expertd_call_message(session.call), "not here any more");
    ck_assert(expertd_call_not_applied(session.call));
    ck_assert_int_eq(atomic_load(&at_home), 1);
    ck_assert_int_eq(atomic_load(&at_right), 1);
    expertd_call_release(&session.call);
    snprintf(named, sizeof named, "%s", router_endpoint(session.router)); /* itself */
    forward_as(EXPERTD_NOT_FOUND);
    ck_assert_int_le(atomic_load(&at_home), 4);
}
END_TEST

START_TEST(what_is_no_endpoint_is_not_followed)
{
    static const char *const strange[] = {"tcp://*:1", "inproc://x",  "ipc://", "tcp://h",
                                          "nonsense",  "pgm://a;b:1", "\n"};
    snprintf(named, sizeof named, "%s", strange[_i]);
    forward_as(EXPERTD_NOT_FOUND);
    ck_assert_str_eq(expertd_call_message(session.call), "it is at another frontend");
}
END_TEST

START_TEST(the_other_one_s_silence_ends_with_the_deadline)
{
    snprintf(named, sizeof named, "%s", session_free_endpoint());
    session_forward(3, 3000, &session.call);
    session_finish_as(session.call, EXPERTD_UNAVAILABLE);
    ck_assert_ptr_nonnull(strstr(expertd_call_message(session.call), named));
}
END_TEST

START_TEST(calls_that_are_away_can_be_given_up)
{
    snprintf(named, sizeof named, "%s", session_free_endpoint());
    for (int i = 0; i < 3; i++) {
        session_forward(3, SESSION_LONG_MS, &session.call);
        while (atomic_load(&at_home) == 0)
            expertd_poll(session.client, 10);
        expertd_poll(session.client, 50);
        expertd_call_release(&session.call);
    }
    session_forward(3, SESSION_LONG_MS, &session.call);
    expertd_client_destroy(&session.client); /* with one of them */
    session.call = NULL;
}
END_TEST

START_TEST(many_calls_at_once_all_come_back)
{
    enum { CALLS = 500 };
    static struct expertd_call *calls[CALLS];
    for (int i = 0; i < CALLS; i++)
        session_forward(1 + i % 3, SESSION_LONG_MS, &calls[i]);
    for (int i = 0; i < CALLS; i++) {
        session_finish_as(calls[i], EXPERTD_OK);
        expertd_call_release(&calls[i]);
    }
    ck_assert_int_eq(atomic_load(&at_right), CALLS);
}
END_TEST

START_TEST(a_server_cannot_open_connections_without_end)
{
    struct siblings siblings;
    struct expertd_client_options options;
    bool made;
    expertd_client_options_init(&options);
    ck_assert_int_eq(siblings_init(&siblings, &options), 0);
    ck_assert_ptr_null(siblings_get(&siblings, "tcp://10.0.0.1:1", "ipc:///run/x", NULL, &made)); /* of this host */
    ck_assert_ptr_null(siblings_find(&siblings, 1));
    siblings_learn(&siblings, 1, NULL);
    struct expertd_client *first =
        siblings_get(&siblings, "tcp://127.0.0.1:1", "ipc:///tmp/expertd-nowhere", NULL, &made);
    ck_assert_ptr_nonnull(first);
    ck_assert(made);
    ck_assert_ptr_eq(siblings_get(&siblings, "tcp://127.0.0.1:1", "ipc:///tmp/expertd-nowhere", NULL, &made), first);
    ck_assert(!made);
    siblings_learn(&siblings, 1, first);
    ck_assert_ptr_eq(siblings_find(&siblings, 1), first);
    ck_assert_ptr_null(siblings_find(&siblings, 4097));
    siblings_learn(&siblings, 4097, NULL); /* another one's is not forgotten with it */
    ck_assert_ptr_eq(siblings_find(&siblings, 1), first);
    for (siblings.count = 0; siblings.count < SIBLINGS_MAX; siblings.count++)
        siblings.clients[siblings.count] = first;
    ck_assert_ptr_null(siblings_get(&siblings, "tcp://127.0.0.1:1", "ipc:///tmp/expertd-more", NULL, &made));
    siblings.count = 1;
    siblings_clear(&siblings);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("siblings");
    TCase *tests = tcase_create("siblings");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_set_timeout(tests, 600);
    tcase_add_test(tests, a_call_follows_and_the_next_goes_there_at_once);
    tcase_add_test(tests, a_backward_keeps_its_id_and_can_be_repeated);
    tcase_add_test(tests, info_and_checkpoint_follow_too);
    tcase_add_test(tests, what_is_not_there_any_more_is_looked_for_at_home);
    tcase_add_test(tests, nobody_is_sent_round_in_circles);
    tcase_add_loop_test(tests, what_is_no_endpoint_is_not_followed, 0, 7);
    tcase_add_test(tests, the_other_one_s_silence_ends_with_the_deadline);
    tcase_add_test(tests, calls_that_are_away_can_be_given_up);
    tcase_add_test(tests, many_calls_at_once_all_come_back);
    tcase_add_test(tests, a_server_cannot_open_connections_without_end);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
