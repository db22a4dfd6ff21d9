#include <check.h>
#include <errno.h>
#include <string.h>

#include "common/tensor_part.h"

static char error[TENSOR_PART_ERROR_SIZE];

START_TEST(a_template_is_filled_in_with_the_coordinates)
{
    struct tensor_part part;
    ck_assert_int_eq(tensor_part_parse(&part, "a.{layer}.b.{expert}.c.{layer}", "m.3.17", error), 0);
    ck_assert_str_eq(part.name, "a.3.b.17.c.3");
    ck_assert_uint_eq(part.slices_count, 0);
    ck_assert_int_eq(tensor_part_parse(&part, "shared.{layer}", "m.4294967295", error), 0);
    ck_assert_str_eq(part.name, "shared.4294967295");
}
END_TEST

START_TEST(brackets_select_as_numpy_does)
{
    struct tensor_part part;
    struct tensor_view view;
    const uint64_t dims[] = {4, 6, 10};
    ck_assert_int_eq(tensor_part_parse(&part, "t[{expert}, 1::2 , 2 : 9:3]", "m.0.3", error), 0);
    ck_assert_str_eq(part.name, "t");
    ck_assert_int_eq(tensor_part_view(&view, &part, dims, 3, error), 0);
    ck_assert_uint_eq(view.ndim, 2);
    ck_assert_uint_eq(view.offset, 3 * 60 + 10 + 2);
    ck_assert_uint_eq(view.dims[0], 3); /* 1, 3, 5 */
    ck_assert_uint_eq(view.strides[0], 20);
    ck_assert_uint_eq(view.dims[1], 3); /* 2, 5, 8 */
    ck_assert_uint_eq(view.strides[1], 3);
    ck_assert_int_eq(tensor_part_parse(&part, "t[2, half:].T", "m.0.3", error), 0);
    ck_assert_int_eq(tensor_part_view(&view, &part, dims, 3, error), 0);
    ck_assert_uint_eq(view.offset, 120 + 30);
    ck_assert_uint_eq(view.dims[0], 10);
    ck_assert_uint_eq(view.strides[0], 1);
    ck_assert_uint_eq(view.dims[1], 3);
    ck_assert_uint_eq(view.strides[1], 10);
    ck_assert_int_eq(tensor_part_parse(&part, "t[:half]", "m.0.3", error), 0);
    ck_assert_int_eq(tensor_part_view(&view, &part, dims, 3, error), 0);
    ck_assert_uint_eq(view.ndim, 3);
    ck_assert_uint_eq(view.dims[0], 2);
}
END_TEST

static const struct {
    const char *template, *uid, *said;
} bad[] = {
    {"", "m.0.0", "names no tensor"},
    {"[0]", "m.0.0", "names no tensor"},
    {"a.{layers}", "m.0.0", "{layer} or {expert}"},
    {"a.{layer", "m.0.0", "{layer} or {expert}"},
    {"a.{expert}", "m.0", "has 1 coordinate"},
    {"a", "m", "no uid"},
    {"a[", "m.0.0", "no index"},
    {"a[]", "m.0.0", "no index"},
    {"a[-1]", "m.0.0", "no index"},
    {"a[half]", "m.0.0", "no index"},
    {"a[0", "m.0.0", "not closed"},
    {"a[0 1]", "m.0.0", "not closed"},
    {"a[0][1]", "m.0.0", "behind the brackets"},
    {"a[0].t", "m.0.0", "behind the brackets"},
    {"a[::0]", "m.0.0", "step"},
    {"a[::half]", "m.0.0", "step"},
    {"a[99999999999]", "m.0.0", "too large"},
    {"a[1,1,1,1,1,1,1,1,1]", "m.0.0", "more than 8"},
};

START_TEST(what_cannot_be_read_is_said)
{
    struct tensor_part part;
    ck_assert_int_eq(tensor_part_parse(&part, bad[_i].template, bad[_i].uid, error), -EINVAL);
    ck_assert_msg(strstr(error, bad[_i].said), "\"%s\": %s", bad[_i].template, error);
}
END_TEST

START_TEST(a_name_that_becomes_too_long_is_refused)
{
    char template[2 * TENSOR_PART_NAME_SIZE];
    struct tensor_part part;
    memset(template, 'x', sizeof template);
    template[TENSOR_PART_NAME_SIZE - 1] = 0;
    ck_assert_int_eq(tensor_part_parse(&part, template, "m.0", error), 0);
    memcpy(template + TENSOR_PART_NAME_SIZE - 8, "{layer}", 8);
    ck_assert_int_eq(tensor_part_parse(&part, template, "m.4294967295", error), -EINVAL);
    ck_assert_ptr_nonnull(strstr(error, "longer than"));
}
END_TEST

static const struct {
    const char *template, *said;
} beyond[] = {
    {"t[4]", "number 4 is beyond dimension 0 of 't', which is 4"},
    {"t[0, 7:]", "7:6 is no part of dimension 1"},
    {"t[0, :7]", "0:7 is no part of dimension 1"},
    {"t[0, 3:2]", "3:2 is no part"},
    {"t[0, 0, :half]", "which has no half"},
    {"t[0,0,0,0]", "fewer than the 4"},
    {"t[0, 0].T", "not 2"},
};

START_TEST(what_a_tensor_has_not_is_said)
{
    struct tensor_part part;
    struct tensor_view view;
    const uint64_t dims[] = {4, 6, 9}, none[] = {4, 0};
    ck_assert_int_eq(tensor_part_parse(&part, beyond[_i].template, "m.0.0", error), 0);
    ck_assert_int_eq(tensor_part_view(&view, &part, dims, 3, error), -EINVAL);
    ck_assert_msg(strstr(error, beyond[_i].said), "%s", error);
    ck_assert_int_eq(tensor_part_parse(&part, "t", "m.0", error), 0);
    ck_assert_int_eq(tensor_part_view(&view, &part, none, 2, error), -EINVAL);
    ck_assert_ptr_nonnull(strstr(error, "empty"));
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("tensor_part");
    tcase_add_test(all, a_template_is_filled_in_with_the_coordinates);
    tcase_add_test(all, brackets_select_as_numpy_does);
    tcase_add_loop_test(all, what_cannot_be_read_is_said, 0, sizeof bad / sizeof bad[0]);
    tcase_add_test(all, a_name_that_becomes_too_long_is_refused);
    tcase_add_loop_test(all, what_a_tensor_has_not_is_said, 0, sizeof beyond / sizeof beyond[0]);
    Suite *suite = suite_create("tensor_part");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
