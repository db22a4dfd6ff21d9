#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/uid.h"
#include "frontend/expert_table.h"

static struct expert_table *table;

static void setup(void)
{
    ck_assert_int_eq(expert_table_create(&table), 0);
}

static void teardown(void)
{
    expert_table_destroy(&table);
    expert_table_destroy(&table);
}

START_TEST(an_empty_table_has_nobody)
{
    ck_assert_ptr_null(expert_table_find(table, "ffn.0"));
    expert_table_clear(table);
    ck_assert_ptr_null(expert_table_find(table, ""));
    ck_assert_uint_eq(expert_table_count(table), 0);
}
END_TEST

START_TEST(thousands_are_found_where_they_were_put_and_again_after_a_rebuild)
{
    enum { EXPERTS = 20000 };
    char uid[UID_SIZE];
    for (int round = 0; round < 3; round++) {
        expert_table_clear(table);
        for (uint32_t i = 0; i < EXPERTS; i++) {
            snprintf(uid, sizeof uid, "ffn.%u.%u", i / 100, i % 100);
            ck_assert_int_eq(expert_table_set(table, uid, i % 4, i), 0);
        }
        ck_assert_uint_eq(expert_table_count(table), EXPERTS);
        for (uint32_t i = 0; i < EXPERTS; i++) {
            snprintf(uid, sizeof uid, "ffn.%u.%u", i / 100, i % 100);
            const struct expert_place *place = expert_table_find(table, uid);
            ck_assert_ptr_nonnull(place);
            ck_assert_uint_eq(place->expert, i);
            ck_assert_uint_eq(place->device, i % 4);
            ck_assert_uint_eq(place->uid_hash, uid_hash(uid, strlen(uid)));
            ck_assert_str_eq(expert_table_uid(table, expert_table_at(table, i)), uid);
        }
        ck_assert_ptr_null(expert_table_find(table, "ffn.200.0"));
        ck_assert_ptr_null(expert_table_find(table, "ffn.1"));
    }
}
END_TEST

START_TEST(what_is_attached_takes_the_place_of_what_was_configured)
{
    ck_assert_int_eq(expert_table_set(table, "a.0", 0, EXPERT_ABSENT), 0);
    ck_assert_int_eq(expert_table_set(table, "b.0", 0, EXPERT_ABSENT), 0);
    expert_table_advise(table, "a.0", 4);
    expert_table_advise(table, "nobody.0", 5);
    ck_assert_int_eq(expert_table_set(table, "a.0", 1, 5), 0);
    ck_assert_uint_eq(expert_table_find(table, "a.0")->compression, 4); /* attached or not */
    ck_assert_uint_eq(expert_table_find(table, "b.0")->compression, 0);
    ck_assert_uint_eq(expert_table_count(table), 2);
    ck_assert_uint_eq(expert_table_find(table, "a.0")->device, 1);
    ck_assert_uint_eq(expert_table_find(table, "a.0")->expert, 5);
    ck_assert_int_eq(expert_table_set(table, "a.0", 2, 6), -EEXIST);
    ck_assert_uint_eq(expert_table_find(table, "a.0")->device, 1);
    ck_assert_uint_eq(expert_table_find(table, "b.0")->expert, EXPERT_ABSENT);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("expert_table");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, an_empty_table_has_nobody);
    tcase_add_test(all, thousands_are_found_where_they_were_put_and_again_after_a_rebuild);
    tcase_add_test(all, what_is_attached_takes_the_place_of_what_was_configured);
    Suite *suite = suite_create("expert_table");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
