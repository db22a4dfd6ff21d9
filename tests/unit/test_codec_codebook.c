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

enum { HEAD = 8 + 1024 };

static void read_frame(const unsigned char *frame, float codebook[256])
{
    int64_t count;
    memcpy(&count, frame, 8);
    ck_assert_int_eq(count, 256);
    memcpy(codebook, frame + 8, 1024);
}

START_TEST(uniform_is_its_formula)
{
    enum { N = 6001 };
    float *x = codec_random(N, 11), codebook[256];
    unsigned char frame[HEAD + N];
    double sum = 0, squares = 0, sums[256] = {0};
    int counts[256] = {0}, other = 0;
    ck_assert(codec_encode(CODEC_UNIFORM_8BIT, x, N, N, frame));
    read_frame(frame, codebook);
    for (int i = 0; i < N; i++)
        sum += (double)x[i];
    const float mean = (float)(sum / N);
    for (int i = 0; i < N; i++)
        squares += pow((double)x[i] - (double)mean, 2);
    const float scale = (float)(6 * sqrt(squares / (N - 1)) / 256);
    for (int i = 0; i < N; i++) {
        const double exact = (double)(x[i] - mean) / (double)scale;
        const double index = fmin(fmax(nearbyint(exact) + 128, 0), 255);
        other += (int)index != frame[HEAD + i]; /* a last bit may decide between neighbours */
        ck_assert_int_le(abs((int)index - frame[HEAD + i]), 1);
        sums[frame[HEAD + i]] += (double)x[i];
        counts[frame[HEAD + i]]++;
    }
    ck_assert_int_le(other, 2);
    for (int c = 0; c < 256; c++)
        ck_assert_float_eq_tol(codebook[c], counts[c] ? (float)(sums[c] / counts[c]) : 0, 1e-6F);
    free(x);
}
END_TEST

START_TEST(quantile_has_as_many_elements_for_each_number)
{
    enum { N = 256 * 40 };
    float *x = codec_random(N, 12), codebook[256];
    unsigned char *frame = malloc(HEAD + N);
    int counts[256] = {0};
    for (int i = 0; i < N; i++)
        x[i] = expf(3 * x[i]); /* far from uniform */
    ck_assert(codec_encode(CODEC_QUANTILE_8BIT, x, N, N, frame));
    read_frame(frame, codebook);
    for (int i = 0; i < N; i++)
        counts[frame[HEAD + i]]++;
    for (int c = 0; c < 256; c++) {
        ck_assert_int_ge(counts[c], 38);
        ck_assert_int_le(counts[c], 42);
        ck_assert(c == 0 || codebook[c] > codebook[c - 1]);
    }
    free(frame);
    free(x);
}
END_TEST

/* A sample at a fixed distance would see one column alone, and the error be 10^6. */
START_TEST(a_sample_sees_every_column)
{
    enum { COLUMNS = 64, N = COLUMNS * 16384 };
    float *x = codec_random(N, 13), *y = malloc(N * sizeof *y);
    for (int i = 0; i < N; i++)
        x[i] += 100 * (float)(i % COLUMNS);
    ck_assert(codec_round_trip(CODEC_QUANTILE_8BIT, x, N, COLUMNS, y));
    ck_assert_double_lt(codec_mse(x, y, N), 2000);
    free(x);
    free(y);
}
END_TEST

START_TEST(blocks_have_the_dynamic_map_and_their_largest_values)
{
    enum { N = 2 * 4096 + 100, BLOCKS = 3 };
    float *x = codec_random(N, 14), codebook[256], largest[BLOCKS];
    unsigned char *frame = malloc(16 + 4 * BLOCKS + 1024 + N);
    int64_t blocks;
    for (int i = 4096; i < 8192; i++)
        x[i] = 0; /* hivemind's divides by it */
    ck_assert(codec_encode(CODEC_BLOCKWISE_8BIT, x, N, N, frame));
    memcpy(&blocks, frame, 8);
    ck_assert_int_eq(blocks, BLOCKS);
    memcpy(largest, frame + 16, sizeof largest);
    memcpy(codebook, frame + 16 + sizeof largest, sizeof codebook);
    ck_assert_float_eq(codebook[0], -1);
    ck_assert_float_eq(codebook[254], 0.99296875F);
    ck_assert_float_eq(codebook[127], 0);
    ck_assert_float_eq(codebook[255], 1);
    ck_assert_float_eq_tol(codebook[128], 0.55e-6F, 1e-12F);
    for (int c = 1; c < 256; c++)
        ck_assert(codebook[c] > codebook[c - 1]);
    for (int i = 0; i < N; i++) {
        float most = 0;
        for (int k = i / 4096 * 4096; k < N && k < (i / 4096 + 1) * 4096 && i % 4096 == 0; k++)
            most = fmaxf(most, fabsf(x[k]));
        if (i % 4096 == 0)
            ck_assert_float_eq(largest[i / 4096], most);
        const uint8_t index = frame[16 + sizeof largest + 1024 + i];
        if (largest[i / 4096] == 0) {
            ck_assert_uint_eq(index, 127);
            continue;
        }
        /* The nearest one, but for what a cell of 1/32,768 leaves open. */
        const float value = x[i] / largest[i / 4096];
        float best = INFINITY;
        for (int c = 0; c < 256; c++)
            best = fminf(best, fabsf(codebook[c] - value));
        ck_assert_float_le(fabsf(codebook[index] - value), best + 3.2e-5F);
    }
    free(frame);
    free(x);
}
END_TEST

START_TEST(the_codebook_on_the_wire_is_what_counts)
{
    unsigned char frame[HEAD + 3] = {0};
    float codebook[256] = {0}, y[3];
    const int64_t count = 256;
    codebook[0] = 7;
    codebook[1] = -9;
    codebook[255] = 0.5F;
    memcpy(frame, &count, 8);
    memcpy(frame + 8, codebook, 1024);
    frame[HEAD] = 255;
    frame[HEAD + 2] = 1;
    ck_assert_ptr_null(codec_check(CODEC_UNIFORM_8BIT, frame, 3));
    codec_decode(CODEC_QUANTILE_8BIT, frame, 3, 3, y);
    ck_assert_float_eq(y[0], 0.5F);
    ck_assert_float_eq(y[1], 7);
    ck_assert_float_eq(y[2], -9);
}
END_TEST

START_TEST(frames_that_lie_are_refused)
{
    enum { N = 5000, MOST = 16 + 8 + 1024 + N };
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    static const uint32_t codecs[] = {CODEC_UNIFORM_8BIT, CODEC_QUANTILE_8BIT, CODEC_BLOCKWISE_8BIT};
    unsigned char good[MOST], frame[MOST];
    float *x = codec_random(N, 15);
    for (size_t c = 0; c < 3; c++) {
        const bool blocks = codecs[c] == CODEC_BLOCKWISE_8BIT;
        ck_assert(codec_encode(codecs[c], x, N, N, good));
        for (int64_t lie = -1; lie <= 512; lie++) {
            memcpy(frame, good, MOST);
            memcpy(frame + (blocks ? 8 : 0), &lie, 8);
            ck_assert_int_eq(codec_check(codecs[c], frame, N) == NULL, lie == 256);
        }
        for (int at = 0; at < 256 + 2 * blocks; at++) {
            memcpy(frame, good, MOST);
            memcpy(frame + (blocks ? 16 : 8) + 4 * at, &bad[at % 3], 4);
            ck_assert_ptr_nonnull(codec_check(codecs[c], frame, N));
        }
        for (int64_t lie = -1; blocks && lie < 9; lie++) {
            memcpy(frame, good, MOST);
            memcpy(frame, &lie, 8);
            ck_assert_int_eq(codec_check(codecs[c], frame, N) == NULL, lie == 2);
        }
    }
    free(x);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("codec_codebook");
    TCase *tests = tcase_create("codec_codebook");
    tcase_add_test(tests, uniform_is_its_formula);
    tcase_add_test(tests, quantile_has_as_many_elements_for_each_number);
    tcase_add_test(tests, a_sample_sees_every_column);
    tcase_add_test(tests, blocks_have_the_dynamic_map_and_their_largest_values);
    tcase_add_test(tests, the_codebook_on_the_wire_is_what_counts);
    tcase_add_test(tests, frames_that_lie_are_refused);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
