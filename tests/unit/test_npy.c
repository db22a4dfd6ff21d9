#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/expertctl/npy.h"

static char folder[256], path[300], error[256];
static struct npy array;

static void setup(void)
{
    const char *parent = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/npy.XXXXXX", parent ? parent : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/a.npy", folder);
}

static void teardown(void)
{
    npy_clear(&array);
    unlink(path);
    rmdir(folder);
}

/* A version 1.0 file with this header and `bytes` zeros behind it; the length of the file. */
static size_t file_of(unsigned char *file, const char *header, size_t bytes)
{
    const size_t length = strlen(header);
    memcpy(file, "\x93NUMPY\1\0", 8);
    file[8] = (unsigned char)length;
    file[9] = (unsigned char)(length >> 8);
    memcpy(file + 10, header, length);
    memset(file + 10 + length, 0, bytes);
    return 10 + length + bytes;
}

static int parse(const char *header, size_t bytes)
{
    unsigned char file[1024];
    size_t offset = 0;
    const size_t size = file_of(file, header, bytes);
    error[0] = 0;
    const int rc = npy_parse(file, size, &array, &offset, error, sizeof error);
    ck_assert_ptr_null(array.data);
    if (rc == 0)
        ck_assert_uint_eq(offset, size - bytes);
    else
        ck_assert(error[0]);
    return rc;
}

START_TEST(what_is_written_is_read_again)
{
    static const uint32_t dtypes[] = {DTYPE_FLOAT32, DTYPE_FLOAT64, DTYPE_FLOAT16, DTYPE_BFLOAT16, DTYPE_INT8,
                                      DTYPE_INT16,   DTYPE_INT32,   DTYPE_INT64,   DTYPE_UINT8,    DTYPE_BOOL};
    unsigned char data[3 * 4 * 8];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (unsigned char)i;
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++) {
        struct npy written = {
            .dtype = dtypes[i], .ndim = 2, .shape = {3, 4}, .data = data, .bytes = 12 * dtype_size(dtypes[i])};
        ck_assert_int_eq(npy_write(path, &written, error, sizeof error), 0);
        ck_assert_msg(npy_read(path, &array, error, sizeof error) == 0, "%s", error);
        ck_assert_uint_eq(array.dtype, dtypes[i]);
        ck_assert_uint_eq(array.ndim, 2);
        ck_assert_uint_eq(array.shape[0], 3);
        ck_assert_uint_eq(array.shape[1], 4);
        ck_assert_uint_eq(array.bytes, written.bytes);
        ck_assert_mem_eq(array.data, data, written.bytes);
        npy_clear(&array);
    }
}
END_TEST

START_TEST(every_rank_has_its_tuple)
{
    float data[1] = {1.5F};
    for (uint32_t ndim = 0; ndim <= NPY_MAX_DIMS; ndim++) {
        struct npy written = {
            .dtype = DTYPE_FLOAT32, .ndim = ndim, .shape = {1, 1, 1, 1, 1, 1, 1, 1}, .data = data, .bytes = 4};
        struct stat status;
        ck_assert_int_eq(npy_write(path, &written, error, sizeof error), 0);
        ck_assert_msg(npy_read(path, &array, error, sizeof error) == 0, "%s", error);
        ck_assert_uint_eq(array.ndim, ndim);
        ck_assert_int_eq(stat(path, &status), 0);
        ck_assert_int_eq((status.st_size - 4) % 64, 0);
        npy_clear(&array);
    }
}
END_TEST

START_TEST(headers_in_any_spelling_are_read)
{
    ck_assert_int_eq(parse("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }   \n", 24), 0);
    ck_assert_uint_eq(array.shape[1], 3);
    ck_assert_int_eq(parse("{\"shape\":(2,3),\"fortran_order\":False,\"descr\":\"<f4\"}", 24), 0);
    ck_assert_int_eq(parse("{'descr': '|u1', 'fortran_order': True, 'shape': (24,)}", 24), 0);
    ck_assert_uint_eq(array.dtype, DTYPE_UINT8);
    ck_assert_int_eq(parse("{'descr': '<f8', 'fortran_order': False, 'shape': ()}", 8), 0);
    ck_assert_uint_eq(array.ndim, 0);
    ck_assert_int_eq(parse("{'descr': '<f8', 'fortran_order': False, 'shape': (0, 9)}", 0), 0);
}
END_TEST

START_TEST(headers_of_python_2_and_of_other_orders_are_read)
{
    static const struct {
        const char *descr;
        uint32_t dtype;
        size_t bytes;
    } cases[] = {{"'=f4'", DTYPE_FLOAT32, 24},  {"'f4'", DTYPE_FLOAT32, 24},   {"'|f4'", DTYPE_FLOAT32, 24},
                 {"u'<f4'", DTYPE_FLOAT32, 24}, {"'=f8'", DTYPE_FLOAT64, 48},  {"'=f2'", DTYPE_FLOAT16, 12},
                 {"'=i8'", DTYPE_INT64, 48},    {"'>i1'", DTYPE_INT8, 6},      {"'=u1'", DTYPE_UINT8, 6},
                 {"'?'", DTYPE_BOOL, 6},        {"'|V2'", DTYPE_BFLOAT16, 12}, {"'=i4'", DTYPE_INT32, 24}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char header[128];
        snprintf(header, sizeof header, "{'descr': %s, 'fortran_order': False, 'shape': (2L, 3L), }", cases[i].descr);
        ck_assert_msg(parse(header, cases[i].bytes) == 0, "%s: %s", header, error);
        ck_assert_uint_eq(array.dtype, cases[i].dtype);
        ck_assert_uint_eq(array.shape[0], 2);
        ck_assert_uint_eq(array.shape[1], 3);
    }
    ck_assert_int_eq(parse("{u'descr': '<f4', u'fortran_order': False, u'shape': (6L,)}", 24), 0);
    ck_assert_int_eq(parse("{'descr': '<f4', 'fortran_order': False, 'shape': (L,)}", 24), -EINVAL);
    ck_assert_int_eq(parse("{'descr': '=', 'fortran_order': False, 'shape': (6,)}", 24), -EINVAL);
    ck_assert_int_eq(parse("{'descr': '', 'fortran_order': False, 'shape': (6,)}", 24), -EINVAL);
}
END_TEST

START_TEST(version_2_has_a_longer_length)
{
    static const char header[] = "{'descr': '|i1', 'fortran_order': False, 'shape': (1,)}";
    unsigned char file[256] = "\x93NUMPY\2\0";
    size_t offset;
    file[8] = sizeof header - 1;
    memcpy(file + 12, header, sizeof header - 1);
    ck_assert_int_eq(npy_parse(file, 12 + sizeof header, &array, &offset, error, sizeof error), 0);
    ck_assert_uint_eq(offset, 12 + sizeof header - 1);
    file[11] = 1;
    ck_assert_int_eq(npy_parse(file, 12 + sizeof header, &array, &offset, error, sizeof error), -EINVAL);
}
END_TEST

START_TEST(what_no_tensor_can_hold_is_refused_with_a_reason)
{
    static const struct {
        const char *header, *says;
    } cases[] = {
        {"{'descr': '>f4', 'fortran_order': False, 'shape': (6,)}", "big-endian"},
        {"{'descr': '<c8', 'fortran_order': False, 'shape': (3,)}", "dtype"},
        {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (6,)}", "dtype"},
        {"{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3)}", "Fortran"},
        {"{'descr': '<f4', 'fortran_order': 0, 'shape': (2, 3)}", "fortran_order"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 1, 1, 1, 1, 1, 1, 6)}", "dimensions"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (-6,)}", "number"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296, 4294967296)}", "2^40"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999999,)}", "number"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': 6}", "tuple"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (6", "tuple"},
        {"{'descr': '<f4', 'fortran_order': False}", "lacks"},
        {"{'descr': '<f4', 'descr': '<f4', 'shape': (6,)}", "repeated"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (6,), 'extra': 1}", "unknown"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (6,)} + 1", "follows"},
        {"{'descr': '<f4", "dtype"},
        {"", "dictionary"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (5,)}", "follows its array"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (7,)}", "ends before"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ck_assert_int_eq(parse(cases[i].header, 24), -EINVAL);
        ck_assert_msg(strstr(error, cases[i].says), "%s: %s", cases[i].header, error);
    }
}
END_TEST

/* None is cut until it is one that is known. */
START_TEST(words_are_read_whole)
{
    static const char header[] = "{'descr': '<f4', 'fortran_order': False, 'shape': (6,)}";
    static const char *const ends[] = {"descr", "<f4", "fortran_order"};
    unsigned char file[256];
    size_t offset;
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        char longer[128];
        const char *end = strstr(header, ends[i]) + strlen(ends[i]);
        snprintf(longer, sizeof longer, "%.*s?%s", (int)(end - header), header, end);
        const size_t size = file_of(file, longer, 24);
        file[10 + (end - header)] = 0;
        ck_assert_msg(npy_parse(file, size, &array, &offset, error, sizeof error) == -EINVAL, "%s and a 0", ends[i]);
    }
    ck_assert_int_eq(parse("{'descr': '<f4            ', 'fortran_order': False, 'shape': (6,)}", 24), -EINVAL);
    ck_assert_int_eq(parse("{'fortran_order   ': False, 'descr': '<f4', 'shape': (6,)}", 24), -EINVAL);
}
END_TEST

START_TEST(a_file_cut_anywhere_is_refused)
{
    unsigned char file[256];
    size_t offset;
    const size_t size = file_of(file, "{'descr': '<f4', 'fortran_order': False, 'shape': (6,)}", 24);
    for (size_t i = 0; i < size; i++) {
        unsigned char *exact = malloc(i ? i : 1); /* so that a sanitizer sees a step too far */
        memcpy(exact, file, i);
        ck_assert_int_eq(npy_parse(exact, i, &array, &offset, error, sizeof error), -EINVAL);
        free(exact);
    }
}
END_TEST

START_TEST(errors_name_the_path)
{
    ck_assert_int_eq(npy_read("/nonexistent/a.npy", &array, error, sizeof error), -ENOENT);
    ck_assert_ptr_nonnull(strstr(error, "/nonexistent/a.npy: No such file"));
    ck_assert_int_eq(npy_read(folder, &array, error, sizeof error), -EISDIR);
    array = (struct npy){.dtype = DTYPE_INT8, .ndim = 0, .data = NULL, .bytes = 0};
    ck_assert_int_eq(npy_write(folder, &array, error, sizeof error), -EISDIR);
    ck_assert_ptr_nonnull(strstr(error, folder));
    array.dtype = 77;
    ck_assert_int_eq(npy_write(path, &array, error, sizeof error), -EINVAL);
}
END_TEST

/* Nor what follows an array: neither would end, or fit in memory. */
START_TEST(what_is_no_array_is_not_read_to_its_end)
{
    float value = 1;
    const struct npy written = {
        .dtype = DTYPE_FLOAT32, .ndim = 1, .shape = {1}, .bytes = sizeof value, .data = (void *)&value};
    ck_assert_int_eq(npy_read("/dev/zero", &array, error, sizeof error), -EINVAL);
    ck_assert_str_eq(error, "/dev/zero: it does not begin as .npy files do");
    ck_assert_int_eq(npy_write(path, &written, error, sizeof error), 0);
    ck_assert_int_eq(truncate(path, (off_t)1 << 40), 0);
    ck_assert_int_eq(npy_read(path, &array, error, sizeof error), -EINVAL);
    ck_assert_ptr_nonnull(strstr(error, "something follows its array"));
}
END_TEST

START_TEST(a_full_disk_is_an_error)
{
    char data[65536] = "";
    struct npy written = {.dtype = DTYPE_INT8, .ndim = 1, .shape = {sizeof data}, .data = data, .bytes = sizeof data};
    ck_assert_int_eq(npy_write("/dev/full", &written, error, sizeof error), -ENOSPC);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("npy");
    TCase *tests = tcase_create("npy");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, what_is_written_is_read_again);
    tcase_add_test(tests, every_rank_has_its_tuple);
    tcase_add_test(tests, headers_in_any_spelling_are_read);
    tcase_add_test(tests, headers_of_python_2_and_of_other_orders_are_read);
    tcase_add_test(tests, version_2_has_a_longer_length);
    tcase_add_test(tests, what_no_tensor_can_hold_is_refused_with_a_reason);
    tcase_add_test(tests, words_are_read_whole);
    tcase_add_test(tests, a_file_cut_anywhere_is_refused);
    tcase_add_test(tests, errors_name_the_path);
    tcase_add_test(tests, what_is_no_array_is_not_read_to_its_end);
    tcase_add_test(tests, a_full_disk_is_an_error);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
