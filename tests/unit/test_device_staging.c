/* Two batches in flight on a device with memory of its own, as PoCL's device is used with slabs: staged. What holds a
 * queue, or makes a command in it fail, is a user event that a barrier in it waits for. */
#include <check.h>
#include <dlfcn.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/device_private.h"
#include "unit/support_training.h"

enum { HIDDEN = 48, ROWS = 12, BATCHES = 2 };

/* --- OpenCL calls that fail, or hold, when a test says so ------------------------------------------------------------
 */

static struct bad {
    cl_int error; /* of the next call */
} bad_write, bad_read;
static unsigned hold_before_launch; /* counts down to the launch that waits for `held` */
static cl_event held;

/* PoCL 3.1 uses the event of a command that fails for a moment longer than somebody else holds it; so all are held. */
static cl_event kept[4096];
static unsigned kept_count;

static cl_int keep(cl_int error, cl_event *event)
{
    if (error == CL_SUCCESS) {
        ck_assert_uint_lt(kept_count, sizeof kept / sizeof kept[0]);
        ck_assert_int_eq(clRetainEvent(*event), CL_SUCCESS);
        kept[kept_count++] = *event;
    }
    return error;
}

static void *real(const char *name)
{
    void *function = dlsym(RTLD_NEXT, name);
    ck_assert_ptr_nonnull(function);
    return function;
}

static cl_int fails(struct bad *bad)
{
    const cl_int error = bad->error;
    bad->error = 0;
    return error;
}

/* As the library's, but that every command has an event, and as its first lines say. */
#define WRAP(name, parameters, arguments, before)                                                                      \
    __attribute__((visibility("default"))) cl_int name parameters                                                      \
    {                                                                                                                  \
        cl_int(*call) parameters;                                                                                      \
        cl_event own = NULL;                                                                                           \
        before;                                                                                                        \
        event = event != NULL ? event : &own;                                                                          \
        *(void **)&call = real(#name);                                                                                 \
        const cl_int result = keep(call arguments, event);                                                             \
        if (own != NULL)                                                                                               \
            clReleaseEvent(own);                                                                                       \
        return result;                                                                                                 \
    }

#define FAIL_IF(bad)                                                                                                   \
    do {                                                                                                               \
        if ((bad).error != 0)                                                                                          \
            return fails(&(bad));                                                                                      \
    } while (0)

#define TRANSFER(memory)                                                                                               \
    (cl_command_queue queue, cl_mem buffer, cl_bool wait, size_t offset, size_t size, memory, cl_uint count,           \
     const cl_event *events, cl_event *event)

WRAP(clEnqueueWriteBuffer, TRANSFER(const void *host), (queue, buffer, wait, offset, size, host, count, events, event),
     FAIL_IF(bad_write))
WRAP(clEnqueueReadBuffer, TRANSFER(void *host), (queue, buffer, wait, offset, size, host, count, events, event),
     FAIL_IF(bad_read))
WRAP(clEnqueueCopyBuffer,
     (cl_command_queue queue, cl_mem from, cl_mem to, size_t from_at, size_t to_at, size_t size, cl_uint count,
      const cl_event *events, cl_event *event),
     (queue, from, to, from_at, to_at, size, count, events, event), (void)0)
WRAP(clEnqueueMarkerWithWaitList, (cl_command_queue queue, cl_uint count, const cl_event *events, cl_event *event),
     (queue, count, events, event), (void)0)
WRAP(clEnqueueBarrierWithWaitList, (cl_command_queue queue, cl_uint count, const cl_event *events, cl_event *event),
     (queue, count, events, event), (void)0)
WRAP(clEnqueueNDRangeKernel,
     (cl_command_queue queue, cl_kernel kernel, cl_uint dims, const size_t *offset, const size_t *global,
      const size_t *local, cl_uint count, const cl_event *events, cl_event *event),
     (queue, kernel, dims, offset, global, local, count, events, event), {
         if (hold_before_launch > 0 && --hold_before_launch == 0)
             ck_assert_int_eq(clEnqueueBarrierWithWaitList(queue, 1, &held, NULL), CL_SUCCESS);
     })

/* --- two batches of an expert ----------------------------------------------------------------------------------------
 */

static struct training training;
static struct device *device;
static struct device_slab outputs, expected;
static struct expert_batch batches[BATCHES];

static void set_up(void)
{
    cl_int error;
    training_open(&training, "gpu", true, "chunk_rows: 7", HIDDEN, BATCHES * ROWS, "clip_norm: 1");
    device = training.support.device;
    outputs = support_slab((size_t)BATCHES * ROWS * HIDDEN);
    expected = support_slab((size_t)BATCHES * ROWS * HIDDEN);
    training_fill(&training, 0);
    /* What each gives alone. */
    for (unsigned i = 0; i < BATCHES; i++) {
        struct expert_batch alone = {
            .first_row = i * ROWS, .rows = ROWS, .inputs = training.inputs, .outputs = &expected};
        ck_assert_int_eq(expert_forward(training.expert, &alone), 0);
        ck_assert_int_eq(expert_finish(training.expert, &alone), 0);
        batches[i] =
            (struct expert_batch){.first_row = i * ROWS, .rows = ROWS, .inputs = training.inputs, .outputs = &outputs};
    }
    held = clCreateUserEvent(device->context, &error);
    ck_assert_int_eq(error, CL_SUCCESS);
}

static void tear_down(void)
{
    for (unsigned i = 0; i < kept_count; i++)
        clReleaseEvent(kept[i]);
    kept_count = 0;
    clReleaseEvent(held);
    support_slab_free(&outputs);
    support_slab_free(&expected);
    training_close(&training);
}

static void hold(cl_command_queue queue)
{
    ck_assert_int_eq(clEnqueueBarrierWithWaitList(queue, 1, &held, NULL), CL_SUCCESS);
}

static void let_go(cl_int status)
{
    ck_assert_int_eq(clSetUserEventStatus(held, status), CL_SUCCESS);
}

static void forward(unsigned i)
{
    ck_assert_msg(expert_forward(training.expert, &batches[i]) == 0, "%s", device_error(device));
}

static void check(unsigned i)
{
    const size_t at = (size_t)i * ROWS * HIDDEN;
    ck_assert_mem_eq((const float *)outputs.mapping + at, (const float *)expected.mapping + at,
                     ROWS * HIDDEN * sizeof(float));
}

static void finish(unsigned i)
{
    ck_assert_msg(expert_finish(training.expert, &batches[i]) == 0, "%s", device_error(device));
    check(i);
}

static bool came(unsigned i)
{
    return !isnan(((const float *)outputs.mapping)[(size_t)i * ROWS * HIDDEN]);
}

static cl_int status_of(cl_event event)
{
    cl_int status;
    ck_assert_int_eq(clGetEventInfo(event, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof status, &status, NULL), 0);
    return status;
}

static void wait_until_complete(cl_event event)
{
    ck_assert_int_eq(clWaitForEvents(1, &event), CL_SUCCESS); /* libcheck's timeout bounds it */
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

/* --- failures --------------------------------------------------------------------------------------------------------
 */

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

/* --- training --------------------------------------------------------------------------------------------------------
 */

static struct expert_batch backward_batch(void)
{
    return (struct expert_batch){.rows = ROWS, .inputs = training.inputs, .outputs = &training.grad_inputs};
}

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
    tcase_set_timeout(all, 100);
    tcase_add_checked_fixture(all, set_up, tear_down);
    tcase_add_test(all, the_next_batch_arrives_while_one_computes);
    tcase_add_test(all, the_next_batch_computes_while_the_last_one_leaves);
    tcase_add_test(all, a_batch_does_not_compute_before_it_has_arrived);
    tcase_add_test(all, many_batches_one_behind_the_other_are_each_their_own);
    tcase_add_test(all, batches_whose_uploads_fail_have_not_run_and_run_again);
    tcase_add_test(all, a_batch_behind_one_whose_kernels_fail_runs_again);
    tcase_add_test(all, rows_that_do_not_arrive_are_asked_for_again);
    tcase_add_test(all, rows_that_never_arrive_fail_their_batch_only);
    tcase_add_test(all, a_command_that_cannot_be_enqueued_fails_its_batch_only);
    tcase_add_test(all, a_device_that_is_lost_on_the_way_is_lost);
    tcase_add_test(all, a_device_that_answers_nothing_after_an_error_is_lost);
    tcase_add_test(all, a_backward_leaves_while_the_next_batch_computes_with_its_step);
    tcase_add_test(all, what_two_backwards_report_is_each_their_own);
    tcase_add_test(all, a_backward_whose_upload_fails_changes_nothing_and_steps_once_when_it_runs_again);
    tcase_add_test(all, a_backward_whose_kernels_fail_before_its_step_changes_nothing);
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
