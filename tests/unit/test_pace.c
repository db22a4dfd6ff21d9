#include <check.h>
#include <stdlib.h>

#include "runtime/serve/pace.h"

enum { TOOK = 1000000, NOW = 5000000 };

START_TEST(a_pool_waits_for_those_who_were_answered_and_those_who_queue)
{
    struct pace pace = {0};
    pace_completed(&pace, 8, 8, TOOK, NOW);
    ck_assert_uint_eq(pace.rows, 16);
    ck_assert_uint_eq(pace.until_ns, NOW + TOOK / 2);
    ck_assert(pace_took(&pace, 16));
    ck_assert_uint_eq(pace.until_ns, 0);
    ck_assert(!pace_took(&pace, 16));
}
END_TEST

START_TEST(there_is_no_wait_where_it_gives_nothing)
{
    struct pace pace = {0};
    pace_completed(&pace, 1, 0, TOOK, NOW); /* one client: its next call is the batch */
    ck_assert_uint_eq(pace.until_ns, 0);
    pace_completed(&pace, 8, 8, PACE_LEAST_NS, NOW); /* a batch that costs nothing */
    ck_assert_uint_eq(pace.until_ns, 0);
    pace_completed(&pace, PACE_FULL_ROWS, 8, TOOK, NOW);
    ck_assert_uint_eq(pace.until_ns, 0);
    pace_completed(&pace, 8, PACE_FULL_ROWS, TOOK, NOW);
    ck_assert_uint_eq(pace.until_ns, 0);
    pace_completed(&pace, 0, UINT32_MAX, TOOK, NOW);
    ck_assert_uint_eq(pace.until_ns, 0);
}
END_TEST

START_TEST(a_wait_has_bounds)
{
    struct pace pace = {0};
    pace_completed(&pace, 100, 100, 3600ULL * 1000000000, NOW);
    ck_assert_uint_eq(pace.rows, PACE_FULL_ROWS);
    ck_assert_uint_eq(pace.until_ns, NOW + PACE_LONGEST_NS);
}
END_TEST

/* How many of `batches` batches waited, when `come` of 16 rows come back each time. */
static unsigned waits(unsigned batches, uint32_t come)
{
    struct pace pace = {0};
    unsigned count = 0;
    for (unsigned i = 0; i < batches; i++) {
        pace_completed(&pace, 8, 8, TOOK, NOW);
        count += pace_took(&pace, come);
    }
    return count;
}

START_TEST(waits_in_vain_become_rare)
{
    ck_assert_uint_eq(waits(1000, 16), 1000);
    ck_assert_uint_eq(waits(1000, 12), 1000); /* some are always missing */
    ck_assert_uint_le(waits(1000, 8), 12);    /* 1, 3, 6, 11, 20, 37, ... and one in 257 in the end */
    ck_assert_uint_ge(waits(1000, 8), 8);
}
END_TEST

START_TEST(those_who_come_back_are_waited_for_again)
{
    struct pace pace = {0};
    for (unsigned i = 0; i < 1000; i++) {
        pace_completed(&pace, 8, 8, TOOK, NOW);
        pace_took(&pace, 8);
    }
    unsigned until = 0;
    for (; pace.until_ns == 0; until++)
        pace_completed(&pace, 8, 8, TOOK, NOW);
    ck_assert_uint_le(until, 257);
    pace_took(&pace, 16);
    pace_completed(&pace, 8, 8, TOOK, NOW);
    ck_assert_uint_ne(pace.until_ns, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pace");
    TCase *tests = tcase_create("pace");
    tcase_add_test(tests, a_pool_waits_for_those_who_were_answered_and_those_who_queue);
    tcase_add_test(tests, there_is_no_wait_where_it_gives_nothing);
    tcase_add_test(tests, a_wait_has_bounds);
    tcase_add_test(tests, waits_in_vain_become_rare);
    tcase_add_test(tests, those_who_come_back_are_waited_for_again);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
