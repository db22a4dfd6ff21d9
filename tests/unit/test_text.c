/* What is added is there, whole and ended by a NUL, however much it is. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "http/text.h"

START_TEST(pieces_lie_one_behind_the_other)
{
    struct text text = {0};
    text_add(&text, "%s %d", "a", 7);
    text_add_bytes(&text, "\0b", 2);
    text_add(&text, "%s", "");
    ck_assert_uint_eq(text.length, 5);
    ck_assert_mem_eq(text.data, "a 7\0b", 6);
    text_free(&text);
    ck_assert_ptr_null(text.data);
    text_free(&text);
}
END_TEST

START_TEST(it_grows_past_every_size)
{
    struct text text = {0};
    char expected[5001];
    for (unsigned i = 0; i < 5000; i++) {
        expected[i] = (char)('a' + i % 26);
        text_add(&text, "%c", expected[i]);
        ck_assert_uint_eq(strlen(text.data), i + 1);
    }
    expected[5000] = 0;
    text_add_bytes(&text, expected, 5000); /* more than twice of what is left */
    ck_assert_uint_eq(text.length, 10000);
    ck_assert_str_eq(text.data + 5000, expected);
    ck_assert_mem_eq(text.data, expected, 5000);
    ck_assert(!text.failed);
    text_free(&text);
}
END_TEST

START_TEST(a_json_string_is_escaped)
{
    struct text text = {0};
    text_add_json(&text, "a\"b\\c\n\x01\xc3\xa9");
    ck_assert_str_eq(text.data, "\"a\\\"b\\\\c\\u000a\\u0001\xc3\xa9\"");
    text_free(&text);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("text");
    tcase_add_test(all, pieces_lie_one_behind_the_other);
    tcase_add_test(all, it_grows_past_every_size);
    tcase_add_test(all, a_json_string_is_escaped);
    Suite *suite = suite_create("text");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
