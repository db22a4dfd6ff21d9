/* The frontend as a process: who may start it, where it listens, and what its clients leave. */
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "unit/support_ask.h"

static struct rig rig;
static struct asker one;
static struct question question;

static void begin(const char *options)
{
    rig_open(&rig, options);
    rig_start_frontend(&rig);
    rig_start_runtime(&rig, false);
    ask_open(&one, &rig, ZMQ_DEALER);
    ask_until_up(&one);
}

static void teardown(void)
{
    ask_close(&one);
    ck_assert_int_eq(rig_end(&rig.frontend, SIGTERM), 0);
    rig_close(&rig);
}

static bool file_says(const char *path, const char *text)
{
    char content[4096] = "";
    FILE *file = fopen(path, "r");
    ck_assert_ptr_nonnull(file);
    const size_t n = fread(content, 1, sizeof content - 1, file);
    content[n] = 0;
    fclose(file);
    return strstr(content, text) != NULL;
}

START_TEST(a_second_frontend_is_refused_and_the_first_serves_on)
{
    char log[96];
    begin(NULL);
    snprintf(log, sizeof log, "%s/second.log", rig.folder);
    ck_assert_int_eq(rig_run_second(&rig, log), 1);
    ck_assert(file_says(log, "has a running frontend already"));
    ask_alive(&one);
}
END_TEST

START_TEST(it_listens_on_several_endpoints)
{
    char listen[128];
    rig_open(&rig, NULL);
    snprintf(listen, sizeof listen, "\"tcp://127.0.0.1:*\", \"ipc://%s/socket\"", rig.folder);
    rig_configure(&rig, listen, "  io_threads: 2\n");
    rig_start_frontend(&rig);
    rig_start_runtime(&rig, false);
    rig_expect_log(&rig, "listening on ipc://");
    ask_open(&one, &rig, ZMQ_DEALER);
    ask_until_up(&one);
    snprintf(rig.endpoint, sizeof rig.endpoint, "ipc://%s/socket", rig.folder);
    struct asker local;
    ask_open(&local, &rig, ZMQ_DEALER);
    ask_alive(&local);
    ask_alive(&one);
    ask_close(&local);
}
END_TEST

START_TEST(an_endpoint_in_use_is_a_clear_error)
{
    char log[96];
    begin(NULL);
    struct rig other;
    rig_open(&other, NULL);
    snprintf(log, sizeof log, "%s/other.log", other.folder);
    rig_configure(&other, rig.endpoint, NULL);
    ck_assert_int_eq(rig_run_second(&other, log), 1);
    ck_assert(file_says(log, "cannot listen on"));
    ck_assert(file_says(log, "Address already in use"));
    rig_close(&other);
    ask_alive(&one);
}
END_TEST

START_TEST(clients_that_come_and_go_leave_nothing)
{
    begin(NULL);
    for (int i = 0; i < 300; i++) {
        struct asker guest;
        ask_open(&guest, &rig, ZMQ_DEALER);
        if (i % 3 == 0) {
            ask_alive(&guest);
        } else {
            ask_prepare(&guest, &question, EXPERTD__METHOD__FORWARD, "nop.0", 1, 1);
            ask_send(&guest, &question);
        }
        ask_close(&guest);
    }
    ask_alive(&one);
    RIG_WAIT(ask_counter(&one, "frontend.in_flight") == 0);
    RIG_WAIT(ask_counter(&one, "frontend.unsent_bytes") == 0);
}
END_TEST

START_TEST(a_wrong_configuration_is_refused)
{
    char log[96];
    rig_open(&rig, "  no_such_option: 5\n");
    snprintf(log, sizeof log, "%s/wrong.log", rig.folder);
    ck_assert_int_eq(rig_run_second(&rig, log), 2);
    ck_assert(file_says(log, "no_such_option"));
    rig_close(&rig);
    begin(NULL);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("server");
    tcase_add_checked_fixture(all, NULL, teardown);
    tcase_add_test(all, a_second_frontend_is_refused_and_the_first_serves_on);
    tcase_add_test(all, it_listens_on_several_endpoints);
    tcase_add_test(all, an_endpoint_in_use_is_a_clear_error);
    tcase_add_test(all, clients_that_come_and_go_leave_nothing);
    tcase_add_test(all, a_wrong_configuration_is_refused);
    Suite *suite = suite_create("server");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
