#include <check.h>

#include "client/comeback.h"
#include "common/clock.h"

enum { HINT_MS = 10 };
static const uint64_t now_ns = 1000;
static uint64_t random_state = 7;

static void check_pause(const struct comeback *comeback, uint64_t least_ms)
{
    ck_assert_uint_ge(comeback->due_ns, now_ns + least_ms * NS_PER_MS);
    ck_assert_uint_lt(comeback->due_ns, now_ns + 2 * least_ms * NS_PER_MS);
}

static void refuse(struct comeback *comeback, size_t flying)
{
    comeback_refused(comeback, HINT_MS, flying, now_ns, &random_state);
    comeback->waiting++;
}

/* Those that go come back refused. */
static uint32_t try_in_vain(struct comeback *comeback, size_t flying)
{
    const uint32_t tried = comeback_try(comeback, flying, now_ns, &random_state);
    comeback->waiting -= tried;
    for (uint32_t i = 0; i < tried; i++)
        refuse(comeback, flying + tried - 1 - i);
    return tried;
}

START_TEST(those_that_are_refused_together_are_due_together)
{
    struct comeback comeback = {0};
    refuse(&comeback, 20);
    check_pause(&comeback, HINT_MS);
    const uint64_t due_ns = comeback.due_ns;
    for (size_t flying = 19; flying > 0; flying--)
        refuse(&comeback, flying);
    ck_assert_uint_eq(comeback.due_ns, due_ns);
}
END_TEST

START_TEST(beside_others_as_many_are_tried_and_after_each_refusal_half_as_many_later)
{
    struct comeback comeback = {.waiting = 100};
    refuse(&comeback, 16);
    for (uint32_t failures = 0; failures < 20; failures++) {
        const uint32_t level = failures < 4 ? failures : 4;
        ck_assert_uint_eq(try_in_vain(&comeback, 16), 16 >> level);
        check_pause(&comeback, HINT_MS << (level < 4 ? level + 1 : 4));
    }
    ck_assert_uint_eq(try_in_vain(&comeback, 3), 1);
    comeback.waiting = 0;
    refuse(&comeback, 200);
    ck_assert_uint_eq(comeback_try(&comeback, 200, now_ns, &random_state), 1);
}
END_TEST

START_TEST(without_others_all_are_tried_and_a_lone_one_less_and_less_often)
{
    struct comeback comeback = {0};
    for (size_t flying = 9; flying < 10; flying--)
        refuse(&comeback, flying);
    ck_assert_uint_eq(try_in_vain(&comeback, 0), 10);
    ck_assert_uint_eq(try_in_vain(&comeback, 0), 5);
    comeback = (struct comeback){0};
    refuse(&comeback, 0);
    for (uint32_t failures = 1; failures < 6; failures++) {
        ck_assert_uint_eq(try_in_vain(&comeback, 0), 1);
        check_pause(&comeback, HINT_MS << failures);
    }
}
END_TEST

START_TEST(a_try_that_went_well_makes_the_next_one_larger_and_sooner)
{
    struct comeback comeback = {.waiting = 100};
    refuse(&comeback, 16);
    for (int i = 0; i < 3; i++)
        try_in_vain(&comeback, 16);
    ck_assert_uint_eq(comeback_try(&comeback, 16, now_ns, &random_state), 2);
    ck_assert_uint_eq(comeback_try(&comeback, 16, now_ns, &random_state), 8);
    check_pause(&comeback, HINT_MS << 1);
    ck_assert_uint_eq(comeback_try(&comeback, 16, now_ns, &random_state), 16);
    ck_assert_uint_eq(comeback_try(&comeback, 16, now_ns, &random_state), 16);
    check_pause(&comeback, HINT_MS);
}
END_TEST

START_TEST(each_answer_lets_one_go_and_two_behind_a_try_that_went_well_until_one_is_refused)
{
    struct comeback comeback = {.waiting = 100};
    refuse(&comeback, 3);
    ck_assert_uint_eq(comeback_answered(&comeback), 1);
    comeback_try(&comeback, 3, now_ns, &random_state);
    for (int i = 0; i < 3; i++) /* were there before it */
        ck_assert_uint_eq(comeback_answered(&comeback), 1);
    for (int i = 0; i < 10; i++)
        ck_assert_uint_eq(comeback_answered(&comeback), 2);
    refuse(&comeback, 20);
    ck_assert_uint_eq(comeback_answered(&comeback), 1);
    comeback_try(&comeback, 0, now_ns, &random_state);
    comeback.waiting = 1;
    ck_assert_uint_eq(comeback_answered(&comeback), 1);
    comeback.waiting = 0;
    ck_assert_uint_eq(comeback_answered(&comeback), 0);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("comeback");
    tcase_add_test(all, those_that_are_refused_together_are_due_together);
    tcase_add_test(all, beside_others_as_many_are_tried_and_after_each_refusal_half_as_many_later);
    tcase_add_test(all, without_others_all_are_tried_and_a_lone_one_less_and_less_often);
    tcase_add_test(all, a_try_that_went_well_makes_the_next_one_larger_and_sooner);
    tcase_add_test(all, each_answer_lets_one_go_and_two_behind_a_try_that_went_well_until_one_is_refused);
    Suite *suite = suite_create("comeback");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
