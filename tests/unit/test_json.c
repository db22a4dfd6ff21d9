#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "client/expertctl/json.h"

static char *text;
static size_t size;
static struct json json;

static void setup(void)
{
    json = (struct json){.stream = open_memstream(&text, &size)};
}

static void teardown(void)
{
    free(text);
}

static void is(const char *expected)
{
    fclose(json.stream);
    ck_assert_str_eq(text, expected);
}

START_TEST(values_are_separated_by_commas_at_every_depth)
{
    json_open(&json, NULL, '{');
    json_string(&json, "a", "b");
    json_open(&json, "list", '[');
    json_unsigned(&json, NULL, UINT64_MAX);
    json_open(&json, NULL, '{');
    json_close(&json, '}');
    json_bool(&json, NULL, false);
    json_close(&json, ']');
    json_number(&json, "x", 0.1);
    json_close(&json, '}');
    is("{\"a\": \"b\", \"list\": [18446744073709551615, {}, false], \"x\": 0.1}");
}
END_TEST

START_TEST(strings_are_escaped)
{
    json_string(&json, NULL, "\"\\\n\t\033 \x7f é 𝄞 €");
    is("\"\\\"\\\\\\u000a\\u0009\\u001b \\u007f é 𝄞 €\"");
}
END_TEST

START_TEST(what_is_no_utf8_is_replaced)
{
    json_string(&json, NULL, "a\xff\xc0\x80\xed\xa0\x80z\xf0\x9f");
    is("\"a\\ufffd\\ufffd\\ufffd\\ufffd\\ufffd\\ufffdz\\ufffd\\ufffd\"");
}
END_TEST

START_TEST(whole_numbers_keep_every_digit)
{
    json_open(&json, NULL, '[');
    json_number(&json, NULL, 1795422967364541);
    json_number(&json, NULL, -3);
    json_number(&json, NULL, 0.1);
    json_close(&json, ']');
    is("[1795422967364541, -3, 0.1]");
}
END_TEST

START_TEST(numbers_that_json_lacks_are_null)
{
    json_open(&json, NULL, '[');
    json_number(&json, NULL, NAN);
    json_number(&json, NULL, -INFINITY);
    json_number(&json, NULL, -1e300);
    json_close(&json, ']');
    is("[null, null, -1e+300]");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("json");
    TCase *tests = tcase_create("json");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, values_are_separated_by_commas_at_every_depth);
    tcase_add_test(tests, strings_are_escaped);
    tcase_add_test(tests, what_is_no_utf8_is_replaced);
    tcase_add_test(tests, whole_numbers_keep_every_digit);
    tcase_add_test(tests, numbers_that_json_lacks_are_null);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
