#include <check.h>
#include <string.h>

#include "frontend/validate.h"

static struct schema schema;
static Expertd__RequestHeader header;
static Expertd__Tensor tensors[16], *pointers[16];
static uint64_t shapes[16][8];
static size_t bytes[16];
static char why[VALIDATE_WHY_SIZE];
static uint32_t rows;

/* x float32[rows,3,5] and mask bool[rows], four rows of each. */
static void setup(void)
{
    memset(&schema, 0, sizeof schema);
    schema.count = 2;
    schema.tensors[0] = (struct tensor_desc){.dtype = DTYPE_FLOAT32, .ndim = 2, .dims = {3, 5}, .name = "x"};
    schema.tensors[1] = (struct tensor_desc){.dtype = DTYPE_BOOL, .ndim = 0, .name = "mask"};
    expertd__request_header__init(&header);
    header.n_tensors = 2;
    header.tensors = pointers;
    for (int i = 0; i < 16; i++) {
        pointers[i] = &tensors[i];
        expertd__tensor__init(&tensors[i]);
        tensors[i].shape = shapes[i];
        shapes[i][0] = 4;
    }
    tensors[0].dtype = EXPERTD__DTYPE__FLOAT32;
    tensors[0].n_shape = 3;
    shapes[0][1] = 3;
    shapes[0][2] = 5;
    tensors[1].dtype = EXPERTD__DTYPE__BOOL;
    tensors[1].n_shape = 1;
    bytes[0] = 4 * 3 * 5 * 4;
    bytes[1] = 4;
}

static enum status validate(uint64_t frames)
{
    return validate_tensors(&schema, 10, &header, bytes, frames, &rows, why);
}

static void expect(enum status status, const char *text)
{
    ck_assert_int_eq(validate(2), status);
    ck_assert_str_eq(why, text);
}

START_TEST(what_fits_is_accepted)
{
    expect(STATUS_OK, "");
    ck_assert_uint_eq(rows, 4);
    for (int i = 0; i < 2; i++)
        shapes[i][0] = 10;
    bytes[0] = 600;
    bytes[1] = 10;
    expect(STATUS_OK, "");
    ck_assert_uint_eq(rows, 10);
}
END_TEST

START_TEST(what_does_not_fit_is_named)
{
    shapes[0][2] = 6;
    expect(STATUS_INVALID_ARGUMENT, "input 0 (x): expected float32[rows,3,5], got float32[4,3,6]");
    setup();
    tensors[1].dtype = EXPERTD__DTYPE__UINT8;
    expect(STATUS_INVALID_ARGUMENT, "input 1 (mask): expected bool[rows], got uint8[4]");
    setup();
    tensors[1].n_shape = 0;
    expect(STATUS_INVALID_ARGUMENT, "input 1 (mask): expected bool[rows], got bool[]");
    setup();
    shapes[1][0] = 5;
    expect(STATUS_INVALID_ARGUMENT, "input 1 (mask) has 5 rows, input 0 has 4");
    setup();
    tensors[1].codec = 7;
    expect(STATUS_UNIMPLEMENTED, "input 1 (mask): codec 7 is not known here; 0 is raw");
    setup();
    tensors[1].codec = 3;
    expect(STATUS_INVALID_ARGUMENT, "input 1 (mask): codec quantile_8bit is of float32, and this is bool");
    setup();
    tensors[0].codec = 2;
    expect(STATUS_INVALID_ARGUMENT, "input 0 (x): float32[4,3,5] as float16 is 120 bytes, its frame has 240");
    setup();
    Expertd__Codec wished[] = {EXPERTD__CODEC__RAW, 9};
    header.n_reply_codecs = 2;
    header.reply_codecs = wished;
    expect(STATUS_UNIMPLEMENTED, "reply_codecs: codec 9 is not known here; 0 is raw");
    setup();
    header.n_tensors = 1;
    expect(STATUS_INVALID_ARGUMENT, "expected 2 tensors (x float32[rows,3,5], mask bool[rows]), got 1");
}
END_TEST

START_TEST(rows_are_bounded)
{
    shapes[0][0] = shapes[1][0] = 0;
    bytes[0] = bytes[1] = 0;
    expect(STATUS_INVALID_ARGUMENT, "input 0 (x) has 0 rows; a request has at least 1");
    setup();
    shapes[0][0] = shapes[1][0] = 11;
    expect(STATUS_INVALID_ARGUMENT, "11 rows are more than this expert's max_batch_size, 10");
    setup();
    shapes[0][0] = shapes[1][0] = UINT64_MAX;
    expect(STATUS_INVALID_ARGUMENT, "18446744073709551615 rows are more than this expert's max_batch_size, 10");
}
END_TEST

START_TEST(frames_have_to_hold_what_the_header_says)
{
    bytes[0]--;
    expect(STATUS_INVALID_ARGUMENT, "input 0 (x): float32[4,3,5] is 240 bytes, its frame has 239");
    setup();
    bytes[1] = SIZE_MAX;
    ck_assert_int_eq(validate(2), STATUS_INVALID_ARGUMENT);
    setup();
    ck_assert_int_eq(validate(1), STATUS_INVALID_ARGUMENT);
    ck_assert_str_eq(why, "the header names 2 tensors, but 1 frame came with it");
    ck_assert_int_eq(validate(UINT64_MAX), STATUS_INVALID_ARGUMENT);
}
END_TEST

START_TEST(the_largest_schema_gives_no_overlong_sentence)
{
    schema.count = SCHEMA_MAX_TENSORS;
    for (uint32_t i = 0; i < SCHEMA_MAX_TENSORS; i++) {
        schema.tensors[i] = (struct tensor_desc){.dtype = DTYPE_BFLOAT16, .ndim = TENSOR_MAX_DIMS};
        memset(schema.tensors[i].name, 'n', TENSOR_NAME_SIZE - 1);
        for (int d = 0; d < TENSOR_MAX_DIMS; d++)
            schema.tensors[i].dims[d] = UINT64_C(1) << 39;
    }
    ck_assert_int_eq(validate(2), STATUS_INVALID_ARGUMENT);
    ck_assert_uint_lt(strlen(why), VALIDATE_WHY_SIZE);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("validate");
    tcase_add_checked_fixture(all, setup, NULL);
    tcase_add_test(all, what_fits_is_accepted);
    tcase_add_test(all, what_does_not_fit_is_named);
    tcase_add_test(all, rows_are_bounded);
    tcase_add_test(all, frames_have_to_hold_what_the_header_says);
    tcase_add_test(all, the_largest_schema_gives_no_overlong_sentence);
    Suite *suite = suite_create("validate");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
