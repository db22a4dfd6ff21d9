#include <check.h>
#include <math.h>

#include "common/small_float.h"

/* As the formats' words say, by other means than the code: with ldexp. */
START_TEST(every_code_of_e4m3_is_what_its_bits_say)
{
    for (unsigned code = 0; code < 256; code++) {
        const int exponent = (int)(code >> 3 & 15), mantissa = (int)(code & 7);
        const float magnitude =
            exponent > 0 ? ldexpf((float)(8 + mantissa), exponent - 7 - 3) : ldexpf((float)mantissa, -6 - 3);
        const float value = small_float_e4m3((uint8_t)code);
        if ((code & 0x7f) == 0x7f)
            ck_assert(isnan(value));
        else
            ck_assert(value == (code & 0x80 ? -magnitude : magnitude) && !!signbit(value) == (code >= 128));
    }
    ck_assert(small_float_e4m3(0x7e) == 448);
    ck_assert(small_float_e4m3(0x01) == 0x1p-9f);
}
END_TEST

START_TEST(every_code_of_e2m1_is_what_its_bits_say)
{
    for (unsigned code = 0; code < 16; code++) {
        const int exponent = (int)(code >> 1 & 3), mantissa = (int)(code & 1);
        const float magnitude = exponent > 0 ? ldexpf((float)(2 + mantissa), exponent - 2) : (float)mantissa / 2;
        const float value = small_float_e2m1((uint8_t)code);
        ck_assert(value == (code & 8 ? -magnitude : magnitude) && !!signbit(value) == (code >= 8));
    }
}
END_TEST

START_TEST(every_code_of_e8m0_is_a_power_of_two)
{
    for (unsigned code = 0; code < 255; code++)
        ck_assert(small_float_e8m0((uint8_t)code) == ldexpf(1, (int)code - 127));
    ck_assert(isnan(small_float_e8m0(255)));
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("small_float");
    tcase_add_test(all, every_code_of_e4m3_is_what_its_bits_say);
    tcase_add_test(all, every_code_of_e2m1_is_what_its_bits_say);
    tcase_add_test(all, every_code_of_e8m0_is_a_power_of_two);
    Suite *suite = suite_create("small_float");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
