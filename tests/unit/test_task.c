/* Requests on their way in through a real frontend: answers, deadlines, full pools, and BACKWARD at most once. */
#include <signal.h>
#include <string.h>

#include "unit/task_world.h"

static void setup_small(void)
{
    setup_with("  max_requests: 4\n  replay_cache: 0\n");
}

START_TEST(many_in_flight_each_get_their_own_answer)
{
    /* The pool holds 16 tasks and 32 rows, so hold back a little. */
    uint64_t first = one.last_id + 1;
    for (int i = 0; i < 2000; i++) {
        const uint64_t rows = 1 + (uint64_t)i % 3;
        ask_prepare(&one, &question, EXPERTD__METHOD__FORWARD, i % 2 ? "nop.0" : "nop.1", rows, (float)i);
        ask_send(&one, &question);
        if (i < 4)
            continue;
        ask_receive(&one, &answer);
        ck_assert_int_eq((int)answer.header->status, STATUS_OK);
        const uint64_t number = answer.header->request_id - first;
        ck_assert_uint_eq(answer.bytes[0], (1 + number % 3) * RIG_COLUMNS * sizeof(float));
        expect_value((float)number);
    }
}
END_TEST

START_TEST(a_req_socket_works_and_so_does_a_correlated_one)
{
    for (int correlate = 0; correlate < 2; correlate++) {
        struct asker req;
        ask_open(&req, &rig, ZMQ_REQ);
        ck_assert_int_eq(zmq_setsockopt(req.socket, ZMQ_REQ_CORRELATE, &correlate, sizeof correlate), 0);
        for (int i = 0; i < 5; i++)
            ask_alive(&req);
        ask_close(&req);
    }
}
END_TEST

START_TEST(a_queued_request_is_answered_at_its_deadline_and_not_computed)
{
    rig.knobs->hold = 1;
    send(&one, EXPERTD__METHOD__FORWARD, 50, 1);
    expect(&one, one.last_id, STATUS_DEADLINE_EXCEEDED);
    ck_assert_ptr_nonnull(strstr(answer.header->message, "deadline"));
    const unsigned taken = rig.knobs->taken;
    rig.knobs->hold = 0;
    ask_alive(&one);
    ck_assert_uint_eq(rig.knobs->taken, taken + 1);
}
END_TEST

START_TEST(a_full_pool_says_so_and_serves_again_when_it_has_room)
{
    rig.knobs->hold = 1;
    const uint64_t first = one.last_id + 1;
    for (int i = 0; i < RIG_QUEUE_TASKS; i++)
        send(&one, EXPERTD__METHOD__FORWARD, 0, (float)i);
    send(&one, EXPERTD__METHOD__FORWARD, 0, 99);
    expect(&one, one.last_id, STATUS_RESOURCE_EXHAUSTED);
    ck_assert_ptr_nonnull(strstr(answer.header->message, "pool is full: 16 requests"));
    rig.knobs->hold = 0;
    for (int i = 0; i < RIG_QUEUE_TASKS; i++) {
        expect(&one, first + (uint64_t)i, STATUS_OK);
        expect_value((float)i);
    }
    ask_alive(&one);
}
END_TEST

START_TEST(rows_fill_a_pool_too)
{
    rig.knobs->hold = 1;
    for (int i = 0; i < RIG_QUEUE_ROWS / RIG_MAX_BATCH; i++) {
        ask_prepare(&one, &question, EXPERTD__METHOD__FORWARD, "nop.0", RIG_MAX_BATCH, 1);
        ask_send(&one, &question);
    }
    RIG_WAIT(ask_counter(&one, "frontend.in_flight") == RIG_QUEUE_ROWS / RIG_MAX_BATCH);
    send(&one, EXPERTD__METHOD__FORWARD, 0, 1);
    expect(&one, one.last_id, STATUS_RESOURCE_EXHAUSTED);
    rig.knobs->hold = 0;
    for (int i = 0; i < RIG_QUEUE_ROWS / RIG_MAX_BATCH; i++)
        ask_receive(&one, &answer);
    ask_alive(&two);
}
END_TEST

START_TEST(a_backward_that_is_repeated_gets_its_first_answer_and_steps_once)
{
    send(&one, EXPERTD__METHOD__BACKWARD, 0, 7);
    const uint64_t id = one.last_id;
    expect(&one, id, STATUS_OK);
    expect_value(7);
    ck_assert_uint_eq(rig.knobs->applied, 1);
    for (int i = 0; i < 3; i++) {
        struct asker *asker = i % 2 ? &one : &two;
        repeat(asker, id, 0);
        expect(asker, id, STATUS_OK);
        expect_value(7);
        ck_assert_uint_eq(answer.bytes[0], RIG_COLUMNS * sizeof(float));
    }
    ck_assert_uint_eq(rig.knobs->applied, 1);
    ck_assert(ask_counter(&one, "frontend.replay.answered") == 3);
    ck_assert(ask_counter(&one, "frontend.replay.kept") == 1);
    /* Another expert is another request, and so is another client. */
    ask_prepare(&two, &question, EXPERTD__METHOD__BACKWARD, "nop.1", 1, 8);
    question.header.client_id = (ProtobufCBinaryData){sizeof one.client_id, one.client_id};
    question.header.request_id = id;
    ask_call(&two, &question, &answer, STATUS_OK);
    ask_prepare(&two, &question, EXPERTD__METHOD__BACKWARD, "nop.0", 1, 8);
    question.header.request_id = id;
    ask_call(&two, &question, &answer, STATUS_OK);
    ck_assert_uint_eq(rig.knobs->applied, 3);
}
END_TEST

START_TEST(without_a_client_id_every_backward_steps)
{
    one.anonymous = true;
    for (unsigned i = 1; i <= 3; i++) {
        ask_prepare(&one, &question, EXPERTD__METHOD__BACKWARD, "nop.0", 1, 1);
        question.header.request_id = 5;
        ask_call(&one, &question, &answer, STATUS_OK);
        ck_assert_uint_eq(rig.knobs->applied, i);
    }
}
END_TEST

START_TEST(a_repeat_joins_its_running_first_and_only_the_newest_asker_is_answered)
{
    rig.knobs->hold_running = 1;
    send(&one, EXPERTD__METHOD__BACKWARD, 200, 7);
    const uint64_t id = one.last_id;
    RIG_WAIT(rig.knobs->taken == 1);
    repeat(&two, id, 0); /* which has no deadline: the first's does not count any more */
    ck_assert(!ask_poll(&one, &answer, 400));
    rig.knobs->hold_running = 0;
    expect(&two, id, STATUS_OK);
    expect_value(7);
    ck_assert(!ask_poll(&one, &answer, 20));
    ck_assert_uint_eq(rig.knobs->applied, 1);
    ck_assert(ask_counter(&one, "frontend.replay.joined") == 1);
    ck_assert(ask_counter(&one, "frontend.in_flight") == 0);
}
END_TEST

START_TEST(a_backward_that_expired_in_the_queue_is_computed_when_it_is_repeated)
{
    rig.knobs->hold = 1;
    send(&one, EXPERTD__METHOD__BACKWARD, 50, 7);
    const uint64_t id = one.last_id;
    expect(&one, id, STATUS_DEADLINE_EXCEEDED);
    repeat(&one, id, 0);
    rig.knobs->hold = 0;
    expect(&one, id, STATUS_OK);
    expect_value(-1); /* the repeat's own tensors */
    ck_assert_uint_eq(rig.knobs->applied, 1);
}
END_TEST

START_TEST(the_kept_answer_of_one_who_had_gone_has_the_request_s_id)
{
    struct asker third;
    unsigned char client_id[sizeof third.client_id];
    ask_open(&third, &rig, ZMQ_DEALER);
    memcpy(client_id, third.client_id, sizeof client_id);
    rig.knobs->hold = 1;
    third.last_id = 40;
    send(&third, EXPERTD__METHOD__BACKWARD, 0, 7);
    RIG_WAIT(ask_counter(&one, "frontend.in_flight") == 1);
    ask_close(&third);
    RIG_WAIT(ask_counter(&one, "frontend.requests_dropped") == 1);
    rig.knobs->hold = 0;
    RIG_WAIT(ask_counter(&one, "frontend.replay.kept") == 1);
    ask_prepare(&two, &question, EXPERTD__METHOD__BACKWARD, "nop.0", 1, -1);
    question.header.client_id = (ProtobufCBinaryData){sizeof client_id, client_id};
    question.header.request_id = 41;
    ask_send(&two, &question);
    expect(&two, 41, STATUS_OK);
    expect_value(7);
    ck_assert_uint_eq(rig.knobs->applied, 1);
}
END_TEST

START_TEST(a_server_that_keeps_no_answers_still_steps_once)
{
    send(&one, EXPERTD__METHOD__BACKWARD, 0, 7);
    const uint64_t id = one.last_id;
    expect(&one, id, STATUS_OK);
    repeat(&one, id, 0);
    expect(&one, id, STATUS_ALREADY_EXISTS);
    ck_assert_uint_eq(rig.knobs->applied, 1);
    ck_assert(ask_counter(&one, "frontend.replay.kept") == 0);
}
END_TEST

START_TEST(a_full_server_says_so)
{
    rig.knobs->hold = 1;
    const uint64_t first = one.last_id + 1;
    for (int i = 0; i < 4; i++)
        send(&one, EXPERTD__METHOD__FORWARD, 0, 1);
    send(&one, EXPERTD__METHOD__FORWARD, 0, 1);
    expect(&one, one.last_id, STATUS_RESOURCE_EXHAUSTED);
    ck_assert_ptr_nonnull(strstr(answer.header->message, "server is full: 4 requests"));
    rig.knobs->hold = 0;
    for (uint64_t i = 0; i < 4; i++)
        expect(&one, first + i, STATUS_OK);
    ask_alive(&one);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("task"), *small = tcase_create("small");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_checked_fixture(small, setup_small, teardown);
    tcase_add_test(all, many_in_flight_each_get_their_own_answer);
    tcase_add_test(all, a_req_socket_works_and_so_does_a_correlated_one);
    tcase_add_test(all, a_queued_request_is_answered_at_its_deadline_and_not_computed);
    tcase_add_test(all, a_full_pool_says_so_and_serves_again_when_it_has_room);
    tcase_add_test(all, rows_fill_a_pool_too);
    tcase_add_test(all, a_backward_that_is_repeated_gets_its_first_answer_and_steps_once);
    tcase_add_test(all, without_a_client_id_every_backward_steps);
    tcase_add_test(all, a_repeat_joins_its_running_first_and_only_the_newest_asker_is_answered);
    tcase_add_test(all, a_backward_that_expired_in_the_queue_is_computed_when_it_is_repeated);
    tcase_add_test(all, the_kept_answer_of_one_who_had_gone_has_the_request_s_id);
    tcase_add_test(small, a_server_that_keeps_no_answers_still_steps_once);
    tcase_add_test(small, a_full_server_says_so);
    Suite *suite = suite_create("task");
    suite_add_tcase(suite, all);
    suite_add_tcase(suite, small);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
