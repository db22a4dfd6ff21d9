#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/doorbell.h"

static char run_dir[64];

static void set_up(void)
{
    snprintf(run_dir, sizeof run_dir, "/tmp/test-doorbell.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(run_dir));
}

static void tear_down(void)
{
    char path[128];
    snprintf(path, sizeof path, "%s/box.frontend.bell", run_dir);
    unlink(path);
    rmdir(run_dir);
}

static uint64_t in_seconds(unsigned seconds)
{
    return clock_now_ns() + seconds * NS_PER_S;
}

/* Whether fd is readable now. */
static bool rings(int fd)
{
    struct pollfd item = {.fd = fd, .events = POLLIN};
    return poll(&item, 1, 0) == 1;
}

START_TEST(ringing_someone_who_is_awake_does_nothing)
{
    struct doorbell_word word = {0};
    doorbell_ring(&word);
    ck_assert_uint_eq(word.bell, 0);
    doorbell_prepare(&word);
    doorbell_cancel(&word);
    doorbell_ring(&word);
    ck_assert_uint_eq(word.bell, 0);
}
END_TEST

START_TEST(a_ring_between_prepare_and_sleep_is_not_lost)
{
    struct doorbell_word word = {0};
    const uint32_t ticket = doorbell_prepare(&word);
    doorbell_ring(&word);
    ck_assert_uint_eq(word.sleeping, 0);
    doorbell_sleep(&word, ticket, UINT64_MAX); /* must come back by itself */
    doorbell_ring(&word);
    ck_assert_uint_eq(word.bell, ticket + 1);
}
END_TEST

START_TEST(a_sleeper_wakes_at_its_deadline)
{
    struct doorbell_word word = {0};
    doorbell_sleep(&word, doorbell_prepare(&word), 0);
    const uint64_t deadline = clock_now_ns() + 2 * NS_PER_MS;
    while (clock_now_ns() < deadline)
        doorbell_sleep(&word, doorbell_prepare(&word), deadline);
    ck_assert_uint_eq(word.sleeping, 0);
}
END_TEST

/* Two processes hand a number to and fro; each sleeps until the other one rings. A lost wake-up would end in the
 * deadline of one of them. */
struct table {
    struct doorbell_word bells[2];
    _Alignas(64) _Atomic uint32_t turn;
    _Atomic uint32_t lost;
};
enum { TURNS = 20000 };

static void play(struct table *table, uint32_t side)
{
    for (uint32_t turn = side; turn < TURNS; turn += 2) {
        for (;;) {
            const uint32_t ticket = doorbell_prepare(&table->bells[side]);
            if (atomic_load_explicit(&table->turn, memory_order_acquire) == turn) {
                doorbell_cancel(&table->bells[side]);
                break;
            }
            const uint64_t deadline = in_seconds(400);
            doorbell_sleep(&table->bells[side], ticket, deadline);
            if (clock_now_ns() >= deadline) {
                atomic_store(&table->lost, 1);
                return;
            }
        }
        atomic_store_explicit(&table->turn, turn + 1, memory_order_release);
        doorbell_ring(&table->bells[1 - side]);
    }
}

START_TEST(no_wake_up_is_lost_between_two_processes)
{
    struct table *table = mmap(NULL, sizeof *table, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(table, MAP_FAILED);
    const pid_t child = fork();
    if (child == 0) {
        play(table, 1);
        _exit(0);
    }
    play(table, 0);
    ck_assert_int_eq(waitpid(child, NULL, 0), child);
    ck_assert_uint_eq(table->lost, 0);
    ck_assert_uint_eq(table->turn, TURNS);
    munmap(table, sizeof *table);
}
END_TEST

/* Several ringers at once and one sleeper: each piece of work is seen. */
struct crowd {
    struct doorbell_word bell;
    _Alignas(64) _Atomic uint32_t work;
};
enum { RINGERS = 3, RINGS = 3000 };

static void *ring_often(void *argument)
{
    struct crowd *crowd = argument;
    for (int i = 0; i < RINGS; i++) {
        atomic_fetch_add_explicit(&crowd->work, 1, memory_order_release);
        doorbell_ring(&crowd->bell);
    }
    return NULL;
}

START_TEST(several_ringers_lose_nothing_either)
{
    static struct crowd crowd;
    pthread_t ringers[RINGERS];
    const uint64_t deadline = in_seconds(400);
    for (int i = 0; i < RINGERS; i++)
        ck_assert_int_eq(pthread_create(&ringers[i], NULL, ring_often, &crowd), 0);
    uint32_t seen = 0;
    while (seen < RINGERS * RINGS) {
        const uint32_t ticket = doorbell_prepare(&crowd.bell);
        const uint32_t work = atomic_load_explicit(&crowd.work, memory_order_acquire);
        if (work == seen)
            doorbell_sleep(&crowd.bell, ticket, deadline);
        else
            doorbell_cancel(&crowd.bell);
        seen = work;
        ck_assert_uint_lt(clock_now_ns(), deadline);
    }
    for (int i = 0; i < RINGERS; i++)
        pthread_join(ringers[i], NULL);
}
END_TEST

START_TEST(a_fifo_rings_for_a_sleeper_only)
{
    _Atomic uint32_t sleeping = 0;
    const int waiter = doorbell_fifo_create(run_dir, "box");
    const int ringer = doorbell_fifo_open(run_dir, "box");
    ck_assert_int_ge(waiter, 0);
    ck_assert_int_ge(ringer, 0);
    doorbell_fifo_ring(ringer, &sleeping);
    ck_assert(!rings(waiter));
    sleeping = 1;
    doorbell_fifo_ring(ringer, &sleeping);
    ck_assert(rings(waiter));
    ck_assert_uint_eq(sleeping, 0);
    doorbell_fifo_drain(waiter);
    ck_assert(!rings(waiter));
    close(waiter);
    close(ringer);
}
END_TEST

START_TEST(without_a_fifo_the_sleeper_s_flag_stays)
{
    _Atomic uint32_t sleeping = 1;
    doorbell_fifo_ring(-1, &sleeping);
    ck_assert_uint_eq(sleeping, 1);
    ck_assert_int_eq(doorbell_fifo_open(run_dir, "box"), -ENOENT);
}
END_TEST

START_TEST(a_full_fifo_does_not_block_the_ringer)
{
    _Atomic uint32_t sleeping;
    const int waiter = doorbell_fifo_create(run_dir, "box");
    ck_assert_int_ge(waiter, 0);
    while (write(waiter, run_dir, sizeof run_dir) > 0)
        ;
    ck_assert_int_eq(errno, EAGAIN);
    sleeping = 1;
    doorbell_fifo_ring(waiter, &sleeping);
    ck_assert(rings(waiter));
    doorbell_fifo_drain(waiter);
    ck_assert(!rings(waiter));
    close(waiter);
}
END_TEST

START_TEST(a_new_frontend_takes_the_old_fifo_and_forgets_its_rings)
{
    _Atomic uint32_t sleeping = 1;
    struct stat info;
    const int first = doorbell_fifo_create(run_dir, "box");
    const int ringer = doorbell_fifo_open(run_dir, "box");
    doorbell_fifo_ring(ringer, &sleeping);
    close(first);
    const int second = doorbell_fifo_create(run_dir, "box");
    ck_assert_int_ge(second, 0);
    ck_assert(!rings(second));
    sleeping = 1;
    doorbell_fifo_ring(ringer, &sleeping); /* opened in the time of the first one */
    ck_assert(rings(second));
    ck_assert_int_eq(fstat(second, &info), 0);
    ck_assert_uint_eq(info.st_mode & 0777, 0600);
    close(second);
    close(ringer);
}
END_TEST

START_TEST(what_is_no_fifo_is_refused)
{
    char path[128];
    snprintf(path, sizeof path, "%s/box.frontend.bell", run_dir);
    const int fd = open(path, O_CREAT | O_WRONLY, 0600);
    close(fd);
    ck_assert_int_eq(doorbell_fifo_create(run_dir, "box"), -EPERM);
    ck_assert_int_eq(doorbell_fifo_open(run_dir, "box"), -EPERM);
}
END_TEST

START_TEST(a_fifo_that_was_removed_is_made_anew)
{
    char path[128];
    _Atomic uint32_t sleeping = 1;
    int waiter = doorbell_fifo_create(run_dir, "box");
    ck_assert_int_eq(doorbell_fifo_keep(&waiter, run_dir, "box"), 0);
    snprintf(path, sizeof path, "%s/box.frontend.bell", run_dir);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(doorbell_fifo_keep(&waiter, run_dir, "box"), 1);
    ck_assert_int_eq(doorbell_fifo_keep(&waiter, run_dir, "box"), 0);
    const int ringer = doorbell_fifo_open(run_dir, "box");
    doorbell_fifo_ring(ringer, &sleeping);
    char ring;
    ck_assert_int_eq(read(waiter, &ring, 1), 1);
    ck_assert_int_eq(doorbell_fifo_keep(&waiter, "/nowhere/at/all", "box"), -ENOENT);
    close(ringer);
    close(waiter);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("doorbell");
    TCase *tcase = tcase_create("doorbell");
    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_add_test(tcase, ringing_someone_who_is_awake_does_nothing);
    tcase_add_test(tcase, a_ring_between_prepare_and_sleep_is_not_lost);
    tcase_add_test(tcase, a_sleeper_wakes_at_its_deadline);
    tcase_add_test(tcase, no_wake_up_is_lost_between_two_processes);
    tcase_add_test(tcase, several_ringers_lose_nothing_either);
    tcase_add_test(tcase, a_fifo_rings_for_a_sleeper_only);
    tcase_add_test(tcase, without_a_fifo_the_sleeper_s_flag_stays);
    tcase_add_test(tcase, a_full_fifo_does_not_block_the_ringer);
    tcase_add_test(tcase, a_new_frontend_takes_the_old_fifo_and_forgets_its_rings);
    tcase_add_test(tcase, what_is_no_fifo_is_refused);
    tcase_add_test(tcase, a_fifo_that_was_removed_is_made_anew);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
