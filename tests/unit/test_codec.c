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

START_TEST(names_and_numbers_belong_together)
{
    static const char *const names[] = {"none",         "meanstd_16bit",  "float16", "quantile_8bit",
                                        "uniform_8bit", "blockwise_8bit", "bfloat16"};
    for (int i = 0; i < CODEC_COUNT; i++) {
        ck_assert_str_eq(codec_name((uint32_t)i), names[i]);
        ck_assert_int_eq(codec_of_name(names[i]), i);
    }
    ck_assert_int_eq(codec_of_name("UNIFORM_8BIT"), CODEC_UNIFORM_8BIT);
    ck_assert_int_eq(codec_of_name("gzip"), -EINVAL);
    ck_assert_int_eq(codec_of_name(""), -EINVAL);
    ck_assert_str_eq(codec_name(CODEC_COUNT), "unknown");
}
END_TEST

START_TEST(frames_have_the_size_of_their_layout)
{
    static const struct {
        uint32_t codec;
        uint64_t elements, last, bytes;
    } cases[] = {{CODEC_NONE, 6, 3, 24},
                 {CODEC_FLOAT16, 6, 3, 12},
                 {CODEC_BFLOAT16, 6, 3, 12},
                 {CODEC_MEANSTD_16BIT, 6, 3, 28},
                 {CODEC_UNIFORM_8BIT, 6, 3, 8 + 1024 + 6},
                 {CODEC_QUANTILE_8BIT, 6, 3, 8 + 1024 + 6},
                 {CODEC_BLOCKWISE_8BIT, 6, 3, 16 + 4 + 1024 + 6},
                 {CODEC_BLOCKWISE_8BIT, 4096, 4096, 16 + 4 + 1024 + 4096},
                 {CODEC_BLOCKWISE_8BIT, 4097, 4097, 16 + 8 + 1024 + 4097},
                 {CODEC_BLOCKWISE_8BIT, 0, 0, 16 + 1024},
                 {CODEC_MEANSTD_16BIT, 0, 0, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint64_t bytes;
        ck_assert(codec_frame_bytes(cases[i].codec, DTYPE_FLOAT32, cases[i].elements, cases[i].last, &bytes));
        ck_assert_msg(bytes == cases[i].bytes, "%zu: %lu", i, bytes);
    }
}
END_TEST

START_TEST(sizes_that_no_memory_has_are_refused)
{
    uint64_t bytes;
    for (uint32_t codec = 0; codec < CODEC_COUNT; codec++)
        ck_assert(!codec_frame_bytes(codec, DTYPE_FLOAT32, UINT64_MAX, 1, &bytes));
    ck_assert(!codec_frame_bytes(CODEC_NONE, DTYPE_FLOAT64, UINT64_C(1) << 60, 1, &bytes));
    ck_assert(!codec_frame_bytes(CODEC_MEANSTD_16BIT, DTYPE_FLOAT32, UINT64_C(1) << 60, 1, &bytes));
}
END_TEST

START_TEST(only_float32_is_encoded)
{
    uint64_t bytes;
    for (uint32_t codec = 1; codec < CODEC_COUNT; codec++) {
        ck_assert(codec_takes(codec, DTYPE_FLOAT32));
        for (uint32_t dtype = 0; dtype < 12; dtype++)
            if (dtype != DTYPE_FLOAT32) {
                ck_assert(!codec_takes(codec, dtype));
                ck_assert(!codec_frame_bytes(codec, dtype, 1, 1, &bytes));
                ck_assert(!codec_pays(codec, dtype, 1 << 20, 1024));
            }
    }
    ck_assert(codec_takes(CODEC_NONE, DTYPE_BOOL));
    ck_assert(!codec_takes(CODEC_NONE, 0));
    ck_assert(!codec_takes(CODEC_COUNT, DTYPE_FLOAT32));
}
END_TEST

START_TEST(what_would_grow_does_not_pay)
{
    ck_assert(!codec_pays(CODEC_NONE, DTYPE_FLOAT32, 1 << 20, 1024));
    ck_assert(codec_pays(CODEC_FLOAT16, DTYPE_FLOAT32, 1, 1));
    ck_assert(!codec_pays(CODEC_MEANSTD_16BIT, DTYPE_FLOAT32, 4096, 4));
    ck_assert(codec_pays(CODEC_MEANSTD_16BIT, DTYPE_FLOAT32, 4096, 8));
    ck_assert(!codec_pays(CODEC_UNIFORM_8BIT, DTYPE_FLOAT32, 344, 344));
    ck_assert(codec_pays(CODEC_UNIFORM_8BIT, DTYPE_FLOAT32, 345, 345));
}
END_TEST

/* hivemind's bounds for randn(128, 128, 64), and one for bfloat16, which it has no codec for. */
START_TEST(errors_stay_within_their_bounds)
{
    static const double bounds[CODEC_COUNT] = {0, 5e-8, 5e-8, 8e-4, 8e-4, 8e-4, 1e-5};
    enum { ELEMENTS = 128 * 128 * 64 };
    float *x = codec_random(ELEMENTS, 1), *y = malloc(ELEMENTS * sizeof *y);
    for (uint32_t codec = 1; codec < CODEC_COUNT; codec++) {
        ck_assert(codec_round_trip(codec, x, ELEMENTS, 64, y));
        const double mse = codec_mse(x, y, ELEMENTS);
        ck_assert_msg(mse < bounds[codec], "%s: %g", codec_name(codec), mse);
    }
    free(x);
    free(y);
}
END_TEST

/* Every codec, and every length around the widths of vectors, blocks and samples. */
START_TEST(every_length_comes_back)
{
    static const uint64_t lengths[] = {1,    2,    3,    5,    7,    8,     9,     15,    16,    17,   31,
                                       33,   255,  256,  257,  1000, 4095,  4096,  4097,  8192,  8193, 12289,
                                       5000, 1023, 1025, 1024, 640,  16383, 16384, 16385, 40000, 70001};
    for (uint32_t codec = 1; codec < CODEC_COUNT; codec++)
        for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
            const uint64_t n = lengths[i];
            float *x = codec_random(n, (uint32_t)n), *y = malloc(n * sizeof *y);
            ck_assert(codec_round_trip(codec, x, n, n, y));
            ck_assert_msg(codec_mse(x, y, n) < 5e-3, "%s of %lu: %g", codec_name(codec), n, codec_mse(x, y, n));
            free(x);
            free(y);
        }
}
END_TEST

START_TEST(constants_and_zeros_come_back)
{
    static const float values[] = {0, 1, -3.5F, 1000, 1e-30F, -1e-42F, 60000};
    float x[5000], y[5000];
    for (size_t v = 0; v < sizeof values / sizeof values[0]; v++)
        for (uint64_t n = 1; n <= 5000; n += 4999)
            for (uint32_t codec = 1; codec < CODEC_COUNT; codec++) {
                for (uint64_t i = 0; i < n; i++)
                    x[i] = values[v];
                ck_assert(codec_round_trip(codec, x, n, n, y));
                for (uint64_t i = 0; i < n; i++)
                    ck_assert_msg(fabsf(y[i] - x[i]) <= fabsf(x[i]) / 256 + 6e-8F, "%s: %g is %g", codec_name(codec),
                                  (double)x[i], (double)y[i]);
            }
}
END_TEST

START_TEST(what_is_not_finite_is_refused_or_kept_as_the_page_says)
{
    static const float values[] = {NAN, INFINITY, -INFINITY};
    enum { N = 9000 };
    float *x = codec_random(N, 7), *y = malloc(N * sizeof *y);
    for (size_t v = 0; v < 3; v++)
        for (uint64_t at = 0; at < N; at += 4499) {
            const float before = x[at];
            x[at] = values[v];
            for (uint32_t codec = 1; codec < CODEC_COUNT; codec++) {
                const bool encoded = codec_round_trip(codec, x, N, 100, y);
                ck_assert_int_eq(encoded, codec == CODEC_FLOAT16 || codec == CODEC_BFLOAT16);
                if (codec == CODEC_FLOAT16 && v > 0)
                    ck_assert_float_eq(y[at], v == 1 ? 65504 : -65504);
                else if (encoded)
                    ck_assert(isnan(values[v]) ? isnan(y[at]) : y[at] == values[v]);
            }
            x[at] = before;
        }
    free(x);
    free(y);
}
END_TEST

START_TEST(the_largest_numbers_stay_finite)
{
    enum { N = 5000 };
    float x[N], y[N];
    for (uint64_t i = 0; i < N; i++)
        x[i] = (i % 2 ? 3.4e38F : -3.4e38F) / (float)(1 + i % 7);
    for (uint32_t codec = 1; codec < CODEC_COUNT; codec++)
        if (codec_round_trip(codec, x, N, 100, y) && codec != CODEC_BFLOAT16)
            for (uint64_t i = 0; i < N; i++)
                ck_assert_msg(isfinite(y[i]), "%s: %g", codec_name(codec), (double)y[i]);
}
END_TEST

START_TEST(the_bytes_in_the_documentation_are_right)
{
    static const struct {
        uint32_t codec;
        size_t at;
        const char *bytes;
        size_t count;
    } cases[] = {
        {CODEC_MEANSTD_16BIT, 0, "\xe7\x3b\x96\xbe\x64\x38\x06\x2f\x00\x00\x00\xbe\x56\xc4\x91\x3f", 16},
        {CODEC_FLOAT16, 0, "\x00\x3c\x00\xc0\x00\x38\x00\x00", 8},
        {CODEC_BFLOAT16, 0, "\x80\x3f\x00\xc0\x00\x3f\x00\x00", 8},
        {CODEC_UNIFORM_8BIT, 0, "\x00\x01\x00\x00\x00\x00\x00\x00", 8},
        {CODEC_UNIFORM_8BIT, 8 + 4 * 67, "\x00\x00\x00\xc0", 4},
        {CODEC_UNIFORM_8BIT, 8 + 1024, "\xa5\x43\x94\x84", 4},
        {CODEC_QUANTILE_8BIT, 8, "\x00\x00\x00\xc0", 4},
        {CODEC_QUANTILE_8BIT, 8 + 1024, "\xff\x00\xaa\x55", 4},
        {CODEC_BLOCKWISE_8BIT, 0, "\x01\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x40",
         20},
        {CODEC_BLOCKWISE_8BIT, 20 + 1024, "\xdb\x00\xc9\x7f", 4},
    };
    const float x[4] = {1, -2, 0.5F, 0};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        unsigned char frame[2048];
        ck_assert(codec_encode(cases[i].codec, x, 4, 4, frame));
        ck_assert_msg(memcmp(frame + cases[i].at, cases[i].bytes, cases[i].count) == 0, "%zu", i);
    }
}
END_TEST

/* What says what the codes mean goes with a block, or a row of the last dimension, as a whole or not at all. */
START_TEST(codes_are_taken_over_where_what_they_mean_goes_with_them)
{
    const uint64_t block = CODEC_BLOCK;
    ck_assert(codec_moves(CODEC_BLOCKWISE_8BIT, 64, block, block, 3 * block, 2 * block));
    ck_assert(!codec_moves(CODEC_BLOCKWISE_8BIT, 64, 64, block, 3 * block, 0));
    ck_assert(!codec_moves(CODEC_BLOCKWISE_8BIT, 64, 0, block, 3 * block, 64));
    ck_assert(!codec_moves(CODEC_BLOCKWISE_8BIT, 64, 64, block, 3 * block, 64));
    ck_assert(codec_moves(CODEC_BLOCKWISE_8BIT, 64, 0, 64, block + 64, block)); /* the last block is short there, too */
    ck_assert(!codec_moves(CODEC_BLOCKWISE_8BIT, 64, 0, 64, block + 128, block));

    ck_assert(codec_moves(CODEC_MEANSTD_16BIT, 64, 64, 128, 1024, 192));
    ck_assert(!codec_moves(CODEC_MEANSTD_16BIT, 64, 32, 128, 1024, 192));
    ck_assert(!codec_moves(CODEC_MEANSTD_16BIT, 64, 64, 96, 1024, 192));
    ck_assert(!codec_moves(CODEC_MEANSTD_16BIT, 64, 64, 128, 1024, 32));

    ck_assert(codec_moves(CODEC_FLOAT16, 64, 3, 5, 1024, 7));
    ck_assert(codec_moves(CODEC_UNIFORM_8BIT, 64, 3, 5, 1024, 7));
    ck_assert(!codec_moves(CODEC_NONE, 64, 0, 64, 64, 0));
}
END_TEST

/* Whatever the processor, and the loops' version for it: with fused multiply-adds they would be others. */
START_TEST(frames_are_the_same_bytes_wherever_they_are_made)
{
    enum { ROWS = 40, LAST = 1000, ELEMENTS = ROWS * LAST };
    static const struct {
        uint32_t codec;
        uint64_t hash; /* FNV-1a */
    } frames[] = {{CODEC_MEANSTD_16BIT, UINT64_C(0x34dffbe9c903f9e3)},
                  {CODEC_UNIFORM_8BIT, UINT64_C(0x3701712d82b71425)},
                  {CODEC_BLOCKWISE_8BIT, UINT64_C(0x996fc958a58f6828)},
                  {CODEC_FLOAT16, UINT64_C(0x3432eaf82bb470db)},
                  {CODEC_BFLOAT16, UINT64_C(0x7033902f48eb682c)}};
    float *x = malloc(ELEMENTS * sizeof *x);
    for (uint32_t i = 0; i < ELEMENTS; i++)
        x[i] = (float)((int32_t)(i * 2654435761u) >> 8) * 0x1p-21f;
    for (size_t f = 0; f < sizeof frames / sizeof frames[0]; f++) {
        uint64_t bytes, hash = UINT64_C(0xcbf29ce484222325);
        ck_assert(codec_frame_bytes(frames[f].codec, DTYPE_FLOAT32, ELEMENTS, LAST, &bytes));
        unsigned char *frame = malloc(bytes);
        ck_assert(codec_encode(frames[f].codec, x, ELEMENTS, LAST, frame));
        for (uint64_t i = 0; i < bytes; i++)
            hash = (hash ^ frame[i]) * UINT64_C(0x100000001b3);
        ck_assert_msg(hash == frames[f].hash, "codec %u: 0x%016llx", frames[f].codec, (unsigned long long)hash);
        free(frame);
    }
    free(x);
}
END_TEST

START_TEST(nothing_is_a_tensor_too)
{
    float none = 0;
    for (uint32_t codec = 1; codec < CODEC_COUNT; codec++)
        ck_assert(codec_round_trip(codec, &none, 0, 0, &none));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("codec");
    TCase *tests = tcase_create("codec");
    tcase_add_test(tests, names_and_numbers_belong_together);
    tcase_add_test(tests, frames_have_the_size_of_their_layout);
    tcase_add_test(tests, sizes_that_no_memory_has_are_refused);
    tcase_add_test(tests, only_float32_is_encoded);
    tcase_add_test(tests, what_would_grow_does_not_pay);
    tcase_add_test(tests, errors_stay_within_their_bounds);
    tcase_add_test(tests, every_length_comes_back);
    tcase_add_test(tests, constants_and_zeros_come_back);
    tcase_add_test(tests, what_is_not_finite_is_refused_or_kept_as_the_page_says);
    tcase_add_test(tests, the_largest_numbers_stay_finite);
    tcase_add_test(tests, the_bytes_in_the_documentation_are_right);
    tcase_add_test(tests, codes_are_taken_over_where_what_they_mean_goes_with_them);
    tcase_add_test(tests, frames_are_the_same_bytes_wherever_they_are_made);
    tcase_add_test(tests, nothing_is_a_tensor_too);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
