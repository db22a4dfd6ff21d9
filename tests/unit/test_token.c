/* A token is read from a private file alone, and only the very same one matches. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "http/token.h"

static char path[512];

static void write_file(const char *text, mode_t mode)
{
    const char *folder = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/token-%d", folder ? folder : "/tmp", (int)getpid());
    unlink(path);
    const int fd = open(path, O_CREAT | O_WRONLY | O_EXCL, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, text, strlen(text)), (int)strlen(text));
    ck_assert_int_eq(fchmod(fd, mode), 0);
    close(fd);
}

static int read_as(const char *text, mode_t mode)
{
    struct token *token = NULL;
    write_file(text, mode);
    const int rc = token_read(&token, path);
    ck_assert((rc == 0) == (token != NULL));
    token_free(&token);
    unlink(path);
    return rc;
}

START_TEST(only_the_same_token_matches)
{
    struct token *token;
    write_file("0123456789abcdef\nsecond line\n", 0600);
    ck_assert_int_eq(token_read(&token, path), 0);
    ck_assert(token_matches(token, "Bearer 0123456789abcdef"));
    ck_assert(token_matches(token, "bearer 0123456789abcdef")); /* the scheme has no case */
    ck_assert(!token_matches(token, "Bearer 0123456789abcdeF"));
    ck_assert(!token_matches(token, "Bearer 0123456789abcde"));
    ck_assert(!token_matches(token, "Bearer 0123456789abcdef0"));
    ck_assert(!token_matches(token, "Bearer "));
    ck_assert(!token_matches(token, "Basic 0123456789abcdef"));
    ck_assert(!token_matches(token, ""));
    ck_assert(!token_matches(token, NULL));
    token_free(&token);
    unlink(path);
}
END_TEST

START_TEST(a_file_that_protects_nothing_is_refused)
{
    ck_assert_int_eq(read_as("0123456789abcdef\n", 0644), -EPERM);
    ck_assert_int_eq(read_as("0123456789abcde\n", 0600), -EINVAL); /* too short */
    ck_assert_int_eq(read_as("", 0600), -EINVAL);
    ck_assert_int_eq(read_as("0123456789 abcdef\n", 0600), -EINVAL);
    ck_assert_int_eq(read_as("0123456789abcdef\r\n", 0600), 0);
    char longest[600];
    memset(longest, 'x', sizeof longest);
    longest[512] = 0;
    ck_assert_int_eq(read_as(longest, 0600), 0);
    longest[512] = 'x';
    longest[513] = 0;
    ck_assert_int_eq(read_as(longest, 0600), -EINVAL);
    struct token *token;
    ck_assert_int_eq(token_read(&token, "/nonexistent/token"), -ENOENT);
    ck_assert_int_eq(token_read(&token, "/dev"), -EINVAL);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("token");
    tcase_add_test(all, only_the_same_token_matches);
    tcase_add_test(all, a_file_that_protects_nothing_is_refused);
    Suite *suite = suite_create("token");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
