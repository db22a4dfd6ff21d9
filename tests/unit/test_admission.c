/* A full pool through a real frontend: who waits for room, who is refused, and what becomes of those that wait. */
#include <signal.h>
#include <string.h>

#include "unit/task_world.h"

static void setup_impatient(void)
{
    setup_with("  restart_grace: 100\n");
}

static uint64_t send_rows(struct asker *asker, uint64_t rows, float value)
{
    ask_prepare(asker, &question, EXPERTD__METHOD__FORWARD, "nop.0", rows, value);
    ask_send(asker, &question);
    return asker->last_id;
}

/* One fills the pool; the number of its first request. */
static uint64_t fill(void)
{
    const uint64_t first = one.last_id + 1;
    rig.knobs->hold = 1;
    for (int i = 0; i < RIG_QUEUE_TASKS; i++)
        send_rows(&one, 1, (float)i);
    RIG_WAIT(ask_counter(&two, "frontend.in_flight") == RIG_QUEUE_TASKS);
    return first;
}

static void wait_until_waiting(double count)
{
    RIG_WAIT(ask_counter(&two, "frontend.requests_waited") == count);
}

static void expect_all_of_one(uint64_t first)
{
    for (uint64_t i = 0; i < RIG_QUEUE_TASKS; i++) {
        expect(&one, first + i, STATUS_OK);
        expect_value((float)i);
    }
}

START_TEST(a_client_with_one_call_is_not_refused_because_another_has_a_thousand)
{
    const uint64_t first = fill();
    for (int i = 0; i < 1000; i++) {
        send_rows(&one, 1, 99);
        expect(&one, one.last_id, STATUS_RESOURCE_EXHAUSTED);
        ck_assert_uint_ge(answer.header->retry_after_ms, 1);
        ck_assert_uint_le(answer.header->retry_after_ms, 1000);
    }
    const uint64_t called = send_rows(&two, RIG_MAX_BATCH, 7);
    wait_until_waiting(1);
    /* It has come before whatever the other one sends from now on. */
    send_rows(&one, 1, 99);
    expect(&one, one.last_id, STATUS_RESOURCE_EXHAUSTED);
    rig.knobs->hold = 0;
    expect(&two, called, STATUS_OK);
    expect_value(7);
    ck_assert_uint_eq(answer.header->retry_after_ms, 0);
    expect_all_of_one(first);
    RIG_WAIT(ask_counter(&two, "frontend.in_flight") == 0);
}
END_TEST

START_TEST(what_waits_is_bounded_by_a_fair_share_of_tasks)
{
    const uint64_t first = fill(), second = two.last_id + 1;
    for (int i = 0; i < RIG_QUEUE_TASKS / 2; i++)
        send_rows(&two, 1, (float)(100 + i));
    send_rows(&two, 1, 99);
    expect(&two, two.last_id, STATUS_RESOURCE_EXHAUSTED);
    ck_assert_uint_ge(answer.header->retry_after_ms, 1);
    rig.knobs->hold = 0;
    for (int i = 0; i < RIG_QUEUE_TASKS / 2; i++) {
        expect(&two, second + (uint64_t)i, STATUS_OK);
        expect_value((float)(100 + i));
    }
    expect_all_of_one(first);
}
END_TEST

START_TEST(what_waits_is_bounded_by_a_fair_share_of_rows)
{
    const uint64_t first = fill(), second = two.last_id + 1;
    for (int i = 0; i < RIG_QUEUE_ROWS / 2 / RIG_MAX_BATCH; i++)
        send_rows(&two, RIG_MAX_BATCH, (float)(100 + i));
    send_rows(&two, 1, 99);
    expect(&two, two.last_id, STATUS_RESOURCE_EXHAUSTED);
    rig.knobs->hold = 0;
    for (int i = 0; i < RIG_QUEUE_ROWS / 2 / RIG_MAX_BATCH; i++)
        expect(&two, second + (uint64_t)i, STATUS_OK);
    expect_all_of_one(first);
}
END_TEST

/* One row is free, for which a small call would not have to wait: but then a large one might wait for ever. */
START_TEST(a_newcomer_waits_behind_those_that_wait)
{
    struct asker third;
    ask_open(&third, &rig, ZMQ_DEALER);
    rig.knobs->hold = 1;
    const uint64_t first = one.last_id + 1;
    const unsigned tasks = RIG_QUEUE_ROWS / RIG_MAX_BATCH;
    for (unsigned i = 0; i < tasks; i++)
        send_rows(&one, RIG_MAX_BATCH - (i + 1 == tasks), 1);
    RIG_WAIT(ask_counter(&two, "frontend.in_flight") == tasks);
    const uint64_t large = send_rows(&two, RIG_MAX_BATCH, 7);
    wait_until_waiting(1);
    const uint64_t small = send_rows(&third, 1, 8);
    wait_until_waiting(2);
    rig.knobs->hold = 0;
    expect(&two, large, STATUS_OK);
    expect_value(7);
    expect(&third, small, STATUS_OK);
    expect_value(8);
    for (unsigned i = 0; i < tasks; i++)
        expect(&one, first + i, STATUS_OK);
    ask_close(&third);
}
END_TEST

START_TEST(what_waits_is_answered_at_its_deadline_and_not_computed)
{
    const uint64_t first = fill();
    send(&two, EXPERTD__METHOD__FORWARD, 50, 1);
    expect(&two, two.last_id, STATUS_DEADLINE_EXCEEDED);
    rig.knobs->hold = 0;
    expect_all_of_one(first);
    ask_alive(&two);
    ck_assert_uint_le(rig.knobs->completed, RIG_QUEUE_TASKS + 3);
    RIG_WAIT(ask_counter(&two, "frontend.in_flight") == 0);
}
END_TEST

START_TEST(what_waits_is_dropped_when_its_asker_goes)
{
    struct asker third;
    const uint64_t first = fill();
    ask_open(&third, &rig, ZMQ_DEALER);
    send(&third, EXPERTD__METHOD__FORWARD, 0, 5);
    wait_until_waiting(1);
    ask_close(&third);
    RIG_WAIT(ask_counter(&two, "frontend.requests_dropped") == 1);
    ck_assert(ask_counter(&two, "frontend.in_flight") == RIG_QUEUE_TASKS);
    rig.knobs->hold = 0;
    expect_all_of_one(first);
    ask_alive(&two);
}
END_TEST

START_TEST(a_backward_that_waits_and_is_repeated_steps_once)
{
    rig.knobs->hold = 1;
    const uint64_t first = one.last_id + 1;
    for (int i = 0; i < RIG_QUEUE_TASKS; i++)
        send(&one, EXPERTD__METHOD__BACKWARD, 0, (float)i);
    RIG_WAIT(ask_counter(&two, "frontend.in_flight") == RIG_QUEUE_TASKS);
    send(&two, EXPERTD__METHOD__BACKWARD, 0, 7);
    const uint64_t id = two.last_id;
    wait_until_waiting(1);
    for (int i = 0; i < 2; i++) {
        ask_prepare(&two, &question, EXPERTD__METHOD__BACKWARD, "nop.0", 1, -1);
        question.header.request_id = id;
        ask_send(&two, &question);
    }
    RIG_WAIT(ask_counter(&one, "frontend.replay.joined") == 2);
    rig.knobs->hold = 0;
    expect(&two, id, STATUS_OK);
    expect_value(7);
    expect_all_of_one(first);
    ck_assert_uint_eq(rig.knobs->applied, RIG_QUEUE_TASKS + 1);
}
END_TEST

START_TEST(what_waits_is_unavailable_when_the_runtime_does_not_come_back)
{
    fill();
    const uint64_t called = send_rows(&two, 1, 7);
    wait_until_waiting(1);
    rig_end(&rig.runtime, SIGKILL);
    expect(&two, called, STATUS_UNAVAILABLE);
    rig.knobs->hold = 0;
    rig_start_runtime(&rig, false);
    ask_until_up(&two);
    ask_alive(&two);
    RIG_WAIT(ask_counter(&two, "frontend.in_flight") == 0);
}
END_TEST

START_TEST(what_waits_survives_a_restart_of_the_runtime)
{
    const uint64_t first = fill();
    const uint64_t called = send_rows(&two, 1, 7);
    wait_until_waiting(1);
    rig_end(&rig.runtime, SIGKILL);
    rig.knobs->hold = 0;
    rig_start_runtime(&rig, false);
    expect(&two, called, STATUS_OK);
    expect_value(7);
    expect_all_of_one(first);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("admission"), *impatient = tcase_create("impatient");
    tcase_add_checked_fixture(impatient, setup_impatient, teardown);
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, a_client_with_one_call_is_not_refused_because_another_has_a_thousand);
    tcase_add_test(all, what_waits_is_bounded_by_a_fair_share_of_tasks);
    tcase_add_test(all, what_waits_is_bounded_by_a_fair_share_of_rows);
    tcase_add_test(all, a_newcomer_waits_behind_those_that_wait);
    tcase_add_test(all, what_waits_is_answered_at_its_deadline_and_not_computed);
    tcase_add_test(all, what_waits_is_dropped_when_its_asker_goes);
    tcase_add_test(all, a_backward_that_waits_and_is_repeated_steps_once);
    tcase_add_test(impatient, what_waits_is_unavailable_when_the_runtime_does_not_come_back);
    tcase_add_test(all, what_waits_survives_a_restart_of_the_runtime);
    Suite *suite = suite_create("admission");
    suite_add_tcase(suite, all);
    suite_add_tcase(suite, impatient);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
