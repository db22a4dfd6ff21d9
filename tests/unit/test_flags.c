#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "examples/digits/flags.h"

enum { MAX_WORDS = 2, MAX_ARGUMENTS = 8 };

static const char *where, *words[MAX_WORDS];
static size_t rows, words_count;
static double rate;
static bool quiet;
static const struct flag all[] = {{"where", "URL", "it is", .text = &where},
                                  {"rows", "N", "of each", .count = &rows, .most = 100},
                                  {"rate", "R", "of all", .number = &rate, .least = 0.5, .most = 2},
                                  {"quiet", NULL, "say nothing", .given = &quiet},
                                  {0}};
static const struct flags with_words = {.usage = "[options] WORD...",
                                        .purpose = "Tests.",
                                        .all = all,
                                        .words = words,
                                        .words_count = &words_count,
                                        .most_words = MAX_WORDS};
static const struct flags without_words = {.usage = "[options]", .purpose = "Tests.", .all = all};

static void set_up(void)
{
    where = "here";
    rows = 7;
    rate = 1.5;
    quiet = false;
    words_count = 0;
}

static void parse(const struct flags *flags, const char *const *arguments)
{
    static char copies[MAX_ARGUMENTS][64];
    char *argv[MAX_ARGUMENTS + 2] = {copies[0]};
    int argc = 1;
    snprintf(copies[0], sizeof copies[0], "test_flags");
    for (; argc < MAX_ARGUMENTS && arguments[argc - 1]; argc++) {
        snprintf(copies[argc], sizeof copies[argc], "%s", arguments[argc - 1]);
        argv[argc] = copies[argc];
    }
    flags_parse(flags, argc, argv);
}

/* The status with which parsing ends a process (255: it does not), and what that process wrote to `fd`. */
static int ended_with(const struct flags *flags, const char *const *arguments, int fd, char *text, size_t size)
{
    int ends[2], status;
    size_t used = 0;
    ssize_t n;
    ck_assert_int_eq(pipe(ends), 0);
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], fd);
        close(ends[0]);
        close(ends[1]);
        parse(flags, arguments);
        _exit(255);
    }
    close(ends[1]);
    while ((n = read(ends[0], text + used, size - 1 - used)) > 0) {
        used += (size_t)n;
    }
    text[used] = '\0';
    close(ends[0]);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status));
    return WEXITSTATUS(status);
}

START_TEST(flags_set_their_values_and_the_others_keep_their_defaults)
{
    parse(&with_words, (const char *const[]){"--rows", "100", "one", "--quiet", "--where=there", NULL});
    ck_assert_str_eq(where, "there");
    ck_assert_uint_eq(rows, 100);
    ck_assert(quiet);
    ck_assert_double_eq(rate, 1.5);
    ck_assert_uint_eq(words_count, 1);
    ck_assert_str_eq(words[0], "one");
}
END_TEST

START_TEST(the_last_of_a_flag_given_twice_counts)
{
    parse(&without_words, (const char *const[]){"--rate", "0.5", "--rate", "2", NULL});
    ck_assert_double_eq(rate, 2);
    ck_assert_uint_eq(rows, 7);
}
END_TEST

START_TEST(help_comes_from_the_table_with_the_defaults_whatever_is_given)
{
    char text[4096];
    ck_assert_int_eq(
        ended_with(&with_words, (const char *const[]){"--rows", "3", "--help", NULL}, STDOUT_FILENO, text, sizeof text),
        0);
    ck_assert_ptr_nonnull(strstr(text, "usage: test_flags [options] WORD...\nTests.\n\n"));
    ck_assert_ptr_nonnull(strstr(text, "\n"
                                       "  --where URL   it is (here)\n"
                                       "  --rows N      of each (7)\n"
                                       "  --rate R      of all (1.5)\n"
                                       "  --quiet       say nothing\n"));
}
END_TEST

START_TEST(what_is_no_value_ends_the_program_with_its_flag_and_range)
{
    static const char *const rows_texts[] = {"", "0", "101", "-1", "+1", " 1", "1x", "99999999999999999999999"};
    static const char *const rate_texts[] = {"", "0.4", "2.1", "nan", "inf", "1x"};
    char text[4096];
    for (size_t i = 0; i < sizeof rows_texts / sizeof rows_texts[0]; i++) {
        ck_assert_int_eq(ended_with(&without_words, (const char *const[]){"--rows", rows_texts[i], NULL}, STDERR_FILENO,
                                    text, sizeof text),
                         2);
        ck_assert_ptr_nonnull(strstr(text, "--rows must be a whole number from 1 to 100, not \""));
    }
    for (size_t i = 0; i < sizeof rate_texts / sizeof rate_texts[0]; i++) {
        ck_assert_int_eq(ended_with(&without_words, (const char *const[]){"--rate", rate_texts[i], NULL}, STDERR_FILENO,
                                    text, sizeof text),
                         2);
        ck_assert_ptr_nonnull(strstr(text, "--rate must be a number from 0.5 to 2, not \""));
    }
}
END_TEST

START_TEST(unknown_flags_missing_values_and_a_wrong_number_of_words_end_it_with_the_help)
{
    static const char *const none[] = {NULL}, *const three[] = {"a", "b", "c", NULL}, *const one[] = {"a", NULL},
                             *const unknown[] = {"--colour", "a", NULL}, *const missing[] = {"a", "--rows", NULL},
                             *const too_much[] = {"a", "--quiet=yes", NULL};
    const struct {
        const struct flags *flags;
        const char *const *arguments;
    } cases[] = {{&with_words, none},    {&with_words, three},   {&without_words, one},
                 {&with_words, unknown}, {&with_words, missing}, {&with_words, too_much}};
    char text[4096];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ck_assert_int_eq(ended_with(cases[i].flags, cases[i].arguments, STDERR_FILENO, text, sizeof text), 2);
        ck_assert_ptr_nonnull(strstr(text, "usage: "));
    }
}
END_TEST

START_TEST(the_nearest_option_is_suggested_and_the_version_told)
{
    static const struct {
        const char *given, *said;
    } cases[] = {{"--raet=1", "test_flags: there is no option --raet: is --rate meant?\n"},
                 {"--hlep", "test_flags: there is no option --hlep: is --help meant?\n"},
                 {"--colour", "test_flags: there is no option --colour\n"},
                 {"--quiet=yes", "test_flags: --quiet takes no value\n"},
                 {"--rows", "test_flags: --rows needs a value\n"}};
    char text[4096];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ck_assert_int_eq(
            ended_with(&without_words, (const char *const[]){cases[i].given, NULL}, STDERR_FILENO, text, sizeof text),
            2);
        ck_assert_msg(strncmp(text, cases[i].said, strlen(cases[i].said)) == 0, "%s", text);
    }
    ck_assert_int_eq(
        ended_with(&without_words, (const char *const[]){"--version", NULL}, STDOUT_FILENO, text, sizeof text), 0);
    ck_assert_str_eq(text, "test_flags " EXPERTD_VERSION "\n");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("flags");
    TCase *tests = tcase_create("flags");
    tcase_add_checked_fixture(tests, set_up, NULL);
    tcase_add_test(tests, flags_set_their_values_and_the_others_keep_their_defaults);
    tcase_add_test(tests, the_last_of_a_flag_given_twice_counts);
    tcase_add_test(tests, help_comes_from_the_table_with_the_defaults_whatever_is_given);
    tcase_add_test(tests, what_is_no_value_ends_the_program_with_its_flag_and_range);
    tcase_add_test(tests, unknown_flags_missing_values_and_a_wrong_number_of_words_end_it_with_the_help);
    tcase_add_test(tests, the_nearest_option_is_suggested_and_the_version_told);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
