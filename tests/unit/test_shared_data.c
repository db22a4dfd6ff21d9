#include <check.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "client/shared_data.h"

static int freed;

static void count_free(void *data, void *hint)
{
    ck_assert_ptr_eq(hint, &freed);
    ck_assert_ptr_nonnull(data);
    freed++;
}

START_TEST(copied_data_outlives_its_tensor)
{
    float x[2] = {1, 2};
    const struct expertd_tensor tensor = expertd_tensor_f32(x, 1, 2);
    struct shared_data *data = shared_data_of(&tensor);
    x[0] = 9;
    ck_assert_float_eq(((const float *)shared_data_bytes(data))[0], 1);
    ck_assert_uint_eq((uintptr_t)shared_data_bytes(data) % 16, 0);
    shared_data_release(data);
}
END_TEST

START_TEST(borrowed_data_is_freed_by_the_last_holder)
{
    float x[2] = {1, 2};
    struct expertd_tensor tensor = expertd_tensor_f32(x, 1, 2), lent[3];
    freed = 0;
    tensor.free_fn = count_free;
    tensor.hint = &freed;
    struct shared_data *data = shared_data_of(&tensor);
    ck_assert_ptr_eq(shared_data_bytes(data), x);
    for (int i = 0; i < 3; i++) {
        lent[i] = tensor;
        shared_data_lend(data, &lent[i]);
        ck_assert_ptr_eq(lent[i].data, x);
    }
    shared_data_release(data);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(freed, 0);
        lent[i].free_fn((void *)(uintptr_t)lent[i].data, lent[i].hint);
    }
    ck_assert_int_eq(freed, 1);
}
END_TEST

START_TEST(sizes_that_no_memory_has_are_refused)
{
    ck_assert_ptr_null(shared_data_new(SIZE_MAX));
    ck_assert_ptr_null(shared_data_new(SIZE_MAX - 8));
    struct shared_data *none = shared_data_new(0);
    ck_assert_ptr_nonnull(none);
    shared_data_release(none);
    shared_data_release(NULL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("shared_data");
    TCase *tests = tcase_create("shared_data");
    tcase_add_test(tests, copied_data_outlives_its_tensor);
    tcase_add_test(tests, borrowed_data_is_freed_by_the_last_holder);
    tcase_add_test(tests, sizes_that_no_memory_has_are_refused);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
