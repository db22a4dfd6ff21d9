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

/* Of halves and their neighbours among floats: the nearest code, of two the even one, beyond the greatest that. */
static void check_nearest(float value, uint8_t code, float (*number)(uint8_t), unsigned codes, float greatest)
{
    const float bounded = fminf(fabsf(value), greatest), far = fabsf(fabsf(number(code)) - bounded);
    ck_assert_msg(value == 0 || !!signbit(number(code)) == !!signbit(value), "%a", (double)value);
    for (unsigned other = 0; other < codes / 2; other++) {
        const float other_far = fabsf(number((uint8_t)other) - bounded);
        if (isnan(other_far) || far < other_far)
            continue;
        ck_assert_msg(far == other_far && (code % 2 == 0 || other == (code & (codes / 2 - 1))),
                      "%a became code %u, and %u is as near", (double)value, code, other);
    }
}

START_TEST(floats_become_the_nearest_code)
{
    for (unsigned bits = 0; bits < 0x7c00; bits += 4) { /* those between codes have fewer */
        const float half = half_to_float((uint16_t)bits);
        const float values[] = {half, -half, nextafterf(half, INFINITY), nextafterf(half, 0)};
        for (unsigned i = 0; i < 4; i++) {
            check_nearest(values[i], small_float_to_e2m1(values[i]), small_float_e2m1, 16, 6);
            check_nearest(values[i], small_float_to_e4m3(values[i]), small_float_e4m3, 256, 448);
        }
    }
    ck_assert_uint_eq(small_float_to_e4m3(INFINITY), 0x7e);
    ck_assert_uint_eq(small_float_to_e2m1(-INFINITY), 15);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("small_float");
    tcase_add_test(all, every_code_of_e4m3_is_what_its_bits_say);
    tcase_add_test(all, every_code_of_e2m1_is_what_its_bits_say);
    tcase_add_test(all, every_code_of_e8m0_is_a_power_of_two);
    tcase_add_test(all, floats_become_the_nearest_code);
    Suite *suite = suite_create("small_float");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
