#include <check.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/notify.h"

static char path[108];
static int supervisor = -1;

/* A stand-in for systemd, at a path or, with '@', an abstract name. */
static void listen_at(const char *kind)
{
    const char *folder = getenv("TMPDIR");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const int length = kind[0] == '@'
                           ? snprintf(path, sizeof path, "@expertd-test-%d", (int)getpid())
                           : snprintf(path, sizeof path, "%s/notify-%d", folder ? folder : "/tmp", (int)getpid());
    memcpy(address.sun_path, path, sizeof path);
    if (kind[0] == '@')
        address.sun_path[0] = '\0';
    supervisor = socket(AF_UNIX, SOCK_DGRAM, 0);
    ck_assert_int_eq(bind(supervisor, (struct sockaddr *)&address,
                          (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)length + (kind[0] != '@'))),
                     0);
    setenv("NOTIFY_SOCKET", path, 1);
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
}

static void tear_down(void)
{
    close(supervisor);
    if (path[0] == '/')
        unlink(path);
}

static void heard(const char *expected)
{
    char text[1024] = "";
    const ssize_t n = recv(supervisor, text, sizeof text - 1, MSG_DONTWAIT);
    ck_assert_str_eq(n < 0 ? "nothing" : text, expected);
}

static const char *const kinds[] = {"/", "@"};

START_TEST(readiness_and_the_end_are_told)
{
    listen_at(kinds[_i]);
    notify_open();
    ck_assert_ptr_null(getenv("NOTIFY_SOCKET")); /* what this process starts is not it */
    heard("nothing");
    notify_ready("serves %d\nREADY=0", 7);
    heard("READY=1\nSTATUS=serves 7 READY=0");
    notify_alive(clock_now_ns());
    heard("nothing"); /* no watchdog was asked for */
    notify_status("serves %d\nREADY=0", 8);
    heard("STATUS=serves 8 READY=0");
    notify_stopping();
    heard("STOPPING=1\nSTATUS=stopping");
}
END_TEST

START_TEST(a_reload_is_told_with_its_time)
{
    listen_at("/");
    notify_open();
    const uint64_t before_us = clock_now_ns() / NS_PER_US;
    notify_reloading();
    char text[256] = "";
    unsigned long long at_us = 0;
    ck_assert_int_gt(recv(supervisor, text, sizeof text - 1, MSG_DONTWAIT), 0);
    ck_assert_int_eq(sscanf(text, "RELOADING=1\nMONOTONIC_USEC=%llu", &at_us), 1);
    ck_assert_uint_ge(at_us, before_us);
    ck_assert_uint_le(at_us, clock_now_ns() / NS_PER_US);
    notify_reloaded();
    heard("READY=1");
}
END_TEST

START_TEST(the_watchdog_is_fed_by_work_and_not_more_often_than_it_has_to)
{
    char pid[16];
    listen_at("/");
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    setenv("WATCHDOG_USEC", "4000000", 1);
    setenv("WATCHDOG_PID", pid, 1);
    notify_open();
    notify_ready("x");
    heard("READY=1\nSTATUS=x");
    notify_alive(10 * NS_PER_S);
    heard("WATCHDOG=1");
    notify_alive(11 * NS_PER_S - 1);
    heard("nothing");
    notify_alive(11 * NS_PER_S);
    heard("WATCHDOG=1");
    notify_stopping();
    heard("STOPPING=1\nSTATUS=stopping");
    notify_alive(20 * NS_PER_S);
    heard("nothing");
}
END_TEST

START_TEST(another_process_s_watchdog_and_nonsense_are_none)
{
    static const char *const others[][2] = {{"4000000", "1"}, {"", ""},     {"never", NULL},
                                            {"4s", NULL},     {"-4", NULL}, {"0", NULL}};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        if (i > 0)
            tear_down();
        listen_at("/");
        setenv("WATCHDOG_USEC", others[i][0], 1);
        if (others[i][1])
            setenv("WATCHDOG_PID", others[i][1], 1);
        notify_open();
        notify_alive(10 * NS_PER_S);
        heard("nothing");
    }
}
END_TEST

START_TEST(without_a_supervisor_nothing_is_done)
{
    static const char *const paths[] = {NULL, "", "@", "relative", "/nobody/there"};
    listen_at("/");
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        if (paths[i])
            setenv("NOTIFY_SOCKET", paths[i], 1);
        else
            unsetenv("NOTIFY_SOCKET");
        notify_open();
        notify_ready("x");
        notify_alive(1);
        notify_stopping();
        heard("nothing");
    }
    char longest[200];
    memset(longest, '/', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    setenv("NOTIFY_SOCKET", longest, 1);
    notify_open();
    notify_ready("x");
    heard("nothing");
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("notify");
    tcase_add_checked_fixture(all, NULL, tear_down);
    tcase_add_loop_test(all, readiness_and_the_end_are_told, 0, 2);
    tcase_add_test(all, a_reload_is_told_with_its_time);
    tcase_add_test(all, the_watchdog_is_fed_by_work_and_not_more_often_than_it_has_to);
    tcase_add_test(all, another_process_s_watchdog_and_nonsense_are_none);
    tcase_add_test(all, without_a_supervisor_nothing_is_done);
    Suite *suite = suite_create("notify");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
