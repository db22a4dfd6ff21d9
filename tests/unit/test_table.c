#include "dht_world.h"

START_TEST(what_is_put_in_is_found_until_it_is_taken_out)
{
    enum { COUNT = 3000 };
    static uint64_t keys[COUNT];
    static bool in[COUNT];
    struct table table = {0};
    size_t count = 0;
    ck_assert_ptr_null(table_find(&table, "x", 1));
    ck_assert_ptr_null(table_remove(&table, "x", 1));
    srand(5);
    for (size_t i = 0; i < COUNT; i++)
        keys[i] = i;
    for (int step = 0; step < 60000; step++) {
        const size_t i = (size_t)rand() % COUNT;
        if (in[i])
            ck_assert_ptr_eq(table_remove(&table, &keys[i], sizeof keys[i]), &keys[i]);
        else
            ck_assert_int_eq(table_insert(&table, &keys[i], sizeof keys[i], &keys[i]), 0);
        count += in[i] ? (size_t)-1 : 1;
        in[i] = !in[i];
        const size_t j = (size_t)rand() % COUNT;
        ck_assert_ptr_eq(table_find(&table, &keys[j], sizeof keys[j]), in[j] ? &keys[j] : NULL);
    }
    ck_assert_uint_eq(table.count, count);
    size_t seen = 0;
    for (size_t at = 0; table_next(&table, &at);)
        seen++;
    ck_assert_uint_eq(seen, count);
    table_destroy(&table);
}
END_TEST

START_TEST(keys_are_told_apart_by_length_too)
{
    struct table table = {0};
    int a, b;
    ck_assert_int_eq(table_insert(&table, "ffn.", 4, &a), 0);
    ck_assert_int_eq(table_insert(&table, "ffn.4.", 6, &b), 0);
    ck_assert_ptr_eq(table_find(&table, "ffn.4.", 4), &a);
    ck_assert_ptr_eq(table_find(&table, "ffn.4.", 6), &b);
    ck_assert_ptr_null(table_find(&table, "ffn.4.", 5));
    table_destroy(&table);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("table");
    tcase_add_test(all, what_is_put_in_is_found_until_it_is_taken_out);
    tcase_add_test(all, keys_are_told_apart_by_length_too);
    return world_run(all, "table");
}
