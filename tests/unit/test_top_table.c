/* Rates of experts, and their order. */
#include <check.h>
#include <stdlib.h>

#include "client/expertctl/top_table.h"

/* b was not there before, and c has begun anew. */
static const struct expertd_expert_stats old[] = {{"c", "gpu0", 900, 900, 0, 0, 0, 0, 0, 0, {0}, {0}},
                                                  {"a", "gpu1", 10, 100, 4, 40, 0, 0, 4, 0, {0}, {0}}};
static const struct expertd_expert_stats new[] = {{"a", "gpu1", 20, 300, 6, 60, 3, 0.5, 6, 1, {0}, {0}},
                                                  {"b", "gpu0", 70, 70, 0, 0, 0, 0, 0, 0, {0}, {0}},
                                                  {"c", "gpu0", 1, 1, 0, 0, 7, 0.25, 9, 0, {0}, {0}}};
static const struct expertd_stats before = {.experts = old, .experts_count = 2},
                                  now = {.experts = new, .experts_count = 3};

static void in_order(struct top_table *table, enum top_column column, bool reversed, const char *order)
{
    top_table_sort(table, column, reversed);
    for (size_t i = 0; i < table->count; i++)
        ck_assert_msg(table->experts[i].uid[0] == order[i], "%s: %zu is %s", top_column_title(column), i,
                      table->experts[i].uid);
}

START_TEST(rates_are_of_the_same_expert_and_never_below_zero)
{
    struct top_table table;
    ck_assert_int_eq(top_table_make(&table, &before, &now, 2), 0);
    top_table_sort(&table, TOP_UID, false);
    ck_assert_uint_eq(table.count, 3);
    const double *a = table.experts[0].values, *b = table.experts[1].values, *c = table.experts[2].values;
    ck_assert(a[TOP_FORWARD_CALLS] == 5 && a[TOP_FORWARD_ROWS] == 100);
    ck_assert(a[TOP_BACKWARD_CALLS] == 1 && a[TOP_BACKWARD_ROWS] == 10);
    ck_assert(a[TOP_PENDING] == 3 && a[TOP_OLDEST] == 0.5 && a[TOP_STEPS] == 6 && a[TOP_SKIPPED] == 1);
    ck_assert(b[TOP_FORWARD_CALLS] == 0 && c[TOP_FORWARD_CALLS] == 0 && c[TOP_STEPS] == 9);
    top_table_clear(&table);
    ck_assert_int_eq(top_table_make(&table, NULL, &now, 2), 0);
    ck_assert(table.count == 3 && table.experts[0].values[TOP_FORWARD_ROWS] == 0);
    top_table_clear(&table);
}
END_TEST

START_TEST(each_column_orders_them)
{
    struct top_table table;
    ck_assert_int_eq(top_table_make(&table, &before, &now, 2), 0);
    in_order(&table, TOP_UID, false, "abc");
    in_order(&table, TOP_UID, true, "cba");
    in_order(&table, TOP_DEVICE, false, "bca");
    in_order(&table, TOP_DEVICE, true, "abc"); /* equal ones by uid both ways */
    in_order(&table, TOP_FORWARD_ROWS, false, "abc");
    in_order(&table, TOP_PENDING, false, "cab");
    in_order(&table, TOP_PENDING, true, "bac");
    in_order(&table, TOP_STEPS, false, "cab");
    top_table_clear(&table);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("top_table");
    TCase *tcase = tcase_create("top_table");
    tcase_add_test(tcase, rates_are_of_the_same_expert_and_never_below_zero);
    tcase_add_test(tcase, each_column_orders_them);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
