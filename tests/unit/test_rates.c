/* What happened between two looks. */
#include <check.h>
#include <stdlib.h>

#include "client/expertctl/rates.h"

static const double bounds[] = {0.001, 0.01, 0.1};
static const uint64_t empty[] = {0, 0, 0, 0}, some[] = {50, 40, 10, 0}, late[] = {0, 0, 0, 5};

static struct expertd_histogram histogram(const uint64_t *counts, double sum)
{
    const struct expertd_histogram made = {"h", bounds, counts, 3, sum};
    return made;
}

START_TEST(a_counter_rises_by_so_much_a_second)
{
    const struct expertd_counter old[] = {{"a", 10}, {"b", 7}}, new[] = {{"b", 3}, {"a", 30}, {"c", 5}};
    const struct expertd_stats before = {.counters = old, .count = 2}, now = {.counters = new, .count = 3};
    double value = -1;
    ck_assert_double_eq(rates_counter(&before, &now, "a", 4), 5);
    ck_assert_double_eq(rates_counter(&before, &now, "b", 4), 0); /* begun anew */
    ck_assert_double_eq(rates_counter(&before, &now, "c", 4), 0);
    ck_assert_double_eq(rates_counter(NULL, &now, "a", 4), 0);
    ck_assert_double_eq(rates_counter(&before, &now, "a", 0), 0);
    ck_assert(rates_find(&now, "c", &value) && value == 5);
    ck_assert(!rates_find(&now, "d", &value) && value == 5);
    ck_assert(!rates_find(NULL, "c", &value));
}
END_TEST

START_TEST(quantiles_are_those_of_what_came_between)
{
    struct expertd_histogram old = histogram(some, 1), new = histogram(some, 1);
    const struct expertd_stats before = {.histograms = &old, .histograms_count = 1};
    const struct expertd_stats now = {.histograms = &new, .histograms_count = 1};
    ck_assert_double_eq(rates_histogram(&before, &now, "h").count, 0);
    ck_assert_double_eq(rates_histogram(NULL, &now, "h").count, 0);
    ck_assert_double_eq(rates_histogram(&before, &now, "g").count, 0);
    old = histogram(empty, 0);
    struct rates_histogram rates = rates_histogram(&before, &now, "h");
    ck_assert_double_eq(rates.count, 100);
    ck_assert_double_eq_tol(rates.mean, 0.01, 1e-12);
    ck_assert_double_eq_tol(rates.median, 0.001, 1e-12); /* the 50 values of the first bucket end there */
    ck_assert_double_eq_tol(rates.p99, 0.091, 1e-12);    /* nine of ten through the third */
    new = histogram(late, 60);
    rates = rates_histogram(&before, &now, "h");
    ck_assert_double_eq(rates.median, 0.1); /* above all bounds */
    old = histogram(some, 100);             /* begun anew */
    ck_assert_double_eq(rates_histogram(&before, &now, "h").count, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("rates");
    TCase *tcase = tcase_create("rates");
    tcase_add_test(tcase, a_counter_rises_by_so_much_a_second);
    tcase_add_test(tcase, quantiles_are_those_of_what_came_between);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
