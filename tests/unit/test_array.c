/* Arrays that grow. */
#include <check.h>

#include "common/array.h"

START_TEST(keeps_what_is_there_and_has_room_for_more)
{
    int *numbers = NULL;
    size_t capacity = 0;
    for (int i = 0; i < 1000; i++) {
        ck_assert_int_eq(ARRAY_RESERVE(numbers, capacity, (size_t)i + 1), 0);
        ck_assert_uint_gt(capacity, (size_t)i);
        numbers[i] = i;
    }
    ck_assert_uint_lt(capacity, 2000);
    for (int i = 0; i < 1000; i++)
        ck_assert_int_eq(numbers[i], i);
    free(numbers);
}
END_TEST

START_TEST(what_no_memory_holds_changes_nothing)
{
    int *numbers = NULL;
    size_t capacity = 0;
    ck_assert_int_eq(ARRAY_RESERVE(numbers, capacity, 3), 0);
    numbers[2] = 7;
    const int *before = numbers;
    for (size_t huge = SIZE_MAX; huge >= SIZE_MAX / 4; huge /= 2)
        ck_assert_int_eq(ARRAY_RESERVE(numbers, capacity, huge), -ENOMEM);
    ck_assert_ptr_eq(numbers, before);
    ck_assert_uint_lt(capacity, 16);
    ck_assert_int_eq(numbers[2], 7);
    free(numbers);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("array");
    TCase *tcase = tcase_create("array");
    tcase_add_test(tcase, keeps_what_is_there_and_has_room_for_more);
    tcase_add_test(tcase, what_no_memory_holds_changes_nothing);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
