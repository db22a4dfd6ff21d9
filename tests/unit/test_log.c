#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"

static FILE *capture;
static int kept_stderr;

static void set_up(void)
{
    capture = tmpfile();
    ck_assert_ptr_nonnull(capture);
    kept_stderr = dup(STDERR_FILENO);
    ck_assert_int_ge(dup2(fileno(capture), STDERR_FILENO), 0);
    log_open("tester", LOG_LEVEL_INFO);
}

static void tear_down(void)
{
    dup2(kept_stderr, STDERR_FILENO);
    close(kept_stderr);
    fclose(capture);
}

/* All that was logged since the start. */
static const char *logged(void)
{
    static char text[8192];
    const ssize_t n = pread(fileno(capture), text, sizeof text - 1, 0);
    ck_assert_int_ge(n, 0);
    text[n] = 0;
    return text;
}

START_TEST(a_line_names_program_process_level_and_message)
{
    char expected[64];
    log_warning("the answer is %d", 42);
    snprintf(expected, sizeof expected, " tester[%d] warning: the answer is 42\n", (int)getpid());
    ck_assert_ptr_nonnull(strstr(logged(), expected));
}
END_TEST

START_TEST(what_is_less_important_than_the_level_is_left_out)
{
    log_debug("quiet");
    ck_assert_str_eq(logged(), "");
    log_open("tester", LOG_LEVEL_DEBUG);
    log_debug("loud");
    ck_assert_ptr_nonnull(strstr(logged(), "debug: loud\n"));
}
END_TEST

START_TEST(a_message_cannot_write_a_second_line_or_drive_a_terminal)
{
    log_error("uid '%s'", "a\nforged\r\x1b[2J\x7f");
    ck_assert_ptr_nonnull(strstr(logged(), "uid 'a?forged??[2J?'\n"));
    ck_assert_ptr_eq(strchr(logged(), '\n'), strrchr(logged(), '\n'));
}
END_TEST

START_TEST(a_long_message_is_cut_and_ends_its_line)
{
    char longest[5000];
    memset(longest, 'x', sizeof longest);
    longest[sizeof longest - 1] = 0;
    log_error("%s", longest);
    const size_t length = strlen(logged());
    ck_assert_uint_gt(length, 1000);
    ck_assert_uint_lt(length, 4096);
    ck_assert_int_eq(logged()[length - 1], '\n');
    ck_assert_int_eq(logged()[length - 2], 'x');
}
END_TEST

START_TEST(logging_leaves_errno_alone)
{
    errno = ENOSPC;
    close(STDERR_FILENO);
    log_error("to nobody");
    ck_assert_int_eq(errno, ENOSPC);
}
END_TEST

START_TEST(levels_are_parsed_by_name)
{
    enum log_level level = LOG_LEVEL_ERROR;
    ck_assert_int_eq(log_level_parse("debug", &level), 0);
    ck_assert_int_eq(level, LOG_LEVEL_DEBUG);
    ck_assert_int_eq(log_level_parse("loud", &level), -EINVAL);
    ck_assert_int_eq(level, LOG_LEVEL_DEBUG);
}
END_TEST

START_TEST(a_burst_is_one_line_and_the_next_one_tells_how_many_were_left_out)
{
    struct log_burst burst = {0};
    ck_assert(log_burst_allows(&burst));
    ck_assert_uint_eq(burst.suppressed_before, 0);
    unsigned left_out = 0;
    for (int i = 0; i < 5; i++) {
        burst.last_ns = clock_now_ns(); /* just now, however slow this machine is */
        left_out += !log_burst_allows(&burst);
    }
    ck_assert_uint_eq(left_out, 5);
    burst.last_ns -= 2 * NS_PER_S; /* a while ago */
    ck_assert(log_burst_allows(&burst));
    ck_assert_uint_eq(burst.suppressed_before, left_out);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("log");
    TCase *tcase = tcase_create("log");
    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_add_test(tcase, a_line_names_program_process_level_and_message);
    tcase_add_test(tcase, what_is_less_important_than_the_level_is_left_out);
    tcase_add_test(tcase, a_message_cannot_write_a_second_line_or_drive_a_terminal);
    tcase_add_test(tcase, a_long_message_is_cut_and_ends_its_line);
    tcase_add_test(tcase, logging_leaves_errno_alone);
    tcase_add_test(tcase, levels_are_parsed_by_name);
    tcase_add_test(tcase, a_burst_is_one_line_and_the_next_one_tells_how_many_were_left_out);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
