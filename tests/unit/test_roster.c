/* Runtimes that come, die, hang, stop and come back, and what a real frontend tells its clients meanwhile. */
#include <check.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "unit/support_ask.h"

static struct rig rig;
static struct asker one;
static struct question question;
static struct answer answer;

static void begin(const char *options)
{
    rig_open(&rig, options);
    rig_start_frontend(&rig);
    ask_open(&one, &rig, ZMQ_DEALER);
}

static void begin_up(const char *options)
{
    begin(options);
    rig_start_runtime(&rig, false);
    ask_until_up(&one);
}

static void teardown(void)
{
    rig.knobs->hold = rig.knobs->hold_running = rig.knobs->hang = 0;
    ask_close(&one);
    ck_assert_int_eq(rig_end(&rig.frontend, SIGTERM), 0);
    rig_close(&rig);
}

static uint64_t send(Expertd__Method method, const char *uid, float value)
{
    ask_prepare(&one, &question, method, uid, 1, value);
    ask_send(&one, &question);
    return one.last_id;
}

static void expect(uint64_t id, enum status status)
{
    ask_receive(&one, &answer);
    ck_assert_msg((int)answer.header->status == (int)status, "%s: %s", status_name((enum status)answer.header->status),
                  answer.header->message);
    ck_assert_uint_eq(answer.header->request_id, id);
}

static void in_flight(double count)
{
    RIG_WAIT(ask_counter(&one, "device.cpu0.in_flight") == count);
}

START_TEST(any_order_of_starting_works)
{
    begin(NULL);
    expect(send(EXPERTD__METHOD__FORWARD, "nop.0", 1), STATUS_UNAVAILABLE);
    ck_assert_ptr_nonnull(strstr(answer.header->message, "is not up"));
    rig_start_runtime(&rig, false);
    ask_until_up(&one);
    ask_alive(&one);
    ck_assert_int_eq(rig_end(&rig.frontend, SIGTERM), 0);
    rig_start_frontend(&rig);
    ask_close(&one);
    ask_open(&one, &rig, ZMQ_DEALER);
    ask_until_up(&one);
    ask_alive(&one);
}
END_TEST

START_TEST(a_dead_runtime_is_noticed_and_what_waits_survives_its_restart)
{
    begin_up("  restart_grace: 60000\n");
    rig.knobs->hold = 1;
    const uint64_t first = send(EXPERTD__METHOD__FORWARD, "nop.0", 5);
    const uint64_t second = send(EXPERTD__METHOD__BACKWARD, "nop.1", 6);
    in_flight(2);
    rig_end(&rig.runtime, SIGKILL);
    RIG_WAIT(ask_counter(&one, "device.cpu0.alive") == 0);
    expect(send(EXPERTD__METHOD__FORWARD, "nop.1", 1), STATUS_UNAVAILABLE);
    ck_assert_ptr_nonnull(strstr(answer.header->message, "died"));
    ask_prepare(&one, &question, EXPERTD__METHOD__FORWARD, "nop.0", 1, 1);
    rig.knobs->hold = 0;
    rig_start_runtime(&rig, false);
    expect(first, STATUS_OK);
    ck_assert_float_eq(answer.values[0], 5);
    expect(second, STATUS_OK);
    ask_until_up(&one);
    ask_alive(&one);
}
END_TEST

START_TEST(a_forward_that_ran_when_its_runtime_died_runs_again_and_a_backward_does_not)
{
    begin_up("  restart_grace: 60000\n");
    rig.knobs->hold_running = 1;
    const uint64_t forward = send(EXPERTD__METHOD__FORWARD, "nop.0", 5);
    RIG_WAIT(rig.knobs->taken == 1);
    rig_end(&rig.runtime, SIGKILL);
    rig.knobs->hold_running = 0;
    rig_start_runtime(&rig, false);
    expect(forward, STATUS_OK);
    ask_until_up(&one);
    rig.knobs->hold_running = 1;
    rig.knobs->taken = 0;
    const uint64_t backward = send(EXPERTD__METHOD__BACKWARD, "nop.0", 6);
    RIG_WAIT(rig.knobs->taken == 1);
    rig_end(&rig.runtime, SIGKILL);
    rig.knobs->hold_running = 0;
    rig_start_runtime(&rig, false);
    expect(backward, STATUS_UNAVAILABLE);
    ck_assert_ptr_nonnull(strstr(answer.header->message, "restarted"));
    ck_assert_uint_eq(rig.knobs->applied, 0);
    ask_until_up(&one);
    ask_alive(&one);
}
END_TEST

START_TEST(what_waits_for_a_dead_runtime_is_answered_after_the_grace)
{
    begin_up("  restart_grace: 300\n");
    rig.knobs->hold = 1;
    const uint64_t id = send(EXPERTD__METHOD__FORWARD, "nop.0", 5);
    in_flight(1);
    rig_end(&rig.runtime, SIGKILL);
    expect(id, STATUS_UNAVAILABLE);
    ck_assert_ptr_nonnull(strstr(answer.header->message, "died"));
    in_flight(0);
    rig.knobs->hold = 0;
    rig_start_runtime(&rig, false);
    ask_until_up(&one);
    ask_alive(&one);
    ck_assert(!ask_poll(&one, &answer, 50)); /* the cancelled one is not answered twice */
    ck_assert_uint_eq(rig.knobs->completed, 1);
}
END_TEST

START_TEST(a_restarted_runtime_is_up_when_it_has_its_segments_and_not_before)
{
    begin_up("  restart_grace: 60000\n");
    rig.knobs->hold = 1;
    const uint64_t id = send(EXPERTD__METHOD__FORWARD, "nop.0", 5);
    in_flight(1);
    rig_end(&rig.runtime, SIGKILL);
    RIG_WAIT(ask_counter(&one, "device.cpu0.alive") == 0);
    rig.knobs->hold = 0;
    rig.knobs->hold_start = 1;
    rig_start_runtime(&rig, false);
    usleep(300000); /* time enough to look, and be wrong */
    expect(send(EXPERTD__METHOD__FORWARD, "nop.0", 6), STATUS_UNAVAILABLE);
    ck_assert_ptr_nonnull(strstr(answer.header->message, "not back yet"));
    rig.knobs->hold_start = 0;
    expect(id, STATUS_OK);
    ask_alive(&one); /* whoever has an answer of the new one need not wait for it */
}
END_TEST

START_TEST(a_deadline_counts_while_the_runtime_is_dead)
{
    begin_up("  restart_grace: 60000\n");
    rig.knobs->hold = 1;
    ask_prepare(&one, &question, EXPERTD__METHOD__FORWARD, "nop.0", 1, 1);
    question.header.deadline_ms = 300;
    ask_send(&one, &question);
    rig_end(&rig.runtime, SIGKILL);
    expect(one.last_id, STATUS_DEADLINE_EXCEEDED);
}
END_TEST

START_TEST(a_runtime_that_stops_cleanly_is_told_at_once_and_comes_back)
{
    begin_up("  restart_grace: 60000\n");
    rig.knobs->hold = 1;
    const uint64_t id = send(EXPERTD__METHOD__FORWARD, "nop.0", 5);
    in_flight(1);
    ck_assert_int_eq(rig_end(&rig.runtime, SIGTERM), 0);
    expect(id, STATUS_UNAVAILABLE);
    ck_assert_ptr_nonnull(strstr(answer.header->message, "has stopped"));
    expect(send(EXPERTD__METHOD__FORWARD, "nop.0", 1), STATUS_UNAVAILABLE);
    rig.knobs->hold = 0;
    rig_start_runtime(&rig, false);
    ask_until_up(&one);
    ask_alive(&one);
}
END_TEST

START_TEST(segments_of_another_layout_take_the_place_of_the_old_ones)
{
    begin_up("  restart_grace: 60000\n");
    ask_alive(&one);
    rig.knobs->hold = 1;
    const uint64_t id = send(EXPERTD__METHOD__FORWARD, "nop.0", 5);
    in_flight(1);
    const double generation = ask_counter(&one, "device.cpu0.generation");
    rig_end(&rig.runtime, SIGKILL);
    rig.knobs->hold = 0;
    rig_start_runtime(&rig, true);
    expect(id, STATUS_UNAVAILABLE);
    RIG_WAIT(ask_counter(&one, "device.cpu0.generation") > generation);
    ask_until_up(&one);
    ask_alive(&one);
}
END_TEST

START_TEST(a_runtime_that_hangs_is_answered_for_until_it_moves_again)
{
    begin_up("  stall_timeout: 300\n");
    rig.knobs->hang = 1;
    const uint64_t id = send(EXPERTD__METHOD__FORWARD, "nop.0", 5);
    expect(id, STATUS_UNAVAILABLE);
    ck_assert_ptr_nonnull(strstr(answer.header->message, "hangs"));
    expect(send(EXPERTD__METHOD__FORWARD, "nop.0", 1), STATUS_UNAVAILABLE);
    rig.knobs->hang = 0;
    ask_until_up(&one);
    ask_alive(&one);
    /* One that stands still in the middle of a batch. */
    rig.knobs->hold_running = 1;
    const uint64_t backward = send(EXPERTD__METHOD__BACKWARD, "nop.0", 6);
    expect(backward, STATUS_UNAVAILABLE);
    rig.knobs->hold_running = 0;
    ask_until_up(&one);
    /* Its step was applied all the same, and its answer was kept. */
    ask_prepare(&one, &question, EXPERTD__METHOD__BACKWARD, "nop.0", 1, -1);
    question.header.request_id = backward;
    ask_call(&one, &question, &answer, STATUS_OK);
    ck_assert_float_eq(answer.values[0], 6);
    ck_assert_uint_eq(rig.knobs->applied, 1);
}
END_TEST

START_TEST(a_runtime_that_has_nothing_to_do_or_waits_does_not_hang)
{
    begin_up("  stall_timeout: 150\n");
    usleep(400000);
    ask_alive(&one);
    rig.knobs->hold = 1; /* it sleeps, as one that waits for min_batch_size */
    const uint64_t id = send(EXPERTD__METHOD__FORWARD, "nop.0", 5);
    ck_assert(!ask_poll(&one, &answer, 600));
    rig.knobs->hold = 0;
    expect(id, STATUS_OK);
}
END_TEST

START_TEST(a_frontend_that_dies_leaves_nothing_to_its_successor)
{
    begin_up(NULL);
    rig.knobs->hold_running = 1;
    send(EXPERTD__METHOD__FORWARD, "nop.0", 5);
    RIG_WAIT(rig.knobs->taken == 1);
    for (int i = 0; i < RIG_QUEUE_TASKS - 1; i++)
        send(i % 2 ? EXPERTD__METHOD__FORWARD : EXPERTD__METHOD__BACKWARD, "nop.0", 6);
    in_flight(RIG_QUEUE_TASKS);
    rig_end(&rig.frontend, SIGKILL);
    rig_start_frontend(&rig);
    rig_expect_log(&rig, "dropped 16 tasks that an earlier frontend left");
    rig.knobs->hold_running = 0;
    ask_close(&one);
    ask_open(&one, &rig, ZMQ_DEALER);
    ask_until_up(&one);
    ask_alive(&one);
    /* No stale reply, no step for a client that is gone, and the whole pool is free again. */
    ck_assert(!ask_poll(&one, &answer, 50));
    ck_assert_uint_eq(rig.knobs->applied, 0);
    rig.knobs->hold = 1;
    const uint64_t first = one.last_id + 1;
    for (int i = 0; i < RIG_QUEUE_TASKS; i++)
        send(EXPERTD__METHOD__FORWARD, "nop.0", (float)i);
    rig.knobs->hold = 0;
    for (int i = 0; i < RIG_QUEUE_TASKS; i++)
        expect(first + (uint64_t)i, STATUS_OK);
}
END_TEST

START_TEST(both_may_die)
{
    begin_up(NULL);
    for (int i = 0; i < 3; i++) {
        rig.knobs->hold = 1;
        for (int k = 0; k < 10; k++)
            send(EXPERTD__METHOD__BACKWARD, "nop.0", 6);
        rig_end(i % 2 ? &rig.frontend : &rig.runtime, SIGKILL);
        rig_end(i % 2 ? &rig.runtime : &rig.frontend, SIGKILL);
        rig.knobs->hold = 0;
        if (i % 2)
            rig_start_runtime(&rig, false);
        rig_start_frontend(&rig);
        if (i % 2 == 0)
            rig_start_runtime(&rig, false);
        ask_close(&one);
        ask_open(&one, &rig, ZMQ_DEALER);
        ask_until_up(&one);
        ask_alive(&one);
    }
}
END_TEST

START_TEST(a_runtime_gone_mad_costs_its_pool_only)
{
    begin_up("  restart_grace: 300\n");
    ask_prepare(&one, &question, EXPERTD__METHOD__FORWARD, "nop.0", 1, 1);
    ask_call(&one, &question, &answer, STATUS_OK);
    rig.knobs->hold = 1;
    const uint64_t id = send(EXPERTD__METHOD__FORWARD, "nop.0", 5);
    in_flight(1);
    rig.knobs->garbage_done = 1;
    expect(id, STATUS_UNAVAILABLE);
    rig_expect_log(&rig, "is damaged");
    RIG_WAIT(rig.knobs->renewal_wanted);
    rig.knobs->hold = 0;
    expect(send(EXPERTD__METHOD__FORWARD, "nop.0", 1), STATUS_UNAVAILABLE);
    ask_alive(&one);
    /* A new generation of segments, for which it was asked, heals it. */
    rig_end(&rig.runtime, SIGKILL);
    rig_start_runtime(&rig, true);
    RIG_WAIT((expect(send(EXPERTD__METHOD__PING, "", 0), STATUS_OK), answer.header->pong->experts_alive == 3));
    ask_prepare(&one, &question, EXPERTD__METHOD__FORWARD, "nop.0", 1, 1);
    RIG_WAIT((ask_send(&one, &question), ask_receive(&one, &answer), answer.header->status == EXPERTD__STATUS__OK));
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("roster");
    tcase_add_checked_fixture(all, NULL, teardown);
    tcase_add_test(all, any_order_of_starting_works);
    tcase_add_test(all, a_dead_runtime_is_noticed_and_what_waits_survives_its_restart);
    tcase_add_test(all, a_forward_that_ran_when_its_runtime_died_runs_again_and_a_backward_does_not);
    tcase_add_test(all, what_waits_for_a_dead_runtime_is_answered_after_the_grace);
    tcase_add_test(all, a_restarted_runtime_is_up_when_it_has_its_segments_and_not_before);
    tcase_add_test(all, a_deadline_counts_while_the_runtime_is_dead);
    tcase_add_test(all, a_runtime_that_stops_cleanly_is_told_at_once_and_comes_back);
    tcase_add_test(all, segments_of_another_layout_take_the_place_of_the_old_ones);
    tcase_add_test(all, a_runtime_that_hangs_is_answered_for_until_it_moves_again);
    tcase_add_test(all, a_runtime_that_has_nothing_to_do_or_waits_does_not_hang);
    tcase_add_test(all, a_frontend_that_dies_leaves_nothing_to_its_successor);
    tcase_add_test(all, both_may_die);
    tcase_add_test(all, a_runtime_gone_mad_costs_its_pool_only);
    tcase_set_timeout(all, 60);
    Suite *suite = suite_create("roster");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
