/* Each format's codes and scales, in words of their own; test_quantized has the rounding of whole matrices. */
#include <check.h>
#include <math.h>
#include <string.h>

#include "common/half.h"
#include "runtime/compute/weight_format.h"

static const char *const names[] = {"int8", "int4", "fp8", "mxfp4"};

START_TEST(precisions_that_are_formats_are_found)
{
    static const char *const others[] = {"fp32", "tf32", "fp16", "bf16", "", "int", "mxfp42"};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        ck_assert_str_eq(weight_format_find(names[i])->precision, names[i]);
    for (unsigned i = 0; i < sizeof others / sizeof *others; i++)
        ck_assert_ptr_null(weight_format_find(others[i]));
}
END_TEST

START_TEST(codes_of_whole_numbers_are_in_twos_complement)
{
    const struct weight_format *eight = weight_format_find("int8"), *four = weight_format_find("int4");
    for (int number = -127; number <= 127; number++) {
        const float value = (float)number;
        uint8_t code;
        eight->codes(&value, 1, 1, &code);
        ck_assert(code == (uint8_t)number && eight->number(code) == value);
        four->codes(&value, 1, 1, &code);
        if (number >= -8)
            ck_assert(four->number(code) == fminf(value, 7) && code < 16);
    }
}
END_TEST

/* Whatever a file has. */
START_TEST(scales_are_kept_exactly)
{
    const struct weight_format *fp8 = weight_format_find("fp8"), *mxfp4 = weight_format_find("mxfp4");
    unsigned char kept[4];
    for (int power = -127; power <= 127; power++) {
        mxfp4->keep_scale(ldexpf(1, power), kept);
        ck_assert(kept[0] == power + 127 && mxfp4->scale(kept) == ldexpf(1, power));
    }
    static const float floats[] = {0.1f, 0x1p-149f, -3, 7e35f, 0};
    for (unsigned i = 0; i < sizeof floats / sizeof *floats; i++) {
        fp8->keep_scale(floats[i], kept);
        ck_assert(fp8->scale(kept) == floats[i]);
    }
    for (unsigned half = 0; half < 0x7c00; half += 7) {
        const struct weight_format *format = weight_format_find(half % 2 ? "int8" : "int4");
        format->keep_scale(half_to_float((uint16_t)half), kept);
        ck_assert(format->scale(kept) == half_to_float((uint16_t)half));
    }
}
END_TEST

/* The greatest becomes the format's greatest code, and what has no scale becomes 0. */
START_TEST(the_greatest_value_decides_the_scale)
{
    static const float greatest[] = {127, -8, 448, 4};
    for (unsigned i = 0; i < 4; i++) {
        const struct weight_format *format = weight_format_find(names[i]);
        for (float m = 1; m < 1000; m *= 2) {
            float inverse;
            uint8_t code;
            const float value = m * greatest[i], scale = weight_format_scale(format, value, &inverse);
            format->codes(&value, 1, inverse, &code);
            ck_assert_msg(scale == m && format->number(code) * scale == value, "%s: %g", names[i], (double)value);
        }
        float inverse = 1;
        ck_assert(weight_format_scale(format, 0, &inverse) == 0 && inverse == 0);
        ck_assert(isfinite(weight_format_scale(format, format->greatest, &inverse)) && inverse != 0);
    }
    float inverse;
    ck_assert(weight_format_scale(weight_format_find("fp8"), 0x1p-120f, &inverse) == 0 && inverse == 0);
    ck_assert(weight_format_scale(weight_format_find("mxfp4"), 0x1p-140f, &inverse) == 0x1p-127f);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("weight_format");
    tcase_add_test(all, precisions_that_are_formats_are_found);
    tcase_add_test(all, codes_of_whole_numbers_are_in_twos_complement);
    tcase_add_test(all, scales_are_kept_exactly);
    tcase_add_test(all, the_greatest_value_decides_the_scale);
    Suite *suite = suite_create("weight_format");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
