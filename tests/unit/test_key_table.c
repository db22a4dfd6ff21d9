/* Things by their keys. */
#include <check.h>

#include "client/key_table.h"

enum { MANY = 1000 };

static struct key_table table;
static struct keyed things[MANY];

static void set_up(void)
{
    table = (struct key_table){0};
}

static void tear_down(void)
{
    key_table_clear(&table);
}

/* So far apart that hundreds of them share a bucket, and others have one alone. */
static void insert_all(uint64_t stride)
{
    for (uint64_t i = 0; i < MANY; i++) {
        things[i].key = i * stride;
        ck_assert_int_eq(key_table_insert(&table, &things[i]), 0);
    }
}

START_TEST(an_empty_one_has_nothing)
{
    ck_assert_ptr_null(key_table_find(&table, 0));
    ck_assert(!key_table_remove(&table, &things[0]));
}
END_TEST

START_TEST(each_is_found_by_its_key_until_it_is_removed)
{
    static const uint64_t strides[] = {1, 64, UINT64_C(1) << 40};
    const uint64_t stride = strides[_i];
    insert_all(stride);
    for (uint64_t i = 0; i < MANY; i += 2) {
        ck_assert(key_table_remove(&table, &things[i]));
        ck_assert(!key_table_remove(&table, &things[i]));
    }
    for (uint64_t i = 0; i < MANY; i++)
        ck_assert_ptr_eq(key_table_find(&table, i * stride), i % 2 ? &things[i] : NULL);
    ck_assert_uint_eq(table.count, MANY / 2);
    ck_assert_ptr_null(key_table_find(&table, MANY * stride));
}
END_TEST

START_TEST(it_grows_so_that_few_share_a_bucket)
{
    insert_all(1);
    ck_assert_uint_ge(table.size, MANY);
    for (size_t i = 0; i < table.size; i++)
        ck_assert(!table.buckets[i] || !table.buckets[i]->next);
}
END_TEST

START_TEST(of_two_with_one_key_the_one_that_is_meant_is_removed)
{
    static struct keyed first = {.key = 7}, second = {.key = 7};
    ck_assert_int_eq(key_table_insert(&table, &first), 0);
    ck_assert_int_eq(key_table_insert(&table, &second), 0);
    ck_assert(key_table_remove(&table, &first));
    ck_assert_ptr_eq(key_table_find(&table, 7), &second);
    key_table_clear(&table);
    ck_assert_ptr_null(key_table_find(&table, 7));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("key_table");
    TCase *tests = tcase_create("key_table");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, an_empty_one_has_nothing);
    tcase_add_loop_test(tests, each_is_found_by_its_key_until_it_is_removed, 0, 3);
    tcase_add_test(tests, it_grows_so_that_few_share_a_bucket);
    tcase_add_test(tests, of_two_with_one_key_the_one_that_is_meant_is_removed);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
