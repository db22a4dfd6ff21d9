#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/memory.h"

static char root[64];

static void setup(void)
{
    strcpy(root, "/tmp/test-memory.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(root));
}

static void teardown(void)
{
    char command[96];
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    ck_assert_int_eq(system(command), 0);
}

/* A file below root, with its folders. */
static void put(const char *path, const char *content)
{
    char name[512];
    snprintf(name, sizeof name, "%s%s", root, path);
    for (char *slash = strchr(name + strlen(root) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        (void)mkdir(name, 0700);
        *slash = '/';
    }
    FILE *file = fopen(name, "w");
    ck_assert_ptr_nonnull(file);
    fputs(content, file);
    fclose(file);
}

static uint64_t machine(void)
{
    return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
}

START_TEST(without_groups_it_is_what_the_machine_has)
{
    ck_assert_uint_eq(memory_limit(root), machine());
    put("/proc/self/cgroup", "0::/\n");
    put("/sys/fs/cgroup/memory.max", "max\n");
    ck_assert_uint_eq(memory_limit(root), machine());
    put("/sys/fs/cgroup/memory.max", "999999999999999999\n"); /* more than there is */
    ck_assert_uint_eq(memory_limit(root), machine());
    put("/proc/self/cgroup", "nonsense\n:\n::\n");
    ck_assert_uint_eq(memory_limit(root), machine());
}
END_TEST

START_TEST(a_container_s_limit_counts_and_those_above_it)
{
    put("/proc/self/cgroup", "0::/\n");
    put("/sys/fs/cgroup/memory.max", "8388608\n");
    ck_assert_uint_eq(memory_limit(root), 8 << 20);
    put("/proc/self/cgroup", "0::/system.slice/expertd.service\n");
    put("/sys/fs/cgroup/system.slice/expertd.service/memory.max", "4194304\n");
    ck_assert_uint_eq(memory_limit(root), 4 << 20);
    put("/sys/fs/cgroup/system.slice/memory.max", "2097152\n");
    ck_assert_uint_eq(memory_limit(root), 2 << 20);
}
END_TEST

START_TEST(the_first_version_of_groups_counts_too)
{
    put("/proc/self/cgroup", "12:pids:/x\n9:cpu,memory:/docker/abc\n0::/docker/abc\n");
    put("/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "5242880\n");
    ck_assert_uint_eq(memory_limit(root), 5 << 20);
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "3145728\n");
    ck_assert_uint_eq(memory_limit(root), 3 << 20);
}
END_TEST

START_TEST(what_a_process_has_grows_with_what_it_fills)
{
    enum { BYTES = 32 << 20 };
    const uint64_t before = memory_own();
    ck_assert_uint_gt(before, 0);
    volatile char *block = malloc(BYTES);
    for (size_t i = 0; i < BYTES; i += 512)
        block[i] = 1;
    ck_assert_uint_ge(memory_own(), before + BYTES / 2);
    free((void *)(uintptr_t)block);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("memory");
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, without_groups_it_is_what_the_machine_has);
    tcase_add_test(all, a_container_s_limit_counts_and_those_above_it);
    tcase_add_test(all, the_first_version_of_groups_counts_too);
    tcase_add_test(all, what_a_process_has_grows_with_what_it_fills);
    Suite *suite = suite_create("memory");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
