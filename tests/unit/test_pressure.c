/* How the budget of messages is divided. (What happens when it is used up: tests/system/test_connections.py.) */
#include <check.h>
#include <stdlib.h>

#include "frontend/pressure.h"

static const uint64_t MiB = 1 << 20, GiB = 1 << 30;

START_TEST(the_budget_is_what_is_configured_or_follows_from_the_memory)
{
    struct config_frontend config = {.max_memory = 123 * MiB};
    ck_assert_uint_eq(pressure_budget(&config, GiB), 123 * MiB);
    config.max_memory = 1;
    ck_assert_uint_eq(pressure_budget(&config, GiB), 16 * MiB);
    config.max_memory = 0;
    ck_assert_uint_eq(pressure_budget(&config, 100 * MiB), 64 * MiB);
    ck_assert_uint_eq(pressure_budget(&config, 8 * GiB), 2 * GiB);
    ck_assert_uint_eq(pressure_budget(&config, 100 * GiB), 4 * GiB);
    ck_assert_uint_eq(pressure_budget(&config, UINT64_MAX), 4 * GiB); /* no limit is known */
}
END_TEST

START_TEST(its_parts_leave_room_for_each_other)
{
    ck_assert_uint_eq(pressure_unread_max(64 * MiB), 16 * MiB);
    ck_assert_uint_eq(pressure_unread_max(64 * GiB), GiB);
    ck_assert_uint_eq(pressure_keep_max(64 * MiB), 16 * MiB);
    ck_assert_uint_eq(pressure_keep_max(64 * GiB), 256 * MiB);
    ck_assert_uint_eq(pressure_frame_max(64 * MiB, GiB), 32 * MiB);
    ck_assert_uint_eq(pressure_frame_max(4 * GiB, GiB), GiB);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("pressure");
    tcase_add_test(all, the_budget_is_what_is_configured_or_follows_from_the_memory);
    tcase_add_test(all, its_parts_leave_room_for_each_other);
    Suite *suite = suite_create("pressure");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
