#include <check.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/expertd.h"
#include "common/status.h"
#include "common/tensor.h"

START_TEST(the_header_has_the_builds_version)
{
    char text[32];
    snprintf(text, sizeof text, "%d.%d.%d", EXPERTD_VERSION_MAJOR, EXPERTD_VERSION_MINOR, EXPERTD_VERSION_PATCH);
    ck_assert_str_eq(expertd_version(), text);
    ck_assert_uint_eq(expertd_version_number(), EXPERTD_VERSION_NUMBER);
}
END_TEST

START_TEST(statuses_and_dtypes_are_named_as_everywhere)
{
    for (int i = -1; i < 32; i++) {
        ck_assert_str_eq(expertd_status_name((enum expertd_status)i), status_name((enum status)i));
        ck_assert_str_eq(expertd_dtype_name((enum expertd_dtype)i), dtype_name((uint32_t)i));
        ck_assert_uint_eq(expertd_dtype_size((enum expertd_dtype)i), dtype_size((uint32_t)i));
    }
    ck_assert_str_eq(expertd_status_name(EXPERTD_ALREADY_EXISTS), "ALREADY_EXISTS");
    ck_assert_str_eq(expertd_dtype_name(EXPERTD_BOOL), "bool");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("names");
    TCase *tests = tcase_create("names");
    tcase_add_test(tests, the_header_has_the_builds_version);
    tcase_add_test(tests, statuses_and_dtypes_are_named_as_everywhere);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
