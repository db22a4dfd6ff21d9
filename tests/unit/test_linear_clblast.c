/* What is CLBlast's own: when it cannot be had, what it makes ready, and whom it does not serve. Its products are
 * compared beside the other kernels', in test_kernel and test_ffn. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/blocks/blocks.h"
#include "runtime/device/device_private.h"
#include "runtime/compute/compute.h"
#include "runtime/compute/linear.h"
#include "runtime/compute/providers.h"
#include "runtime/blocks/own_expert.h"
#include "unit/support_device.h"

static struct support_device support;

START_TEST(it_is_never_taken_unasked_and_found_by_its_name)
{
    struct config_device config = {.linear_kernel = "auto", .precision = "fp32"};
    struct device device = {.config = &config};
    for (device.info.class = 0; device.info.class <= DEVICE_CLASS_ACCELERATOR; device.info.class ++)
        ck_assert_str_ne(compute_find_provider(&device)->name, "clblast");
    config.linear_kernel = "clblast";
    ck_assert_ptr_eq(compute_find_provider(&device), &provider_clblast);
}
END_TEST

/* Where it was not built in, the error names the package. */
START_TEST(without_it_a_device_is_refused_with_what_to_install)
{
    struct compute compute = {.provider = &provider_clblast};
    struct device device = {.config = &(struct config_device){.linear_kernel = "clblast", .precision = "fp32"},
                            .compute = &compute};
    const int result = provider_clblast.check(&device);
    if (support_device_has_clblast()) {
        ck_assert_int_eq(result, 0);
        provider_clblast.close(&device);
        ck_assert_ptr_null(compute.clblast);
        provider_clblast.close(&device);
    } else {
        ck_assert_int_eq(result, -EINVAL);
        ck_assert_ptr_nonnull(strstr(device.error, "libclblast"));
    }
}
END_TEST

START_TEST(reduced_precision_is_refused)
{
    static const char *const precisions[] = {"tf32", "fp16"};
    for (unsigned i = 0; i < 2; i++) {
        struct device device = {.config =
                                    &(struct config_device){.linear_kernel = "clblast", .precision = precisions[i]}};
        ck_assert_int_eq(provider_clblast.check(&device), -EINVAL);
        ck_assert_ptr_nonnull(strstr(device.error, "set precision: fp32"));
    }
}
END_TEST

START_TEST(sizes_are_made_ready_once_and_take_no_memory_for_good)
{
    static const struct linear_size sizes[] = {{.n = 40, .k = 10}, {.n = 10, .k = 40}};
    support_device_open(&support, "clblast", false, "", "hidden_dim: 10");
    struct device *device = support.device;
    const uint64_t used = device_memory_used(device), bytes = device->info.memory_bytes;
    ck_assert_msg(linear_layer_prepare(device, 300, sizes, 2) == 0, "%s", device_error(device));
    ck_assert_uint_eq(device_memory_used(device), used);
    device->info.memory_bytes = (used + 4096) / 95 * 100;
    device->error[0] = '\0';
    ck_assert_int_eq(linear_layer_prepare(device, 300, sizes, 2), 0);
    ck_assert_str_eq(device_error(device), "");
    /* Another size, for which there is no room, is slow at first, and no reason not to start. */
    static const struct linear_size large[] = {{.n = 4000, .k = 1000}};
    ck_assert_int_eq(linear_layer_prepare(device, 300, large, 1), 0);
    ck_assert_str_ne(device_error(device), "");
    device->info.memory_bytes = bytes;
    support_device_close(&support);
}
END_TEST

START_TEST(devices_can_be_opened_one_after_the_other)
{
    for (unsigned i = 0; i < 3; i++) {
        support_device_open(&support, "clblast", false, "", "hidden_dim: 12, max_batch_size: 8");
        struct expert *expert = support_expert(&support);
        expert_destroy(&expert);
        support_device_close(&support);
    }
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("linear_clblast");
    tcase_set_timeout(all, 200); /* kernels are compiled at the first run */
    tcase_add_test(all, it_is_never_taken_unasked_and_found_by_its_name);
    tcase_add_test(all, without_it_a_device_is_refused_with_what_to_install);
    if (support_device_has_clblast()) {
        tcase_add_test(all, reduced_precision_is_refused);
        tcase_add_test(all, sizes_are_made_ready_once_and_take_no_memory_for_good);
        tcase_add_test(all, devices_can_be_opened_one_after_the_other);
    }
    Suite *suite = suite_create("linear_clblast");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
