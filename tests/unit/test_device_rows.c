/* Rows in place and rows that are staged give the same, bit by bit, whatever the device's class. */
#include <check.h>
#include <dlfcn.h>
#include <errno.h>
#include <string.h>

#include "runtime/device/device_private.h"
#include "unit/support_training.h"

enum { HIDDEN = 70, ROWS = 29, FIRST = 5, STEPS = 3 };

static void as_class(struct training *training, enum device_class class)
{
    training->support.device->info.class = class;
}

static void train(struct training *training)
{
    for (unsigned step = 0; step < STEPS; step++) {
        training_fill(training, step);
        ck_assert_int_eq(training_backward(training, training->expert, FIRST, ROWS - FIRST - 1).step,
                         EXPERT_STEP_APPLIED);
    }
}

static void forward(struct training *training, struct device_slab *outputs)
{
    struct expert_batch batch = {
        .first_row = FIRST, .rows = ROWS - FIRST - 1, .inputs = training->inputs, .outputs = outputs};
    ck_assert_int_eq(expert_forward(training->expert, &batch), 0);
    ck_assert_int_eq(expert_finish(training->expert, &batch), 0);
}

static void same_as_in_place_on_a_cpu(bool staged, enum device_class class)
{
    struct training plain, other;
    struct device_slab plain_outputs = support_slab(ROWS * HIDDEN), outputs = support_slab(ROWS * HIDDEN);
    training_open(&plain, "gpu", false, "chunk_rows: 11", HIDDEN, ROWS, "");
    training_open(&other, "gpu", staged, "chunk_rows: 11", HIDDEN, ROWS, "");
    ck_assert(device_stages_rows(other.support.device) == staged);
    as_class(&other, class);
    train(&plain);
    train(&other);
    training_check_same(plain.expert, other.expert);
    forward(&plain, &plain_outputs);
    forward(&other, &outputs);
    ck_assert_mem_eq(plain.grad_inputs.mapping, other.grad_inputs.mapping, ROWS * HIDDEN * sizeof(float));
    ck_assert_mem_eq(plain_outputs.mapping, outputs.mapping, ROWS * HIDDEN * sizeof(float));
    /* In place is in place: no copy is asked for but by a GPU's mapping. */
    ck_assert(staged == (outputs.buffer == NULL));
    ck_assert(staged == (other.support.device->upload_queue != NULL));
    support_slab_free(&outputs);
    support_slab_free(&plain_outputs);
    training_close(&other);
    training_close(&plain);
}

START_TEST(an_integrated_gpu_computes_on_the_slabs_in_place)
{
    same_as_in_place_on_a_cpu(false, DEVICE_CLASS_INTEGRATED);
}
END_TEST

START_TEST(a_gpu_may_be_told_to_use_the_slabs_in_place)
{
    same_as_in_place_on_a_cpu(false, DEVICE_CLASS_GPU);
}
END_TEST

START_TEST(a_gpu_computes_on_rows_that_are_staged)
{
    same_as_in_place_on_a_cpu(true, DEVICE_CLASS_GPU);
}
END_TEST

START_TEST(a_cpu_may_be_told_to_stage_rows)
{
    same_as_in_place_on_a_cpu(true, DEVICE_CLASS_CPU);
}
END_TEST

START_TEST(where_slabs_are_used_is_what_the_configuration_says)
{
    struct support_device support;
    static const struct {
        const char *option;
        bool staged;
    } cases[] = {{"slabs: auto", false}, {"slabs: in_place", false}, {"slabs: staged", true}};
    support_device_open(&support, "cpu", false, cases[_i].option, "");
    ck_assert(support.device->info.unified_memory);
    ck_assert(device_stages_rows(support.device) == cases[_i].staged);
    support_device_close(&support);
}
END_TEST

/* Rows of bytes, a mask's, begin at any byte: counted in floats they would be shifted. */
START_TEST(rows_of_bytes_lie_where_they_lie)
{
    enum { BYTES = 4096, AT = 13, COUNT = 7 };
    struct support_device support;
    static _Alignas(4096) unsigned char memory[BYTES], seen[COUNT];
    struct device_slab slab;
    struct device_rows rows;
    unsigned staging;
    support_device_open(&support, "cpu", _i == 1, "", "");
    struct device *device = support.device;
    for (unsigned i = 0; i < BYTES; i++)
        memory[i] = (unsigned char)i;
    ck_assert_int_eq(device_reserve_staging(device, BYTES), 0);
    device_slab_wrap(&slab, memory, BYTES);
    ck_assert_int_eq(device_staging_begin(device, &staging), 0);
    ck_assert_int_eq(device_rows_in(device, staging, &slab, AT, COUNT, &rows), 0);
    ck_assert_int_eq(clFinish(device->queue), CL_SUCCESS);
    if (device->upload_queue)
        ck_assert_int_eq(clFinish(device->upload_queue), CL_SUCCESS);
    ck_assert_int_eq(device_read(device, rows.buffer, rows.offset_bytes, seen, COUNT), 0);
    ck_assert_mem_eq(seen, memory + AT, COUNT);
    device_staging_abort(device, staging);
    device_slab_unwrap(&slab);
    support_device_close(&support);
}
END_TEST

static bool flush_fails;
static cl_event released; /* the last one */

/* As the library's, but for what a test wants. Calls of this program come here. */
__attribute__((visibility("default"))) cl_int clFlush(cl_command_queue queue)
{
    cl_int (*real)(cl_command_queue) = (cl_int(*)(cl_command_queue))dlsym(RTLD_NEXT, "clFlush");
    return flush_fails ? CL_OUT_OF_RESOURCES : real(queue);
}

__attribute__((visibility("default"))) cl_int clReleaseEvent(cl_event event)
{
    cl_int (*real)(cl_event) = (cl_int(*)(cl_event))dlsym(RTLD_NEXT, "clReleaseEvent");
    released = event;
    return real(event);
}

/* A batch that cannot be marked runs again, and then has another event. */
START_TEST(a_mark_that_fails_leaves_no_event)
{
    struct support_device support;
    cl_event done = NULL;
    support_device_open(&support, "cpu", false, "", "");
    flush_fails = true;
    released = NULL;
    ck_assert_int_eq(device_mark(support.device, &done), -EIO);
    flush_fails = false;
    ck_assert_ptr_null(done);
    ck_assert_ptr_nonnull(released);
    ck_assert_int_eq(device_mark(support.device, &done), 0);
    ck_assert_ptr_nonnull(done);
    ck_assert_int_eq(device_wait(support.device, &done), 0);
    support_device_close(&support);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("device_rows");
    tcase_set_timeout(all, 100);
    tcase_add_test(all, an_integrated_gpu_computes_on_the_slabs_in_place);
    tcase_add_test(all, a_gpu_may_be_told_to_use_the_slabs_in_place);
    tcase_add_test(all, a_gpu_computes_on_rows_that_are_staged);
    tcase_add_test(all, a_cpu_may_be_told_to_stage_rows);
    tcase_add_loop_test(all, rows_of_bytes_lie_where_they_lie, 0, 2);
    tcase_add_test(all, a_mark_that_fails_leaves_no_event);
    tcase_add_loop_test(all, where_slabs_are_used_is_what_the_configuration_says, 0, 3);
    Suite *suite = suite_create("device_rows");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
