#include <check.h>
#include <errno.h>
#include <string.h>

#include "runtime/state/json_text.h"

static char error[256];

static int parse(const char *text, struct json_object **object)
{
    error[0] = 0;
    return json_text_parse(object, text, strlen(text), 4, "the text", error, sizeof error);
}

START_TEST(an_object_is_parsed_whatever_colons_its_texts_have)
{
    struct json_object *object, *value;
    ck_assert_int_eq(parse("{\"a:\\\"b:\":[{\"c\":\":\"},{}], \"d\": {\"c\": 1}} \n", &object), 0);
    ck_assert(json_object_object_get_ex(object, "d", &value));
    json_object_put(object);
}
END_TEST

static const struct {
    const char *text, *said;
} bad[] = {
    {"", "JSON"},
    {"[]", "no JSON object"},
    {"{\"a\":1", "JSON"},
    {"{} {}", "JSON"},
    {"{'a':1}", "JSON"},
    {"{\"a\":1,\"a\":2}", "twice"},
    {"{\"b\":[{\"a\":1,\"a\":2}]}", "twice"},
    {"{\"a\\u0000b\":1}", "NUL"},
    {"{\"\xff\":1}", "JSON"},
    {"{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":1}}}}}", "JSON"},
};

START_TEST(what_is_no_plain_object_is_refused)
{
    struct json_object *object;
    ck_assert_int_eq(parse(bad[_i].text, &object), -EPROTO);
    ck_assert_ptr_null(object);
    ck_assert_msg(strstr(error, bad[_i].said), "%s: %s", bad[_i].text, error);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("json_text");
    tcase_add_test(all, an_object_is_parsed_whatever_colons_its_texts_have);
    tcase_add_loop_test(all, what_is_no_plain_object_is_refused, 0, sizeof bad / sizeof bad[0]);
    Suite *suite = suite_create("json_text");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
