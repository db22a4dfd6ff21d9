/* Pages: what a pool commits, and a /dev/shm that is full. */
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "support_pool.h"

START_TEST(a_removed_segment_takes_no_new_pages)
{
    struct pool_pair pair;
    struct pool_claim claim;
    support_open(&pair, POOL_FORWARD, 64, 8, 16);
    ck_assert_int_eq(pool_remove(support_server(), pair.device, 1, 0), 0);
    ck_assert_int_eq(support_claim(&pair, 1, &claim), -ENOENT);
    pool_detach(&pair.frontend);
    pool_detach(&pair.runtime);
}
END_TEST

static bool write_file(const char *path, const char *text)
{
    const int fd = open(path, O_WRONLY);
    const bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0)
        close(fd);
    return ok;
}

/* A /dev/shm of our own and of this size; false if this machine does not let us. */
static bool small_shm(const char *options)
{
    char map[64];
    const unsigned uid = getuid(), gid = getgid();
    if (unshare(CLONE_NEWNS) != 0) {
        if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0)
            return false;
        snprintf(map, sizeof map, "%u %u 1", uid, uid);
        if (!write_file("/proc/self/uid_map", map) || !write_file("/proc/self/setgroups", "deny"))
            return false;
        snprintf(map, sizeof map, "%u %u 1", gid, gid);
        if (!write_file("/proc/self/gid_map", map))
            return false;
    }
    return mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, options) == 0;
}

/* 256 KiB are 64 pages: the header, the task slots, and 31 rows of a page in each of two slabs. */
static void fill_small_shm(void)
{
    struct pool_pair pair;
    struct pool_claim claim;
    struct pool_batch batch;
    support_layout(&pair, POOL_FORWARD, 64, 32, 16, 1024);
    ck_assert_int_eq(pool_create(&pair.runtime, &pair.layout), 0);
    ck_assert_int_eq(pool_attach(&pair.frontend, support_server(), pair.device, 1, 0), 0);
    for (uint64_t task = 0; task < 31; task++)
        ck_assert_uint_eq(support_put(&pair, 1), task); /* the last steps are no larger than the need */
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(support_claim(&pair, 1, &claim), -ENOSPC);
    ck_assert_int_eq(support_claim(&pair, 16, &claim), -ENOSPC);
    /* What is there goes on working, at the pages that it has. */
    ck_assert_uint_eq(pool_tasks_held(pair.frontend), 31);
    for (uint64_t task = 0; support_take(&pair, &batch) > 0;) {
        support_run(&pair, &batch);
        for (uint32_t i = 0; i < batch.tasks; i++)
            support_expect(&pair, task++, STATUS_OK, false);
    }
    ck_assert_uint_eq(support_put(&pair, 16), 31);
    ck_assert_uint_eq(support_put(&pair, 15), 32);
    ck_assert_int_eq(support_claim(&pair, 1, &claim), -ENOSPC);
    support_close(&pair);
}

START_TEST(a_full_shm_is_an_error_and_nothing_else)
{
    if (small_shm("size=256k,mode=1777")) {
        fill_small_shm();
        return;
    }
    /* Not allowed: then a need that is larger than what is free, if that is not absurdly much. */
    struct statvfs info;
    ck_assert_int_eq(statvfs("/dev/shm", &info), 0);
    const uint64_t free_bytes = (uint64_t)info.f_bavail * info.f_frsize;
    if (free_bytes > UINT64_C(1) << 42)
        return;
    struct pool_pair pair;
    struct pool_claim claim;
    support_layout(&pair, POOL_FORWARD, 4, 4, 4, (2 * free_bytes + (1 << 20)) / 4);
    ck_assert_int_eq(pool_create(&pair.runtime, &pair.layout), 0);
    ck_assert_int_eq(pool_attach(&pair.frontend, support_server(), pair.device, 1, 0), 0);
    ck_assert_int_eq(support_claim(&pair, 1, &claim), -ENOSPC);
    support_close(&pair);
}
END_TEST

START_TEST(a_shm_without_a_page_left_makes_no_pool)
{
    struct pool_pair pair;
    if (!small_shm("size=4k,mode=1777"))
        return;
    support_layout(&pair, POOL_FORWARD, 64, 64, 16, 1024);
    ck_assert_int_eq(pool_create(&pair.runtime, &pair.layout), 0);
    pair.layout.index = 5;
    struct pool *second;
    ck_assert_int_eq(pool_create(&second, &pair.layout), -ENOSPC);
    ck_assert_int_eq(pool_remove(support_server(), pair.device, 1, 5), -ENOENT);
    pair.layout.index = 0;
    support_close(&pair);
}
END_TEST

START_TEST(pages_grow_with_the_need)
{
    struct pool_pair pair;
    support_layout(&pair, POOL_FORWARD, 16384, 4096, 1024, 1024);
    ck_assert_int_eq(pool_create(&pair.runtime, &pair.layout), 0);
    ck_assert_int_eq(pool_attach(&pair.frontend, support_server(), pair.device, 1, 0), 0);
    const struct pool_shared *shared = pair.runtime->shared;
    support_put(&pair, 1);
    ck_assert_uint_eq(atomic_load(&shared->frontend.committed_rows), 8); /* 64 KiB, in and out */
    ck_assert_uint_eq(atomic_load(&shared->frontend.committed_tasks), 32);
    for (int i = 1; i < 33; i++)
        support_put(&pair, 1);
    ck_assert_uint_eq(atomic_load(&shared->frontend.committed_rows), 64);
    ck_assert_uint_eq(atomic_load(&shared->frontend.committed_tasks), 64);
    support_put(&pair, 600);
    ck_assert_uint_eq(atomic_load(&shared->frontend.committed_rows), 633); /* no more than 4 MiB beyond 64 */
    support_put(&pair, 1);
    ck_assert_uint_eq(atomic_load(&shared->frontend.committed_rows), 633 + 512);
    support_close(&pair);
}
END_TEST

START_TEST(a_steady_load_stays_on_few_pages)
{
    struct pool_pair pair;
    struct pool_batch batch;
    support_open(&pair, POOL_FORWARD, 2048, 64, 64);
    uint64_t done = 0;
    uint32_t batches = 0;
    for (int i = 0; i < 4; i++)
        support_put(&pair, 2);
    /* Never empty: a task comes for each that is answered. More rows than the slab has go through. */
    while (done < 1500) {
        ck_assert_uint_gt(support_take(&pair, &batch), 0);
        batches++;
        support_run(&pair, &batch);
        for (uint32_t i = 0; i < batch.tasks; i++) {
            support_put(&pair, 2);
            support_expect(&pair, done++, STATUS_OK, false);
        }
    }
    ck_assert_uint_le(atomic_load(&pair.runtime->shared->frontend.committed_rows), 512); /* 64 KiB, in and out */
    ck_assert_uint_lt(batches, 1500 / 4 * 5 / 4); /* of 4 tasks, but for the ends of laps */
    support_close(&pair);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("pool_pages");
    tcase_add_test(all, a_removed_segment_takes_no_new_pages);
    tcase_add_test(all, pages_grow_with_the_need);
    tcase_add_test(all, a_steady_load_stays_on_few_pages);
    Suite *suite = suite_create("pool_pages");
    suite_add_tcase(suite, all);
    if (!getenv("CK_FORK") || strcmp(getenv("CK_FORK"), "no") != 0) {
        /* These change what this process sees at /dev/shm for good: each in a process of its own. */
        TCase *alone = tcase_create("full /dev/shm");
        tcase_add_test(alone, a_full_shm_is_an_error_and_nothing_else);
        tcase_add_test(alone, a_shm_without_a_page_left_makes_no_pool);
        suite_add_tcase(suite, alone);
    }
    return support_pool_main(suite);
}
