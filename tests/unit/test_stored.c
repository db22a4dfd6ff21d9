#include <check.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/half.h"
#include "runtime/state/stored.h"
#include "unit/support_model.h"

static char error[SHARDS_ERROR_SIZE];
static const char *folder;
static struct shards *shards;

static void set_up(void)
{
    folder = support_model_folder();
}

static void tear_down(void)
{
    shards_close(&shards);
    support_model_remove();
}

static void write_all(const struct support_tensor *tensors, unsigned count)
{
    support_model_write("model.safetensors", tensors, count);
    ck_assert_msg(shards_open(&shards, folder, error) == 0, "%s", error);
}

/* The part that a template names. */
static void read_part(const char *template, float *values, size_t count)
{
    struct tensor_part part;
    struct tensor_view view;
    struct stored stored;
    char problem[TENSOR_PART_ERROR_SIZE];
    ck_assert_msg(tensor_part_parse(&part, template, "m.0.1", problem) == 0, "%s", problem);
    ck_assert(stored_has(shards, part.name));
    ck_assert_msg(stored_find(&stored, shards, part.name, error) == 0, "%s", error);
    ck_assert_msg(tensor_part_view(&view, &part, stored.dims, stored.ndim, problem) == 0, "%s", problem);
    ck_assert_uint_eq(view.dims[0] * (view.ndim == 2 ? view.dims[1] : 1), count);
    for (size_t i = 0; i < count; i++)
        values[i] = NAN;
    ck_assert_msg(stored_read(&stored, &view, values, error) == 0, "%s", error);
}

static void expect_refused(const char *name, const char *said)
{
    struct stored stored;
    ck_assert_int_eq(stored_find(&stored, shards, name, error), -EPROTO);
    ck_assert_msg(strstr(error, said), "%s", error);
}

START_TEST(parts_of_plain_tensors_are_read_in_every_order)
{
    enum { E = 2, R = 6, C = 5 };
    static float f32[E][R][C];
    static double f64[E][R][C];
    static uint16_t f16[E][R][C], bf16[E][R][C];
    for (unsigned i = 0; i < E * R * C; i++) {
        f32[i / (R * C)][i / C % R][i % C] = (float)i;
        f64[i / (R * C)][i / C % R][i % C] = i;
        f16[i / (R * C)][i / C % R][i % C] = half_from_float((float)i);
        bf16[i / (R * C)][i / C % R][i % C] = (uint16_t)(half_float_bits((float)i) >> 16);
    }
    const struct support_tensor tensors[] = {{"f32", "F32", {E, R, C}, 3, f32, sizeof f32},
                                             {"f64", "F64", {E, R, C}, 3, f64, sizeof f64},
                                             {"f16", "F16", {E, R, C}, 3, f16, sizeof f16},
                                             {"bf16", "BF16", {E, R, C}, 3, bf16, sizeof bf16}};
    write_all(tensors, 4);
    for (unsigned t = 0; t < 4; t++) {
        char template[64];
        float values[R * C];
        snprintf(template, sizeof template, "%s[{expert}]", tensors[t].name);
        read_part(template, values, R * C);
        for (unsigned i = 0; i < R * C; i++)
            ck_assert(values[i] == (float)(R * C + i));
        snprintf(template, sizeof template, "%s[1, 1::2]", tensors[t].name); /* rows 1, 3, 5 */
        read_part(template, values, 3 * C);
        for (unsigned i = 0; i < 3 * C; i++)
            ck_assert(values[i] == (float)(R * C + (1 + 2 * (i / C)) * C + i % C));
        snprintf(template, sizeof template, "%s[1, :, 1::2].T", tensors[t].name); /* columns 1, 3, down */
        read_part(template, values, 2 * R);
        for (unsigned i = 0; i < 2 * R; i++)
            ck_assert(values[i] == (float)(R * C + i % R * C + 1 + 2 * (i / R)));
        snprintf(template, sizeof template, "%s[0, half:, 0]", tensors[t].name); /* a column: one dimension */
        read_part(template, values, R / 2);
        for (unsigned i = 0; i < R / 2; i++)
            ck_assert(values[i] == (float)((R / 2 + i) * C));
    }
}
END_TEST

START_TEST(every_code_of_fp8_is_multiplied_by_its_blocks_scale)
{
    enum { ROWS = 130, COLUMNS = 257 };
    static uint8_t codes[2][ROWS][COLUMNS];
    static const float scales[2][2][3] = {{{1, 2, 4}, {8, 16, 32}}, {{0.1f, 0.2f, 0.3f}, {0.4f, 0.5f, 0.6f}}};
    static float values[ROWS * COLUMNS];
    for (unsigned i = 0; i < 2 * ROWS * COLUMNS; i++) {
        const unsigned code = i * 7 % 256;
        codes[i / (ROWS * COLUMNS)][i / COLUMNS % ROWS][i % COLUMNS] = (uint8_t)((code & 0x7f) == 0x7f ? 0 : code);
    }
    const struct support_tensor tensors[] = {{"w", "F8_E4M3", {2, ROWS, COLUMNS}, 3, codes, sizeof codes},
                                             {"w_scale_inv", "F32", {2, 2, 3}, 3, scales, sizeof scales}};
    write_all(tensors, 2);
    read_part("w[{expert}]", values, ROWS * COLUMNS);
    for (unsigned i = 0; i < ROWS; i++)
        for (unsigned j = 0; j < COLUMNS; j++) {
            const uint8_t code = codes[1][i][j];
            const int exponent = code >> 3 & 15, mantissa = code & 7;
            const float magnitude =
                exponent ? ldexpf((float)(8 + mantissa), exponent - 10) : ldexpf((float)mantissa, -9);
            const float expected = (code & 0x80 ? -magnitude : magnitude) * scales[1][i / 128][j / 128];
            ck_assert_msg(values[i * COLUMNS + j] == expected, "%u, %u", i, j);
        }
    float corner[4]; /* of four blocks, its columns as rows */
    read_part("w[1, 127:129, 127:129].T", corner, 4);
    for (unsigned i = 0; i < 4; i++)
        ck_assert(corner[i] == values[(127 + i % 2) * COLUMNS + 127 + i / 2]);
}
END_TEST

START_TEST(every_code_of_mxfp4_is_multiplied_by_its_blocks_scale)
{
    enum { ROWS = 4, BLOCKS = 3 };
    static const float table[16] = {0, .5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -.5f, -1, -1.5f, -2, -3, -4, -6};
    static uint8_t blocks[2][ROWS][BLOCKS][16], scales[2][ROWS][BLOCKS];
    static float values[ROWS * BLOCKS * 32];
    for (unsigned i = 0; i < sizeof blocks; i++)
        (&blocks[0][0][0][0])[i] = (uint8_t)(i * 37 + i / 256);
    for (unsigned i = 0; i < sizeof scales; i++)
        (&scales[0][0][0])[i] = (uint8_t)(120 + i % 9);
    const struct support_tensor tensors[] = {{"w_blocks", "U8", {2, ROWS, BLOCKS, 16}, 4, blocks, sizeof blocks},
                                             {"w_scales", "U8", {2, ROWS, BLOCKS}, 3, scales, sizeof scales}};
    write_all(tensors, 2);
    read_part("w[{expert}]", values, ROWS * BLOCKS * 32);
    for (unsigned r = 0; r < ROWS; r++)
        for (unsigned j = 0; j < BLOCKS * 32; j++) {
            const uint8_t byte = blocks[1][r][j / 32][j % 32 / 2];
            const float expected =
                ldexpf(table[j % 2 ? byte >> 4 : byte & 15], scales[1][r][j / 32] - 127); /* low bits first */
            ck_assert_msg(values[r * BLOCKS * 32 + j] == expected, "%u, %u", r, j);
        }
    float odd[2 * 3];
    read_part("w[{expert}, 1::2, 31:34]", odd, 6); /* begins in a byte's high bits, and crosses a block's end */
    for (unsigned i = 0; i < 6; i++)
        ck_assert(odd[i] == values[(1 + 2 * (i / 3)) * BLOCKS * 32 + 31 + i % 3]);
}
END_TEST

START_TEST(scales_that_do_not_fit_are_refused)
{
    static const uint8_t bytes[2 * 2 * 16 * 4];
    const struct support_tensor tensors[] = {
        {"none", "F8_E4M3", {2, 2}, 2, bytes, 4},
        {"wide", "F8_E4M3", {2, 2}, 2, bytes, 4},
        {"wide_scale_inv", "F32", {1, 2}, 2, bytes, 8},
        {"kind", "F8_E4M3", {2, 2}, 2, bytes, 4},
        {"kind_scale_inv", "I32", {1, 1}, 2, bytes, 4},
        {"flat", "F8_E4M3", {4}, 1, bytes, 4},
        {"flat_scale_inv", "F32", {1}, 1, bytes, 4},
        {"alone_blocks", "U8", {2, 2, 16}, 3, bytes, 64},
        {"short_blocks", "U8", {2, 2, 8}, 3, bytes, 32},
        {"short_scales", "U8", {2, 2}, 2, bytes, 4},
        {"few_blocks", "U8", {2, 2, 16}, 3, bytes, 64},
        {"few_scales", "U8", {2, 1}, 2, bytes, 2},
        {"number", "I32", {2}, 1, bytes, 8},
    };
    write_all(tensors, sizeof tensors / sizeof tensors[0]);
    expect_refused("none", "no scales 'none_scale_inv'");
    expect_refused("wide", "'wide_scale_inv' are F32[1, 2]");
    expect_refused("kind", "'kind_scale_inv' are I32[1, 1]");
    expect_refused("flat", "'flat_scale_inv' are F32[1]");
    expect_refused("alone", "no scales 'alone_scales'");
    expect_refused("short", "no MXFP4");
    expect_refused("few", "no MXFP4");
    expect_refused("number", "dtype I32");
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("stored");
    tcase_add_checked_fixture(all, set_up, tear_down);
    tcase_add_test(all, parts_of_plain_tensors_are_read_in_every_order);
    tcase_add_test(all, every_code_of_fp8_is_multiplied_by_its_blocks_scale);
    tcase_add_test(all, every_code_of_mxfp4_is_multiplied_by_its_blocks_scale);
    tcase_add_test(all, scales_that_do_not_fit_are_refused);
    Suite *suite = suite_create("stored");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
