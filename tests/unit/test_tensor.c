#include <check.h>
#include <errno.h>
#include <math.h>
#include <string.h>

#include "common/tensor.h"

static struct tensor_desc desc(uint32_t dtype, uint32_t ndim, uint64_t first, uint64_t second)
{
    return (struct tensor_desc){.dtype = dtype, .ndim = ndim, .dims = {first, second}, .name = "x"};
}

START_TEST(a_row_s_bytes_are_its_elements_times_their_size)
{
    static const size_t sizes[] = {0, 4, 8, 2, 2, 1, 2, 4, 8, 1, 1};
    for (uint32_t dtype = DTYPE_FLOAT32; dtype <= DTYPE_BOOL; dtype++) {
        const struct tensor_desc matrix = desc(dtype, 2, 3, 5);
        const struct tensor_desc scalar = desc(dtype, 0, 0, 0);
        ck_assert_uint_eq(dtype_size(dtype), sizes[dtype]);
        ck_assert_uint_eq(tensor_row_bytes(&matrix), 15 * sizes[dtype]);
        ck_assert_uint_eq(tensor_row_bytes(&scalar), sizes[dtype]);
        ck_assert_str_ne(dtype_name(dtype), "unknown");
    }
}
END_TEST

START_TEST(numbers_that_are_no_dtype_have_no_size)
{
    static const uint32_t numbers[] = {DTYPE_NONE, DTYPE_BOOL + 1, 1000, UINT32_MAX};
    for (int i = 0; i < 4; i++) {
        const struct tensor_desc bad = desc(numbers[i], 1, 4, 0);
        ck_assert_uint_eq(dtype_size(numbers[i]), 0);
        ck_assert_str_eq(dtype_name(numbers[i]), "unknown");
        ck_assert_uint_eq(tensor_row_bytes(&bad), 0);
    }
}
END_TEST

START_TEST(shapes_that_cannot_be_are_refused)
{
    struct tensor_desc bad = desc(DTYPE_FLOAT32, TENSOR_MAX_DIMS + 1, 1, 1);
    ck_assert_uint_eq(tensor_row_bytes(&bad), 0);
    bad = desc(DTYPE_FLOAT32, UINT32_MAX, 1, 1);
    ck_assert_uint_eq(tensor_row_bytes(&bad), 0);
    bad = desc(DTYPE_FLOAT32, 2, 4, 0);
    ck_assert_uint_eq(tensor_row_bytes(&bad), 0);
    bad = desc(DTYPE_FLOAT32, 1, UINT64_C(1) << 60, 0);
    ck_assert_uint_eq(tensor_row_bytes(&bad), 0);
    bad = desc(DTYPE_FLOAT32, 2, UINT64_C(1) << 33, UINT64_C(1) << 33); /* 2^68: wraps to 16 */
    ck_assert_uint_eq(tensor_row_bytes(&bad), 0);
    bad = desc(DTYPE_FLOAT32, 1, UINT64_MAX, 0);
    ck_assert_uint_eq(tensor_row_bytes(&bad), 0);
    bad = desc(DTYPE_INT8, 2, UINT64_C(1) << 20, UINT64_C(1) << 20);
    ck_assert_uint_eq(tensor_row_bytes(&bad), UINT64_C(1) << 40);
    bad = desc(DTYPE_INT8, 2, UINT64_C(1) << 20, (UINT64_C(1) << 20) + 1);
    ck_assert_uint_eq(tensor_row_bytes(&bad), 0);
    bad = desc(DTYPE_INT8, 1, 1, 0);
    memset(bad.name, 'x', sizeof bad.name);
    ck_assert_uint_eq(tensor_row_bytes(&bad), 0);
}
END_TEST

START_TEST(equality_is_of_dtype_and_shape)
{
    const struct tensor_desc a = desc(DTYPE_FLOAT32, 2, 3, 5);
    struct tensor_desc b = a;
    strcpy(b.name, "other");
    ck_assert(tensor_desc_equal(&a, &b));
    b.dims[TENSOR_MAX_DIMS - 1] = 7; /* beyond ndim: means nothing */
    ck_assert(tensor_desc_equal(&a, &b));
    b.dims[1] = 6;
    ck_assert(!tensor_desc_equal(&a, &b));
    b = desc(DTYPE_INT32, 2, 3, 5);
    ck_assert(!tensor_desc_equal(&a, &b));
    b = desc(DTYPE_FLOAT32, 1, 3, 0);
    ck_assert(!tensor_desc_equal(&a, &b));
    b.ndim = UINT32_MAX;
    ck_assert(!tensor_desc_equal(&b, &b));
}
END_TEST

START_TEST(a_schema_has_one_to_eight_valid_tensors)
{
    struct schema schema = {.count = 0};
    ck_assert(!schema_valid(&schema));
    for (int i = 0; i < SCHEMA_MAX_TENSORS; i++)
        schema.tensors[i] = desc(DTYPE_FLOAT32, 1, 4, 0);
    schema.count = SCHEMA_MAX_TENSORS;
    ck_assert(schema_valid(&schema));
    schema.count++;
    ck_assert(!schema_valid(&schema));
    schema.count = 3;
    schema.tensors[2].dtype = DTYPE_NONE;
    ck_assert(!schema_valid(&schema));
}
END_TEST

START_TEST(schemas_are_joined_in_order_also_in_place)
{
    struct schema a = {.count = 1, .tensors = {desc(DTYPE_FLOAT32, 1, 4, 0)}};
    struct schema b = {.count = 2, .tensors = {desc(DTYPE_INT64, 0, 0, 0), desc(DTYPE_BOOL, 1, 7, 0)}};
    ck_assert_int_eq(schema_concat(&b, &a, &b), 0);
    ck_assert_uint_eq(b.count, 3);
    ck_assert_uint_eq(b.tensors[0].dtype, DTYPE_FLOAT32);
    ck_assert_uint_eq(b.tensors[1].dtype, DTYPE_INT64);
    ck_assert_uint_eq(b.tensors[2].dims[0], 7);
    a.count = SCHEMA_MAX_TENSORS - 2;
    ck_assert_int_eq(schema_concat(&a, &a, &b), -E2BIG);
    ck_assert_uint_eq(a.count, SCHEMA_MAX_TENSORS - 2);
    a.count = UINT32_MAX; /* the sum would wrap */
    ck_assert_int_eq(schema_concat(&a, &a, &b), -E2BIG);
}
END_TEST

START_TEST(gradients_are_told_from_their_tensors)
{
    struct schema of = {.count = 2, .tensors = {desc(DTYPE_FLOAT32, 1, 4, 0), desc(DTYPE_INT64, 0, 0, 0)}}, gradients;
    strcpy(of.tensors[0].name, "output");
    memset(of.tensors[1].name, 'n', TENSOR_NAME_SIZE - 1);
    of.tensors[1].name[TENSOR_NAME_SIZE - 1] = 0;
    schema_gradients(&gradients, &of);
    ck_assert_uint_eq(gradients.count, 2);
    ck_assert_str_eq(gradients.tensors[0].name, "grad_output");
    ck_assert(tensor_desc_equal(&gradients.tensors[0], &of.tensors[0]));
    ck_assert_str_eq(gradients.tensors[1].name, "grad_nnnnnnnnnnnnnnnnnnnnnnnnnn"); /* cut, and ended */
    ck_assert(schema_valid(&gradients));
    schema_gradients(&of, &of);
    ck_assert_str_eq(of.tensors[0].name, "grad_output");
}
END_TEST

START_TEST(descriptions_are_printed_and_cut_to_their_buffer)
{
    char text[64];
    char small[6];
    const struct tensor_desc matrix = desc(DTYPE_FLOAT32, 2, 128, 1024);
    const struct tensor_desc scalar = desc(DTYPE_BOOL, 0, 0, 0);
    ck_assert_str_eq(tensor_desc_format(&matrix, text, sizeof text), "float32[128,1024]");
    ck_assert_str_eq(tensor_desc_format(&scalar, text, sizeof text), "bool[]");
    ck_assert_str_eq(tensor_desc_format(&matrix, small, sizeof small), "float");
}
END_TEST

START_TEST(a_value_that_is_not_finite_is_found_anywhere)
{
    static const float bad[] = {NAN, -NAN, INFINITY, -INFINITY};
    float values[41] = {0};
    for (size_t count = 0; count <= 41; count++) {
        for (size_t i = 0; i < count; i++)
            values[i] = i % 2 ? 3.4028235e38f : -1e-45f; /* the greatest and the least beside each other */
        ck_assert(floats_are_finite(DTYPE_FLOAT32, values, count));
        for (size_t i = 0; i < count; i++) {
            const float good = values[i];
            values[i] = bad[i % 4];
            ck_assert_msg(!floats_are_finite(DTYPE_FLOAT32, values, count), "%zu of %zu", i, count);
            values[i] = good;
        }
    }
}
END_TEST

START_TEST(of_16_bits_too)
{
    static const struct {
        uint32_t dtype;
        uint16_t greatest, bad[4];
    } types[] = {{DTYPE_FLOAT16, 0x7bff, {0x7c00, 0xfc00, 0x7e00, 0xfc01}},
                 {DTYPE_BFLOAT16, 0x7f7f, {0x7f80, 0xff80, 0x7fc0, 0xff81}}};
    uint16_t values[23];
    for (size_t t = 0; t < 2; t++) {
        for (size_t count = 0; count <= 23; count++) {
            for (size_t i = 0; i < count; i++)
                values[i] = (uint16_t)(i % 3 ? types[t].greatest | (i % 2 ? 0x8000 : 0) : 1);
            ck_assert(floats_are_finite(types[t].dtype, values, count));
            for (size_t i = 0; i < count; i++) {
                const uint16_t good = values[i];
                values[i] = types[t].bad[i % 4];
                ck_assert_msg(!floats_are_finite(types[t].dtype, values, count), "%zu of %zu", i, count);
                values[i] = good;
            }
        }
    }
    ck_assert(dtype_is_float(DTYPE_BFLOAT16) && !dtype_is_float(DTYPE_FLOAT64) && !dtype_is_float(DTYPE_INT64));
    ck_assert_int_eq(dtype_of_name("bfloat16"), DTYPE_BFLOAT16);
    ck_assert_int_eq(dtype_of_name("unknown"), DTYPE_NONE);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tensor");
    TCase *tcase = tcase_create("tensor");
    tcase_add_test(tcase, a_row_s_bytes_are_its_elements_times_their_size);
    tcase_add_test(tcase, numbers_that_are_no_dtype_have_no_size);
    tcase_add_test(tcase, shapes_that_cannot_be_are_refused);
    tcase_add_test(tcase, equality_is_of_dtype_and_shape);
    tcase_add_test(tcase, a_schema_has_one_to_eight_valid_tensors);
    tcase_add_test(tcase, schemas_are_joined_in_order_also_in_place);
    tcase_add_test(tcase, gradients_are_told_from_their_tensors);
    tcase_add_test(tcase, of_16_bits_too);
    tcase_add_test(tcase, descriptions_are_printed_and_cut_to_their_buffer);
    tcase_add_test(tcase, a_value_that_is_not_finite_is_found_anywhere);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
