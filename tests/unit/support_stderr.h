/* What is written to stderr meanwhile, such as the log's lines. */
#ifndef EXPERTD_TESTS_UNIT_SUPPORT_STDERR_H
#define EXPERTD_TESTS_UNIT_SUPPORT_STDERR_H

#include <check.h>
#include <stdio.h>
#include <unistd.h>

static FILE *stderr_file;
static int stderr_kept;

static inline void stderr_capture(void)
{
    stderr_file = tmpfile();
    ck_assert_ptr_nonnull(stderr_file);
    stderr_kept = dup(STDERR_FILENO);
    ck_assert_int_ge(dup2(fileno(stderr_file), STDERR_FILENO), 0);
}

/* All of it since then. */
static inline const char *stderr_text(void)
{
    static char text[16384];
    const ssize_t n = pread(fileno(stderr_file), text, sizeof text - 1, 0);
    ck_assert_int_ge(n, 0);
    text[n] = 0;
    return text;
}

static inline void stderr_release(void)
{
    dup2(stderr_kept, STDERR_FILENO);
    close(stderr_kept);
    fclose(stderr_file);
}

#endif
