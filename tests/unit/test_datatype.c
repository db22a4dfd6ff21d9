/* Numbers of JSON as elements and back: what does not fit its type is refused, never bent. */
#include <check.h>
#include <json-c/json.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "http/datatype.h"

static bool store(enum expertd_dtype dtype, const char *json, void *to)
{
    struct json_object *value = json_tokener_parse(json);
    const bool stored = datatype_store(dtype, to, 0, value);
    json_object_put(value);
    return stored;
}

static const char *written(enum expertd_dtype dtype, const void *data)
{
    static struct text text;
    text_free(&text);
    datatype_write(dtype, data, 0, &text);
    return text.data;
}

START_TEST(names_lead_to_types_and_back)
{
    for (int dtype = EXPERTD_FLOAT32; dtype <= EXPERTD_BOOL; dtype++)
        ck_assert_int_eq(datatype_find(datatype_name((enum expertd_dtype)dtype)), dtype);
    ck_assert_str_eq(datatype_name(EXPERTD_BFLOAT16), "BF16");
    ck_assert_ptr_null(datatype_name((enum expertd_dtype)99));
    ck_assert_int_eq(datatype_find("BYTES"), 0);
    ck_assert_int_eq(datatype_find(""), 0);
}
END_TEST

START_TEST(integers_have_bounds)
{
    int8_t byte;
    int64_t wide;
    uint8_t positive;
    ck_assert(store(EXPERTD_INT8, "-128", &byte));
    ck_assert_str_eq(written(EXPERTD_INT8, &byte), "-128");
    ck_assert(!store(EXPERTD_INT8, "128", &byte));
    ck_assert(!store(EXPERTD_INT8, "1.0", &byte));
    ck_assert(store(EXPERTD_UINT8, "255", &positive));
    ck_assert(!store(EXPERTD_UINT8, "-1", &positive));
    ck_assert(store(EXPERTD_INT64, "9223372036854775807", &wide));
    ck_assert_str_eq(written(EXPERTD_INT64, &wide), "9223372036854775807");
    ck_assert(!store(EXPERTD_INT64, "9223372036854775808", &wide));
    ck_assert(store(EXPERTD_BOOL, "true", &positive));
    ck_assert_str_eq(written(EXPERTD_BOOL, &positive), "true");
    ck_assert(store(EXPERTD_BOOL, "0", &positive));
    ck_assert_str_eq(written(EXPERTD_BOOL, &positive), "false");
    ck_assert(!store(EXPERTD_BOOL, "2", &positive));
    ck_assert(!store(EXPERTD_INT8, "true", &byte));
    ck_assert(!store(EXPERTD_INT8, "\"1\"", &byte));
}
END_TEST

START_TEST(floats_come_back_bit_for_bit)
{
    const float values[] = {0.1f, -0.0f, 1e-45f, 3.4028235e38f, 16777217.0f};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        float back;
        ck_assert(store(EXPERTD_FLOAT32, written(EXPERTD_FLOAT32, &values[i]), &back));
        ck_assert_mem_eq(&back, &values[i], sizeof back);
    }
    double back;
    ck_assert(store(EXPERTD_FLOAT64, "0.1", &back));
    ck_assert_double_eq(back, 0.1);
    float none;
    ck_assert(!store(EXPERTD_FLOAT32, "1e39", &none)); /* infinite as a float */
    const float nan = NAN, infinite = INFINITY;
    ck_assert_str_eq(written(EXPERTD_FLOAT32, &nan), "null");
    ck_assert_str_eq(written(EXPERTD_FLOAT32, &infinite), "null");
    ck_assert(!datatype_has_json(EXPERTD_FLOAT16));
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("datatype");
    tcase_add_test(all, names_lead_to_types_and_back);
    tcase_add_test(all, integers_have_bounds);
    tcase_add_test(all, floats_come_back_bit_for_bit);
    Suite *suite = suite_create("datatype");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
