/* Calls that wait because a server had no room, and those made after them. */
#include <check.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "client/backlog.h"
#include "tests/unit/support_session.h"

enum { PLACES_MOST = 4, CAME_MOST = 16 };

/* Has so many places for tensors. A ping is answered after what has had its place longest. */
struct full {
    uint32_t places, retry_after_ms;
    unsigned refusals; /* then there is one more place */
    _Atomic unsigned came, came_before_ping;
    uint64_t ids[CAME_MOST], held[PLACES_MOST];
    unsigned holds;
};

static void refuse(struct router_request *request, const Expertd__RequestHeader *header, uint32_t retry_after_ms)
{
    Expertd__ReplyHeader reply = EXPERTD__REPLY_HEADER__INIT;
    char text[] = "full";
    reply.status = EXPERTD__STATUS__RESOURCE_EXHAUSTED;
    reply.message = text;
    reply.retry_after_ms = retry_after_ms;
    router_reply(request, header, &reply, NULL, 0);
}

static void answer_first(struct full *full, struct router_request *request)
{
    static const float row[4];
    uint64_t shape[] = {1, 4};
    Expertd__RequestHeader to = EXPERTD__REQUEST_HEADER__INIT;
    Expertd__ReplyHeader reply = EXPERTD__REPLY_HEADER__INIT;
    Expertd__Tensor tensor = EXPERTD__TENSOR__INIT, *tensors[] = {&tensor};
    tensor.dtype = EXPERTD__DTYPE__FLOAT32;
    tensor.shape = shape;
    tensor.n_shape = 2;
    reply.tensors = tensors;
    reply.n_tensors = 1;
    to.request_id = full->held[0];
    full->holds--;
    memmove(full->held, full->held + 1, full->holds * sizeof full->held[0]);
    router_reply(request, &to, &reply, &(struct router_frame){row, sizeof row}, 1);
}

static void serve(void *context, struct router_request *request)
{
    struct full *full = context;
    const Expertd__RequestHeader *header = router_header(request);
    if (header->method == EXPERTD__METHOD__PING) {
        atomic_store(&full->came_before_ping, atomic_load(&full->came));
        if (header->request_id != 0 && full->holds > 0)
            answer_first(full, request);
        router_nop(NULL, request);
        return;
    }
    const unsigned before = atomic_load(&full->came);
    full->ids[before % CAME_MOST] = header->request_id;
    if (full->holds < full->places) {
        full->held[full->holds++] = header->request_id;
    } else if (full->refusals-- == 1) {
        full->places++;
        refuse(request, header, full->retry_after_ms);
    } else {
        refuse(request, header, full->retry_after_ms);
    }
    atomic_store(&full->came, before + 1);
}

static void await_refusals(uint64_t count)
{
    struct expertd_client_counters counters = {0};
    while (counters.resent < count) {
        ck_assert_int_ge(expertd_poll(session.client, 10), 0);
        expertd_client_counters(session.client, &counters);
    }
}

static struct expertd_call *forward(uint32_t deadline_ms)
{
    struct expertd_call *call;
    session_forward(1, deadline_ms, &call);
    return call;
}

static void finish(struct expertd_call *call, enum expertd_status status)
{
    session_finish_as(call, status);
    expertd_call_release(&call);
}

/* The first one has the only place, and the second was refused. */
static struct expertd_call *second_behind(struct full *full, struct expertd_call **first, uint32_t first_deadline_ms)
{
    session_start(serve, full);
    *first = forward(first_deadline_ms);
    struct expertd_call *second = forward(SESSION_LONG_MS);
    await_refusals(1);
    return second;
}

START_TEST(each_answer_lets_one_go_in_the_order_in_which_they_were_made)
{
    struct full full = {.places = 1, .retry_after_ms = SESSION_LONG_MS / 10};
    session_start(serve, &full);
    struct expertd_call *calls[4] = {forward(SESSION_LONG_MS), forward(SESSION_LONG_MS)};
    await_refusals(1);
    calls[2] = forward(SESSION_LONG_MS);
    calls[3] = forward(SESSION_LONG_MS);
    for (unsigned i = 0; i < 4; i++) {
        session_ping();
        ck_assert_uint_eq(full.came_before_ping, 2 + i);
        finish(calls[i], EXPERTD_OK);
    }
    ck_assert_uint_eq(full.ids[2], full.ids[1]);
    ck_assert_uint_gt(full.ids[3], full.ids[2]);
    ck_assert_uint_gt(full.ids[4], full.ids[3]);
    /* And then it is as it was. */
    struct expertd_call *call = forward(SESSION_LONG_MS);
    session_ping();
    finish(call, EXPERTD_OK);
}
END_TEST

START_TEST(nobody_waits_behind_those_of_other_experts_or_methods)
{
    struct full full = {.places = 1, .retry_after_ms = SESSION_LONG_MS / 10};
    const struct expertd_tensor input = session_rows_of_4(1);
    struct expertd_call *other;
    struct expertd_call *first, *second = second_behind(&full, &first, SESSION_LONG_MS);
    session_backward(SESSION_LONG_MS, &session.call);
    await_refusals(2);
    ck_assert_int_eq(expertd_forward(session.client, "nop.1", &input, 1, SESSION_LONG_MS, &other), 0);
    await_refusals(3);
    session_ping();
    finish(first, EXPERTD_OK);
    session_ping(); /* of those that were refused one alone has come since */
    ck_assert_uint_eq(full.came_before_ping, 5);
    finish(second, EXPERTD_OK);
    expertd_call_release(&other);
}
END_TEST

START_TEST(at_its_deadline_a_call_ends_that_stands_behind_others)
{
    struct full full = {.places = 1, .retry_after_ms = SESSION_LONG_MS / 10};
    struct expertd_call *first, *second = second_behind(&full, &first, SESSION_LONG_MS);
    session.call = forward(SESSION_SHORT_MS);
    session_finish_as(session.call, EXPERTD_RESOURCE_EXHAUSTED);
    ck_assert_ptr_nonnull(strstr(expertd_call_message(session.call), "waits behind"));
    ck_assert_uint_eq(expertd_call_retry_after_ms(session.call), full.retry_after_ms);
    ck_assert(expertd_call_not_applied(session.call));
    ck_assert_uint_eq(full.came, 2);
    expertd_call_release(&second);
    expertd_call_release(&first);
}
END_TEST

START_TEST(what_is_given_up_keeps_no_place_in_the_row)
{
    struct full full = {.places = 1, .retry_after_ms = SESSION_LONG_MS / 10};
    struct expertd_call *first, *second = second_behind(&full, &first, SESSION_LONG_MS);
    struct expertd_call *third = forward(SESSION_LONG_MS), *fourth = forward(SESSION_LONG_MS);
    expertd_call_release(&third);
    expertd_call_release(&second);
    session_ping();
    finish(first, EXPERTD_OK);
    session_ping();
    ck_assert_uint_eq(full.came_before_ping, 3);
    finish(fourth, EXPERTD_OK);
}
END_TEST

/* Of the place that there is now nothing tells but that the first one has gone. */
static void check_second_is_served(struct expertd_call *second, const struct full *full)
{
    while (atomic_load(&full->came) < 3)
        ck_assert_int_ge(expertd_poll(session.client, 10), 0);
    session_ping(); /* the first one's answer, which comes late */
    session_ping();
    finish(second, EXPERTD_OK);
}

START_TEST(who_waits_is_tried_when_one_ends_at_its_deadline)
{
    struct full full = {.places = 1, .retry_after_ms = SESSION_LONG_MS, .refusals = 1};
    struct expertd_call *first, *second = second_behind(&full, &first, 40 * SESSION_SHORT_MS);
    finish(first, EXPERTD_DEADLINE_EXCEEDED); /* long after the second one's refusal */
    check_second_is_served(second, &full);
}
END_TEST

START_TEST(who_waits_is_tried_when_one_is_given_up)
{
    struct full full = {.places = 1, .retry_after_ms = SESSION_LONG_MS, .refusals = 1};
    struct expertd_call *first, *second = second_behind(&full, &first, SESSION_LONG_MS);
    expertd_call_release(&first);
    check_second_is_served(second, &full);
}
END_TEST

START_TEST(who_has_no_time_to_wait_is_sent_where_nobody_is_before_it)
{
    struct full full = {.places = 0, .retry_after_ms = SESSION_LONG_MS / 10};
    session_start(serve, &full);
    struct expertd_call *first = forward(SESSION_LONG_MS);
    await_refusals(1);
    session.call = forward(SESSION_SHORT_MS);
    session_finish_as(session.call, EXPERTD_RESOURCE_EXHAUSTED);
    ck_assert_uint_eq(full.came, 2);
    expertd_call_release(&first);
}
END_TEST

START_TEST(what_an_awaited_answer_lets_go_is_on_its_way_when_the_wait_ends)
{
    struct full full = {.places = 1, .retry_after_ms = SESSION_LONG_MS / 10};
    struct expertd_call *ping, *first, *second = second_behind(&full, &first, SESSION_LONG_MS);
    ck_assert_int_eq(expertd_ping(session.client, SESSION_LONG_MS, &ping), 0);
    ck_assert_int_eq(expertd_call_wait(first, SESSION_LONG_MS), 0);
    while (atomic_load(&full.came) < 3) /* nobody polls */
        usleep(1000);
    session_finish_as(ping, EXPERTD_OK);
    expertd_call_release(&ping);
    session_ping();
    finish(second, EXPERTD_OK);
    finish(first, EXPERTD_OK);
}
END_TEST

START_TEST(they_stand_in_the_order_in_which_they_were_made_whenever_they_come)
{
    static const uint64_t come[] = {2, 5, 7, 3, 1, 6}, stand[] = {1, 2, 3, 5, 6, 7};
    struct expertd_call calls[sizeof come / sizeof come[0]];
    struct backlog backlog = {0};
    struct expertd_client client = {0};
    TAILQ_INIT(&backlog.calls);
    TAILQ_INIT(&client.waiting_backlogs);
    for (size_t i = 0; i < sizeof come / sizeof come[0]; i++) {
        calls[i].request_id = come[i];
        calls[i].client = &client;
        backlog_join(&backlog, &calls[i]);
    }
    const struct expertd_call *at = TAILQ_FIRST(&backlog.calls);
    for (size_t i = 0; i < sizeof stand / sizeof stand[0]; i++, at = TAILQ_NEXT(at, behind))
        ck_assert_uint_eq(at->request_id, stand[i]);
    ck_assert_ptr_null(at);
}
END_TEST

START_TEST(after_the_hint_it_is_tried_whether_there_are_more_places_now)
{
    struct full full = {.places = 1, .retry_after_ms = 1, .refusals = 3};
    session_start(serve, &full);
    struct expertd_call *first = forward(SESSION_LONG_MS), *second = forward(SESSION_LONG_MS);
    await_refusals(3);
    while (atomic_load(&full.came) < 5)
        ck_assert_int_ge(expertd_poll(session.client, 1), 0);
    session_ping();
    session_ping();
    finish(first, EXPERTD_OK);
    finish(second, EXPERTD_OK);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("backlog");
    TCase *tests = tcase_create("backlog");
    tcase_add_checked_fixture(tests, session_open, session_close);
    tcase_add_test(tests, each_answer_lets_one_go_in_the_order_in_which_they_were_made);
    tcase_add_test(tests, nobody_waits_behind_those_of_other_experts_or_methods);
    tcase_add_test(tests, at_its_deadline_a_call_ends_that_stands_behind_others);
    tcase_add_test(tests, what_is_given_up_keeps_no_place_in_the_row);
    tcase_add_test(tests, who_waits_is_tried_when_one_ends_at_its_deadline);
    tcase_add_test(tests, who_waits_is_tried_when_one_is_given_up);
    tcase_add_test(tests, who_has_no_time_to_wait_is_sent_where_nobody_is_before_it);
    tcase_add_test(tests, what_an_awaited_answer_lets_go_is_on_its_way_when_the_wait_ends);
    tcase_add_test(tests, they_stand_in_the_order_in_which_they_were_made_whenever_they_come);
    tcase_add_test(tests, after_the_hint_it_is_tried_whether_there_are_more_places_now);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
