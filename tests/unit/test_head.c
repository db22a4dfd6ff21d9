#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "examples/digits/dataset.h"
#include "examples/digits/head.h"

static char error[512];

static void expect_refused(const char *header, size_t body_bytes, const char *why)
{
    char *file = calloc(1, 8 + strlen(header) + body_bytes);
    uint64_t length = strlen(header);
    ck_assert_ptr_nonnull(file);
    memcpy(file, &length, sizeof length);
    memcpy(file + 8, header, length);
    FILE *source = fmemopen(file, 8 + length + body_bytes, "r");
    struct head head;
    ck_assert_int_eq(head_read(&head, source, "test", error, sizeof error), -EINVAL);
    ck_assert_msg(strstr(error, why), "\"%s\" does not say \"%s\"", error, why);
    ck_assert_ptr_null(head.front.weight);
    fclose(source);
    free(file);
}

START_TEST(what_is_saved_is_loaded_again)
{
    char folder[] = "/tmp/test_head.XXXXXX", path[64];
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/head.safetensors", folder);
    struct head saved, loaded;
    ck_assert_int_eq(head_create(&saved, 96, 11), 0);
    ck_assert_msg(head_save(&saved, path, error, sizeof error) == 0, "%s", error);
    ck_assert_msg(head_save(&saved, path, error, sizeof error) == 0, "%s", error); /* over the old one */
    ck_assert_msg(head_load(&loaded, path, error, sizeof error) == 0, "%s", error);
    ck_assert_uint_eq(loaded.hidden, 96);
    ck_assert_mem_eq(saved.front.weight, loaded.front.weight, saved.front.count * sizeof(float));
    ck_assert_mem_eq(saved.back.weight, loaded.back.weight, saved.back.count * sizeof(float));
    head_destroy(&saved);
    head_destroy(&loaded);
    head_destroy(&loaded);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(rmdir(folder), 0); /* nothing else was left in it */
}
END_TEST

START_TEST(the_shipped_head_fits_the_digits)
{
    struct head head;
    ck_assert_msg(head_load(&head, "examples/data/digits-experts/head.safetensors", error, sizeof error) == 0, "%s",
                  error);
    ck_assert_uint_eq(head.hidden, 64);
    ck_assert_uint_eq(head.front.in, DATASET_PIXELS);
    ck_assert_uint_eq(head.back.out, DATASET_CLASSES);
    head_destroy(&head);
}
END_TEST

START_TEST(an_unwritable_place_is_an_error_with_its_name)
{
    struct head head;
    ck_assert_int_eq(head_create(&head, 8, 1), 0);
    ck_assert_int_eq(head_save(&head, "/nonexistent/head", error, sizeof error), -ENOENT);
    ck_assert_ptr_nonnull(strstr(error, "/nonexistent/head"));
    head_destroy(&head);
    ck_assert_int_eq(head_load(&head, "/nonexistent/head", error, sizeof error), -ENOENT);
}
END_TEST

#define BIAS(shape) "{\"front.bias\":{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":[0,8]}"
#define ALL(offsets)                                                                                                   \
    BIAS("[2]")                                                                                                        \
    ",\"front.weight\":{\"dtype\":\"F32\",\"shape\":[2,64],\"data_offsets\":" offsets "},"                             \
    "\"back.weight\":{\"dtype\":\"F32\",\"shape\":[10,2],\"data_offsets\":[0,80]},"                                    \
    "\"back.bias\":{\"dtype\":\"F32\",\"shape\":[10],\"data_offsets\":[0,40]}}"

START_TEST(files_that_contradict_themselves_are_refused)
{
    expect_refused("{", 0, "no JSON object");
    expect_refused("[1]", 0, "no JSON object");
    expect_refused("{}", 0, "front.bias");
    expect_refused(BIAS("[0]") "}", 8, "front.bias");
    expect_refused(BIAS("[9999999999]") "}", 8, "front.bias");
    expect_refused(BIAS("[-2]") "}", 8, "front.bias");
    expect_refused(BIAS("\"2\"") "}", 8, "front.bias");
    expect_refused(BIAS("[2]") "}", 8, "front.weight is missing");
    expect_refused(ALL("[0,511]"), 600, "data of front.weight");
    expect_refused(ALL("[512,0]"), 600, "data of front.weight");
    expect_refused(ALL("[-1,511]"), 600, "data of front.weight");
    expect_refused(ALL("[9223372036854775000,9223372036854775512]"), 600, "data of front.weight");
    expect_refused(ALL("[100,612]"), 600, "data of front.weight");
    expect_refused(ALL("[0,512]"), 100, "data of front.weight");
    expect_refused(BIAS("[2]") ",\"front.weight\":{\"dtype\":\"F16\",\"shape\":[2,64],\"data_offsets\":[0,512]}}", 600,
                   "must be F32 of shape 2 x 64");
    expect_refused(BIAS("[2]") ",\"front.weight\":7}", 8, "front.weight is missing");
}
END_TEST

START_TEST(short_files_and_absurd_headers_are_refused)
{
    static const unsigned char absurd[16] = {255, 255, 255, 255, 255, 255, 255, 255, '{', '}'};
    static const unsigned char cut[9] = {20, 0, 0, 0, 0, 0, 0, 0, '{'};
    struct head head;
    for (size_t length = 1; length <= sizeof absurd; length++) {
        FILE *source = fmemopen((void *)(uintptr_t)absurd, length, "r");
        ck_assert_int_eq(head_read(&head, source, "test", error, sizeof error), -EINVAL);
        fclose(source);
    }
    FILE *source = fmemopen((void *)(uintptr_t)cut, sizeof cut, "r");
    ck_assert_int_eq(head_read(&head, source, "test", error, sizeof error), -EINVAL);
    ck_assert_ptr_nonnull(strstr(error, "ends in its header"));
    fclose(source);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("head");
    tcase_add_test(all, what_is_saved_is_loaded_again);
    tcase_add_test(all, the_shipped_head_fits_the_digits);
    tcase_add_test(all, an_unwritable_place_is_an_error_with_its_name);
    tcase_add_test(all, files_that_contradict_themselves_are_refused);
    tcase_add_test(all, short_files_and_absurd_headers_are_refused);
    Suite *suite = suite_create("head");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
