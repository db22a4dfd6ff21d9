#include <check.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/state/checkpoint_owner.h"

static char parent[128], dir[160];
static struct checkpoint_owner *owner;

static void set_up(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(parent, sizeof parent, "%s/owner.XXXXXX", tmp ? tmp : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(parent));
    snprintf(dir, sizeof dir, "%s/checkpoints", parent);
    ck_assert_int_eq(checkpoint_owner_create(&owner, dir), 0);
}

static void tear_down(void)
{
    char command[sizeof parent + 16];
    checkpoint_owner_destroy(&owner);
    checkpoint_owner_destroy(&owner);
    snprintf(command, sizeof command, "rm -rf '%s'", parent);
    ck_assert_int_eq(system(command), 0);
}

/* What another process gets, which then waits for a byte to end; its end of the pipe is *hold. */
static int take_elsewhere(const char *uid, pid_t *process, int *hold)
{
    int to[2], from[2], rc = 0;
    ck_assert(pipe(to) == 0 && pipe(from) == 0);
    *process = fork();
    ck_assert_int_ge(*process, 0);
    if (*process == 0) {
        struct checkpoint_owner *other;
        close(to[1]);
        rc = checkpoint_owner_create(&other, dir);
        if (rc == 0)
            rc = checkpoint_owner_take(other, uid);
        if (write(from[1], &rc, sizeof rc) != sizeof rc || read(to[0], &rc, 1) < 0)
            _exit(1);
        _exit(0); /* without a word, as if it were killed */
    }
    close(to[0]);
    close(from[1]);
    ck_assert_int_eq(read(from[0], &rc, sizeof rc), sizeof rc);
    close(from[0]);
    *hold = to[1];
    return rc;
}

static void end_it(pid_t process, int hold)
{
    int status;
    close(hold);
    ck_assert_int_eq(waitpid(process, &status, 0), process);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

START_TEST(an_expert_has_one_owner_until_its_process_ends)
{
    pid_t process;
    int hold;
    ck_assert_int_eq(take_elsewhere("ffn.1", &process, &hold), 0);
    ck_assert_int_eq(checkpoint_owner_take(owner, "ffn.0"), 0); /* one of the same folder, that nobody has */
    ck_assert_int_eq(checkpoint_owner_take(owner, "ffn.1"), -EBUSY);
    end_it(process, hold);
    ck_assert_int_eq(checkpoint_owner_take(owner, "ffn.1"), 0);
    ck_assert_int_eq(take_elsewhere("ffn.1", &process, &hold), -EBUSY);
    end_it(process, hold);
    ck_assert_int_eq(take_elsewhere("ffn.0", &process, &hold), -EBUSY);
    end_it(process, hold);
}
END_TEST

START_TEST(nothing_is_made_before_something_is_claimed)
{
    struct stat info;
    ck_assert_int_eq(checkpoint_owner_renew(owner), 0);
    ck_assert_int_eq(stat(dir, &info), -1);
    ck_assert_int_eq(checkpoint_owner_take(owner, "ffn.0"), 0);
    ck_assert_int_eq(stat(dir, &info), 0);
    ck_assert_uint_eq(info.st_mode & 0777, 0700);
}
END_TEST

START_TEST(claims_follow_the_folder_when_it_is_replaced)
{
    char command[2 * sizeof dir + 32];
    pid_t process;
    int hold;
    for (int i = 0; i < 100; i++) {
        char uid[16];
        snprintf(uid, sizeof uid, "ffn.%d", i);
        ck_assert_int_eq(checkpoint_owner_take(owner, uid), 0);
    }
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    ck_assert_int_eq(system(command), 0);
    ck_assert_int_eq(checkpoint_owner_renew(owner), 0);
    ck_assert_int_eq(take_elsewhere("ffn.99", &process, &hold), -EBUSY);
    end_it(process, hold);
    /* And somebody else may be faster. */
    snprintf(command, sizeof command, "mv '%s' '%s.old'", dir, dir);
    ck_assert_int_eq(system(command), 0);
    ck_assert_int_eq(take_elsewhere("ffn.7", &process, &hold), 0);
    ck_assert_int_eq(checkpoint_owner_renew(owner), -EBUSY);
    ck_assert_int_eq(checkpoint_owner_renew(owner), -EBUSY);
    end_it(process, hold);
    ck_assert_int_eq(checkpoint_owner_renew(owner), 0);
}
END_TEST

START_TEST(a_folder_that_cannot_be_had_is_an_error)
{
    FILE *file = fopen(dir, "w");
    fclose(file);
    ck_assert_int_eq(checkpoint_owner_take(owner, "ffn.0"), -ENOTDIR);
    checkpoint_owner_destroy(&owner);
    snprintf(dir, sizeof dir, "%s/no/such/parent", parent);
    ck_assert_int_eq(checkpoint_owner_create(&owner, dir), 0);
    ck_assert_int_eq(checkpoint_owner_take(owner, "ffn.0"), -ENOENT);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("checkpoint_owner");
    tcase_add_checked_fixture(all, set_up, tear_down);
    tcase_add_test(all, an_expert_has_one_owner_until_its_process_ends);
    tcase_add_test(all, nothing_is_made_before_something_is_claimed);
    tcase_add_test(all, claims_follow_the_folder_when_it_is_replaced);
    tcase_add_test(all, a_folder_that_cannot_be_had_is_an_error);
    Suite *suite = suite_create("checkpoint_owner");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
