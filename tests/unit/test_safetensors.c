#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/state/checksum.h"
#include "runtime/state/safetensors.h"

static char folder[128], path[256], error[SAFETENSORS_ERROR_SIZE];

static void make_folder(void)
{
    const char *parent = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/safetensors.XXXXXX", parent ? parent : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/file.safetensors", folder);
}

static void remove_folder(void)
{
    unlink(path);
    ck_assert_int_eq(rmdir(folder), 0); /* no temporary file was left in it */
}

static const float numbers[6] = {0, -1.5f, 3e38f, 1e-40f, 0.1f, 7};

static void write_example(const char *to)
{
    const struct safetensors_tensor tensors[] = {
        {.name = "layer.\"weight\"/1", .dtype = DTYPE_FLOAT32, .ndim = 2, .dims = {2, 3}},
        {.name = "scalar", .dtype = DTYPE_FLOAT64, .ndim = 0},
        {.name = "empty", .dtype = DTYPE_INT8, .ndim = 1, .dims = {0}},
    };
    const struct safetensors_pair pairs[] = {{"format", "test"}, {"number", "17"}};
    const double scalar = -2.5;
    struct safetensors_writer *writer;
    ck_assert_int_eq(safetensors_writer_open(&writer, to, tensors, 3, pairs, 2), 0);
    ck_assert_int_eq(safetensors_writer_append(writer, numbers, 5), 0); /* pieces of any size */
    ck_assert_int_eq(safetensors_writer_append(writer, (const char *)numbers + 5, sizeof numbers - 5), 0);
    ck_assert_int_eq(safetensors_writer_append(writer, &scalar, sizeof scalar), 0);
    ck_assert_int_eq(safetensors_writer_append(writer, &scalar, 1), -EINVAL); /* more than was declared */
    ck_assert_int_eq(safetensors_writer_commit(&writer), 0);
    ck_assert_ptr_null(writer);
}

static int parse(const char *header, size_t data_bytes, struct safetensors **file)
{
    static unsigned char bytes[4096];
    const uint64_t length = strlen(header);
    memset(bytes, 0, sizeof bytes);
    memcpy(bytes, &length, sizeof length);
    memcpy(bytes + 8, header, length);
    return safetensors_parse(file, bytes, 8 + length + data_bytes, error);
}

START_TEST(what_is_written_is_read_again)
{
    struct safetensors *file;
    float values[6], scalar;
    write_example(path);
    ck_assert_msg(safetensors_open(&file, path, error) == 0, "%s", error);
    ck_assert_uint_eq(safetensors_count(file), 3);
    const struct safetensors_tensor *tensor = safetensors_find(file, "layer.\"weight\"/1");
    ck_assert_ptr_nonnull(tensor);
    ck_assert_uint_eq(tensor->ndim, 2);
    ck_assert_uint_eq(tensor->dims[1], 3);
    ck_assert_int_eq(safetensors_read_floats(file, tensor, values, error), 0);
    ck_assert_mem_eq(values, numbers, sizeof numbers);
    ck_assert_int_eq(safetensors_read_floats(file, safetensors_find(file, "scalar"), &scalar, error), 0);
    ck_assert(scalar == -2.5f);
    ck_assert_uint_eq(safetensors_find(file, "empty")->bytes, 0);
    ck_assert_ptr_null(safetensors_find(file, "none"));
    ck_assert_str_eq(safetensors_metadata(file, "number"), "17");
    ck_assert_ptr_null(safetensors_metadata(file, "none"));
    ck_assert_int_eq(safetensors_verify(file, error), 0);
    safetensors_close(&file);
    ck_assert_ptr_null(file);
    safetensors_close(&file);
}
END_TEST

START_TEST(a_changed_byte_of_the_data_is_noticed)
{
    struct safetensors *file;
    struct stat info;
    write_example(path);
    ck_assert_int_eq(stat(path, &info), 0);
    const int fd = open(path, O_WRONLY);
    ck_assert_int_eq(pwrite(fd, "x", 1, info.st_size - 1), 1);
    close(fd);
    ck_assert_int_eq(safetensors_open(&file, path, error), 0);
    ck_assert_int_eq(safetensors_verify(file, error), -EPROTO);
    ck_assert_ptr_nonnull(strstr(error, "damaged"));
    safetensors_close(&file);
}
END_TEST

/* Of the length, the header and the data. */
START_TEST(a_flipped_bit_anywhere_is_noticed)
{
    struct safetensors *file;
    struct stat info;
    static unsigned char bytes[4096];
    write_example(path);
    ck_assert_int_eq(stat(path, &info), 0);
    const int fd = open(path, O_RDONLY);
    const size_t length = (size_t)read(fd, bytes, sizeof bytes);
    close(fd);
    ck_assert_uint_eq(length, (size_t)info.st_size);
    for (size_t bit = 0; bit < 8 * length; bit++) {
        bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
        int rc = safetensors_parse(&file, bytes, length, error);
        if (rc == 0)
            rc = safetensors_verify(file, error);
        /* What makes the checksum's own name another one is for who knows that there must be one to notice. */
        if (rc == 0)
            ck_assert_ptr_null(safetensors_metadata(file, SAFETENSORS_HEADER_CHECKSUM));
        safetensors_close(&file);
        ck_assert_msg(rc == -EPROTO || bit / 8 < 8 + strlen(SAFETENSORS_HEADER_START), "bit %zu", bit);
        bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
}
END_TEST

START_TEST(a_file_is_for_its_owner_alone)
{
    struct stat info;
    const mode_t before = umask(0);
    write_example(path);
    umask(before);
    ck_assert_int_eq(stat(path, &info), 0);
    ck_assert_uint_eq(info.st_mode & 0777, 0600);
}
END_TEST

/* What a tensor that nobody asks for is made of, is nobody's business. */
START_TEST(tensors_of_unknown_dtypes_do_not_spoil_a_file)
{
    static const char *const dtypes[] = {"C64", "F8_E5M2", "F4", "F6_E2M3", "F8_E4M3FNUZ", "U64", "what comes next"};
    struct safetensors *file;
    float value;
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        char header[256];
        snprintf(header, sizeof header,
                 "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
                 "\"b\":{\"dtype\":\"%s\",\"shape\":[1],\"data_offsets\":[4,12]}}",
                 dtypes[i]);
        ck_assert_msg(parse(header, 12, &file) == 0, "%s: %s", dtypes[i], error);
        ck_assert_int_eq(safetensors_read_floats(file, safetensors_find(file, "a"), &value, error), 0);
        ck_assert_str_eq(safetensors_find(file, "b")->format, dtypes[i]);
        ck_assert_int_eq(safetensors_read_floats(file, safetensors_find(file, "b"), &value, error), -EPROTO);
        ck_assert_msg(strstr(error, dtypes[i]), "%s", error);
        safetensors_close(&file);
    }
}
END_TEST

START_TEST(what_is_taken_for_weights_at_times_is_recognised)
{
    static const struct {
        const char *bytes, *said;
    } files[] = {
        {"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "Git LFS"},
        {"{\"metadata\": {\"total_size\": 1}, \"weight_map\": {\"a\": \"model-00001-of-00002.safetensors\"}}",
         "shards"},
        {"\n {\n \"weight_map\": {}}", "shards"},
        {"{\"architectures\": [\"BertModel\"]}", "JSON"},
        {"PK\3\4..............", "convert-state-dict"},
        {"\x80\2}q..............", "convert-state-dict"},
        {"GGUF..............", "GGUF"},
        {"\x93NUMPY..............", "NumPy"},
        {"<!DOCTYPE html><html>", "web page"},
        {"\r\n<!doctype html>\n<html>", "web page"},
        {"\xef\xbb\xbf<?xml version=\"1.0\"?><Error>", "web page"},
        {"<h1>404", "web page"},
        {"Entry not found", "it is text, which begins 'Entry not found'"},
        {"404: Not Found\nmore", "it is text, which begins '404: Not Found'"},
        {"oops", "it is text, which begins 'oops'"},
        {"[]", "JSON"},
        {"PK\3\4\x14..............arr_0.npy", "NumPy arrays (.npz)"},
        {"\x80\4\x95..............", "convert-state-dict"},
        {"\x7f\x45LF\2\1\1..............", "shared object"},
        {"BZh91AY&SY.......", "bzip2"},
        {"\1\2\3", "no safetensors file, or lacks its end (3 bytes)"},
        {"\1\2\3\4\5\6\7\x18..........", "no safetensors file, or lacks its end"},
    };
    struct safetensors *file;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        ck_assert_int_eq(safetensors_parse(&file, files[i].bytes, strlen(files[i].bytes), error), -EPROTO);
        ck_assert_msg(strstr(error, files[i].said), "%s", error);
    }
}
END_TEST

START_TEST(a_file_cut_anywhere_is_refused)
{
    struct safetensors *file;
    struct stat info;
    write_example(path);
    ck_assert_int_eq(stat(path, &info), 0);
    for (off_t length = info.st_size - 1; length >= 0; length--) {
        ck_assert_int_eq(truncate(path, length), 0);
        ck_assert_int_eq(safetensors_open(&file, path, error), -EPROTO);
        ck_assert_ptr_null(file);
        ck_assert_str_ne(error, "");
    }
}
END_TEST

START_TEST(a_file_that_is_cut_while_it_is_open_is_an_error)
{
    struct safetensors *file;
    float values[6];
    write_example(path);
    ck_assert_int_eq(safetensors_open(&file, path, error), 0);
    ck_assert_int_eq(truncate(path, 20), 0);
    ck_assert_int_eq(safetensors_read_floats(file, safetensors_tensor(file, 0), values, error), -EPROTO);
    ck_assert_int_eq(safetensors_verify(file, error), -EPROTO);
    safetensors_close(&file);
}
END_TEST

START_TEST(an_aborted_write_leaves_the_old_file)
{
    const struct safetensors_tensor tensor = {.name = "a", .dtype = DTYPE_FLOAT32, .ndim = 1, .dims = {6}};
    struct safetensors *file;
    struct safetensors_writer *writer;
    write_example(path);
    ck_assert_int_eq(safetensors_writer_open(&writer, path, &tensor, 1, NULL, 0), 0);
    ck_assert_int_eq(safetensors_writer_append(writer, numbers, 4), 0);
    ck_assert_int_eq(safetensors_writer_commit(&writer), -EINVAL); /* not all of it came */
    ck_assert_ptr_null(writer);
    ck_assert_int_eq(safetensors_writer_open(&writer, path, &tensor, 1, NULL, 0), 0);
    safetensors_writer_abort(&writer);
    safetensors_writer_abort(&writer);
    ck_assert_int_eq(safetensors_open(&file, path, error), 0);
    ck_assert_uint_eq(safetensors_count(file), 3);
    safetensors_close(&file);
}
END_TEST

START_TEST(a_name_that_stands_twice_is_not_written)
{
    const struct safetensors_tensor tensors[2] = {{.name = "a", .dtype = DTYPE_FLOAT32},
                                                  {.name = "a", .dtype = DTYPE_FLOAT32}};
    struct safetensors_writer *writer;
    ck_assert_int_eq(safetensors_writer_open(&writer, path, tensors, 2, NULL, 0), -EEXIST);
    ck_assert_ptr_null(writer);
}
END_TEST

/* A file size limit stands for the full disk. */
START_TEST(a_disk_that_is_full_is_an_error_and_leaves_nothing)
{
    const struct safetensors_tensor tensor = {.name = "a", .dtype = DTYPE_FLOAT32, .ndim = 1, .dims = {6 * 1000}};
    const struct rlimit limit = {.rlim_cur = 4096, .rlim_max = RLIM_INFINITY};
    struct rlimit old;
    struct safetensors_writer *writer;
    int rc = 0;
    signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    ck_assert_int_eq(safetensors_writer_open(&writer, path, &tensor, 1, NULL, 0), 0);
    for (int i = 0; i < 1000 && rc == 0; i++)
        rc = safetensors_writer_append(writer, numbers, sizeof numbers);
    safetensors_writer_abort(&writer);
    setrlimit(RLIMIT_FSIZE, &old);
    ck_assert_int_eq(rc, -EFBIG);
    ck_assert_int_eq(access(path, F_OK), -1);
}
END_TEST

START_TEST(half_and_double_precision_become_floats)
{
    static unsigned char bytes[256];
    static const char header[] = "{\"h\":{\"dtype\":\"F16\",\"shape\":[6],\"data_offsets\":[0,12]},"
                                 "\"b\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[12,16]},"
                                 "\"i\":{\"dtype\":\"I32\",\"shape\":[],\"data_offsets\":[16,20]}}";
    const uint64_t length = strlen(header);
    /* 1, -2, 65504, the least subnormal, infinity, minus the greatest subnormal */
    const uint16_t halves[8] = {0x3c00, 0xc000, 0x7bff, 0x0001, 0x7c00, 0x83ff, 0x3f80, 0xc040};
    float h[6], b[2];
    struct safetensors *file;
    memcpy(bytes, &length, sizeof length);
    memcpy(bytes + 8, header, length);
    memcpy(bytes + 8 + length, halves, sizeof halves);
    ck_assert_msg(safetensors_parse(&file, bytes, 8 + length + 20, error) == 0, "%s", error);
    ck_assert_int_eq(safetensors_read_floats(file, safetensors_find(file, "h"), h, error), 0);
    ck_assert_int_eq(safetensors_read_floats(file, safetensors_find(file, "b"), b, error), 0);
    ck_assert(h[0] == 1 && h[1] == -2 && h[2] == 65504 && h[3] == 0x1p-24f && isinf(h[4]) && h[5] == -1023 * 0x1p-24f);
    ck_assert(b[0] == 1 && b[1] == -3);
    ck_assert_int_eq(safetensors_read_floats(file, safetensors_find(file, "i"), h, error), -EPROTO);
    ck_assert_ptr_nonnull(strstr(error, "I32"));
    safetensors_close(&file);
}
END_TEST

START_TEST(headers_that_are_as_they_should_be_are_read)
{
    struct safetensors *file;
    ck_assert_int_eq(parse("{}", 0, &file), 0);
    ck_assert_uint_eq(safetensors_count(file), 0);
    ck_assert_ptr_null(safetensors_metadata(file, "a"));
    safetensors_close(&file);
    ck_assert_msg(parse("{\"a:\\\":\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]},"
                        "\"b\":{\"data_offsets\":[0,4],\"dtype\":\"F32\",\"shape\":[1, 1]},"
                        "\"__metadata__\":{\"a\":\"{:}\"}}     ",
                        8, &file) == 0,
                  "%s", error);
    ck_assert_uint_eq(safetensors_find(file, "a:\":")->offset, 4);
    ck_assert_str_eq(safetensors_metadata(file, "a"), "{:}");
    safetensors_close(&file);
}
END_TEST

static const struct {
    const char *header;
    size_t data_bytes;
    const char *why;
} hostile[] = {
    {"", 0, "no safetensors file"},
    {"    ", 0, "no safetensors file"},
    {"[]", 0, "no safetensors file"},
    {"{", 0, "JSON"},
    {"{}}", 0, "JSON"},
    {"{} {}", 0, "JSON"},
    {"{'a':1}", 0, "JSON"},
    {"{/**/}", 0, "JSON"},
    {"{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{}}}}}}}", 0, "JSON"},
    {"{\"a\":[[[[[[[[[[]]]]]]]]]]}", 0, "JSON"},
    {"{\"a\":1}", 0, "described"},
    {"{\"a\":null}", 0, "described"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[]}}", 4, "described"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4],\"more\":1}}", 4, "described"},
    {"{\"a\":{\"dtype\":3,\"shape\":[],\"data_offsets\":[0,4]}}", 4, "described"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":{},\"data_offsets\":[0,4]}}", 4, "shape"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}", 4, "whole numbers"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, "whole numbers"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[null],\"data_offsets\":[0,4]}}", 4, "whole numbers"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4, "dimensions"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0, "2^64"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]}}", 0,
     "F32[4611686018427387904]"},
    /* To json-c before 0.18 the largest number there is, which has other bytes; no number since, at that byte. */
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[99999999999999999999999],\"data_offsets\":[0,0]}}", 0, "byte"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, "F32[2] but has 4 bytes"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,16]}}", 16, "F32[2] but has 16 bytes"},
    {"{\"a\":{\"dtype\":\"BF16\",\"shape\":[2,0],\"data_offsets\":[0,4]}}", 4, "BF16[2, 0] but has 4 bytes"},
    {"{\"a\\u0000b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "NUL"},
    {"{\"\\u0000\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "NUL"},
    {"{\"a\":{\"dtype\":\"F32\\u0000x\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "NUL"},
    {"{\"__metadata__\":{\"format\\u0000\":\"\"}}", 0, "NUL"},
    {"{\"__metadata__\":{\"format\":\"a\\u0000b\"}}", 0, "NUL"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]}}", 4, "there are 4"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, "there are 4"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", 4, "data_offsets"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "data_offsets"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[18446744073709551615,3]}}", 4, "there are 4"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 8, "there are 8"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, "ends at 0"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
     "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
     8, "ends at 8"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
     "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
     4, "twice"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"dtype\":\"F32\"}}", 4, "twice"},
    {"{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 0, "twice"},
    {"{\"__metadata__\":{\"a\":1}}", 0, "no string"},
    {"{\"__metadata__\":[]}", 0, "no strings"},
    {"{\"\xff\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "JSON"},
};

START_TEST(headers_that_contradict_themselves_are_refused)
{
    struct safetensors *file;
    ck_assert_int_eq(parse(hostile[_i].header, hostile[_i].data_bytes, &file), -EPROTO);
    ck_assert_ptr_null(file);
    ck_assert_msg(strstr(error, hostile[_i].why), "\"%s\" does not say \"%s\" of %s", error, hostile[_i].why,
                  hostile[_i].header);
}
END_TEST

START_TEST(absurd_header_lengths_are_refused)
{
    static const uint64_t lengths[] = {0, 1, 9, SAFETENSORS_MAX_HEADER + 1, UINT64_MAX - 7, UINT64_MAX};
    unsigned char bytes[16] = "........{}      ";
    struct safetensors *file;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        memcpy(bytes, &lengths[i], sizeof lengths[i]);
        ck_assert_int_eq(safetensors_parse(&file, bytes, sizeof bytes, error), -EPROTO);
    }
}
END_TEST

START_TEST(what_is_no_regular_file_is_refused)
{
    struct safetensors *file;
    ck_assert_int_eq(safetensors_open(&file, "/dev/zero", error), -EPROTO);
    ck_assert_int_eq(safetensors_open(&file, folder, error), -EPROTO);
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    ck_assert_int_eq(safetensors_open(&file, path, error), -EPROTO); /* and does not wait for a writer */
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(safetensors_open(&file, path, error), -ENOENT);
}
END_TEST

START_TEST(the_checksum_does_not_depend_on_the_pieces)
{
    unsigned char bytes[61];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(i * 37);
    struct checksum whole = checksum_start();
    checksum_add(&whole, bytes, sizeof bytes);
    for (size_t first = 0; first <= sizeof bytes; first++)
        for (size_t second = first; second <= sizeof bytes; second += 5) {
            struct checksum pieces = checksum_start();
            checksum_add(&pieces, bytes, first);
            checksum_add(&pieces, bytes + first, second - first);
            checksum_add(&pieces, bytes + second, sizeof bytes - second);
            ck_assert_uint_eq(checksum_end(pieces), checksum_end(whole));
        }
    for (size_t i = 0; i < sizeof bytes; i++) {
        struct checksum changed = checksum_start();
        bytes[i] ^= 0x80;
        checksum_add(&changed, bytes, sizeof bytes);
        bytes[i] ^= 0x80;
        ck_assert_uint_ne(checksum_end(changed), checksum_end(whole));
    }
}
END_TEST

START_TEST(the_shipped_experts_are_read)
{
    struct safetensors *file;
    ck_assert_int_eq(safetensors_open(&file, "examples/data/digits-experts/ffn.0.0.safetensors", error), 0);
    ck_assert_ptr_nonnull(safetensors_find(file, "layer_norm.weight"));
    ck_assert_int_eq(safetensors_verify(file, error), 0);
    safetensors_close(&file);
}
END_TEST

int main(void)
{
    TCase *files = tcase_create("files");
    tcase_add_checked_fixture(files, make_folder, remove_folder);
    tcase_add_test(files, what_is_written_is_read_again);
    tcase_add_test(files, a_changed_byte_of_the_data_is_noticed);
    tcase_add_test(files, a_flipped_bit_anywhere_is_noticed);
    tcase_add_test(files, a_file_is_for_its_owner_alone);
    tcase_add_test(files, a_file_cut_anywhere_is_refused);
    tcase_add_test(files, a_file_that_is_cut_while_it_is_open_is_an_error);
    tcase_add_test(files, an_aborted_write_leaves_the_old_file);
    tcase_add_test(files, a_name_that_stands_twice_is_not_written);
    tcase_add_test(files, a_disk_that_is_full_is_an_error_and_leaves_nothing);
    tcase_add_test(files, what_is_no_regular_file_is_refused);
    TCase *headers = tcase_create("headers");
    tcase_add_test(headers, half_and_double_precision_become_floats);
    tcase_add_test(headers, headers_that_are_as_they_should_be_are_read);
    tcase_add_loop_test(headers, headers_that_contradict_themselves_are_refused, 0, sizeof hostile / sizeof *hostile);
    tcase_add_test(headers, tensors_of_unknown_dtypes_do_not_spoil_a_file);
    tcase_add_test(headers, what_is_taken_for_weights_at_times_is_recognised);
    tcase_add_test(headers, absurd_header_lengths_are_refused);
    tcase_add_test(headers, the_checksum_does_not_depend_on_the_pieces);
    tcase_add_test(headers, the_shipped_experts_are_read);
    Suite *suite = suite_create("safetensors");
    suite_add_tcase(suite, files);
    suite_add_tcase(suite, headers);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
