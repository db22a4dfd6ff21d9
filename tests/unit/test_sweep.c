/* What numbers of calls in flight a text names. */
#include <check.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>

#include "client/expertctl/sweep.h"

static void is(const char *text, size_t count, ...)
{
    struct sweep sweep;
    va_list levels;
    ck_assert_msg(sweep_parse(&sweep, text) == 0, "%s", text);
    ck_assert_msg(sweep.count == count, "%s has %zu", text, sweep.count);
    va_start(levels, count);
    for (size_t i = 0; i < count; i++)
        ck_assert_uint_eq(sweep.levels[i], va_arg(levels, unsigned));
    va_end(levels);
}

START_TEST(lists_and_ranges_are_what_they_say)
{
    is("4", 1, 4U);
    is("1000", 1, 1000U);
    is("3,1,2", 3, 3U, 1U, 2U);
    is("1:8", 4, 1U, 2U, 4U, 8U);
    is("1:6", 4, 1U, 2U, 4U, 6U);
    is("5:5", 1, 5U);
    is("4:20:8", 3, 4U, 12U, 20U);
    is("4:19:8", 2, 4U, 12U);
}
END_TEST

START_TEST(what_is_neither_is_refused)
{
    static const char *const texts[] = {
        "",         "0",  "-1",   "1001",  "a",       "1,",    ",1",  "1,,2", "8:1",
        "1:",       ":8", "1:8:", "1:8:0", "1:8:2:2", "1,2:4", "1 2", "1:8 ", "1:99999999999999999999",
        "1:1000:1", "08", "1:08", "0x8"};
    struct sweep sweep;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        ck_assert_msg(sweep_parse(&sweep, texts[i]) == -EINVAL, "'%s'", texts[i]);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sweep");
    TCase *tcase = tcase_create("sweep");
    tcase_add_test(tcase, lists_and_ranges_are_what_they_say);
    tcase_add_test(tcase, what_is_neither_is_refused);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
