#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/shm.h"

enum { PAGE = 4096, SIZE = 16 * PAGE };

static char server[32];

static const char *segment(const char *rest)
{
    static char name[SHM_NAME_SIZE];
    ck_assert_int_eq(shm_name(name, server, "%s", rest), 0);
    return name;
}

static int remove_one(const char *name, void *count)
{
    ++*(int *)count;
    return shm_remove(name);
}

static void set_up(void)
{
    snprintf(server, sizeof server, "test-shm-%d", (int)getpid());
}

static void tear_down(void)
{
    int count = 0;
    shm_each(server, "", remove_one, &count);
}

static mode_t mode_of(const char *name)
{
    struct stat info;
    const int fd = shm_open(name, O_RDWR, 0);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(fstat(fd, &info), 0);
    close(fd);
    return info.st_mode & 0777;
}

/* Bytes that the segment holds, committed or written. */
static size_t committed_bytes(const char *name)
{
    struct stat info;
    const int fd = shm_open(name, O_RDWR, 0);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(fstat(fd, &info), 0);
    close(fd);
    return (size_t)info.st_blocks * 512;
}

START_TEST(names_carry_the_server_and_are_bounded)
{
    char name[SHM_NAME_SIZE];
    char longest[SHM_NAME_SIZE];
    ck_assert_int_eq(shm_name(name, "box1", "pool.%u", 7U), 0);
    ck_assert_str_eq(name, "/expertd.box1.pool.7");
    memset(longest, 'x', sizeof longest);
    longest[SHM_NAME_SIZE - 1] = 0;
    ck_assert_int_eq(shm_name(name, "box1", "%s", longest), -ENAMETOOLONG);
    ck_assert_int_eq(shm_name(name, longest, "x"), -ENAMETOOLONG);
    ck_assert_int_eq(shm_name(name, "box1", "../%s", "etc"), -EINVAL);
    ck_assert_int_eq(shm_name(name, "a/b", "x"), -EINVAL);
}
END_TEST

START_TEST(what_one_process_writes_the_other_reads)
{
    void *mine;
    size_t size = 0;
    ck_assert_int_eq(shm_create_segment(segment("a"), SIZE, PAGE, &mine), 0);
    strcpy(mine, "hello");
    const pid_t child = fork();
    if (child == 0) {
        void *theirs;
        _exit(shm_attach_segment(segment("a"), SIZE, &theirs, &size) == 0 && size == SIZE && !strcmp(theirs, "hello")
                  ? 0
                  : 1);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    shm_detach(mine, SIZE);
}
END_TEST

START_TEST(a_segment_is_for_its_user_alone_whatever_the_umask)
{
    void *mapping;
    const mode_t before = umask(0777);
    ck_assert_int_eq(shm_create_segment(segment("a"), SIZE, 0, &mapping), 0);
    umask(0);
    shm_detach(mapping, SIZE);
    ck_assert_int_eq(shm_create_segment(segment("b"), SIZE, 0, &mapping), 0);
    umask(before);
    shm_detach(mapping, SIZE);
    ck_assert_uint_eq(mode_of(segment("a")), 0600);
    ck_assert_uint_eq(mode_of(segment("b")), 0600);
}
END_TEST

START_TEST(a_segment_is_not_created_twice)
{
    void *mapping;
    void *second = NULL;
    ck_assert_int_eq(shm_create_segment(segment("a"), SIZE, SIZE, &mapping), 0);
    strcpy(mapping, "first");
    ck_assert_int_eq(shm_create_segment(segment("a"), SIZE, SIZE, &second), -EEXIST);
    ck_assert_ptr_null(second);
    ck_assert_str_eq(mapping, "first");
    shm_detach(mapping, SIZE);
}
END_TEST

START_TEST(nonsense_sizes_are_refused)
{
    void *mapping;
    ck_assert_int_eq(shm_create_segment(segment("a"), 0, 0, &mapping), -EINVAL);
    ck_assert_int_eq(shm_create_segment(segment("a"), PAGE, PAGE + 1, &mapping), -EINVAL);
    ck_assert_int_eq(shm_create_segment(segment("a"), SIZE_MAX, 0, &mapping), -EINVAL);
    ck_assert_int_eq(shm_remove(segment("a")), -ENOENT);
}
END_TEST

START_TEST(attaching_refuses_what_is_missing_or_too_small)
{
    void *mapping;
    size_t size;
    ck_assert_int_eq(shm_attach_segment(segment("a"), 1, &mapping, &size), -ENOENT);
    ck_assert_int_eq(shm_create_segment(segment("a"), SIZE, 0, &mapping), 0);
    shm_detach(mapping, SIZE);
    ck_assert_int_eq(shm_attach_segment(segment("a"), SIZE + 1, &mapping, &size), -EPROTO);
    /* Created, but without its size yet: what a process that attaches early sees. */
    const int fd = shm_open(segment("b"), O_CREAT | O_RDWR, 0600);
    close(fd);
    ck_assert_int_eq(shm_attach_segment(segment("b"), 0, &mapping, &size), -EPROTO);
}
END_TEST

START_TEST(attaching_refuses_what_others_may_open_and_what_is_no_file)
{
    void *mapping;
    size_t size;
    char path[SHM_NAME_SIZE + 16];
    ck_assert_int_eq(shm_create_segment(segment("a"), SIZE, 0, &mapping), 0);
    shm_detach(mapping, SIZE);
    snprintf(path, sizeof path, "/dev/shm%s", segment("a"));
    ck_assert_int_eq(chmod(path, 0660), 0);
    ck_assert_int_eq(shm_attach_segment(segment("a"), SIZE, &mapping, &size), -EPERM);
    ck_assert_int_eq(shm_commit(segment("a"), NULL, 0, PAGE), -EPERM);
    snprintf(path, sizeof path, "/dev/shm%s", segment("fifo"));
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    ck_assert_int_eq(shm_attach_segment(segment("fifo"), 1, &mapping, &size), -EPERM);
    snprintf(path, sizeof path, "/dev/shm%s", segment("link"));
    ck_assert_int_eq(symlink("/etc/passwd", path), 0);
    ck_assert_int_eq(shm_attach_segment(segment("link"), 1, &mapping, &size), -EPERM);
    if (geteuid() == 0) {
        snprintf(path, sizeof path, "/dev/shm%s", segment("a"));
        ck_assert(chmod(path, 0600) == 0 && chown(path, 65534, 65534) == 0);
        ck_assert_int_eq(shm_attach_segment(segment("a"), SIZE, &mapping, &size), -EPERM);
    }
}
END_TEST

START_TEST(only_committed_pages_cost_memory)
{
    void *mapping;
    ck_assert_int_eq(shm_create_segment(segment("a"), SIZE, PAGE + 1, &mapping), 0);
    ck_assert_uint_eq(committed_bytes(segment("a")), 2 * PAGE);
    ck_assert_int_eq(shm_commit(segment("a"), mapping, 4 * PAGE + 10, PAGE), 0);
    ck_assert_uint_eq(committed_bytes(segment("a")), 4 * PAGE);
    ck_assert_int_eq(shm_commit(segment("a"), mapping, 4 * PAGE, 0), 0);
    shm_populate(mapping, 0, PAGE);
    ck_assert_uint_eq(committed_bytes(segment("a")), 4 * PAGE);
    shm_detach(mapping, SIZE);
}
END_TEST

START_TEST(committing_never_makes_a_segment_longer)
{
    void *mapping;
    size_t size;
    ck_assert_int_eq(shm_create_segment(segment("a"), SIZE, 0, &mapping), 0);
    ck_assert_int_eq(shm_commit(segment("a"), mapping, SIZE, 1), -EINVAL);
    ck_assert_int_eq(shm_commit(segment("a"), mapping, PAGE, SIZE), -EINVAL);
    ck_assert_int_eq(shm_commit(segment("a"), mapping, SIZE_MAX, 2), -EINVAL);
    shm_detach(mapping, SIZE);
    ck_assert_int_eq(shm_attach_segment(segment("a"), SIZE, &mapping, &size), 0);
    ck_assert_uint_eq(size, SIZE);
    shm_detach(mapping, size);
    ck_assert_int_eq(shm_commit(segment("gone"), NULL, 0, PAGE), -ENOENT);
}
END_TEST

/* More than the whole of /dev/shm: the file system refuses it before it takes a page from anybody. */
START_TEST(a_full_file_system_is_an_error_and_loses_nothing)
{
    struct statvfs shm;
    void *mapping;
    ck_assert_int_eq(statvfs("/dev/shm", &shm), 0);
    const size_t size = shm_round_up(2 * (size_t)shm.f_blocks * shm.f_frsize, PAGE);
    if (size == 0)
        return; /* without a limit it cannot be full */
    ck_assert_int_eq(shm_create_segment(segment("a"), size, size, &mapping), -ENOSPC);
    ck_assert_int_eq(shm_remove(segment("a")), -ENOENT);
    ck_assert_int_eq(shm_create_segment(segment("a"), size, PAGE, &mapping), 0);
    strcpy(mapping, "kept");
    ck_assert_int_eq(shm_commit(segment("a"), mapping, 0, size), -ENOSPC);
    ck_assert_str_eq(mapping, "kept");
    ck_assert_uint_eq(committed_bytes(segment("a")), PAGE);
    shm_detach(mapping, size);
}
END_TEST

static int count_until(const char *name, void *left)
{
    ck_assert_ptr_nonnull(strstr(name, server));
    return --*(int *)left == 0 ? 42 : 0;
}

START_TEST(each_visits_the_server_s_own_segments_and_they_may_be_removed)
{
    void *mapping;
    char other[SHM_NAME_SIZE];
    int count = 0;
    int left = 2;
    const char *const names[] = {"pool.1", "pool.2", "pool.3", "control"};
    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(shm_create_segment(segment(names[i]), PAGE, 0, &mapping), 0);
        shm_detach(mapping, PAGE);
    }
    ck_assert_int_eq(shm_name(other, "other", "%s.pool.1", server), 0);
    ck_assert_int_eq(shm_create_segment(other, PAGE, 0, &mapping), 0);
    shm_detach(mapping, PAGE);
    ck_assert_int_eq(shm_each(server, "", count_until, &left), 42);
    ck_assert_int_eq(shm_each(server, "pool.", remove_one, &count), 0);
    ck_assert_int_eq(count, 3);
    ck_assert_int_eq(shm_remove(segment("control")), 0);
    ck_assert_int_eq(shm_remove(other), 0);
    ck_assert_int_eq(shm_each(server, "", remove_one, &count), 0);
    ck_assert_int_eq(count, 3);
}
END_TEST

START_TEST(a_name_is_known_to_lead_there_or_not)
{
    void *mapping;
    const char *name = segment("named");
    const uint64_t before = shm_changes();
    ck_assert(!shm_named(name, SIZE, NULL, 0));
    ck_assert_int_eq(shm_create_segment(name, SIZE, PAGE, &mapping), 0);
    memcpy(mapping, "content", 8);
    ck_assert(shm_named(name, SIZE, NULL, 0));
    ck_assert(shm_named(name, SIZE, "content", 8));
    ck_assert(!shm_named(name, SIZE, "another", 8));
    ck_assert(!shm_named(name, SIZE + PAGE, NULL, 0));
    ck_assert_uint_ge(shm_changes(), before);
    ck_assert_int_eq(shm_remove(name), 0);
    ck_assert(!shm_named(name, SIZE, NULL, 0));
    shm_detach(mapping, SIZE);
}
END_TEST

START_TEST(a_segment_has_one_holder_whoever_has_its_name)
{
    void *mapping;
    ck_assert_int_eq(shm_hold(segment("held")), -ENOENT);
    ck_assert(!shm_held(segment("held"), -1));
    ck_assert_int_eq(shm_create_segment(segment("held"), PAGE, PAGE, &mapping), 0);
    ck_assert(!shm_held(segment("held"), -1));
    const int first = shm_hold(segment("held"));
    ck_assert_int_ge(first, 0);
    ck_assert(shm_held(segment("held"), -1) && !shm_held(segment("held"), first));
    ck_assert_int_eq(shm_hold(segment("held")), -EBUSY);
    ck_assert_int_eq(shm_remove(segment("held")), 0);
    shm_detach(mapping, PAGE);
    ck_assert_int_eq(shm_create_segment(segment("held"), PAGE, PAGE, &mapping), 0);
    const int second = shm_hold(segment("held"));
    ck_assert_int_ge(second, 0);
    ck_assert(shm_held(segment("held"), first) && !shm_held(segment("held"), second));
    close(second);
    ck_assert(!shm_held(segment("held"), first));
    close(first);
    shm_detach(mapping, PAGE);
}
END_TEST

START_TEST(a_folder_in_the_way_is_removed_if_it_is_empty)
{
    char path[SHM_NAME_SIZE + 16], inside[SHM_NAME_SIZE + 32];
    const char *name = segment("folder");
    ck_assert_int_eq(mkdir(shm_path(name, path), 0700), 0);
    ck_assert_int_eq(shm_remove(name), 0);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    snprintf(inside, sizeof inside, "%s/full", path);
    ck_assert_int_eq(mkdir(inside, 0700), 0);
    ck_assert_int_lt(shm_remove(name), 0);
    ck_assert_int_eq(rmdir(inside), 0);
    ck_assert_int_eq(rmdir(path), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("shm");
    TCase *tcase = tcase_create("shm");
    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_add_test(tcase, names_carry_the_server_and_are_bounded);
    tcase_add_test(tcase, what_one_process_writes_the_other_reads);
    tcase_add_test(tcase, a_segment_is_for_its_user_alone_whatever_the_umask);
    tcase_add_test(tcase, a_segment_is_not_created_twice);
    tcase_add_test(tcase, nonsense_sizes_are_refused);
    tcase_add_test(tcase, attaching_refuses_what_is_missing_or_too_small);
    tcase_add_test(tcase, attaching_refuses_what_others_may_open_and_what_is_no_file);
    tcase_add_test(tcase, only_committed_pages_cost_memory);
    tcase_add_test(tcase, committing_never_makes_a_segment_longer);
    tcase_add_test(tcase, a_full_file_system_is_an_error_and_loses_nothing);
    tcase_add_test(tcase, each_visits_the_server_s_own_segments_and_they_may_be_removed);
    tcase_add_test(tcase, a_name_is_known_to_lead_there_or_not);
    tcase_add_test(tcase, a_folder_in_the_way_is_removed_if_it_is_empty);
    tcase_add_test(tcase, a_segment_has_one_holder_whoever_has_its_name);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
