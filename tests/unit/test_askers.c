/* Shares of those who ask for look-ups: alone nearly all, beside others a part, and nothing is left of who is gone. */
#include <check.h>
#include <stdlib.h>

#include "dht/askers.h"

static struct askers *askers;
static struct asker *one, *other;

static void setup(void)
{
    ck_assert_int_eq(askers_create(&askers), 0);
    one = askers_find(askers, "one", 3);
    other = askers_find(askers, "other", 5);
    ck_assert_ptr_nonnull(one);
    ck_assert_ptr_nonnull(other);
    ck_assert_ptr_ne(one, other);
    ck_assert_ptr_eq(askers_find(askers, "one", 3), one);
}

static void teardown(void)
{
    askers_destroy(&askers);
    ck_assert_ptr_null(askers);
}

static size_t keep_all(struct asker *asker, size_t bytes)
{
    size_t count = 0;
    while (asker_keep(askers, asker, bytes))
        count++;
    return count;
}

START_TEST(one_that_is_alone_has_nearly_all_and_leaves_room_for_others)
{
    const size_t kept = keep_all(one, 1);
    ck_assert_uint_gt(kept, ASKERS_KEPT_MAX * 7 / 8);
    ck_assert_uint_lt(kept, ASKERS_KEPT_MAX);
    const size_t others = keep_all(other, 1);
    ck_assert_uint_gt(others, ASKERS_KEPT_MAX / 16);
    ck_assert_uint_le(kept + others, ASKERS_KEPT_MAX);
    ck_assert(!asker_keep(askers, one, 1));
    for (size_t i = 0; i < kept; i++)
        asker_let_go(askers, one, 1);
    for (size_t i = 0; i < others; i++)
        asker_let_go(askers, other, 1);
    ck_assert_uint_eq(keep_all(other, 1), kept);
}
END_TEST

START_TEST(what_waits_is_bounded_in_bytes_likewise)
{
    const size_t bytes = 1 << 20;
    ck_assert(!asker_keep(askers, one, (size_t)ASKERS_KEPT_BYTES_MAX + 1));
    const size_t kept = keep_all(one, bytes);
    ck_assert_uint_ge(kept * bytes, (size_t)ASKERS_KEPT_BYTES_MAX / 8 * 7);
    const size_t others = keep_all(other, bytes);
    ck_assert_uint_gt(others, 8);
    ck_assert_uint_le((kept + others) * bytes, ASKERS_KEPT_BYTES_MAX);
}
END_TEST

START_TEST(one_that_does_not_read_gets_a_share_of_what_is_free_and_others_theirs)
{
    const size_t bytes = 1 << 20;
    size_t sent = 0;
    while (asker_charge(one, bytes))
        sent++;
    ck_assert_uint_ge(sent * bytes, ASKERS_UNREAD_BYTES_MAX / 6);
    ck_assert_uint_le(sent * bytes, ASKERS_UNREAD_BYTES_MAX / 4);
    size_t others = 0;
    while (asker_charge(other, bytes))
        others++;
    ck_assert_uint_ge(others * bytes, ASKERS_UNREAD_BYTES_MAX / 8);
    /* Who has read all may have one, however large. */
    struct asker *third = askers_find(askers, "third", 5);
    ck_assert(asker_charge(third, ASKERS_UNREAD_BYTES_MAX));
    struct asker *fourth = askers_find(askers, "fourth", 6);
    ck_assert(!asker_charge(fourth, 1));
    asker_credit(third, ASKERS_UNREAD_BYTES_MAX);
    ck_assert(asker_charge(fourth, 1));
    asker_credit(fourth, 1);
    while (others-- > 0)
        asker_credit(other, bytes);
    ck_assert(!asker_charge(one, bytes));
    asker_credit(one, bytes);
    ck_assert(asker_charge(one, bytes));
    while (sent-- > 0)
        asker_credit(one, bytes);
}
END_TEST

START_TEST(whoever_has_nothing_left_is_forgotten_and_nobody_else)
{
    enum { MANY = 1000 };
    ck_assert(asker_keep(askers, one, 1));
    ck_assert(asker_charge(other, 1));
    for (unsigned turn = 0; turn < 3; turn++) {
        for (unsigned i = 0; i < MANY; i++) {
            const unsigned id = turn * MANY + i;
            ck_assert_ptr_nonnull(askers_find(askers, &id, sizeof id));
        }
        askers_tidy(askers);
        ck_assert_uint_eq(askers_count(askers), 2);
        ck_assert_ptr_eq(askers_find(askers, "one", 3), one);
        ck_assert_ptr_eq(askers_find(askers, "other", 5), other);
    }
    asker_let_go(askers, one, 1);
    asker_credit(other, 1);
}
END_TEST

START_TEST(an_answer_may_be_on_its_way_when_all_is_over)
{
    ck_assert(asker_charge(one, 7));
    askers_destroy(&askers);
    asker_credit(one, 7);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("askers");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, one_that_is_alone_has_nearly_all_and_leaves_room_for_others);
    tcase_add_test(all, what_waits_is_bounded_in_bytes_likewise);
    tcase_add_test(all, one_that_does_not_read_gets_a_share_of_what_is_free_and_others_theirs);
    tcase_add_test(all, whoever_has_nothing_left_is_forgotten_and_nobody_else);
    tcase_add_test(all, an_answer_may_be_on_its_way_when_all_is_over);
    Suite *suite = suite_create("askers");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
