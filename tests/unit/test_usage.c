/* What the system tells of a process, and of none that is not meant. */
#include <check.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "http/usage.h"

static pid_t child;

/* A process of that name, which waits; it has a descriptor more than this one. */
static void start(const char *name)
{
    int ready[2];
    char byte;
    ck_assert_int_eq(pipe(ready), 0);
    child = fork();
    if (child == 0) {
        (void)prctl(PR_SET_NAME, name);
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)!write(ready[1], "", 1);
        for (;;)
            pause();
    }
    ck_assert_int_eq(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    close(ready[1]);
}

static void teardown(void)
{
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
}

START_TEST(a_process_is_measured)
{
    struct usage usage;
    start("expertd-fronten"); /* what the system keeps of the name */
    ck_assert(usage_read(&usage, child, "expertd-frontend"));
    ck_assert(usage.cpu_seconds >= 0 && usage.cpu_seconds < 3600);
    ck_assert_uint_gt(usage.resident_bytes, 4096);
    ck_assert_uint_gt(usage.virtual_bytes, usage.resident_bytes);
    ck_assert(usage.open_fds >= 2 && usage.threads == 1);
    ck_assert(fabs(usage.start_time_seconds - (double)time(NULL)) < 3600);
}
END_TEST

START_TEST(a_name_may_hold_brackets_and_spaces)
{
    struct usage usage;
    start("a) R 1 (b");
    ck_assert(usage_read(&usage, child, "a) R 1 (b"));
    ck_assert(usage.threads == 1);
}
END_TEST

START_TEST(another_program_and_one_that_has_ended_are_none)
{
    struct usage usage;
    start("expertd-runtime");
    ck_assert(!usage_read(&usage, child, "expertd-frontend"));
    ck_assert(!usage_read(&usage, child, "expertd"));
    ck_assert(!usage_read(&usage, 0, "expertd-runtime"));
    ck_assert(!usage_read(&usage, -1, "expertd-runtime"));
    const pid_t ended = fork();
    if (ended == 0)
        _exit(0);
    waitpid(ended, NULL, 0);
    ck_assert(!usage_read(&usage, ended, "expertd-runtime"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("usage");
    TCase *tcase = tcase_create("usage");
    tcase_add_checked_fixture(tcase, NULL, teardown);
    tcase_add_test(tcase, a_process_is_measured);
    tcase_add_test(tcase, a_name_may_hold_brackets_and_spaces);
    tcase_add_test(tcase, another_program_and_one_that_has_ended_are_none);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
