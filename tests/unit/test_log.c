#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "unit/support_stderr.h"

static void set_up(void)
{
    stderr_capture();
    log_open("tester", LOG_LEVEL_INFO);
}

static void tear_down(void)
{
    stderr_release();
}

START_TEST(a_line_names_program_process_level_and_message)
{
    char expected[64];
    log_warning("the answer is %d", 42);
    snprintf(expected, sizeof expected, " tester[%d] warning: the answer is 42\n", (int)getpid());
    ck_assert_ptr_nonnull(strstr(stderr_text(), expected));
}
END_TEST

START_TEST(what_is_less_important_than_the_level_is_left_out)
{
    log_debug("quiet");
    ck_assert_str_eq(stderr_text(), "");
    log_open("tester", LOG_LEVEL_DEBUG);
    log_debug("loud");
    ck_assert_ptr_nonnull(strstr(stderr_text(), "debug: loud\n"));
}
END_TEST

START_TEST(a_message_cannot_write_a_second_line_or_drive_a_terminal)
{
    log_error("uid '%s'", "a\nforged\r\x1b[2J\x7f");
    ck_assert_ptr_nonnull(strstr(stderr_text(), "uid 'a?forged??[2J?'\n"));
    ck_assert_ptr_eq(strchr(stderr_text(), '\n'), strrchr(stderr_text(), '\n'));
}
END_TEST

START_TEST(a_long_message_is_cut_and_ends_its_line)
{
    char longest[5000];
    memset(longest, 'x', sizeof longest);
    longest[sizeof longest - 1] = 0;
    log_error("%s", longest);
    const size_t length = strlen(stderr_text());
    ck_assert_uint_gt(length, 1000);
    ck_assert_uint_lt(length, 4096);
    ck_assert_int_eq(stderr_text()[length - 1], '\n');
    ck_assert_int_eq(stderr_text()[length - 2], 'x');
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
    static struct log_burst burst;
    unsigned before = 9, left_out = 0;
    ck_assert(log_burst_allows(&burst, &before, NULL));
    ck_assert_uint_eq(before, 0);
    for (int i = 0; i < 5; i++) {
        burst.causes[0].last_ns = clock_now_ns(); /* just now, however slow this machine is */
        left_out += !log_burst_allows(&burst, &before, NULL);
    }
    ck_assert_uint_eq(left_out, 5);
    burst.causes[0].last_ns -= 2 * NS_PER_S; /* a while ago */
    ck_assert(log_burst_allows(&burst, &before, NULL));
    ck_assert_uint_eq(before, left_out);
}
END_TEST

/* As if all of its lines were of this moment, or of long ago. */
static void set_ages(struct log_burst *burst, uint64_t age_ns)
{
    for (int i = 0; i < LOG_BURST_CAUSES; i++)
        if (burst->causes[i].last_ns)
            burst->causes[i].last_ns = clock_now_ns() - age_ns;
}

START_TEST(no_cause_is_left_out_for_another_s_sake)
{
    static struct log_burst burst;
    unsigned one = 0, other = 0;
    static const char *const causes[LOG_BURST_CAUSES + 1] = {"disk full", "no such file", "c", "d", "e", "f", "g", "h",
                                                             "i"};
    for (int i = 0; i < LOG_BURST_CAUSES; i++) {
        set_ages(&burst, 0);
        ck_assert_msg(log_burst_allows(&burst, NULL, causes[i]), "%s", causes[i]);
        set_ages(&burst, 0);
        ck_assert(!log_burst_allows(&burst, NULL, causes[0]));
    }
    set_ages(&burst, 0);
    ck_assert(!log_burst_allows(&burst, NULL, causes[LOG_BURST_CAUSES])); /* a flood of causes has its limit, too */
    set_ages(&burst, 2 * NS_PER_S);
    ck_assert(log_burst_allows(&burst, &one, causes[1]));
    ck_assert(log_burst_allows(&burst, &other, causes[0])); /* another thread, before the first has said its number */
    ck_assert_uint_eq(one, 1);                              /* the one that had no place */
    ck_assert_uint_eq(other, LOG_BURST_CAUSES);
}
END_TEST

START_TEST(what_was_left_out_is_said_when_the_burst_is_over)
{
    static struct log_burst burst;
    for (int i = 0; i < 4; i++) {
        set_ages(&burst, 0);
        if (log_burst_allows(&burst, NULL, "disk full"))
            log_error("cannot write %s", "a.file");
    }
    set_ages(&burst, 0);
    log_bursts_settle();
    ck_assert_ptr_null(strstr(stderr_text(), "more like"));
    set_ages(&burst, 2 * NS_PER_S);
    log_bursts_settle();
    log_bursts_settle();
    const char *said = strstr(stderr_text(), "warning: 3 more like this one within a second: cannot write a.file\n");
    ck_assert_msg(said && !strstr(said + 20, "more like"), "%s", stderr_text());
}
END_TEST

START_TEST(what_had_no_place_is_said_when_the_burst_is_over)
{
    static struct log_burst burst;
    char cause[] = "a";
    for (; *cause < 'a' + LOG_BURST_CAUSES + 3; ++*cause) {
        set_ages(&burst, 0);
        if (log_burst_allows(&burst, NULL, cause))
            log_error("cannot write %s.file", cause);
    }
    set_ages(&burst, 0);
    log_bursts_settle();
    ck_assert_ptr_null(strstr(stderr_text(), "more of"));
    set_ages(&burst, 2 * NS_PER_S);
    log_bursts_settle();
    log_bursts_settle();
    const char *said =
        strstr(stderr_text(), "warning: 3 more of other causes than this one within a second: cannot write ");
    ck_assert_msg(said && !strstr(said + 20, "more of"), "%s", stderr_text());
}
END_TEST

START_TEST(formats_for_programs_have_one_object_a_line)
{
    enum log_format format;
    char expected[128];
    ck_assert_int_eq(log_format_parse("json", &format), 0);
    log_set_format(format);
    log_warning("uid \"%s\" is\n\\odd", "a\x1b\xff\xc3\xa9");
    snprintf(
        expected, sizeof expected,
        "Z\",\"program\":\"tester\",\"pid\":%d,\"level\":\"warning\",\"msg\":\"uid \\\"a??\xc3\xa9\\\" is?\\\\odd\"}\n",
        (int)getpid());
    ck_assert_msg(strncmp(stderr_text(), "{\"time\":\"2", 10) == 0 && strstr(stderr_text(), expected), "%s",
                  stderr_text());
    ck_assert_int_eq(log_format_parse("logfmt", &format), 0);
    log_set_format(format);
    log_error("why \"so\"");
    snprintf(expected, sizeof expected, "Z program=\"tester\" pid=%d level=error msg=\"why \\\"so\\\"\"\n",
             (int)getpid());
    ck_assert_msg(strstr(stderr_text(), "\ntime=2") && strstr(stderr_text(), expected), "%s", stderr_text());
    log_set_format(LOG_FORMAT_TEXT);
    ck_assert_int_eq(log_format_parse("xml", &format), -EINVAL);
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
    tcase_add_test(tcase, no_cause_is_left_out_for_another_s_sake);
    tcase_add_test(tcase, what_was_left_out_is_said_when_the_burst_is_over);
    tcase_add_test(tcase, what_had_no_place_is_said_when_the_burst_is_over);
    tcase_add_test(tcase, formats_for_programs_have_one_object_a_line);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
