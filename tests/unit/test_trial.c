/* Operands for products that are only to be run: large enough for every size, and given back. */
#include <check.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "runtime/compute/provider.h"
#include "runtime/device/device_private.h"
#include "runtime/compute/trial.h"
#include "unit/support_device.h"

static const char *const kernels[] = {"cpu", "gpu"};
static const struct linear_size sizes[] = {{.n = 70, .k = 5}, {.n = 5, .k = 70}, {.n = 33, .k = 33}};
static struct support_device support;

START_TEST(each_size_and_row_count_runs_within_the_operands)
{
    struct trial trial;
    support_device_open(&support, kernels[_i % 2], false, _i / 2 != 0 ? "precision: fp16" : "", "hidden_dim: 8");
    const uint64_t used = device_memory_used(support.device);
    ck_assert_int_eq(trial_open(&trial, support.device, 40, sizes, 3), 0);
    for (unsigned i = 0; i < 3; i++) {
        for (uint64_t rows = 1; rows <= 40; rows += 13) {
            ck_assert_uint_le(trial_floats(support.device, rows, &sizes[i]) * sizeof(float),
                              device_memory_used(support.device) - used);
            ck_assert_int_eq(trial_launch(&trial, false, rows, &sizes[i]), 0);
            ck_assert_int_eq(trial_launch(&trial, true, rows, &sizes[i]), 0);
        }
    }
    ck_assert_msg(device_finish(support.device) == 0, "%s", device_error(support.device));
    trial_close(&trial);
    trial_close(&trial);
    ck_assert_uint_eq(device_memory_used(support.device), used);
    support_device_close(&support);
}
END_TEST

/* The numbers that the operands are filled with are such whether weights are floats or halves. */
START_TEST(what_is_computed_is_neither_zeros_nor_infinite)
{
    enum { ROWS = 3, MOST = 3 * 128 };
    struct trial trial;
    float out[MOST];
    support_device_open(&support, kernels[_i % 2], false, _i / 2 != 0 ? "precision: fp16" : "", "hidden_dim: 8");
    const struct kernel_shape *shape = provider_shape(support.device);
    const struct linear_size *size = &sizes[0];
    const uint64_t count = kernel_packed_floats(shape, ROWS, size->n);
    ck_assert_uint_le(count, MOST);
    ck_assert_int_eq(trial_open(&trial, support.device, ROWS, size, 1), 0);
    ck_assert_int_eq(trial_launch(&trial, false, ROWS, size), 0);
    ck_assert_int_eq(device_read(support.device, trial.memory,
                                 (trial_floats(support.device, ROWS, size) - count) * sizeof(float), out,
                                 count * sizeof(float)),
                     0);
    for (uint64_t i = 0; i < count; i++) /* five products of at most 2 each */
        ck_assert_msg(out[i] != 0 && fabsf(out[i]) < 10, "%g", (double)out[i]);
    trial_close(&trial);
    support_device_close(&support);
}
END_TEST

START_TEST(a_borrowed_workspace_stays)
{
    struct trial trial;
    support_device_open(&support, kernels[_i], false, "", "hidden_dim: 8");
    struct device *device = support.device;
    ck_assert_int_eq(device_reserve_workspace(device, trial_floats(device, 3, &sizes[0]) * sizeof(float)), 0);
    const uint64_t used = device_memory_used(device);
    trial_borrow(&trial, device);
    ck_assert_int_eq(trial_launch(&trial, false, 3, &sizes[0]), 0);
    trial_close(&trial);
    ck_assert_uint_eq(device_memory_used(device), used);
    ck_assert_ptr_nonnull(device->workspace);
    support_device_close(&support);
}
END_TEST

START_TEST(operands_that_do_not_fit_are_refused)
{
    static const struct linear_size vast[] = {{.n = 4194304, .k = 1048576}};
    struct trial trial;
    support_device_open(&support, kernels[_i], false, "", "hidden_dim: 8");
    ck_assert_int_eq(trial_open(&trial, support.device, 1, vast, 1), -ENOMEM);
    trial_close(&trial);
    support_device_close(&support);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("trial");
    tcase_set_timeout(all, 200); /* kernels are compiled at the first run */
    tcase_add_loop_test(all, each_size_and_row_count_runs_within_the_operands, 0, 4);
    tcase_add_loop_test(all, what_is_computed_is_neither_zeros_nor_infinite, 0, 4);
    tcase_add_loop_test(all, a_borrowed_workspace_stays, 0, 2);
    tcase_add_loop_test(all, operands_that_do_not_fit_are_refused, 0, 2);
    Suite *suite = suite_create("trial");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
