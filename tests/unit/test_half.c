#include <check.h>
#include <math.h>
#include <stdlib.h>

#include "common/half.h"
#include "unit/support_reference.h"

START_TEST(every_half_is_the_same_again_after_a_float)
{
    for (uint32_t half = 0; half <= UINT16_MAX; half++) {
        const float value = half_to_float((uint16_t)half);
        if (isnan(value))
            ck_assert(isnan(half_to_float(half_from_float(value))));
        else
            ck_assert_uint_eq(half_from_float(value), half);
    }
}
END_TEST

START_TEST(halves_are_what_their_bits_say)
{
    static const struct {
        uint16_t half;
        float value;
    } wanted[] = {{0x3c00, 1},        {0xc000, -2},        {0x7bff, 65504},    {0x0400, 0x1p-14f},
                  {0x0001, 0x1p-24f}, {0x8001, -0x1p-24f}, {0x7c00, INFINITY}, {0xfc00, -INFINITY}};
    for (unsigned i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
        ck_assert(half_to_float(wanted[i].half) == wanted[i].value);
    ck_assert(signbit(half_to_float(0x8000)));
    ck_assert(isnan(half_to_float(0x7e01)));
}
END_TEST

/* Between each two neighbours: their middle and what is just beside it, of both signs. */
START_TEST(what_lies_between_two_halves_becomes_the_nearer_or_the_even_one)
{
    for (uint32_t half = 0; half < 0x7c00; half++) {
        const float below = half_to_float((uint16_t)half);
        const float above = half + 1 < 0x7c00 ? half_to_float((uint16_t)(half + 1)) : 65536;
        const float middle = (below + above) / 2;
        const float values[] = {middle, nextafterf(middle, 0), nextafterf(middle, INFINITY), -middle};
        float expected[4];
        support_round("fp16", values, 4, expected);
        for (unsigned i = 0; i < 4; i++)
            ck_assert_msg(half_to_float(half_from_float(values[i])) == expected[i], "%a became %a instead of %a",
                          (double)values[i], (double)half_to_float(half_from_float(values[i])), (double)expected[i]);
    }
}
END_TEST

START_TEST(what_is_beyond_the_largest_is_infinite)
{
    static const float values[] = {65520, 65536, 1e6f, 3e38f, INFINITY};
    for (unsigned i = 0; i < sizeof values / sizeof values[0]; i++) {
        ck_assert_uint_eq(half_from_float(values[i]), 0x7c00);
        ck_assert_uint_eq(half_from_float(-values[i]), 0xfc00);
    }
    ck_assert_uint_eq(half_from_float(65519), 0x7bff);
    ck_assert_uint_eq(half_from_float(1e-38f), 0);
    ck_assert_uint_eq(half_from_float(-0.0f), 0x8000);
}
END_TEST

START_TEST(bfloats_are_the_upper_halves_of_floats_rounded_to_the_nearer_or_the_even_one)
{
    for (uint32_t bits = 0; bits <= UINT16_MAX; bits++) {
        const float value = bfloat_to_float((uint16_t)bits);
        if (isnan(value))
            ck_assert(isnan(bfloat_to_float(bfloat_from_float(value))));
        else
            ck_assert_uint_eq(bfloat_from_float(value), bits);
        if (bits < 0x80 || bits >= 0x7f00) /* subnormal, or the last before infinity */
            continue;
        const float middle = half_float_of_bits(bits << 16 | 0x8000);
        const float values[] = {middle, nextafterf(middle, 0), nextafterf(middle, INFINITY), -middle};
        float expected[4];
        support_round("bf16", values, bits < 0x7f00 ? 4 : 0, expected);
        for (unsigned i = 0; i < 4 && bits < 0x7f00; i++)
            ck_assert_msg(bfloat_to_float(bfloat_from_float(values[i])) == expected[i], "%a", (double)values[i]);
    }
    ck_assert_uint_eq(bfloat_from_float(BFLOAT_GREATEST), 0x7f7f);
    ck_assert_uint_eq(bfloat_from_float(nextafterf(BFLOAT_GREATEST, INFINITY)), 0x7f80);
    ck_assert(isnan(bfloat_to_float(bfloat_from_float(half_float_of_bits(0x7f800001)))));
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("half");
    tcase_add_test(all, every_half_is_the_same_again_after_a_float);
    tcase_add_test(all, halves_are_what_their_bits_say);
    tcase_add_test(all, what_lies_between_two_halves_becomes_the_nearer_or_the_even_one);
    tcase_add_test(all, what_is_beyond_the_largest_is_infinite);
    tcase_add_test(all, bfloats_are_the_upper_halves_of_floats_rounded_to_the_nearer_or_the_even_one);
    Suite *suite = suite_create("half");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
