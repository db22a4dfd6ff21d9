#include <check.h>
#include <errno.h>
#include <string.h>

#include "common/expression.h"

static bool lookup(const void *context, const char *name, size_t length, double *value)
{
    *value = *(const double *)context;
    return length == 1 && name[0] == 'h';
}

static const struct {
    const char *text;
    double value;
} right[] = {
    {"7", 7},
    {" 4 * h ", 40},
    {"h", 10},
    {"1 + 2 * 3", 7},
    {"(1 + 2) * 3", 9},
    {"10 - 2 - 3", 5},
    {"24 / 2 / 3", 4},
    {"-h + 12", 2},
    {"2 * -3 + 8", 2},
    {"+0.5 + 2 * +3", 6.5},
    {"1 / (1 - 0.2)", 1.25},
    {"1e2", 100},
    {"1.5e-1 * 2", 0.3},
    {"((((h))))", 10},
};

START_TEST(what_can_be_read_has_its_value)
{
    const double h = 10;
    double value;
    char problem[EXPRESSION_PROBLEM_SIZE];
    ck_assert_msg(expression_number(right[_i].text, lookup, &h, &value, problem) == 0, "%s", problem);
    ck_assert_double_eq_tol(value, right[_i].value, 1e-12);
}
END_TEST

static const struct {
    const char *text, *says;
} wrong[] = {
    {"", "expected a number"},
    {"4 *", "expected a number"},
    {"4 h", "did not expect 'h'"},
    {"k + 1", "no argument 'k'"},
    {"hh", "no argument 'hh'"},
    {"(1", "expected )"},
    {"1)", "did not expect ')'"},
    {"1 / 0", "division by zero"},
    {"1 / (h - 10)", "division by zero"},
    {"1e999", "not finite"},
    {"0x10", "expected a number at '0x10' (it is written in decimal digits)"},
    {"h * 010", "expected a number at '010' (a 0 in front"},
    {"1_000", "expected a number at '1_000' (it is written"},
    {"0o10", "expected a number"},
    {"2h", "expected a number"},
    {"1.5.5", "expected a number"},
    {"1e", "expected a number"},
    {"inf", "no argument 'inf'"},
    {"1 ; 2", "did not expect"},
    {"((((((((((((((((((((((((((((((((((1))))))))))))))))))))))))))))))))))", "too many parentheses"},
};

START_TEST(what_cannot_is_named)
{
    const double h = 10;
    double value;
    char problem[EXPRESSION_PROBLEM_SIZE];
    ck_assert_int_eq(expression_number(wrong[_i].text, lookup, &h, &value, problem), -EINVAL);
    ck_assert_msg(strstr(problem, wrong[_i].says) != NULL, "'%s': %s", wrong[_i].text, problem);
}
END_TEST

START_TEST(a_size_is_whole_and_not_too_large)
{
    static const char *const bad[] = {"0", "-1", "1.5", "h / 4", "2e12", "1e300", "1e3", "2 * 1e1"};
    const double h = 10;
    uint64_t size;
    char problem[EXPRESSION_PROBLEM_SIZE];
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        ck_assert_msg(expression_size(bad[i], lookup, &h, &size, problem) == -EINVAL && problem[0], "%s", bad[i]);
    ck_assert_int_eq(expression_size("h * 1.5", lookup, &h, &size, problem), 0);
    ck_assert_uint_eq(size, 15);
    ck_assert_int_eq(expression_size("1024 * 1024 * 1024 * 1024", lookup, &h, &size, problem), 0);
    ck_assert_uint_eq(size, UINT64_C(1) << 40);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("expression");
    tcase_add_loop_test(all, what_can_be_read_has_its_value, 0, sizeof right / sizeof right[0]);
    tcase_add_loop_test(all, what_cannot_is_named, 0, sizeof wrong / sizeof wrong[0]);
    tcase_add_test(all, a_size_is_whole_and_not_too_large);
    Suite *suite = suite_create("expression");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
