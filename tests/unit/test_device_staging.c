#include <check.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "unit/staging_world.h"

static cl_int status_of(cl_event event)
{
    cl_int status;
    ck_assert_int_eq(clGetEventInfo(event, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof status, &status, NULL), 0);
    return status;
}

START_TEST(the_next_batch_arrives_while_one_computes)
{
    hold(device->queue);
    forward(0);
    forward(1);
    for (unsigned i = 0; i < BATCHES; i++)
        wait_until_complete(device->staging[batches[i].staging].uploads[0]);
    for (unsigned i = 0; i < BATCHES; i++) {
        ck_assert(!expert_batch_is_done(&batches[i]));
        ck_assert_int_gt(status_of(device->staging[batches[i].staging].first), CL_COMPLETE);
    }
    let_go(CL_COMPLETE);
    finish(0);
    finish(1);
}
END_TEST

START_TEST(the_next_batch_computes_while_the_last_one_leaves)
{
    hold(device->download_queue);
    forward(0);
    forward(1);
    wait_until_complete(device->staging[1].ended);
    ck_assert(!expert_batch_is_done(&batches[0]) && !expert_batch_is_done(&batches[1]));
    ck_assert(!came(0) && !came(1));
    let_go(CL_COMPLETE);
    finish(0);
    ck_assert(!came(1)); /* is copied when it is finished, in order */
    finish(1);
}
END_TEST

START_TEST(a_batch_does_not_compute_before_it_has_arrived)
{
    hold(device->upload_queue);
    forward(0);
    ck_assert_int_gt(status_of(device->staging[0].first), CL_COMPLETE);
    support_random((float *)training.inputs[0].mapping, ROWS * HIDDEN, 7, 1); /* its rows were copied already */
    let_go(CL_COMPLETE);
    finish(0);
}
END_TEST

START_TEST(many_batches_one_behind_the_other_are_each_their_own)
{
    for (unsigned turn = 0; turn < 40; turn++) {
        for (unsigned i = 0; i < BATCHES; i++) {
            if (turn > 0) {
                finish(i);
                memset((float *)outputs.mapping + (size_t)i * ROWS * HIDDEN, 0xff, ROWS * HIDDEN * sizeof(float));
            }
            forward(i);
        }
    }
    finish(0);
    finish(1);
}
END_TEST

/* --- training --------------------------------------------------------------------------------------------------------
 */

START_TEST(a_backward_leaves_while_the_next_batch_computes_with_its_step)
{
    struct expert *twin = training_twin(&training);
    struct expert_batch backward = backward_batch();
    training_backward(&training, twin, 0, ROWS);
    struct expert_batch after = {.rows = ROWS, .inputs = training.inputs, .outputs = &expected};
    ck_assert_int_eq(expert_forward(twin, &after), 0);
    ck_assert_int_eq(expert_finish(twin, &after), 0);
    hold(device->download_queue);
    ck_assert_int_eq(expert_backward(training.expert, &backward), 0);
    forward(0);
    wait_until_complete(device->staging[1].ended);
    let_go(CL_COMPLETE);
    ck_assert_int_eq(expert_finish(training.expert, &backward), 0);
    ck_assert_int_eq(backward.step, EXPERT_STEP_APPLIED);
    finish(0);
    training_check_same(training.expert, twin);
    expert_destroy(&twin);
}
END_TEST

/* What each backward reports lies in one place of the device, which the next one overwrites. */
START_TEST(what_two_backwards_report_is_each_their_own)
{
    struct expert *twin = training_twin(&training);
    struct expert_batch first = backward_batch(), second = first;
    second.first_row = ROWS;
    ((float *)training.inputs[1].mapping)[3] = NAN;
    hold(device->download_queue);
    ck_assert_int_eq(expert_backward(training.expert, &first), 0);
    ck_assert_int_eq(expert_backward(twin, &second), 0);
    wait_until_complete(device->staging[1].ended);
    let_go(CL_COMPLETE);
    ck_assert_int_eq(expert_finish(training.expert, &first), 0);
    ck_assert_int_eq(expert_finish(twin, &second), 0);
    ck_assert_int_eq(first.step, EXPERT_STEP_SKIPPED);
    ck_assert_int_eq(second.step, EXPERT_STEP_APPLIED);
    expert_destroy(&twin);
}
END_TEST

/* --- rows of any size ------------------------------------------------------------------------------------------------
 */

/* Through the device and back, several tensors in one batch. */
START_TEST(rows_of_every_size_arrive_whole)
{
    static const size_t sizes[] = {4, 252, 1 << 20, (1 << 20) + 4, (3 << 20) - 4, 20 << 20};
    enum { COUNT = sizeof sizes / sizeof sizes[0] };
    struct device_slab from = support_slab(8 << 20), to = support_slab(8 << 20);
    unsigned slot;
    support_random(from.mapping, 8 << 20, 5, 1);
    ck_assert_int_eq(device_reserve_staging(device, 64 << 20), 0);
    ck_assert_int_eq(device_staging_begin(device, &slot), 0);
    struct device_rows in[COUNT], out[COUNT];
    size_t at = 0;
    for (unsigned i = 0; i < COUNT; at += sizes[i++]) {
        cl_event done = NULL;
        ck_assert_int_eq(device_rows_in(device, slot, &from, at, sizes[i], &in[i]), 0);
        ck_assert_int_eq(device_rows_out(device, slot, &to, at, sizes[i], &out[i]), 0);
        /* No kernel here that would wait for the upload. */
        ck_assert_int_eq(clFinish(device->upload_queue), CL_SUCCESS);
        ck_assert_int_eq(clEnqueueCopyBuffer(device->queue, in[i].buffer, out[i].buffer, in[i].offset * sizeof(float),
                                             out[i].offset * sizeof(float), sizes[i], 0, NULL, &done),
                         CL_SUCCESS);
        clReleaseEvent(done);
        ck_assert_int_eq(device_rows_done(device, &to, at, sizes[i], &out[i]), 0);
    }
    cl_event done;
    ck_assert_int_eq(device_mark(device, &done), 0);
    ck_assert_int_eq(device_wait(device, &done), 0);
    device_staging_end(device, slot);
    ck_assert_int_eq(memcmp(from.mapping, to.mapping, at), 0);
    ck_assert(isnan(((const float *)to.mapping)[at / sizeof(float)]));
    support_slab_free(&from);
    support_slab_free(&to);
}
END_TEST

START_TEST(a_batch_that_does_not_fit_fails_and_the_next_one_does_not)
{
    struct device_slab slab = support_slab(1 << 20);
    struct device_rows rows;
    unsigned slot;
    ck_assert_int_eq(device_staging_begin(device, &slot), 0);
    ck_assert_int_eq(device_rows_in(device, slot, &slab, 0, 4 << 20, &rows), -ENOMEM);
    ck_assert_ptr_nonnull(strstr(device_error(device), "does not fit the staging buffer"));
    device_staging_abort(device, slot);
    forward(0);
    finish(0);
    support_slab_free(&slab);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("device_staging");
    tcase_set_timeout(all, 200);
    tcase_add_checked_fixture(all, set_up, tear_down);
    tcase_add_test(all, the_next_batch_arrives_while_one_computes);
    tcase_add_test(all, the_next_batch_computes_while_the_last_one_leaves);
    tcase_add_test(all, a_batch_does_not_compute_before_it_has_arrived);
    tcase_add_test(all, many_batches_one_behind_the_other_are_each_their_own);
    tcase_add_test(all, a_backward_leaves_while_the_next_batch_computes_with_its_step);
    tcase_add_test(all, what_two_backwards_report_is_each_their_own);
    tcase_add_test(all, rows_of_every_size_arrive_whole);
    tcase_add_test(all, a_batch_that_does_not_fit_fails_and_the_next_one_does_not);
    Suite *suite = suite_create("device_staging");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
