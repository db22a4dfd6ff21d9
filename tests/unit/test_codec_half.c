#include <check.h>
#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/half.h"
#include "common/tensor.h"
#include "proto/codec.h"
#include "tests/unit/support_codec.h"

START_TEST(every_half_comes_back)
{
    float x[8192], y[8192];
    for (uint32_t first = 0; first < 65536; first += 8192) {
        for (uint32_t i = 0; i < 8192; i++)
            x[i] = half_to_float((uint16_t)(first + i));
        ck_assert(codec_round_trip(CODEC_FLOAT16, x, 8192, 8192, y));
        for (uint32_t i = 0; i < 8192; i++) {
            if (isfinite(x[i]))
                ck_assert_mem_eq(&x[i], &y[i], 4);
            else
                ck_assert(isnan(x[i]) ? isnan(y[i]) : fabsf(y[i]) == 65504);
        }
    }
}
END_TEST

START_TEST(halves_are_rounded_to_even_and_bounded)
{
    const float x[] = {1 + 0x1p-11F, 1 + 0x3p-11F, 65519,      65520,     1e30F,
                       -1e30F,       0x1p-25F,     0x1.8p-24F, -0x1p-26F, 1e-40F};
    const float right[] = {1, 1 + 0x1p-9F, 65504, 65504, 65504, -65504, 0, 0x1p-23F, -0.0F, 0};
    float y[10];
    ck_assert(codec_round_trip(CODEC_FLOAT16, x, 10, 10, y)); /* eight by vector, two not */
    for (int i = 0; i < 10; i++)
        ck_assert_msg(y[i] == right[i], "%d: %a", i, (double)y[i]);
}
END_TEST

START_TEST(bfloat16_is_rounded_to_even)
{
    for (uint32_t high = 0; high < 65536; high += 8192) {
        float x[8192], y[8192];
        for (uint32_t i = 0; i < 8192; i++) {
            const uint32_t bits = (high + i) << 16;
            memcpy(&x[i], &bits, 4);
        }
        ck_assert(codec_round_trip(CODEC_BFLOAT16, x, 8192, 8192, y));
        for (uint32_t i = 0; i < 8192; i++)
            ck_assert(isnan(x[i]) ? isnan(y[i]) : memcmp(&x[i], &y[i], 4) == 0);
    }
    const float x[] = {1 + 0x1p-8F, 1 + 0x3p-8F, 1 + 0x1.02p-8F, -1 - 0x1p-8F, 3.4e38F};
    const float right[] = {1, 1 + 0x1p-6F, 1 + 0x1p-7F, -1, INFINITY};
    float y[5];
    ck_assert(codec_round_trip(CODEC_BFLOAT16, x, 5, 5, y));
    for (int i = 0; i < 5; i++)
        ck_assert_msg(y[i] == right[i], "%d: %a", i, (double)y[i]);
}
END_TEST

/* The formula, in doubles where it says nothing else. */
START_TEST(mean_and_deviation_are_those_of_each_last_axis)
{
    enum { ROWS = 5, LAST = 37, N = ROWS * LAST };
    float *x = codec_random(N, 3);
    unsigned char frame[2 * N + 8 * ROWS];
    for (int i = 0; i < N; i++)
        x[i] = x[i] * (float)(1 + i / LAST) + 100.0F * (float)(i / LAST);
    ck_assert(codec_encode(CODEC_MEANSTD_16BIT, x, N, LAST, frame));
    for (int r = 0; r < ROWS; r++) {
        float mean, deviation;
        double sum = 0, squares = 0;
        memcpy(&mean, frame + 2 * N + 4 * r, 4);
        memcpy(&deviation, frame + 2 * N + 4 * ROWS + 4 * r, 4);
        for (int i = 0; i < LAST; i++)
            sum += (double)x[r * LAST + i];
        ck_assert_float_eq_tol(mean, (float)(sum / LAST), 1e-5F * (1 + fabsf(mean)));
        for (int i = 0; i < LAST; i++)
            squares += pow((double)(x[r * LAST + i] - mean), 2);
        ck_assert_float_eq_tol(deviation, (float)sqrt(squares / LAST), 1e-5F);
        for (int i = 0; i < LAST; i++) {
            uint16_t half;
            memcpy(&half, frame + 2 * (r * LAST + i), 2);
            /* Times the reciprocal, which may decide a rounding otherwise than the division. */
            ck_assert_int_le(abs(half - half_from_float((x[r * LAST + i] - mean) / deviation)), 1);
        }
    }
    free(x);
}
END_TEST

START_TEST(a_row_without_deviation_has_the_least)
{
    float x[8] = {5, 5, 5, 5, 5, 5, 5, 5}, deviation, y[8];
    unsigned char frame[16 + 8];
    ck_assert(codec_encode(CODEC_MEANSTD_16BIT, x, 8, 8, frame));
    memcpy(&deviation, frame + 20, 4);
    ck_assert_float_eq(deviation, 1.1920929e-07F);
    codec_decode(CODEC_MEANSTD_16BIT, frame, 8, 8, y);
    ck_assert_mem_eq(x, y, sizeof x);
}
END_TEST

/* Wherever the first element lies, which the sums are taken around. */
START_TEST(mean_and_deviation_are_as_precise_for_any_first_element)
{
    enum { LAST = 5000 };
    const struct {
        float first, scale;
    } cases[] = {{0, 1}, {3, 1}, {-5, 1}, {60, 1}, {1e6F, 1}, {-1e18F, 1}, {-1e19F, 2e15F}, {1e-30F, 1e-6F}};
    float *x = codec_random(LAST, 5), *scaled = malloc(LAST * sizeof *scaled);
    unsigned char *frame = malloc(2 * LAST + 8);
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        double sum = 0, squares = 0;
        float mean, deviation;
        for (int i = 0; i < LAST; i++)
            scaled[i] = i == 0 ? cases[c].first : x[i] * cases[c].scale;
        ck_assert(codec_encode(CODEC_MEANSTD_16BIT, scaled, LAST, LAST, frame));
        memcpy(&mean, frame + 2 * LAST, 4);
        memcpy(&deviation, frame + 2 * LAST + 4, 4);
        for (int i = 0; i < LAST; i++)
            sum += (double)scaled[i] / LAST;
        for (int i = 0; i < LAST; i++)
            squares += pow((double)scaled[i] - sum, 2);
        const double expected = sqrt(squares / LAST);
        ck_assert_double_eq_tol((double)mean, sum, 1e-5 * expected);
        ck_assert_double_eq_tol((double)deviation, expected, 1e-4 * expected);
    }
    free(frame);
    free(scaled);
    free(x);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("codec_half");
    TCase *tests = tcase_create("codec_half");
    tcase_add_test(tests, every_half_comes_back);
    tcase_add_test(tests, halves_are_rounded_to_even_and_bounded);
    tcase_add_test(tests, bfloat16_is_rounded_to_even);
    tcase_add_test(tests, mean_and_deviation_are_those_of_each_last_axis);
    tcase_add_test(tests, a_row_without_deviation_has_the_least);
    tcase_add_test(tests, mean_and_deviation_are_as_precise_for_any_first_element);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
