#include <check.h>

#include "runtime/device/opencl.h"

START_TEST(errors_have_the_names_of_the_header)
{
#define SAME(error) ck_assert_str_eq(opencl_error_name(error), #error)
    SAME(CL_SUCCESS);
    SAME(CL_DEVICE_NOT_FOUND);
    SAME(CL_OUT_OF_RESOURCES);
    SAME(CL_MAP_FAILURE);
    SAME(CL_MISALIGNED_SUB_BUFFER_OFFSET);
    SAME(CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST);
    SAME(CL_KERNEL_ARG_INFO_NOT_AVAILABLE);
    SAME(CL_INVALID_VALUE);
    SAME(CL_INVALID_COMMAND_QUEUE);
    SAME(CL_INVALID_BUILD_OPTIONS);
    SAME(CL_INVALID_KERNEL_ARGS);
    SAME(CL_INVALID_WORK_GROUP_SIZE);
    SAME(CL_INVALID_GLOBAL_WORK_SIZE);
    SAME(CL_INVALID_PROPERTY);
    SAME(CL_INVALID_DEVICE_PARTITION_COUNT);
    ck_assert_str_eq(opencl_error_name(OPENCL_PLATFORM_NOT_FOUND), "CL_PLATFORM_NOT_FOUND_KHR");
}
END_TEST

START_TEST(any_other_number_is_unknown)
{
    static const cl_int numbers[] = {1, -20, -25, -29, -69, -1000, -2147483647 - 1, 2147483647};
    for (unsigned i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        ck_assert_str_eq(opencl_error_name(numbers[i]), "CL_UNKNOWN_ERROR");
}
END_TEST

START_TEST(only_a_dead_device_or_context_is_a_loss)
{
    ck_assert(opencl_error_is_loss(CL_DEVICE_NOT_AVAILABLE));
    ck_assert(opencl_error_is_loss(CL_INVALID_CONTEXT));
    ck_assert(opencl_error_is_loss(OPENCL_NVIDIA_ILLEGAL_ACCESS));
    ck_assert(!opencl_error_is_loss(CL_OUT_OF_RESOURCES));
    ck_assert(!opencl_error_is_loss(CL_MEM_OBJECT_ALLOCATION_FAILURE));
    ck_assert(!opencl_error_is_loss(CL_SUCCESS));
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("opencl");
    tcase_set_timeout(all, 60);
    tcase_add_test(all, errors_have_the_names_of_the_header);
    tcase_add_test(all, any_other_number_is_unknown);
    tcase_add_test(all, only_a_dead_device_or_context_is_a_loss);
    Suite *suite = suite_create("opencl");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
