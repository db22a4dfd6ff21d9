/* Requests for inference: what is right is taken apart, what is wrong is refused with a reason that names it. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http/infer_request.h"

static struct infer_request request;
static char why[INFER_WHY_SIZE];

static int parse(const char *body, size_t bytes, size_t json_bytes)
{
    infer_request_free(&request);
    why[0] = 0;
    /* Of its own size, so that a read behind it is seen by the sanitizer. */
    char *copy = malloc(bytes + 1);
    memcpy(copy, body, bytes);
    char *exact = realloc(copy, bytes ? bytes : 1);
    const int rc = infer_request_parse(&request, exact, bytes, json_bytes, why);
    free(exact);
    return rc;
}

static int parse_text(const char *body)
{
    return parse(body, strlen(body), 0);
}

static void refused(const char *body, const char *reason)
{
    ck_assert_int_eq(parse_text(body), -EINVAL);
    ck_assert_msg(strstr(why, reason) != NULL, "'%s' does not say '%s'", why, reason);
}

static const struct expertd_schema schema = {
    .fields = {{.name = "x", .dtype = EXPERTD_FLOAT32, .ndim = 1, .row_shape = {2}},
               {.name = "mask", .dtype = EXPERTD_BOOL, .ndim = 1, .row_shape = {2}}},
    .count = 2,
};

START_TEST(numbers_in_lists_flat_or_nested)
{
    struct expertd_tensor tensors[EXPERTD_MAX_TENSORS];
    ck_assert_int_eq(parse_text("{\"id\":\"a\",\"inputs\":[{\"name\":\"mask\",\"shape\":[2,2],\"datatype\":\"BOOL\","
                                "\"data\":[true,false,1,0]},{\"name\":\"x\",\"shape\":[2,2],\"datatype\":\"FP32\","
                                "\"data\":[[1,2.5],[3,-4]]}]} \n"),
                     0);
    ck_assert_str_eq(request.id, "a");
    ck_assert_int_eq(infer_request_order(&request, &schema, tensors, why), 0);
    const float expected[] = {1, 2.5f, 3, -4};
    ck_assert_uint_eq(tensors[0].bytes, sizeof expected);
    ck_assert_mem_eq(tensors[0].data, expected, sizeof expected);
    ck_assert_uint_eq(tensors[0].ndim, 2);
    ck_assert_uint_eq(tensors[1].bytes, 4);
    ck_assert_mem_eq(tensors[1].data, "\1\0\1\0", 4);
}
END_TEST

START_TEST(bytes_behind_the_json_in_the_order_of_the_inputs)
{
    static const char json[] =
        "{\"inputs\":[{\"name\":\"h\",\"shape\":[1,2],\"datatype\":\"FP16\",\"parameters\":"
        "{\"binary_data_size\":4}},{\"name\":\"i\",\"shape\":[1],\"datatype\":\"INT32\","
        "\"parameters\":{\"binary_data_size\":4}}],\"parameters\":{\"binary_data_output\":true}}";
    char body[sizeof json + 8];
    const size_t length = sizeof json - 1;
    memcpy(body, json, length);
    memcpy(body + length, "abcdefgh", 8);
    ck_assert_int_eq(parse(body, length + 8, length), 0);
    ck_assert_mem_eq(request.inputs[0].tensor.data, "abcd", 4);
    ck_assert_mem_eq(request.inputs[1].tensor.data, "efgh", 4);
    bool binary;
    ck_assert(infer_request_wants(&request, "y", &binary));
    ck_assert(binary);
    ck_assert_int_eq(parse(body, length + 7, length), -EINVAL);
    ck_assert_ptr_nonnull(strstr(why, "the body ends before"));
    body[length + 8] = 0;
    ck_assert_int_eq(parse(body, length + 9, length), -EINVAL);
    ck_assert_ptr_nonnull(strstr(why, "1 bytes follow"));
    ck_assert_int_eq(parse(body, length, length + 1), -EINVAL);
    ck_assert_ptr_nonnull(strstr(why, "larger than the body"));
}
END_TEST

START_TEST(outputs_are_chosen_by_name)
{
    bool binary;
    ck_assert_int_eq(
        parse_text("{\"inputs\":[{\"name\":\"x\",\"shape\":[0],\"datatype\":\"FP32\",\"data\":[]}],"
                   "\"outputs\":[{\"name\":\"y\",\"parameters\":{\"binary_data\":true}},{\"name\":\"z\"}]}"),
        0);
    ck_assert(infer_request_wants(&request, "y", &binary));
    ck_assert(binary);
    ck_assert(infer_request_wants(&request, "z", &binary));
    ck_assert(!binary);
    ck_assert(!infer_request_wants(&request, "other", &binary));
}
END_TEST

START_TEST(what_is_wrong_is_named)
{
    refused("", "no JSON object");
    refused("[]", "no JSON object");
    refused("{\"inputs\":[]", "no JSON object");
    refused("{} x", "no JSON object");
    refused("{}", "needs inputs");
    refused("{\"inputs\":{}}", "needs inputs");
    refused("{\"inputs\":[1]}", "no object");
    refused("{\"inputs\":[{\"name\":\"x\"}]}", "a name and a datatype");
    refused("{\"inputs\":[{\"name\":\"x\\u0000y\",\"datatype\":\"FP32\"}]}", "a name and a datatype");
    refused("{\"inputs\":[{\"name\":\"x\",\"datatype\":\"BYTES\"}]}", "'BYTES' is not known");
    refused("{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\"}]}", "needs a shape");
    refused("{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[]}]}", "needs a shape");
    refused("{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[-1]}]}", "impossible shape");
    refused("{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1.5]}]}", "impossible shape");
    refused("{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[4294967295,4294967295]}]}",
            "impossible shape");
    refused("{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1]}]}", "either data");
    refused("{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1],\"data\":[1],\"parameters\":"
            "{\"binary_data_size\":4}}]}",
            "either data");
    refused("{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1],\"data\":1}]}", "either data");
    refused("{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[2],\"data\":[1]}]}", "2 numbers of FP32");
    refused("{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1],\"data\":[1,2]}]}", "1 numbers of FP32");
    refused("{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1],\"data\":[\"1\"]}]}",
            "1 numbers of FP32");
    refused("{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1],\"data\":[null]}]}", "1 numbers of FP32");
    refused("{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP16\",\"shape\":[1],\"data\":[1]}]}", "binary data only");
    refused(
        "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1],\"parameters\":{\"binary_data_size\":8}}]}",
        "binary_data_size is 8");
    refused("{\"inputs\":[{\"name\":\"x\",\"datatype\":\"INT8\",\"shape\":[1],\"data\":[1]},"
            "{\"name\":\"x\",\"datatype\":\"INT8\",\"shape\":[1],\"data\":[1]}]}",
            "stands twice");
    refused("{\"inputs\":[{\"name\":\"x\",\"datatype\":\"INT8\",\"shape\":[1],\"data\":[1]}],\"outputs\":[{}]}",
            "an output needs a name");
    refused("{\"inputs\":[{\"name\":\"x\",\"datatype\":\"INT8\",\"shape\":[1],\"data\":[1]}],\"id\":1}", "types");
    char deep[200] = "{\"inputs\":";
    for (int i = 0; i < 60; i++)
        strcat(deep, "[");
    refused(deep, "no JSON object");
}
END_TEST

START_TEST(inputs_that_the_model_has_not_are_refused)
{
    struct expertd_tensor tensors[EXPERTD_MAX_TENSORS];
    ck_assert_int_eq(parse_text("{\"inputs\":[{\"name\":\"x\",\"shape\":[1],\"datatype\":\"INT8\",\"data\":[1]}]}"), 0);
    ck_assert_int_eq(infer_request_order(&request, &schema, tensors, why), -EINVAL);
    ck_assert_str_eq(why, "the model has 2 inputs, 1 came");
    ck_assert_int_eq(parse_text("{\"inputs\":[{\"name\":\"x\",\"shape\":[1],\"datatype\":\"INT8\",\"data\":[1]},"
                                "{\"name\":\"y\",\"shape\":[1],\"datatype\":\"INT8\",\"data\":[1]}]}"),
                     0);
    ck_assert_int_eq(infer_request_order(&request, &schema, tensors, why), -EINVAL);
    ck_assert_str_eq(why, "the model's input 'mask' did not come");
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("infer_request");
    tcase_add_test(all, numbers_in_lists_flat_or_nested);
    tcase_add_test(all, bytes_behind_the_json_in_the_order_of_the_inputs);
    tcase_add_test(all, outputs_are_chosen_by_name);
    tcase_add_test(all, what_is_wrong_is_named);
    tcase_add_test(all, inputs_that_the_model_has_not_are_refused);
    Suite *suite = suite_create("infer_request");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    infer_request_free(&request);
    return failed != 0;
}
