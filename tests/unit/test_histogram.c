/* Values land in the bucket whose bound is the first that is not below them, and sums are in the scale's unit. */
#include <check.h>
#include <stdlib.h>

#include "common/histogram.h"

static uint64_t count(const struct histogram *histogram, unsigned bucket)
{
    return atomic_load(&histogram->counts[bucket]);
}

START_TEST(a_value_at_a_bound_counts_below_it_and_one_above_does_not)
{
    static struct histogram histogram;
    histogram_add(&histogram, HISTOGRAM_ROWS, 4);
    histogram_add(&histogram, HISTOGRAM_ROWS, 5);
    ck_assert_uint_eq(count(&histogram, 2), 1);
    ck_assert_uint_eq(count(&histogram, 3), 1);
    ck_assert_double_eq(histogram_sum(HISTOGRAM_ROWS, atomic_load(&histogram.sum)), 9);
}
END_TEST

START_TEST(nothing_is_too_small_or_too_large)
{
    static struct histogram histogram;
    histogram_add(&histogram, HISTOGRAM_TIME, 0);
    histogram_add(&histogram, HISTOGRAM_TIME, UINT64_MAX / 2);
    ck_assert_uint_eq(count(&histogram, 0), 1);
    ck_assert_uint_eq(count(&histogram, HISTOGRAM_BOUNDS), 1);
}
END_TEST

START_TEST(times_are_nanoseconds_and_their_bounds_seconds)
{
    ck_assert_double_eq_tol(histogram_bound(HISTOGRAM_TIME, 0), 1e-4, 1e-12);
    ck_assert_double_eq_tol(histogram_bound(HISTOGRAM_TIME, HISTOGRAM_BOUNDS - 1), 10, 1e-9);
    ck_assert_double_eq_tol(histogram_sum(HISTOGRAM_TIME, 1500000000), 1.5, 1e-12);
}
END_TEST

START_TEST(bounds_ascend)
{
    for (unsigned scale = 0; scale < HISTOGRAM_SCALES; scale++) {
        for (unsigned i = 1; i < HISTOGRAM_BOUNDS; i++)
            ck_assert_double_gt(histogram_bound((enum histogram_scale)scale, i),
                                histogram_bound((enum histogram_scale)scale, i - 1));
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("histogram");
    TCase *tests = tcase_create("histogram");
    tcase_add_test(tests, a_value_at_a_bound_counts_below_it_and_one_above_does_not);
    tcase_add_test(tests, nothing_is_too_small_or_too_large);
    tcase_add_test(tests, times_are_nanoseconds_and_their_bounds_seconds);
    tcase_add_test(tests, bounds_ascend);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
