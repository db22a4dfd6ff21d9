/* Percentiles, and when measurements are alike. */
#include <check.h>
#include <stdlib.h>

#include "client/expertctl/window.h"

/* `count` calls of so many ns each in so many seconds. */
static struct window uniform(double seconds, size_t count, uint64_t latency_ns)
{
    struct window window = {.seconds = seconds};
    for (size_t i = 0; i < count; i++)
        ck_assert_int_eq(window_add(&window, latency_ns), 0);
    return window;
}

START_TEST(percentiles_are_values_that_were_measured)
{
    struct window window = {0};
    for (uint64_t i = 0; i < 3000; i++)
        ck_assert_int_eq(window_add(&window, (i * 1009 % 3000) + 1), 0); /* 1 to 3000, in disorder */
    window_sort(&window);
    ck_assert_uint_eq(window_percentile(&window, 0), 1);
    ck_assert_uint_eq(window_percentile(&window, 50), 1500);
    ck_assert_uint_eq(window_percentile(&window, 99), 2970);
    ck_assert_uint_eq(window_percentile(&window, 100), 3000);
    ck_assert_double_eq_tol(window_mean_ns(&window), 1500.5, 1e-9);
    window_clear(&window);
    ck_assert_uint_eq(window.count, 0);
    ck_assert_double_eq(window_mean_ns(&window), 0);
    window = uniform(1, 1, 7);
    ck_assert_uint_eq(window_percentile(&window, 50), 7);
    window_clear(&window);
}
END_TEST

START_TEST(merged_windows_are_one_longer_window)
{
    struct window all = {0}, first = uniform(1, 10, 100), second = uniform(3, 5000, 200);
    first.failed = 2;
    first.queue = (struct window_sum){1, 10};
    second.queue = (struct window_sum){3, 10};
    ck_assert_int_eq(window_merge(&all, &first), 0);
    ck_assert_int_eq(window_merge(&all, &second), 0);
    ck_assert_uint_eq(all.count, 5010);
    ck_assert_uint_eq(all.failed, 2);
    ck_assert_double_eq(window_rate(&all), 5010.0 / 4);
    ck_assert_double_eq(all.queue.sum / all.queue.count, 0.2);
    window_sort(&all);
    ck_assert_uint_eq(window_percentile(&all, 0), 100);
    ck_assert_uint_eq(window_percentile(&all, 1), 200);
    window_clear(&all);
    window_clear(&first);
    window_clear(&second);
}
END_TEST

START_TEST(alike_are_both_rates_and_latencies)
{
    struct window same[] = {uniform(1, 100, 1000), uniform(1, 104, 1040), uniform(1, 97, 980)};
    struct window slower[] = {uniform(1, 100, 1000), uniform(1, 100, 1000), uniform(2, 100, 1000)};
    struct window later[] = {uniform(1, 100, 1000), uniform(1, 100, 1000), uniform(1, 100, 2000)};
    const struct window none[3] = {{.seconds = 1}, {.seconds = 1}, {.seconds = 1}};
    ck_assert(window_stable(same, 3, 0.1));
    ck_assert(!window_stable(same, 3, 0.01));
    ck_assert(!window_stable(slower, 3, 0.1));
    ck_assert(!window_stable(later, 3, 0.1));
    ck_assert(!window_stable(none, 3, 0.1));
    for (size_t i = 0; i < 3; i++) {
        window_clear(&same[i]);
        window_clear(&slower[i]);
        window_clear(&later[i]);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("window");
    TCase *tcase = tcase_create("window");
    tcase_add_test(tcase, percentiles_are_values_that_were_measured);
    tcase_add_test(tcase, merged_windows_are_one_longer_window);
    tcase_add_test(tcase, alike_are_both_rates_and_latencies);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
