#include <check.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "common/numeral.h"

static const struct {
    const char *text;
    bool whole, real;
    const char *hint; /* a part of it; "": there is none */
} texts[] = {
    {"0", true, true, ""},
    {"7", true, true, ""},
    {"1000", true, true, ""},
    {"99999999999999999999", true, true, ""}, /* whether it fits is another question */
    {"1.5", false, true, ""},
    {".5", false, true, ""},
    {"2.", false, true, ""},
    {"0.25", false, true, ""},
    {"1e3", false, true, "decimal digits"},
    {"1.5E-12", false, true, "decimal digits"},
    {"1e+3", false, true, "decimal digits"},
    {"-3", false, true, ""},
    {"+0.5", false, true, ""},
    /* what readers of YAML do not agree on */
    {"010", false, false, "octal"},
    {"00", false, false, "octal"},
    {"-010", false, false, "octal"},
    {"010.5", false, false, "octal"},
    {"0777", false, false, "octal"},
    {"08", false, false, "octal"},
    {"0x10", false, false, "decimal digits"},
    {"0X1P3", false, false, "decimal digits"},
    {"0o10", false, false, "decimal digits"},
    {"0b10", false, false, "decimal digits"},
    {"1_000", false, false, "decimal digits"},
    {"1:30", false, false, "decimal digits"},
    {"1,000", false, false, "decimal digits"},
    {"1,5", false, false, "decimal digits"},
    /* what is behind a number, or in front */
    {"4x", false, false, "decimal digits"},
    {"10 s", false, false, "decimal digits"},
    {"1.5.5", false, false, ""},
    {"1e", false, false, "decimal digits"},
    {"1e-", false, false, "decimal digits"},
    {"1-2", false, false, "decimal digits"},
    {"1 ", false, false, "decimal digits"},
    {" 1", false, false, ""},
    {"\t1", false, false, ""},
    {"--1", false, false, ""},
    {"-", false, false, ""},
    {"", false, false, ""},
    {".", false, false, ""},
    {"e5", false, false, ""},
    {".e5", false, false, ""},
    {"nan", false, false, ""},
    {"inf", false, false, ""},
    {".inf", false, false, ""},
    {"\xd9\xa3", false, false, ""}, /* a digit of another script */
};

START_TEST(a_number_is_what_all_read_alike)
{
    const char *text = texts[_i].text, *hint = numeral_hint(text);
    uint64_t whole;
    double real;
    ck_assert_msg((numeral_read_whole(text, &whole) != -EINVAL) == texts[_i].whole, "'%s'", text);
    ck_assert_msg((numeral_read_real(text, &real) != -EINVAL) == texts[_i].real, "'%s'", text);
    if (texts[_i].hint[0])
        ck_assert_msg(strstr(hint, texts[_i].hint) != NULL, "'%s': %s", text, hint);
    else
        ck_assert_msg(hint[0] == '\0', "'%s': %s", text, hint);
}
END_TEST

START_TEST(what_is_read_is_the_number_or_the_value_stays)
{
    uint64_t whole = 7;
    double real = 7;
    ck_assert_int_eq(numeral_read_whole("18446744073709551615", &whole), 0);
    ck_assert_uint_eq(whole, UINT64_MAX);
    ck_assert_int_eq(numeral_read_whole("18446744073709551616", &whole), -ERANGE);
    ck_assert_int_eq(numeral_read_whole("1 ", &whole), -EINVAL);
    ck_assert_uint_eq(whole, UINT64_MAX);
    ck_assert_int_eq(numeral_read_real("-1.5e2", &real), 0);
    ck_assert_double_eq(real, -150);
    ck_assert_int_eq(numeral_read_real("1e999", &real), -ERANGE);
    ck_assert_int_eq(numeral_read_real("1.5x", &real), -EINVAL);
    ck_assert_double_eq(real, -150);
}
END_TEST

START_TEST(it_ends_before_what_is_no_part_of_it)
{
    ck_assert_uint_eq(numeral_length("12 * h", NUMERAL_REAL), 2);
    ck_assert_uint_eq(numeral_length("12/5", NUMERAL_WHOLE), 2);
    ck_assert_uint_eq(numeral_length("1.5e-1*2", NUMERAL_REAL), 6);
    ck_assert_uint_eq(numeral_length("1e-1", NUMERAL_WHOLE), 0); /* the e is a letter */
    ck_assert_uint_eq(numeral_length("0)", NUMERAL_REAL), 1);
    ck_assert_uint_eq(numeral_length("1:8", NUMERAL_WHOLE), 1);
    ck_assert_uint_eq(numeral_length("-1", NUMERAL_REAL), 0);
    ck_assert_uint_eq(numeral_length("12x", NUMERAL_REAL), 0);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("numeral");
    tcase_add_loop_test(all, a_number_is_what_all_read_alike, 0, sizeof texts / sizeof texts[0]);
    tcase_add_test(all, what_is_read_is_the_number_or_the_value_stays);
    tcase_add_test(all, it_ends_before_what_is_no_part_of_it);
    Suite *suite = suite_create("numeral");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
