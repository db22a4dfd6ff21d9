/* The thread that asks the server every two seconds, beside a frontend that is not there. */
#include <check.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "http/history.h"
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

START_TEST(it_says_what_bursts_left_out)
{
    static const char yaml[] = "server: {name: nobody}\n"
                               "frontend: {listen: [\"ipc:///nonexistent/frontend\"]}\n"
                               "http: {listen: \"127.0.0.1:1\", dht: none}\n";
    static struct log_burst burst;
    const struct timespec pause = {.tv_nsec = 10000000};
    struct config config;
    struct upstream *upstream;
    struct history *history;
    ck_assert_int_eq(config_parse(&config, yaml, strlen(yaml), "box.yaml"), 0);
    ck_assert_int_eq(upstream_create(&upstream, &config), 0);
    while (burst.causes[0].suppressed < 3) { /* anew, where this machine takes a second for them */
        if (burst.causes[0].last_ns)
            burst.causes[0].last_ns = clock_now_ns();
        if (log_burst_allows(&burst, NULL, NULL))
            log_warning("a connection is odd");
    }
    ck_assert_int_eq(history_create(&history, upstream, &config), 0);
    while (!strstr(stderr_text(), "warning: 3 more like this one within a second: a connection is odd\n"))
        nanosleep(&pause, NULL); /* ended by check's timeout */
    history_destroy(&history);
    upstream_destroy(&upstream);
    config_destroy(&config);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("history");
    TCase *tests = tcase_create("history");
    tcase_set_timeout(tests, 110);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, it_says_what_bursts_left_out);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
