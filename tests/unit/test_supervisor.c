/* Real children: shells that say in a file that they were there. */
#include <check.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "command/supervisor.h"
#include "common/clock.h"
#include "common/process.h"

static char folder[] = "/tmp/test-supervisor.XXXXXX";
static struct supervisor *supervisor;
/* Pauses that are short, and after which no life is a good one. */
static const struct supervisor_limits limits = {NS_PER_MS, 4 * NS_PER_MS, 3600 * NS_PER_S};

static void set_up(void)
{
    strcpy(folder, "/tmp/test-supervisor.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    ck_assert_int_eq(chdir(folder), 0);
    ck_assert_int_eq(process_init("test"), 0);
    ck_assert_int_eq(supervisor_create(&supervisor, &limits), 0);
}

static void tear_down(void)
{
    char command[128];
    supervisor_destroy(&supervisor);
    ck_assert_ptr_null(supervisor);
    ck_assert_int_eq(chdir("/"), 0);
    snprintf(command, sizeof command, "rm -r %s", folder);
    ck_assert_int_eq(system(command), 0);
}

static void add(const char *name, const char *script)
{
    const char *const argv[] = {"/bin/sh", "-c", script, NULL};
    ck_assert_int_eq(supervisor_add(supervisor, name, argv), 0);
}

static int lines(const char *file)
{
    int count = 0;
    FILE *in = fopen(file, "r");
    for (int c; in && (c = fgetc(in)) != EOF;)
        count += c == '\n';
    if (in)
        fclose(in);
    return count;
}

START_TEST(what_ends_is_started_again_until_a_stop_signal_ends_all)
{
    char script[128];
    /* The fifth life of the one that dies ends the group; the other one lives on until then. */
    snprintf(script, sizeof script,
             "trap '' TERM; echo >>deaths; [ $(wc -l <deaths) -lt 5 ] || kill -TERM %d; kill -KILL $$", getpid());
    add("mortal", script);
    add("sleeper", "trap 'echo >>saved; exit 0' TERM; echo >>births; while :; do sleep 0.05; done");
    ck_assert_int_eq(supervisor_run(supervisor), 128 + SIGKILL); /* how the fifth has ended */
    ck_assert_int_ge(lines("deaths"), 5);
    ck_assert_int_le(lines("births"), 1); /* none if it was not up yet */
    ck_assert_int_eq(lines("saved"), lines("births"));
}
END_TEST

START_TEST(a_clean_end_of_all_is_one)
{
    char script[128];
    snprintf(script, sizeof script, "trap 'exit 0' TERM; kill -TERM %d; while :; do sleep 0.05; done", getpid());
    add("one", script);
    ck_assert_int_eq(supervisor_run(supervisor), 0);
}
END_TEST

static const struct {
    const char *script;
    int status;
} hopeless[] = {{"exit 1", 1}, {"exit 2", 2}, {"exec /nowhere/program", 127}};

START_TEST(what_cannot_start_at_all_ends_all)
{
    add("sleeper", "trap 'exit 0' TERM; while :; do sleep 0.05; done");
    add("hopeless", hopeless[_i].script);
    const int status = supervisor_run(supervisor);
    /* The sleeper may be told before its trap. */
    ck_assert_int_eq(status, hopeless[_i].status);
}
END_TEST

/* It could start, and has lost something since. */
START_TEST(what_was_well_is_started_again_though_its_first_life_ends_with_1)
{
    static const struct supervisor_limits at_once = {NS_PER_MS, 4 * NS_PER_MS, 1};
    char script[128];
    supervisor_destroy(&supervisor);
    ck_assert_int_eq(supervisor_create(&supervisor, &at_once), 0);
    snprintf(script, sizeof script, "echo >>starts; [ $(wc -l <starts) -lt 3 ] || kill -TERM %d; exit 1", getpid());
    add("faller", script);
    (void)supervisor_run(supervisor);
    ck_assert_int_ge(lines("starts"), 3);
}
END_TEST

/* Such as a runtime that could not save all. */
START_TEST(how_one_ends_on_a_stop_signal_is_how_all_end)
{
    char script[128];
    snprintf(script, sizeof script, "trap 'exit 4' TERM; kill -TERM %d; while :; do sleep 0.05; done", getpid());
    add("unsaved", script);
    add("saved", "trap 'exit 0' TERM; while :; do sleep 0.05; done");
    ck_assert_int_eq(supervisor_run(supervisor), 4);
}
END_TEST

START_TEST(what_cannot_start_again_is_tried_again)
{
    char script[192];
    snprintf(script, sizeof script,
             "echo >>starts; case $(wc -l <starts) in 1) kill -KILL $$ ;; [2-4]) exit 1 ;; 5) exit 3 ;; 6) exit 2 ;; "
             "7) exit "
             "127 ;; esac; kill -TERM %d",
             getpid());
    add("unlucky", script);
    ck_assert_int_eq(supervisor_run(supervisor), 0);
    ck_assert_int_eq(lines("starts"), 8);
}
END_TEST

/* Else what it ran would go on without anybody to end it. */
START_TEST(a_supervisor_that_is_killed_takes_its_programs_along)
{
    int ends[2];
    char byte;
    ck_assert_int_eq(pipe(ends), 0);
    const pid_t other = fork();
    if (other == 0) {
        char script[128];
        struct supervisor *its;
        snprintf(script, sizeof script,
                 "trap 'echo >>saved; exit 0' TERM HUP; echo up >&%d; while :; do sleep 0.05; done", ends[1]);
        const char *const argv[] = {"/bin/sh", "-c", script, NULL};
        if (supervisor_create(&its, &limits) != 0 || supervisor_add(its, "sleeper", argv) != 0)
            _exit(1);
        supervisor_run(its);
        _exit(1);
    }
    close(ends[1]);
    ck_assert_int_eq(read(ends[0], &byte, 1), 1);
    kill(other, SIGKILL);
    ck_assert_int_eq(waitpid(other, NULL, 0), other);
    while (read(ends[0], &byte, 1) > 0) /* until the sleeper has ended too */
        ;
    ck_assert_int_eq(lines("saved"), 1);
    close(ends[0]);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("supervisor");
    TCase *tcase = tcase_create("supervisor");
    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_add_test(tcase, what_ends_is_started_again_until_a_stop_signal_ends_all);
    tcase_add_test(tcase, a_clean_end_of_all_is_one);
    tcase_add_loop_test(tcase, what_cannot_start_at_all_ends_all, 0, 3);
    tcase_add_test(tcase, what_was_well_is_started_again_though_its_first_life_ends_with_1);
    tcase_add_test(tcase, how_one_ends_on_a_stop_signal_is_how_all_end);
    tcase_add_test(tcase, what_cannot_start_again_is_tried_again);
    tcase_add_test(tcase, a_supervisor_that_is_killed_takes_its_programs_along);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_FORK);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
