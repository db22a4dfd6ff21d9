/* What the frontend sees for itself, and how soon. (What it does then: test_roster.) */
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#include "common/clock.h"
#include "frontend/lookout.h"
#include "frontend/server.h"
#include "common/owner.h"
#include "unit/support_ask.h"

static struct rig rig;
static struct asker one;
static struct question question;
static struct answer answer;

static void setup(void)
{
    rig_open(&rig, NULL);
    rig_start_frontend(&rig);
    rig_start_runtime(&rig, false);
    ask_open(&one, &rig, ZMQ_DEALER);
    ask_until_up(&one);
}

static void teardown(void)
{
    ask_close(&one);
    rig_end(&rig.frontend, SIGTERM);
    rig_close(&rig);
}

static const Expertd__ReplyHeader *ask(Expertd__Method method)
{
    ask_prepare(&one, &question, method, "", 0, 0);
    ask_call(&one, &question, &answer, STATUS_OK);
    return answer.header;
}

START_TEST(a_runtime_that_was_just_killed_is_not_called_alive)
{
    for (int i = 0; i < 10; i++) {
        ck_assert_uint_eq(ask(EXPERTD__METHOD__PING)->pong->experts_alive, 3);
        usleep(2000); /* so that what was seen is no longer fresh */
        ck_assert_int_eq(rig_end(&rig.runtime, SIGKILL), 128 + SIGKILL);
        if (i % 2 == 0)
            ck_assert_uint_eq(ask(EXPERTD__METHOD__PING)->pong->experts_alive, 0);
        else
            ck_assert(!ask(EXPERTD__METHOD__LIST)->list->experts[0]->alive);
        rig_start_runtime(&rig, false);
        ask_until_up(&one);
    }
}
END_TEST

static void remove_all(const char *what)
{
    char command[200];
    snprintf(command, sizeof command, "rm -f '%s/%s.'%s", rig.folder, rig.name, what);
    ck_assert_int_eq(system(command), 0);
}

START_TEST(a_doorbell_that_was_removed_is_made_anew_and_runtimes_find_it)
{
    remove_all("frontend.bell");
    rig_expect_log(&rig, "the doorbell in");
    ask_alive(&one);
    ck_assert_int_eq(rig_end(&rig.runtime, SIGTERM), 0);
    rig_start_runtime(&rig, true);
    ask_until_up(&one);
    ask_alive(&one);
}
END_TEST

START_TEST(who_asks_all_the_time_does_not_keep_it_from_looking_at_the_rest)
{
    remove_all("frontend.bell");
    while (!rig_logged(&rig, "the doorbell in"))
        ask(EXPERTD__METHOD__PING);
}
END_TEST

START_TEST(a_look_between_times_does_not_put_the_next_one_off)
{
    static struct server server; /* without devices */
    server.next_look_ns = 5;
    lookout_refresh(&server, 10 * NS_PER_S);
    ck_assert_uint_eq(server.looked_ns, 10 * NS_PER_S);
    ck_assert_uint_eq(server.next_look_ns, 5);
}
END_TEST

START_TEST(a_frontend_whose_role_another_took_ends)
{
    kill(rig.frontend, SIGSTOP);
    remove_all("frontend.lock");
    const pid_t second = fork();
    if (second == 0) {
        const int fd = owner_acquire(rig.folder, rig.name, "frontend");
        for (;;)
            fd >= 0 ? (void)pause() : _exit(1);
    }
    RIG_WAIT(owner_alive(rig.folder, rig.name, "frontend"));
    kill(rig.frontend, SIGCONT);
    int status;
    ck_assert_int_eq(waitpid(rig.frontend, &status, 0), rig.frontend);
    ck_assert_int_eq(WEXITSTATUS(status), 1);
    kill(second, SIGKILL);
    waitpid(second, NULL, 0);
    rig_start_frontend(&rig);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("lookout");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, a_runtime_that_was_just_killed_is_not_called_alive);
    tcase_add_test(all, a_doorbell_that_was_removed_is_made_anew_and_runtimes_find_it);
    tcase_add_test(all, who_asks_all_the_time_does_not_keep_it_from_looking_at_the_rest);
    tcase_add_test(all, a_look_between_times_does_not_put_the_next_one_off);
    tcase_add_test(all, a_frontend_whose_role_another_took_ends);
    Suite *suite = suite_create("lookout");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
