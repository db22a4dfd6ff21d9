// timeout: 400 (at the first run PoCL compiles)
/* Opening a device for kernels, and closing it again: what the device itself knows nothing of. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/compute/compute.h"
#include "runtime/compute/provider.h"
#include "runtime/device/device_private.h"
#include "unit/support_device.h"

static struct config_device wanted(const char *kernel, const char *precision)
{
    return (struct config_device){.name = "device0",
                                  .platform = "",
                                  .device = "",
                                  .cache_dir = (char *)support_device_cache(),
                                  .linear_kernel = kernel,
                                  .precision = precision,
                                  .slabs = "auto",
                                  .tune = "off"};
}

/* What was made is gone, so that the device can be opened again, also otherwise, and let go. */
START_TEST(a_device_is_opened_closed_and_opened_again)
{
    const struct config_device config = wanted("cpu", "fp32");
    struct device *device;
    ck_assert_int_eq(device_open(&device, &config), 0);
    const uint64_t used = device_memory_used(device);
    for (unsigned i = 0; i < 2; i++) {
        ck_assert_int_eq(compute_open(device), 0);
        ck_assert_str_eq(provider_name(device), "cpu");
        ck_assert_uint_eq(provider_shape(device)->weight_bytes, sizeof(float));
        ck_assert_uint_gt(device_memory_used(device), used);
        compute_close(device);
        ck_assert_ptr_null(device->compute);
        ck_assert_uint_eq(device_memory_used(device), used);
    }
    compute_close(device); /* nothing to do */
    compute_close(NULL);
    device_destroy(&device);
}
END_TEST

/* The device is as it was: it can be opened for something else, and its error says what was wrong. */
START_TEST(a_provider_that_cannot_be_is_refused_and_the_device_stays)
{
    static const char *const bad[][3] = {
        {"metal", "fp32", "metal"}, {"cpu", "tf32", "tf32"}, {"mma", "fp32", "precision"}};
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct config_device config = wanted(bad[i][0], bad[i][1]);
        struct device *device;
        ck_assert_int_eq(device_open(&device, &config), 0);
        ck_assert_int_eq(compute_open(device), -EINVAL);
        ck_assert_ptr_null(device->compute);
        ck_assert_ptr_nonnull(strstr(device_error(device), bad[i][2]));
        ck_assert(device_answers(device));
        config.linear_kernel = "cpu";
        config.precision = "fp16";
        ck_assert_int_eq(compute_open(device), 0);
        ck_assert_uint_eq(provider_shape(device)->weight_bytes, 2);
        compute_close(device);
        device_destroy(&device);
    }
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("compute");
    tcase_set_timeout(all, 300); /* kernels are compiled at the first run */
    tcase_add_test(all, a_device_is_opened_closed_and_opened_again);
    tcase_add_test(all, a_provider_that_cannot_be_is_refused_and_the_device_stays);
    Suite *suite = suite_create("compute");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
