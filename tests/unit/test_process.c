#include <check.h>
#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/doorbell.h"
#include "common/process.h"

/* libcheck runs each test in a process of its own, so that each has signals of its own. */

static void set_up(void)
{
    ck_assert_int_eq(process_init("test"), 0);
}

static bool stop_fd_readable(void)
{
    struct pollfd item = {.fd = process_stop_fd(), .events = POLLIN};
    return poll(&item, 1, 0) == 1;
}

START_TEST(nothing_stops_by_itself)
{
    ck_assert(!process_stopping());
    ck_assert_int_ge(process_stop_fd(), 0);
    ck_assert(!stop_fd_readable());
}
END_TEST

static const int stop_signals[] = {SIGTERM, SIGINT};

START_TEST(a_stop_signal_is_seen_and_stays)
{
    ck_assert_int_eq(raise(stop_signals[_i]), 0);
    ck_assert(process_stopping());
    ck_assert(stop_fd_readable());
    ck_assert(stop_fd_readable());
}
END_TEST

START_TEST(the_second_stop_signal_ends_the_process)
{
    int status;
    const pid_t child = fork();
    if (child == 0) {
        raise(SIGTERM);
        raise(stop_signals[_i]);
        _exit(0);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status));
    ck_assert_int_eq(WEXITSTATUS(status), 128 + stop_signals[_i]);
}
END_TEST

START_TEST(a_broken_pipe_is_an_error_and_not_the_end)
{
    int ends[2];
    ck_assert_int_eq(pipe(ends), 0);
    close(ends[0]);
    ck_assert_int_eq(write(ends[1], "x", 1), -1);
    ck_assert_int_eq(errno, EPIPE);
    close(ends[1]);
}
END_TEST

static struct doorbell_word bell;

static void *sleep_until_stopped(void *slept_too_long)
{
    const uint64_t deadline = clock_now_ns() + 30 * NS_PER_S;
    for (;;) {
        const uint32_t ticket = doorbell_prepare(&bell);
        if (process_stopping() || clock_now_ns() >= deadline)
            break;
        doorbell_sleep(&bell, ticket, deadline);
    }
    doorbell_cancel(&bell);
    *(bool *)slept_too_long = clock_now_ns() >= deadline;
    return NULL;
}

/* The signal is for the process, and this thread is the one that takes it: the sleeper gets no EINTR to wake it. */
START_TEST(a_thread_that_sleeps_on_the_futex_is_woken)
{
    bool slept_too_long = true;
    pthread_t sleeper;
    sigset_t stop;
    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    process_stop_futex(&bell.bell);
    pthread_sigmask(SIG_BLOCK, &stop, NULL);
    ck_assert_int_eq(pthread_create(&sleeper, NULL, sleep_until_stopped, &slept_too_long), 0);
    pthread_sigmask(SIG_UNBLOCK, &stop, NULL);
    while (atomic_load(&bell.sleeping) == 0)
        sched_yield();
    ck_assert_int_eq(kill(getpid(), SIGTERM), 0);
    pthread_join(sleeper, NULL);
    ck_assert(!slept_too_long);
}
END_TEST

START_TEST(a_futex_that_was_taken_back_is_left_alone)
{
    static _Atomic uint32_t word;
    process_stop_futex(&word);
    process_stop_futex(NULL);
    raise(SIGTERM);
    ck_assert_uint_eq(word, 0);
    ck_assert(process_stopping());
}
END_TEST

START_TEST(large_blocks_stay_with_the_process)
{
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    char *block = malloc(16 << 20);
    ck_assert_ptr_nonnull(block);
    memset(block, 1, 16 << 20);
    ck_assert_uint_eq(mallinfo2().hblkhd, 0); /* no mapping of its own */
    const size_t arena = mallinfo2().arena;
    free(block);
    ck_assert_uint_eq(mallinfo2().arena, arena);
#endif
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("process");
    TCase *tcase = tcase_create("process");
    tcase_add_checked_fixture(tcase, set_up, NULL);
    tcase_add_test(tcase, nothing_stops_by_itself);
    tcase_add_loop_test(tcase, a_stop_signal_is_seen_and_stays, 0, 2);
    tcase_add_loop_test(tcase, the_second_stop_signal_ends_the_process, 0, 2);
    tcase_add_test(tcase, a_broken_pipe_is_an_error_and_not_the_end);
    tcase_add_test(tcase, a_thread_that_sleeps_on_the_futex_is_woken);
    tcase_add_test(tcase, a_futex_that_was_taken_back_is_left_alone);
    tcase_add_test(tcase, large_blocks_stay_with_the_process);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_FORK);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
