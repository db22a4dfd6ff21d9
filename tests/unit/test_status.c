#include <check.h>

#include "common/status.h"

START_TEST(statuses_have_grpc_s_names_and_numbers)
{
    ck_assert_str_eq(status_name((enum status)0), "OK");
    ck_assert_str_eq(status_name((enum status)3), "INVALID_ARGUMENT");
    ck_assert_str_eq(status_name((enum status)4), "DEADLINE_EXCEEDED");
    ck_assert_str_eq(status_name((enum status)5), "NOT_FOUND");
    ck_assert_str_eq(status_name((enum status)6), "ALREADY_EXISTS");
    ck_assert_str_eq(status_name((enum status)8), "RESOURCE_EXHAUSTED");
    ck_assert_str_eq(status_name((enum status)10), "ABORTED");
    ck_assert_str_eq(status_name((enum status)12), "UNIMPLEMENTED");
    ck_assert_str_eq(status_name((enum status)13), "INTERNAL");
    ck_assert_str_eq(status_name((enum status)14), "UNAVAILABLE");
}
END_TEST

START_TEST(other_numbers_are_unknown)
{
    ck_assert_str_eq(status_name((enum status)1), "UNKNOWN");
    ck_assert_str_eq(status_name((enum status)999), "UNKNOWN");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("status");
    TCase *tcase = tcase_create("status");
    tcase_add_test(tcase, statuses_have_grpc_s_names_and_numbers);
    tcase_add_test(tcase, other_numbers_are_unknown);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
