/* Commands that fail on the way of a batch: what becomes of it, and of the one beside it. */
#include <check.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "unit/staging_world.h"

static void runs_again(unsigned i)
{
    ck_assert_int_eq(expert_finish(training.expert, &batches[i]), -EAGAIN);
    ck_assert_str_ne(device_error(device), "");
    forward(i);
    finish(i);
}

START_TEST(batches_whose_uploads_fail_have_not_run_and_run_again)
{
    hold(device->upload_queue);
    forward(0);
    forward(1);
    let_go(CL_OUT_OF_RESOURCES);
    ck_assert_int_eq(expert_finish(training.expert, &batches[0]), -EAGAIN);
    ck_assert(!came(0));
    forward(0);
    ck_assert_int_eq(expert_finish(training.expert, &batches[1]), -EAGAIN);
    finish(0);
    forward(1);
    finish(1);
}
END_TEST

START_TEST(a_batch_behind_one_whose_kernels_fail_runs_again)
{
    hold_before_launch = 2;
    forward(0);
    forward(1);
    wait_until_complete(device->staging[0].first);
    let_go(CL_OUT_OF_RESOURCES);
    ck_assert_int_eq(expert_finish(training.expert, &batches[0]), -EIO);
    ck_assert_ptr_nonnull(strstr(device_error(device), "kernels of a batch"));
    runs_again(1);
    forward(0);
    finish(0);
}
END_TEST

START_TEST(rows_that_do_not_arrive_are_asked_for_again)
{
    hold(device->download_queue);
    forward(0);
    forward(1);
    let_go(CL_OUT_OF_RESOURCES);
    finish(0);
    finish(1);
}
END_TEST

START_TEST(rows_that_never_arrive_fail_their_batch_only)
{
    hold(device->download_queue);
    forward(0);
    forward(1);
    let_go(CL_OUT_OF_RESOURCES);
    bad_read.error = CL_OUT_OF_RESOURCES;
    ck_assert_int_eq(expert_finish(training.expert, &batches[0]), -EIO);
    ck_assert_str_eq(device_error(device), "download of a batch: CL_OUT_OF_RESOURCES");
    finish(1);
    forward(0);
    finish(0);
}
END_TEST

START_TEST(a_command_that_cannot_be_enqueued_fails_its_batch_only)
{
    static const struct {
        bool write;
        cl_int error;
        int result;
    } cases[] = {
        {true, CL_OUT_OF_RESOURCES, -EAGAIN},
        {true, CL_MEM_OBJECT_ALLOCATION_FAILURE, -EAGAIN},
        {false, CL_OUT_OF_RESOURCES, -EIO},
        {false, CL_MEM_OBJECT_ALLOCATION_FAILURE, -ENOMEM},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        forward(1);
        if (cases[i].write)
            bad_write.error = cases[i].error;
        else
            bad_read.error = cases[i].error;
        ck_assert_int_eq(expert_forward(training.expert, &batches[0]), cases[i].result);
        ck_assert_ptr_nonnull(strstr(device_error(device), opencl_error_name(cases[i].error)));
        ck_assert_ptr_null(device->current);
        finish(1);
        forward(0);
        finish(0);
    }
}
END_TEST

START_TEST(a_device_that_is_lost_on_the_way_is_lost)
{
    forward(1);
    bad_write.error = CL_DEVICE_NOT_AVAILABLE;
    ck_assert_int_eq(expert_forward(training.expert, &batches[0]), -ENODEV);
    ck_assert(device_is_lost(device));
    finish(1);
}
END_TEST

/* As a driver that gave its context up: every call ends with the error of the kernel that was the last. */
START_TEST(a_device_that_answers_nothing_after_an_error_is_lost)
{
    hold_before_launch = 2;
    forward(0);
    wait_until_complete(device->staging[batches[0].staging].first);
    let_go(CL_OUT_OF_RESOURCES);
    ck_assert_int_eq(expert_finish(training.expert, &batches[0]), -EIO);
    ck_assert(device_answers(device));
    ck_assert(!device_is_lost(device));
    bad_read.error = CL_OUT_OF_RESOURCES;
    ck_assert(!device_answers(device));
    ck_assert(device_is_lost(device));
    ck_assert_ptr_nonnull(strstr(device_error(device), "kernels of a batch: "));
    ck_assert_ptr_nonnull(strstr(device_error(device), "nothing works any more: CL_OUT_OF_RESOURCES"));
    ck_assert_int_eq(expert_forward(training.expert, &batches[0]), -ENODEV);
}
END_TEST

START_TEST(a_backward_whose_upload_fails_changes_nothing_and_steps_once_when_it_runs_again)
{
    struct expert *twin = training_twin(&training), *untouched = training_twin(&training);
    struct expert_batch backward = backward_batch();
    hold(device->upload_queue);
    ck_assert_int_eq(expert_backward(training.expert, &backward), 0);
    let_go(CL_OUT_OF_RESOURCES);
    ck_assert_int_eq(expert_finish(training.expert, &backward), -EAGAIN);
    ck_assert_uint_eq(training.expert->counters.updates, 0);
    training_check_same(training.expert, untouched);
    ck_assert_int_eq(expert_backward(training.expert, &backward), 0);
    ck_assert_int_eq(expert_finish(training.expert, &backward), 0);
    training_backward(&training, twin, 0, ROWS);
    training_check_same(training.expert, twin);
    ck_assert_uint_eq(training.expert->counters.updates, 1);
    expert_destroy(&twin);
    expert_destroy(&untouched);
}
END_TEST

START_TEST(a_backward_whose_kernels_fail_before_its_step_changes_nothing)
{
    struct expert *untouched = training_twin(&training);
    struct expert_batch backward = backward_batch();
    hold_before_launch = 4;
    ck_assert_int_eq(expert_backward(training.expert, &backward), 0);
    wait_until_complete(device->staging[0].first);
    let_go(CL_OUT_OF_RESOURCES);
    ck_assert_int_eq(expert_finish(training.expert, &backward), -EIO);
    training_check_same(training.expert, untouched);
    expert_destroy(&untouched);
}
END_TEST

/* The gradients of an earlier batch lie where this one's never came. */
START_TEST(no_step_is_made_with_what_an_earlier_batch_left)
{
    struct expert *twin = training_twin(&training);
    struct expert_batch backward = backward_batch(), same = backward_batch();
    ck_assert_int_eq(expert_backward(twin, &same), 0);
    ck_assert_int_eq(expert_finish(twin, &same), 0);
    ck_assert_int_eq(expert_backward(training.expert, &backward), 0);
    ck_assert_int_eq(expert_finish(training.expert, &backward), 0);
    hold(device->upload_queue);
    ck_assert_int_eq(expert_backward(training.expert, &backward), 0);
    /* PoCL fails by itself what stands behind a failed kernel of a queue; other drivers go on with it, and need this.
     */
    ck_assert(device->staging[backward.staging].gated);
    let_go(CL_OUT_OF_RESOURCES);
    ck_assert_int_eq(expert_finish(training.expert, &backward), -EAGAIN);
    training_check_same(training.expert, twin);
    expert_destroy(&twin);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("device_staging_failures");
    tcase_set_timeout(all, 200);
    tcase_add_checked_fixture(all, set_up, tear_down);
    tcase_add_test(all, batches_whose_uploads_fail_have_not_run_and_run_again);
    tcase_add_test(all, a_batch_behind_one_whose_kernels_fail_runs_again);
    tcase_add_test(all, rows_that_do_not_arrive_are_asked_for_again);
    tcase_add_test(all, rows_that_never_arrive_fail_their_batch_only);
    tcase_add_test(all, a_command_that_cannot_be_enqueued_fails_its_batch_only);
    tcase_add_test(all, a_device_that_is_lost_on_the_way_is_lost);
    tcase_add_test(all, a_device_that_answers_nothing_after_an_error_is_lost);
    tcase_add_test(all, a_backward_whose_upload_fails_changes_nothing_and_steps_once_when_it_runs_again);
    tcase_add_test(all, a_backward_whose_kernels_fail_before_its_step_changes_nothing);
    tcase_add_test(all, no_step_is_made_with_what_an_earlier_batch_left);
    Suite *suite = suite_create("device_staging_failures");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
