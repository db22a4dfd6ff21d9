#include <check.h>
#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <utmp.h>
#include <termios.h>
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

static const int stop_signals[] = {SIGTERM, SIGINT, SIGHUP};

START_TEST(a_stop_signal_is_seen_and_stays)
{
    ck_assert_int_eq(raise(stop_signals[_i]), 0);
    ck_assert(process_stopping());
    ck_assert(stop_fd_readable());
    ck_assert(stop_fd_readable());
}
END_TEST

/* What is still one wish, and what is a second one, lies 3 s apart; a machine that was away for longer decides nothing.
 */
enum { ATTEMPTS = 5, MANY_ATTEMPTS = 40 };
static const uint64_t surely_one_wish_ns = 2500 * NS_PER_MS;

static int exit_status_of(pid_t child)
{
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFEXITED(status), "status %x", status);
    return WEXITSTATUS(status);
}

/* As when ^C goes to a group and its leader passes it on, and as supervisors do it: each pair of signals. */
START_TEST(signals_that_follow_at_once_are_the_same_wish)
{
    int status = 1;
    bool decided = false;
    for (int attempt = 0; attempt < ATTEMPTS && status != 0 && !decided; attempt++) {
        const uint64_t start_ns = clock_now_ns();
        const pid_t child = fork();
        if (child == 0) {
            raise(stop_signals[_i / 3]);
            raise(stop_signals[_i % 3]);
            raise(stop_signals[_i % 3]);
            _exit(process_stopping() ? 0 : 1);
        }
        status = exit_status_of(child);
        decided = clock_now_ns() - start_ns < surely_one_wish_ns;
    }
    ck_assert_int_eq(status, 0);
}
END_TEST

/* The clock, as this program's code finds it: a signal may come when it was read and its reader does not know it yet.
 * Sanitizers' interceptors are passed over as well. */
static volatile sig_atomic_t after_next_look;
int clock_gettime(clockid_t clock, struct timespec *time)
{
    const int signal_number = after_next_look, result = (int)syscall(SYS_clock_gettime, clock, time);
    after_next_look = 0;
    if (signal_number != 0) {
        struct timespec later;
        do /* the other one's moment is a later one */
            (void)syscall(SYS_clock_gettime, clock, &later);
        while (later.tv_sec == time->tv_sec && later.tv_nsec == time->tv_nsec);
        raise(signal_number);
    }
    return result;
}

/* The second signal's handler begins and ends within the first's, which has read the clock before it: it is the first
 * to say when the wish came, and the first's earlier moment must not be taken for one that came long after. */
START_TEST(a_signal_within_another_s_handler_is_the_same_wish)
{
    int status = 1;
    bool decided = false;
    for (int attempt = 0; attempt < ATTEMPTS && status != 0 && !decided; attempt++) {
        const uint64_t start_ns = clock_now_ns();
        const pid_t child = fork();
        if (child == 0) {
            after_next_look = stop_signals[_i % 3];
            raise(stop_signals[_i / 3]);
            _exit(process_stopping() && after_next_look == 0 ? 0 : 1);
        }
        status = exit_status_of(child);
        decided = clock_now_ns() - start_ns < surely_one_wish_ns;
    }
    ck_assert_int_eq(status, 0);
}
END_TEST

/* Until it ends the process; a SIGHUP comes too, and does not. */
START_TEST(a_signal_some_seconds_later_ends_the_process_with_a_line)
{
    char line[512] = "";
    int ends[2];
    ck_assert_int_eq(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
        const struct timespec pause = {.tv_nsec = 10000000};
        dup2(ends[1], STDERR_FILENO);
        raise(SIGTERM);
        for (;;) {
            raise(SIGHUP);
            raise(stop_signals[_i]);
            nanosleep(&pause, NULL);
        }
    }
    ck_assert_int_eq(exit_status_of(child), 128 + stop_signals[_i]);
    ck_assert_int_gt(read(ends[0], line, sizeof line - 1), 0);
    ck_assert_msg(strstr(line, "test[") == line && strstr(line, "ending at once"), "%s", line);
}
END_TEST

/* The other end of `terminal` is the child's terminal; both write what they have seen. */
static pid_t fork_on_terminal(int *terminal)
{
    int other;
    struct termios settings;
    ck_assert_int_eq(openpty(terminal, &other, NULL, NULL, NULL), 0);
    /* Otherwise a ^C throws away what was written before it, a mark too. */
    ck_assert_int_eq(tcgetattr(other, &settings), 0);
    settings.c_lflag |= NOFLSH;
    ck_assert_int_eq(tcsetattr(other, TCSANOW, &settings), 0);
    const pid_t child = fork();
    if (child == 0) {
        struct pollfd item = {.fd = process_stop_fd(), .events = POLLIN};
        close(*terminal);
        if (login_tty(other) != 0 || write(STDOUT_FILENO, "!", 1) != 1)
            _exit(1);
        while (poll(&item, 1, -1) < 0)
            ;
        if (write(STDOUT_FILENO, "!", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    close(other);
    return child;
}

static void read_mark(int terminal)
{
    char byte = 0;
    while (byte != '!') /* the terminal echoes ^C */
        ck_assert_int_eq(read(terminal, &byte, 1), 1);
}

START_TEST(a_person_s_second_control_c_does_not_wait)
{
    bool decided = false;
    for (int attempt = 0; attempt < MANY_ATTEMPTS && !decided; attempt++) {
        int terminal, status;
        const struct timespec pause = {.tv_nsec = 20000000};
        const pid_t child = fork_on_terminal(&terminal);
        read_mark(terminal);
        const uint64_t start_ns = clock_now_ns();
        ck_assert_int_eq(write(terminal, "\3", 1), 1);
        kill(child, SIGTERM); /* from whoever leads the group */
        read_mark(terminal);
        while (waitpid(child, &status, WNOHANG) == 0) {
            ck_assert_int_eq(write(terminal, "\3", 1), 1);
            nanosleep(&pause, NULL);
        }
        ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 128 + SIGINT, "status %x", status);
        decided = clock_now_ns() - start_ns < surely_one_wish_ns;
        close(terminal);
    }
    ck_assert(decided);
}
END_TEST

/* What the process sends itself is nobody's key. */
START_TEST(a_signal_that_is_raised_is_no_key)
{
    int status = 1;
    bool decided = false;
    for (int attempt = 0; attempt < ATTEMPTS && status != 0 && !decided; attempt++) {
        const uint64_t start_ns = clock_now_ns();
        const pid_t child = fork();
        if (child == 0) {
            const struct timespec longer_than_a_key_bounces = {.tv_nsec = 300000000};
            if (setsid() < 0)
                _exit(2);
            for (int i = 0; i < 3; i++) {
                raise(SIGINT);
                nanosleep(&longer_than_a_key_bounces, NULL);
            }
            _exit(process_stopping() ? 0 : 1);
        }
        status = exit_status_of(child);
        decided = clock_now_ns() - start_ns < surely_one_wish_ns;
    }
    ck_assert_int_eq(status, 0);
}
END_TEST

START_TEST(a_closed_terminal_is_a_stop_signal)
{
    int terminal;
    const pid_t child = fork_on_terminal(&terminal);
    read_mark(terminal);
    close(terminal);
    /* It cannot write its mark any more: that is how it ends. */
    ck_assert_int_eq(exit_status_of(child), 1);
}
END_TEST

START_TEST(who_was_started_to_outlive_its_terminal_does)
{
    const pid_t child = fork();
    if (child == 0) {
        signal(SIGHUP, SIG_IGN);
        if (process_init("test") != 0)
            _exit(2);
        raise(SIGHUP);
        _exit(process_stopping() ? 1 : 0);
    }
    ck_assert_int_eq(exit_status_of(child), 0);
}
END_TEST

/* What is taken at all is taken in the order of the numbers, the terminal's end first; what is not waits for ever. */
START_TEST(who_was_started_to_outlive_its_terminal_does_where_a_thread_takes_the_signals)
{
    const pid_t child = fork();
    if (child == 0) {
        struct pollfd stop = {.fd = process_stop_fd(), .events = POLLIN};
        sigset_t pending;
        signal(SIGHUP, SIG_IGN);
        if (process_init("test") != 0 || process_take_signals() != 0)
            _exit(2);
        kill(getpid(), SIGHUP);
        kill(getpid(), SIGTERM);
        while (poll(&stop, 1, -1) < 0)
            ;
        sigpending(&pending);
        _exit(sigismember(&pending, SIGHUP) == 1 && process_stopping() ? 0 : 1);
    }
    ck_assert_int_eq(exit_status_of(child), 0);
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

START_TEST(what_is_opened_is_never_taken_for_the_log)
{
    const int said = dup(STDERR_FILENO);
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        close(fd);
    const int rc = process_init("test");
    const int next = dup(said);
    dup2(said, STDERR_FILENO);
    ck_assert_int_eq(rc, 0);
    ck_assert_int_gt(next, STDERR_FILENO);
}
END_TEST

START_TEST(threads_that_cannot_be_had_are_found_out_before_they_are_needed)
{
    ck_assert_int_eq(process_need_threads(8), 0);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    ck_assert(file && fscanf(file, "%lu", &pages) == 1 && fclose(file) == 0);
    const rlim_t bytes = pages * (rlim_t)sysconf(_SC_PAGESIZE);
    const struct rlimit limit = {bytes + (1 << 20), bytes + (1 << 20)}; /* less than a hundred stacks have */
    ck_assert_int_eq(setrlimit(RLIMIT_AS, &limit), 0);
    ck_assert_int_lt(process_need_threads(100), 0);
#endif
}
END_TEST

START_TEST(a_file_that_may_not_grow_is_an_error_and_not_the_end)
{
    char path[] = "/tmp/test-process.XXXXXX";
    const struct rlimit limit = {1, 1};
    const int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    unlink(path);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    ck_assert_int_eq(write(fd, "xy", 2), 1);
    ck_assert_int_eq(write(fd, "y", 1), -1);
    ck_assert_int_eq(errno, EFBIG);
    close(fd);
}
END_TEST

/* As a driver's compiler does: its handlers over ours, which the first signal takes away again; here it stays away, as
 * it does for the next one that comes while the first is handled. */
START_TEST(a_driver_s_handlers_take_no_signal)
{
    static const int numbers[] = {SIGTERM, SIGINT, SIGHUP, SIGPIPE, SIGXFSZ};
    char path[] = "/tmp/test-process.XXXXXX";
    int ends[2];
    const pid_t child = fork();
    if (child == 0) {
        const struct rlimit limit = {1, 1};
        struct pollfd stop = {.fd = process_stop_fd(), .events = POLLIN};
        if (process_take_signals() != 0)
            _exit(2);
        for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
            signal(numbers[i], SIG_DFL);
        const int fd = mkstemp(path);
        unlink(path);
        if (fd < 0 || setrlimit(RLIMIT_FSIZE, &limit) != 0 || write(fd, "xy", 2) != 1 || write(fd, "y", 1) != -1 ||
            errno != EFBIG)
            _exit(3);
        if (pipe(ends) != 0 || close(ends[0]) != 0 || write(ends[1], "x", 1) != -1 || errno != EPIPE)
            _exit(4);
        for (int i = 0; i < 3; i++)
            kill(getpid(), stop_signals[(_i + i) % 3]);
        while (poll(&stop, 1, -1) < 0)
            ;
        _exit(process_stopping() ? 0 : 1);
    }
    ck_assert_int_eq(exit_status_of(child), 0);
}
END_TEST

static struct doorbell_word bell;

static void *sleep_until_stopped(void *slept_too_long)
{
    const uint64_t deadline = clock_now_ns() + 600 * NS_PER_S;
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
    tcase_add_loop_test(tcase, a_stop_signal_is_seen_and_stays, 0, 3);
    tcase_add_loop_test(tcase, signals_that_follow_at_once_are_the_same_wish, 0, 9);
    tcase_add_loop_test(tcase, a_signal_within_another_s_handler_is_the_same_wish, 0, 9);
    tcase_add_loop_test(tcase, a_signal_some_seconds_later_ends_the_process_with_a_line, 0, 2);
    tcase_add_test(tcase, a_person_s_second_control_c_does_not_wait);
    tcase_add_test(tcase, a_closed_terminal_is_a_stop_signal);
    tcase_add_test(tcase, a_signal_that_is_raised_is_no_key);
    tcase_add_test(tcase, who_was_started_to_outlive_its_terminal_does);
    tcase_add_test(tcase, who_was_started_to_outlive_its_terminal_does_where_a_thread_takes_the_signals);
    tcase_add_test(tcase, a_broken_pipe_is_an_error_and_not_the_end);
    tcase_add_test(tcase, what_is_opened_is_never_taken_for_the_log);
    tcase_add_test(tcase, threads_that_cannot_be_had_are_found_out_before_they_are_needed);
    tcase_add_test(tcase, a_file_that_may_not_grow_is_an_error_and_not_the_end);
    tcase_add_loop_test(tcase, a_driver_s_handlers_take_no_signal, 0, 3);
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
