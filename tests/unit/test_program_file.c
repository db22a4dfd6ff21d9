#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/device/program_file.h"

enum { PROGRAM_BYTES = 5000, HEADER_BYTES = 24 };

static char dir[64], path[96];
static unsigned char program[PROGRAM_BYTES];

static void set_up(void)
{
    const char *base = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%.40s/expertd.XXXXXX", base != NULL ? base : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/program.bin", dir);
    for (unsigned i = 0; i < PROGRAM_BYTES; i++)
        program[i] = (unsigned char)(i * 7);
}

static void tear_down(void)
{
    unlink(path);
    rmdir(path);
    ck_assert_int_eq(rmdir(dir), 0); /* nothing else was left there */
}

static void expect_refused(int result)
{
    unsigned char *bytes = program;
    size_t length = 1;
    ck_assert_int_eq(program_file_read(path, &bytes, &length), result);
    ck_assert_ptr_null(bytes);
    ck_assert_uint_eq(length, 0);
}

static void change_byte(long offset, unsigned char mask)
{
    FILE *file = fopen(path, "r+b");
    unsigned char byte;
    ck_assert_int_eq(fseek(file, offset, SEEK_SET), 0);
    ck_assert_uint_eq(fread(&byte, 1, 1, file), 1);
    byte ^= mask;
    ck_assert_int_eq(fseek(file, offset, SEEK_SET), 0);
    ck_assert_uint_eq(fwrite(&byte, 1, 1, file), 1);
    ck_assert_int_eq(fclose(file), 0);
}

START_TEST(what_was_written_is_read_and_writing_again_replaces_it)
{
    unsigned char *bytes;
    size_t length;
    struct stat status;
    expect_refused(-ENOENT);
    for (size_t size = PROGRAM_BYTES; size > 0; size /= 70) {
        ck_assert_int_eq(program_file_write(path, program, size), 0);
        ck_assert_int_eq(program_file_read(path, &bytes, &length), 0);
        ck_assert_uint_eq(length, size);
        ck_assert_mem_eq(bytes, program, size);
        free(bytes);
    }
    ck_assert_int_eq(stat(path, &status), 0);
    ck_assert_uint_eq(status.st_mode & 077, 0);
}
END_TEST

START_TEST(a_file_that_is_cut_off_anywhere_or_goes_on_is_refused)
{
    ck_assert_int_eq(program_file_write(path, program, 100), 0);
    ck_assert_int_eq(truncate(path, HEADER_BYTES + 101), 0);
    expect_refused(-EBADMSG);
    for (long size = HEADER_BYTES + 99; size >= 0; size--) {
        ck_assert_int_eq(truncate(path, size), 0);
        expect_refused(-EBADMSG);
    }
}
END_TEST

START_TEST(a_file_with_any_other_bit_is_refused)
{
    ck_assert_int_eq(program_file_write(path, program, 100), 0);
    for (long bit = 0; bit < (HEADER_BYTES + 100) * 8; bit++) {
        change_byte(bit / 8, (unsigned char)(1 << bit % 8));
        expect_refused(-EBADMSG);
        change_byte(bit / 8, (unsigned char)(1 << bit % 8));
    }
    unsigned char *bytes;
    size_t length;
    ck_assert_int_eq(program_file_read(path, &bytes, &length), 0);
    free(bytes);
}
END_TEST

START_TEST(a_file_that_others_may_write_is_refused)
{
    ck_assert_int_eq(program_file_write(path, program, 100), 0);
    ck_assert_int_eq(chmod(path, 0620), 0);
    expect_refused(-EPERM);
    ck_assert_int_eq(chmod(path, 0602), 0);
    expect_refused(-EPERM);
}
END_TEST

START_TEST(what_is_no_plain_file_is_refused_without_waiting)
{
    char elsewhere[128];
    ck_assert_int_eq(mkdir(path, 0700), 0);
    expect_refused(-EPERM);
    ck_assert_int_ne(program_file_write(path, program, 100), 0);
    ck_assert_int_eq(rmdir(path), 0);
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    expect_refused(-EPERM);
    ck_assert_int_eq(unlink(path), 0);
    snprintf(elsewhere, sizeof elsewhere, "%s.elsewhere", path);
    ck_assert_int_eq(program_file_write(elsewhere, program, 100), 0);
    ck_assert_int_eq(symlink(elsewhere, path), 0);
    expect_refused(-EPERM);
    ck_assert_int_eq(program_file_write(path, program, 100), 0); /* in place of the link */
    unlink(elsewhere);
    unsigned char *bytes;
    size_t length;
    ck_assert_int_eq(program_file_read(path, &bytes, &length), 0);
    free(bytes);
}
END_TEST

START_TEST(what_cannot_be_written_says_so)
{
    char nowhere[128];
    snprintf(nowhere, sizeof nowhere, "%s/no/such/folder", dir);
    ck_assert_int_eq(program_file_write(nowhere, program, 100), -ENOENT);
    ck_assert_int_eq(program_file_write(path, program, 0), -EINVAL);
    ck_assert_int_eq(program_file_write(path, program, (size_t)PROGRAM_FILE_MAX_BYTES + 1), -EINVAL);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("program_file");
    tcase_add_checked_fixture(all, set_up, tear_down);
    tcase_add_test(all, what_was_written_is_read_and_writing_again_replaces_it);
    tcase_add_test(all, a_file_that_is_cut_off_anywhere_or_goes_on_is_refused);
    tcase_add_test(all, a_file_with_any_other_bit_is_refused);
    tcase_add_test(all, a_file_that_others_may_write_is_refused);
    tcase_add_test(all, what_is_no_plain_file_is_refused_without_waiting);
    tcase_add_test(all, what_cannot_be_written_says_so);
    Suite *suite = suite_create("program_file");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
