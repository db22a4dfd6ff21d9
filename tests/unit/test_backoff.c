#include <check.h>

#include "client/backoff.h"
#include "common/clock.h"

START_TEST(a_pause_is_the_hint_and_up_to_as_much_again)
{
    uint64_t random = 7, least = UINT64_MAX, most = 0;
    for (int i = 0; i < 10000; i++) {
        const uint64_t pause = backoff_ns(10, 0, &random);
        least = pause < least ? pause : least;
        most = pause > most ? pause : most;
    }
    ck_assert_uint_ge(least, 10 * NS_PER_MS);
    ck_assert_uint_lt(least, 11 * NS_PER_MS);
    ck_assert_uint_gt(most, 19 * NS_PER_MS);
    ck_assert_uint_lt(most, 20 * NS_PER_MS);
}
END_TEST

START_TEST(it_doubles_with_each_refusal_up_to_a_second_or_the_hint)
{
    uint64_t random = 7;
    for (uint32_t refusals = 0; refusals < 100; refusals++) {
        const uint64_t expected = refusals < 7 ? (10U << refusals) * NS_PER_MS : NS_PER_S;
        const uint64_t pause = backoff_ns(10, refusals, &random);
        ck_assert_uint_ge(pause, expected);
        ck_assert_uint_lt(pause, 2 * expected);
        ck_assert_uint_ge(backoff_ns(5000, refusals, &random), 5 * NS_PER_S);
        ck_assert_uint_lt(backoff_ns(UINT32_MAX, refusals, &random), 2 * (UINT32_MAX * (uint64_t)NS_PER_MS));
    }
}
END_TEST

START_TEST(clients_that_were_refused_together_come_back_apart)
{
    uint64_t a = 1, b = 2;
    ck_assert_uint_ne(backoff_ns(10, 0, &a), backoff_ns(10, 0, &b));
    ck_assert_uint_eq(backoff_ns(0, 0, &a), 0);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("backoff");
    tcase_add_test(all, a_pause_is_the_hint_and_up_to_as_much_again);
    tcase_add_test(all, it_doubles_with_each_refusal_up_to_a_second_or_the_hint);
    tcase_add_test(all, clients_that_were_refused_together_come_back_apart);
    Suite *suite = suite_create("backoff");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
