#include <check.h>
#include <math.h>
#include <string.h>

#include "common/clock.h"
#include "unit/support_device.h"

enum { HIDDEN = 37, ROWS = 20 };

static void check_rows(const struct device_slab *got, const struct device_slab *wanted, unsigned first, unsigned rows)
{
    const float *values = got->mapping;
    ck_assert_int_eq(memcmp(values + first * HIDDEN, (const float *)wanted->mapping + first * HIDDEN,
                            (size_t)rows * HIDDEN * sizeof(float)),
                     0);
    ck_assert(isnan(values[first * HIDDEN - 1]) && isnan(values[(first + rows) * HIDDEN]));
}

START_TEST(forward_gives_the_inputs_backward_the_grad_outputs_and_other_rows_stay)
{
    struct support_device support;
    struct expert *expert;
    struct device_slab slabs[4];
    support_device_open(&support, "cpu", false, "", "block: nop, hidden_dim: 37");
    ck_assert_int_eq(expert_create(&expert, support.device, &support.config.experts[0], 1), 0);
    for (unsigned i = 0; i < 4; i++) {
        slabs[i] = support_slab((size_t)ROWS * HIDDEN);
        if (i < 2)
            support_random(slabs[i].mapping, (size_t)ROWS * HIDDEN, i, 1);
    }
    struct expert_batch batch = {.first_row = 3, .rows = 11, .inputs = slabs, .outputs = &slabs[2]};
    ck_assert_int_eq(expert_forward(expert, &batch), 0);
    ck_assert_int_eq(expert_finish(expert, &batch), 0);
    check_rows(&slabs[2], &slabs[0], 3, 11);
    batch.outputs = &slabs[3];
    ck_assert_int_eq(expert_backward(expert, &batch), 0);
    ck_assert_int_eq(expert_finish(expert, &batch), 0);
    check_rows(&slabs[3], &slabs[1], 3, 11);
    ck_assert_int_eq(batch.step, EXPERT_STEP_NONE);
    ck_assert_uint_eq(expert->counters.examples, 11);
    for (unsigned i = 0; i < 4; i++) {
        ck_assert_msg(slabs[i].buffer == NULL, "an OpenCL buffer was made for what the host copies");
        support_slab_free(&slabs[i]);
    }
    expert_destroy(&expert);
    support_device_close(&support);
}
END_TEST

START_TEST(it_has_no_state_and_takes_no_device_memory)
{
    struct support_device support;
    struct expert *expert;
    struct expert_snapshot snapshot = {NULL};
    uint64_t own, workspace;
    support_device_open(&support, "cpu", false, "", "block: nop, hidden_dim: 1048576");
    const uint64_t used = device_memory_used(support.device);
    ck_assert_int_eq(expert_create(&expert, support.device, &support.config.experts[0], 1), 0);
    ck_assert_int_eq(expert_memory(support.device, &support.config.experts[0], &own, &workspace), 0);
    ck_assert_uint_eq(own + workspace, 0);
    ck_assert_uint_eq(device_memory_used(support.device), used);
    ck_assert_uint_eq(expert_tensors(expert), 0);
    ck_assert_int_lt(expert_tensor_find(expert, "ffn.weight"), 0);
    ck_assert_uint_eq(expert_snapshot_bytes(expert), 0);
    ck_assert_int_eq(expert_snapshot_take(expert, &snapshot), 0);
    expert_destroy(&expert);
    ck_assert_ptr_null(expert);
    support_device_close(&support);
}
END_TEST

START_TEST(nop_delay_says_when_a_batch_is_ready)
{
    struct support_device support;
    struct expert *expert;
    struct device_slab slabs[2];
    support_device_open(&support, "cpu", false, "", "block: nop_delay, hidden_dim: 37, arguments: {delay: 2.5}");
    ck_assert_int_eq(expert_create(&expert, support.device, &support.config.experts[0], 1), 0);
    for (unsigned i = 0; i < 2; i++)
        slabs[i] = support_slab((size_t)ROWS * HIDDEN);
    support_random(slabs[0].mapping, (size_t)ROWS * HIDDEN, 0, 1);
    struct expert_batch batch = {.first_row = 3, .rows = 11, .inputs = slabs, .outputs = &slabs[1]};
    const uint64_t before_ns = clock_now_ns();
    ck_assert_int_eq(expert_forward(expert, &batch), 0);
    const uint64_t after_ns = clock_now_ns(), delay_ns = 5 * NS_PER_S / 2;
    ck_assert_uint_ge(batch.ready_ns, before_ns + delay_ns);
    ck_assert_uint_le(batch.ready_ns, after_ns + delay_ns);
    ck_assert_int_eq(expert_finish(expert, &batch), 0);
    check_rows(&slabs[1], &slabs[0], 3, 11);
    for (unsigned i = 0; i < 2; i++)
        support_slab_free(&slabs[i]);
    expert_destroy(&expert);
    support_device_close(&support);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("nop");
    tcase_set_timeout(all, 60);
    tcase_add_test(all, forward_gives_the_inputs_backward_the_grad_outputs_and_other_rows_stay);
    tcase_add_test(all, it_has_no_state_and_takes_no_device_memory);
    tcase_add_test(all, nop_delay_says_when_a_batch_is_ready);
    Suite *suite = suite_create("nop");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
