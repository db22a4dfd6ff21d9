#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/owner.h"
#include "unit/support_stderr.h"

static char base[64];
static char run_dir[96];

static void set_up(void)
{
    snprintf(base, sizeof base, "/tmp/test-owner.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(base));
    snprintf(run_dir, sizeof run_dir, "%s/run", base);
    ck_assert_int_eq(owner_prepare_run_dir(run_dir), 0);
}

static void tear_down(void)
{
    char command[160];
    snprintf(command, sizeof command, "rm -rf '%s'", base);
    ck_assert_int_eq(system(command), 0);
}

/* A process that takes the role, says so, and lives until it is killed. */
static pid_t start_owner(const char *role)
{
    int ready[2];
    char byte = 0;
    ck_assert_int_eq(pipe(ready), 0);
    const pid_t child = fork();
    if (child == 0) {
        const bool taken = owner_acquire(run_dir, "box", role) >= 0;
        if (write(ready[1], taken ? "y" : "n", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    ck_assert_int_eq(read(ready[0], &byte, 1), 1);
    ck_assert_int_eq(byte, 'y');
    close(ready[0]);
    close(ready[1]);
    return child;
}

static void kill_owner(pid_t child)
{
    ck_assert_int_eq(kill(child, SIGKILL), 0);
    ck_assert_int_eq(waitpid(child, NULL, 0), child);
}

START_TEST(a_second_owner_is_refused_while_the_first_lives)
{
    const pid_t owner = start_owner("frontend");
    ck_assert_int_eq(owner_acquire(run_dir, "box", "frontend"), -EBUSY);
    kill_owner(owner);
    const int fd = owner_acquire(run_dir, "box", "frontend");
    ck_assert_int_ge(fd, 0);
    close(fd);
}
END_TEST

START_TEST(even_one_process_does_not_take_a_role_twice)
{
    const int fd = owner_acquire(run_dir, "box", "frontend");
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(owner_acquire(run_dir, "box", "frontend"), -EBUSY);
    ck_assert(owner_alive(run_dir, "box", "frontend"));
    close(fd);
    ck_assert(!owner_alive(run_dir, "box", "frontend"));
}
END_TEST

START_TEST(roles_and_servers_are_separate)
{
    const int one = owner_acquire(run_dir, "box", "runtime.gpu0");
    const int two = owner_acquire(run_dir, "box", "runtime.gpu1");
    const int three = owner_acquire(run_dir, "other", "runtime.gpu0");
    ck_assert(one >= 0 && two >= 0 && three >= 0);
    close(one);
    close(two);
    close(three);
}
END_TEST

START_TEST(a_killed_owner_is_seen_to_be_dead_at_once)
{
    const pid_t owner = start_owner("runtime.gpu0");
    const int watch = owner_watch(run_dir, "box", "runtime.gpu0");
    ck_assert_int_ge(watch, 0);
    ck_assert(owner_watch_alive(watch));
    ck_assert(owner_alive(run_dir, "box", "runtime.gpu0"));
    kill_owner(owner);
    ck_assert(!owner_watch_alive(watch));
    ck_assert(!owner_alive(run_dir, "box", "runtime.gpu0"));
    const pid_t next = start_owner("runtime.gpu0");
    ck_assert(owner_watch_alive(watch)); /* the same file: the watch sees the successor */
    kill_owner(next);
    close(watch);
}
END_TEST

START_TEST(asking_neither_makes_the_file_nor_takes_the_role)
{
    char path[160];
    snprintf(path, sizeof path, "%s/box.frontend.lock", run_dir);
    ck_assert(!owner_alive(run_dir, "box", "frontend"));
    ck_assert_int_eq(owner_watch(run_dir, "box", "frontend"), -ENOENT);
    ck_assert(!owner_watch_alive(-ENOENT));
    ck_assert_int_ne(access(path, F_OK), 0);
    close(owner_acquire(run_dir, "box", "frontend"));
    const int watch = owner_watch(run_dir, "box", "frontend");
    ck_assert(!owner_watch_alive(watch));
    const int fd = owner_acquire(run_dir, "box", "frontend");
    ck_assert_int_ge(fd, 0);
    close(fd);
    close(watch);
}
END_TEST

START_TEST(names_that_lead_out_of_the_folder_are_refused)
{
    char longest[5000];
    memset(longest, 'x', sizeof longest);
    longest[sizeof longest - 1] = 0;
    ck_assert_int_eq(owner_acquire(run_dir, "../box", "frontend"), -EINVAL);
    ck_assert_int_eq(owner_acquire(run_dir, "box", "../frontend"), -EINVAL);
    ck_assert_int_eq(owner_acquire(run_dir, "box", longest), -ENAMETOOLONG);
    ck_assert_int_eq(owner_acquire("/nonexistent/run", "box", "frontend"), -ENOENT);
}
END_TEST

START_TEST(a_link_or_a_fifo_is_no_lock_file)
{
    char path[160];
    snprintf(path, sizeof path, "%s/box.frontend.lock", run_dir);
    ck_assert_int_eq(symlink("/tmp/somewhere-else", path), 0);
    ck_assert_int_eq(owner_acquire(run_dir, "box", "frontend"), -ELOOP);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    ck_assert_int_eq(owner_acquire(run_dir, "box", "frontend"), -EPERM);
}
END_TEST

START_TEST(the_run_folder_is_made_for_this_user_alone)
{
    struct stat info;
    char path[160];
    snprintf(path, sizeof path, "%s/masked", base);
    const mode_t before = umask(0777);
    const int rc = owner_prepare_run_dir(path);
    umask(before);
    ck_assert_int_eq(rc, 0);
    ck_assert_int_eq(stat(path, &info), 0);
    ck_assert_uint_eq(info.st_mode & 0777, 0700);
    ck_assert_int_eq(owner_prepare_run_dir(path), 0);
}
END_TEST

START_TEST(a_run_folder_that_others_control_is_refused)
{
    char path[160];
    ck_assert_int_eq(chmod(run_dir, 0770), 0);
    ck_assert_int_eq(owner_prepare_run_dir(run_dir), -EPERM);
    ck_assert_int_eq(chmod(run_dir, 0755), 0);
    ck_assert_int_eq(owner_prepare_run_dir(run_dir), 0);
    snprintf(path, sizeof path, "%s/link", base);
    ck_assert_int_eq(symlink(run_dir, path), 0);
    ck_assert_int_lt(owner_prepare_run_dir(path), 0);
    snprintf(path, sizeof path, "%s/file", base);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    ck_assert_int_eq(owner_prepare_run_dir(path), -ENOTDIR);
    snprintf(path, sizeof path, "%s/no/such/parent", base);
    ck_assert_int_eq(owner_prepare_run_dir(path), -ENOENT);
    if (geteuid() == 0) {
        ck_assert_int_eq(chown(run_dir, 65534, 65534), 0);
        ck_assert_int_eq(owner_prepare_run_dir(run_dir), -EPERM);
    }
}
END_TEST

static void remove_run_dir(void)
{
    char command[160];
    snprintf(command, sizeof command, "rm -rf '%s'", run_dir);
    ck_assert_int_eq(system(command), 0);
}

START_TEST(a_role_whose_lock_file_was_removed_is_taken_under_its_name_again)
{
    int fd = owner_acquire(run_dir, "box", "frontend");
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(owner_keep(&fd, run_dir, "box", "frontend"), 0);
    int watch = owner_watch(run_dir, "box", "frontend");
    remove_run_dir();
    ck_assert(!owner_alive(run_dir, "box", "frontend")); /* for others it is gone */
    owner_watch_keep(&watch, run_dir, "box", "frontend");
    ck_assert(owner_watch_alive(watch)); /* a watch of before knows better */
    ck_assert_int_eq(owner_keep(&fd, run_dir, "box", "frontend"), 0);
    ck_assert(owner_alive(run_dir, "box", "frontend"));
    ck_assert_int_eq(owner_acquire(run_dir, "box", "frontend"), -EBUSY);
    owner_watch_keep(&watch, run_dir, "box", "frontend");
    ck_assert(owner_watch_alive(watch));
    close(fd);
    ck_assert(!owner_watch_alive(watch)); /* it is the new file's */
    close(watch);
}
END_TEST

/* By it the frontend knows whose segments those of a device are. */
START_TEST(a_lock_file_that_somebody_emptied_has_its_pid_again)
{
    int fd = owner_acquire(run_dir, "box", "frontend");
    const int watch = owner_watch(run_dir, "box", "frontend");
    ck_assert_int_eq(owner_watch_pid(watch), getpid());
    ck_assert_int_eq(ftruncate(fd, 0), 0);
    ck_assert_int_eq(owner_watch_pid(watch), 0);
    ck_assert_int_eq(owner_keep(&fd, run_dir, "box", "frontend"), 0);
    ck_assert_int_eq(owner_watch_pid(watch), getpid());
    close(watch);
    close(fd);
}
END_TEST

START_TEST(a_role_that_another_process_took_meanwhile_is_lost)
{
    int fd = owner_acquire(run_dir, "box", "frontend");
    int watch = owner_watch(run_dir, "box", "frontend");
    remove_run_dir();
    ck_assert_int_eq(owner_prepare_run_dir(run_dir), 0);
    const pid_t other = start_owner("frontend");
    ck_assert_int_eq(owner_keep(&fd, run_dir, "box", "frontend"), -EBUSY);
    owner_watch_keep(&watch, run_dir, "box", "frontend");
    ck_assert_int_eq(owner_watch_pid(watch), other);
    kill(other, SIGKILL);
    waitpid(other, NULL, 0);
    close(watch);
    close(fd);
}
END_TEST

START_TEST(a_folder_that_cannot_be_made_anew_costs_nobody_the_role)
{
    char deep[160];
    snprintf(deep, sizeof deep, "%s/deep", run_dir);
    ck_assert_int_eq(owner_prepare_run_dir(deep), 0);
    int fd = owner_acquire(deep, "box", "frontend");
    const int first = fd;
    remove_run_dir(); /* with all that is in it */
    ck_assert_int_eq(owner_keep(&fd, deep, "box", "frontend"), -ENOENT);
    ck_assert_int_eq(fd, first);
    ck_assert_int_eq(owner_prepare_run_dir(run_dir), 0);
    ck_assert_int_eq(owner_keep(&fd, deep, "box", "frontend"), 0);
    ck_assert(owner_alive(deep, "box", "frontend"));
    close(fd);
}
END_TEST

/* A run folder that others may write to, and a lock file that is none of ours to open. */
START_TEST(what_cannot_be_had_again_is_said_once)
{
    char path[192];
    int fd = owner_acquire(run_dir, "box", "frontend");
    const int first = fd;
    remove_run_dir();
    ck_assert_int_eq(mkdir(run_dir, S_IRWXU), 0);
    snprintf(path, sizeof path, "%s/box.frontend.lock", run_dir);
    if (_i == 0)
        ck_assert_int_eq(chmod(run_dir, 0777), 0);
    else
        ck_assert_int_eq(mkdir(path, S_IRWXU), 0);
    stderr_capture();
    for (int i = 0; i < 100; i++)
        ck_assert_int_lt(owner_keep(&fd, run_dir, "box", "frontend"), 0);
    ck_assert_int_eq(fd, first);
    const char *said = stderr_text(), *line = strchr(said, '\n');
    ck_assert_msg(line && !line[1], "said: %s", said);
    if (_i == 0)
        ck_assert_int_eq(chmod(run_dir, S_IRWXU), 0);
    else
        ck_assert_int_eq(rmdir(path), 0);
    ck_assert_int_eq(owner_keep(&fd, run_dir, "box", "frontend"), 0);
    stderr_release();
    ck_assert(owner_alive(run_dir, "box", "frontend"));
    close(fd);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("owner");
    TCase *tcase = tcase_create("owner");
    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_add_test(tcase, a_second_owner_is_refused_while_the_first_lives);
    tcase_add_test(tcase, even_one_process_does_not_take_a_role_twice);
    tcase_add_test(tcase, roles_and_servers_are_separate);
    tcase_add_test(tcase, a_killed_owner_is_seen_to_be_dead_at_once);
    tcase_add_test(tcase, asking_neither_makes_the_file_nor_takes_the_role);
    tcase_add_test(tcase, names_that_lead_out_of_the_folder_are_refused);
    tcase_add_test(tcase, a_link_or_a_fifo_is_no_lock_file);
    tcase_add_test(tcase, the_run_folder_is_made_for_this_user_alone);
    tcase_add_test(tcase, a_run_folder_that_others_control_is_refused);
    tcase_add_test(tcase, a_role_whose_lock_file_was_removed_is_taken_under_its_name_again);
    tcase_add_test(tcase, a_lock_file_that_somebody_emptied_has_its_pid_again);
    tcase_add_test(tcase, a_role_that_another_process_took_meanwhile_is_lost);
    tcase_add_loop_test(tcase, what_cannot_be_had_again_is_said_once, 0, 2);
    tcase_add_test(tcase, a_folder_that_cannot_be_made_anew_costs_nobody_the_role);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
