/* What a runtime says of a stretch of time. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "runtime/reporter.h"
#include "support_pool.h"
#include "support_stderr.h"

static struct control *control;
static char device[32];

static void setup(void)
{
    snprintf(device, sizeof device, "r%ld", (long)getpid());
    ck_assert_int_eq(control_create(&control, support_server(), device, 1, 1), 0);
    stderr_capture();
    log_open("tester", LOG_LEVEL_INFO);
}

static void teardown(void)
{
    stderr_release();
    control_retire(&control);
}

/* The last line that was logged, "" if there is none; they are counted in *lines. */
static const char *last(unsigned *lines)
{
    const char *line = stderr_text();
    *lines = 0;
    for (const char *at = line; (at = strchr(at, '\n')); at++) {
        ++*lines;
        if (at[1])
            line = at + 1;
    }
    return line;
}

START_TEST(a_line_an_interval_says_what_was_done_in_it)
{
    const uint64_t start_ns = 1000 * NS_PER_S;
    struct reporter reporter = {0};
    unsigned lines;
    control_count(control, CONTROL_TASKS, 7); /* before it began */
    control_measure(control, POOL_FORWARD, CONTROL_BATCH_ROWS, 5);
    reporter_begin(&reporter, 10, control, start_ns);
    control_count(control, CONTROL_TASKS, 30);
    control_count(control, CONTROL_STEPS, 2);
    control_count(control, CONTROL_SKIPPED_TASKS, 1);
    control_count(control, CONTROL_BUSY_NS, 5 * NS_PER_S);
    control_measure(control, POOL_FORWARD, CONTROL_BATCH_ROWS, 4);
    control_measure(control, POOL_FORWARD, CONTROL_BATCH_ROWS, 8);
    control_measure(control, POOL_BACKWARD, CONTROL_BATCH_ROWS, 16);
    reporter_look(&reporter, control, start_ns + 10 * NS_PER_S - 1);
    ck_assert_str_eq(last(&lines), "");
    reporter_look(&reporter, control, start_ns + 10 * NS_PER_S);
    const char *said = "info: in 10.0 s: 30 tasks (3.0 a second); forward 2 batches, 12 rows (6.0 a batch); backward 1 "
                       "batches, 16 rows (16.0 a batch); 2 optimizer steps; busy 50 %; 0 failed, 1 skipped\n";
    ck_assert_msg(strstr(last(&lines), said) && lines == 1, "%s", last(&lines));
    reporter_look(&reporter, control, start_ns + 19 * NS_PER_S);
    reporter_look(&reporter, control, start_ns + 20 * NS_PER_S);
    ck_assert_msg(strstr(last(&lines), ": 0 tasks (0.0 a second); forward 0 batches, 0 rows (0.0 a batch);") &&
                      lines == 2,
                  "%s", last(&lines));
}
END_TEST

START_TEST(programs_get_a_field_for_each_number)
{
    static const char *const said[] = {
        [LOG_FORMAT_LOGFMT] =
            " level=info msg=\"statistics\" seconds=10 tasks=3 tasks_per_second=0.3 forward_batches=1 "
            "forward_rows=4 backward_batches=0 backward_rows=0 optimizer_steps=0 busy=0.5 failed=0 "
            "skipped=0\n",
        [LOG_FORMAT_JSON] =
            ",\"level\":\"info\",\"msg\":\"statistics\",\"seconds\":10,\"tasks\":3,\"tasks_per_second\":0.3,"
            "\"forward_batches\":1,\"forward_rows\":4,\"backward_batches\":0,\"backward_rows\":0,"
            "\"optimizer_steps\":0,\"busy\":0.5,\"failed\":0,\"skipped\":0}\n"};
    struct reporter reporter = {0};
    unsigned lines;
    const enum log_format format = _i == 0 ? LOG_FORMAT_LOGFMT : LOG_FORMAT_JSON;
    reporter_begin(&reporter, 10, control, NS_PER_S);
    control_count(control, CONTROL_TASKS, 3);
    control_count(control, CONTROL_BUSY_NS, 5 * NS_PER_S);
    control_measure(control, POOL_FORWARD, CONTROL_BATCH_ROWS, 4);
    log_set_format(format);
    reporter_look(&reporter, control, 11 * NS_PER_S);
    log_set_format(LOG_FORMAT_TEXT);
    ck_assert_msg(strstr(last(&lines), said[format]) && lines == 1, "%s", last(&lines));
}
END_TEST

START_TEST(without_an_interval_nothing_is_said)
{
    struct reporter reporter = {0};
    unsigned lines;
    reporter_begin(&reporter, 0, control, 1);
    reporter_look(&reporter, control, 1000000 * NS_PER_S);
    ck_assert_str_eq(last(&lines), "");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("reporter");
    TCase *tcase = tcase_create("reporter");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, a_line_an_interval_says_what_was_done_in_it);
    tcase_add_loop_test(tcase, programs_get_a_field_for_each_number, 0, 2);
    tcase_add_test(tcase, without_an_interval_nothing_is_said);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
