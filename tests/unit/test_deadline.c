#include <check.h>
#include <stdlib.h>

#include "frontend/deadline.h"

enum { COUNT = 1000 };
static struct deadlines *deadlines;
static struct deadline entries[COUNT];

static void setup(void)
{
    ck_assert_int_eq(deadlines_create(&deadlines, COUNT), 0);
    srand(5);
}

static void teardown(void)
{
    deadlines_destroy(&deadlines);
    deadlines_destroy(&deadlines);
}

START_TEST(they_come_out_in_order_whatever_the_order_they_went_in)
{
    for (int i = 0; i < COUNT; i++)
        deadline_set(deadlines, &entries[i], 1 + (uint64_t)rand() % 500);
    uint64_t last = 0;
    for (int i = 0; i < COUNT; i++) {
        struct deadline *first = deadline_first(deadlines);
        ck_assert_uint_ge(first->due_ns, last);
        last = first->due_ns;
        deadline_remove(deadlines, first);
        ck_assert_uint_eq(first->place, 0);
    }
    ck_assert_ptr_null(deadline_first(deadlines));
}
END_TEST

START_TEST(moving_and_removing_keeps_the_order)
{
    for (int round = 0; round < 20000; round++) {
        struct deadline *entry = &entries[rand() % COUNT];
        if (rand() % 3 == 0)
            deadline_remove(deadlines, entry);
        else
            deadline_set(deadlines, entry, 1 + (uint64_t)rand() % 100000);
        if (round % 100)
            continue;
        uint64_t least = UINT64_MAX;
        for (int i = 0; i < COUNT; i++) {
            if (entries[i].place && entries[i].due_ns < least)
                least = entries[i].due_ns;
        }
        struct deadline *first = deadline_first(deadlines);
        ck_assert_uint_eq(first ? first->due_ns : UINT64_MAX, least);
    }
}
END_TEST

START_TEST(no_deadline_is_no_entry)
{
    deadline_set(deadlines, &entries[0], 0);
    deadline_set(deadlines, &entries[1], UINT64_MAX);
    ck_assert_ptr_null(deadline_first(deadlines));
    deadline_set(deadlines, &entries[0], 7);
    ck_assert_ptr_eq(deadline_first(deadlines), &entries[0]);
    deadline_set(deadlines, &entries[0], 0);
    ck_assert_ptr_null(deadline_first(deadlines));
    deadline_remove(deadlines, &entries[0]);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("deadline");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, they_come_out_in_order_whatever_the_order_they_went_in);
    tcase_add_test(all, moving_and_removing_keeps_the_order);
    tcase_add_test(all, no_deadline_is_no_entry);
    Suite *suite = suite_create("deadline");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
