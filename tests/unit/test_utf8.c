/* Every character there is, and what is none. */
#include <check.h>
#include <stdbool.h>
#include <stdlib.h>

#include "common/utf8.h"

static size_t encode(uint32_t c, unsigned char text[5])
{
    static const unsigned char leads[] = {0, 0, 0xc0, 0xe0, 0xf0};
    const size_t length = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    text[length] = 0;
    for (size_t i = length; i-- > 1; c >>= 6)
        text[i] = (unsigned char)(0x80 | (c & 0x3f));
    text[0] = (unsigned char)(leads[length] | c);
    return length;
}

START_TEST(every_character_is_decoded_and_a_surrogate_is_none)
{
    uint32_t wrong = 0; /* the first, if any: an assertion for each would take longer than all the rest */
    for (uint32_t c = 1; c < 0x110400 && wrong == 0; c++) {
        unsigned char text[5];
        uint32_t found = 0;
        const bool none = (c >= 0xd800 && c <= 0xdfff) || c > 0x10ffff;
        const size_t length = encode(c, text), decoded = utf8_decode(text, &found);
        if (none ? decoded != 0 : decoded != length || found != c)
            wrong = c;
    }
    ck_assert_msg(wrong == 0, "U+%04X", wrong);
}
END_TEST

START_TEST(what_is_cut_short_or_too_long_is_none)
{
    static const char *const none[] = {
        "\x80",     "\xbf",     "\xc3",         "\xc3(", "\xe2\x82", "\xe2(\xa1",        "\xf0\x9f\x98",
        "\xc0\xaf", "\xc1\xbf", "\xe0\x9f\xbf", "\xfe",  "\xff",     "\xf0\x8f\xbf\xbf", "\xf8\x88\x80\x80\x80"};
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        uint32_t found;
        ck_assert_msg(utf8_decode((const unsigned char *)none[i], &found) == 0, "%zu", i);
    }
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("utf8");
    tcase_add_test(all, every_character_is_decoded_and_a_surrogate_is_none);
    tcase_add_test(all, what_is_cut_short_or_too_long_is_none);
    Suite *suite = suite_create("utf8");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
