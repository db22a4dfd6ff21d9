/* Results on their way out of a real frontend: whom they still reach, and what is kept of them. */
#include <signal.h>
#include <string.h>

#include "unit/task_world.h"

START_TEST(a_batch_that_fails_fails_its_tasks_with_the_reason)
{
    rig.knobs->fail = 1;
    ask_prepare(&one, &question, EXPERTD__METHOD__FORWARD, "nop.0", 1, 1);
    ask_call(&one, &question, &answer, STATUS_INTERNAL);
    ck_assert_str_eq(answer.header->message, "CL_OUT_OF_RESOURCES");
    rig.knobs->fail = 0;
    ask_alive(&one);
}
END_TEST

/* mask.0 has two inputs; its grad_outputs are value, and bools. */
static void ask_gradients(protobuf_c_boolean *wanted, size_t count, float value)
{
    ask_prepare(&one, &question, EXPERTD__METHOD__BACKWARD, "mask.0", 1, value);
    for (unsigned i = 2; i < 4; i++) {
        question.tensor[i] = question.tensor[0];
        question.frame[i] = question.frame[0];
        question.frame_bytes[i] = question.frame_bytes[0];
    }
    for (unsigned i = 1; i < 4; i += 2) {
        question.tensor[i].dtype = EXPERTD__DTYPE__BOOL;
        question.frame_bytes[i] = RIG_COLUMNS;
    }
    question.header.n_tensors = question.frames = 4;
    question.header.requires_grad = wanted;
    question.header.n_requires_grad = count;
}

START_TEST(a_reply_has_the_gradients_that_are_wanted)
{
    static protobuf_c_boolean all[] = {1, 1}, first[] = {1, 0}, second[] = {0, 1}, none[] = {0, 0}, many[] = {1, 1, 1};
    static const Expertd__Codec codecs[] = {EXPERTD__CODEC__CODEC_FLOAT16};
    ask_gradients(all, 2, 3);
    ask_call(&one, &question, &answer, STATUS_OK);
    ck_assert_uint_eq(answer.frames, 2);
    ask_gradients(first, 2, 4);
    question.header.reply_codecs = (Expertd__Codec *)(uintptr_t)codecs;
    question.header.n_reply_codecs = 1;
    ask_call(&one, &question, &answer, STATUS_OK);
    ck_assert_uint_eq(answer.frames, 1);
    ck_assert_uint_eq(answer.header->n_tensors, 1);
    ck_assert_uint_eq(answer.bytes[0], RIG_COLUMNS * 2);
    ask_gradients(second, 2, 5);
    ask_call(&one, &question, &answer, STATUS_OK);
    ck_assert_uint_eq(answer.frames, 1);
    ck_assert_int_eq((int)answer.header->tensors[0]->dtype, DTYPE_BOOL);
    for (int i = 0; i < RIG_COLUMNS; i++)
        ck_assert_int_eq(((const char *)answer.values)[i], ((const char *)question.frame[3])[i] != 0);
    ask_gradients(none, 2, 6);
    const uint64_t id = question.header.request_id;
    for (int i = 0; i < 3; i++) { /* and repeats */
        ask_call(&one, &question, &answer, STATUS_OK);
        ck_assert_uint_eq(answer.frames, 0);
        ck_assert_uint_eq(answer.header->n_tensors, 0);
    }
    ck_assert_uint_eq(rig.knobs->applied, 4);
    ask_gradients(first, 2, -1); /* the first's answer is not that of one that asks for something else */
    question.header.request_id = id;
    ask_call(&one, &question, &answer, STATUS_ALREADY_EXISTS);
    ck_assert_uint_eq(answer.frames, 0);
    ask_gradients(many, 3, 7);
    ask_call(&one, &question, &answer, STATUS_INVALID_ARGUMENT);
    ck_assert_str_eq(answer.header->message, "requires_grad has 3 values; this expert has 2 inputs");
    ck_assert(ask_counter(&one, "frontend.unsent_bytes") == 0);
}
END_TEST

START_TEST(requests_of_different_wishes_share_a_batch)
{
    static protobuf_c_boolean wishes[][2] = {{1, 0}, {0, 1}, {0, 0}, {1, 1}};
    rig.knobs->hold = 1;
    const uint64_t before = one.last_id;
    for (int i = 0; i < 4; i++) {
        ask_gradients(wishes[i], 2, (float)(i + 1));
        ask_send(&one, &question);
    }
    RIG_WAIT(ask_counter(&two, "device.cpu0.in_flight") == 4);
    rig.knobs->hold = 0;
    for (int i = 0; i < 4; i++) {
        expect(&one, before + 1 + (uint64_t)i, STATUS_OK);
        ck_assert_uint_eq(answer.frames, (unsigned)(wishes[i][0] + wishes[i][1]));
        if (wishes[i][0])
            expect_value((float)(i + 1));
    }
}
END_TEST

START_TEST(a_running_request_is_answered_at_its_deadline_and_its_result_dropped)
{
    rig.knobs->hold_running = 1;
    send(&one, EXPERTD__METHOD__FORWARD, 100, 1);
    expect(&one, one.last_id, STATUS_DEADLINE_EXCEEDED);
    ck_assert_uint_eq(rig.knobs->taken, 1);
    rig.knobs->hold_running = 0;
    ask_alive(&one);
    ck_assert(ask_counter(&one, "frontend.results_dropped") == 1);
    ck_assert(ask_counter(&one, "frontend.in_flight") == 0);
    ck_assert(!ask_poll(&one, &answer, 50)); /* and no second answer */
}
END_TEST

START_TEST(the_work_of_a_client_that_vanishes_is_dropped)
{
    rig.knobs->hold = 1;
    const unsigned taken = rig.knobs->taken;
    for (int i = 0; i < 8; i++)
        send(&two, EXPERTD__METHOD__FORWARD, 0, 1);
    RIG_WAIT(ask_counter(&one, "device.cpu0.in_flight") == 8);
    ask_close(&two);
    ask_open(&two, &rig, ZMQ_DEALER);
    RIG_WAIT(ask_counter(&one, "frontend.requests_dropped") == 8);
    ck_assert(ask_counter(&one, "device.cpu0.in_flight") == 0);
    rig.knobs->hold = 0;
    ask_alive(&one);
    ck_assert_uint_eq(rig.knobs->taken, taken + 1); /* batches */
}
END_TEST

START_TEST(the_answer_of_a_backward_that_was_late_is_kept_for_its_repeat)
{
    rig.knobs->hold_running = 1;
    send(&one, EXPERTD__METHOD__BACKWARD, 100, 7);
    const uint64_t id = one.last_id;
    expect(&one, id, STATUS_DEADLINE_EXCEEDED);
    /* A repeat while the first, given up, still runs: it is queued, and gets the first's answer. */
    repeat(&two, id, 0);
    RIG_WAIT(ask_counter(&one, "device.cpu0.in_flight") == 1);
    rig.knobs->hold_running = 0;
    expect(&two, id, STATUS_OK);
    expect_value(7);
    repeat(&one, id, 0);
    expect(&one, id, STATUS_OK);
    expect_value(7);
    ck_assert_uint_eq(rig.knobs->applied, 1);
    RIG_WAIT(ask_counter(&one, "frontend.in_flight") == 0);
}
END_TEST

START_TEST(a_skipped_step_is_told_and_may_be_tried_again)
{
    rig.knobs->skip_step = 1;
    send(&one, EXPERTD__METHOD__BACKWARD, 0, 7);
    const uint64_t id = one.last_id;
    expect(&one, id, STATUS_ABORTED);
    ck_assert_ptr_nonnull(strstr(answer.header->message, "NaN"));
    rig.knobs->skip_step = 0;
    repeat(&one, id, 0);
    expect(&one, id, STATUS_OK);
    ck_assert_uint_eq(rig.knobs->applied, 1);
}
END_TEST

START_TEST(after_a_restart_of_the_frontend_a_repeat_is_told_that_it_was_applied)
{
    send(&one, EXPERTD__METHOD__BACKWARD, 0, 7);
    const uint64_t id = one.last_id;
    expect(&one, id, STATUS_OK);
    rig_end(&rig.frontend, SIGKILL);
    rig_start_frontend(&rig);
    ask_close(&two);
    ask_open(&two, &rig, ZMQ_DEALER);
    ask_until_up(&two);
    repeat(&two, id, 0);
    expect(&two, id, STATUS_ALREADY_EXISTS);
    ck_assert_uint_eq(rig.knobs->applied, 1);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("results");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, a_batch_that_fails_fails_its_tasks_with_the_reason);
    tcase_add_test(all, a_reply_has_the_gradients_that_are_wanted);
    tcase_add_test(all, requests_of_different_wishes_share_a_batch);
    tcase_add_test(all, a_running_request_is_answered_at_its_deadline_and_its_result_dropped);
    tcase_add_test(all, the_work_of_a_client_that_vanishes_is_dropped);
    tcase_add_test(all, the_answer_of_a_backward_that_was_late_is_kept_for_its_repeat);
    tcase_add_test(all, a_skipped_step_is_told_and_may_be_tried_again);
    tcase_add_test(all, after_a_restart_of_the_frontend_a_repeat_is_told_that_it_was_applied);
    Suite *suite = suite_create("results");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
