#include <check.h>
#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "common/copier.h"

enum { PIECE = 5000, LARGE = 300 << 10, PIECES = 300 };

static const unsigned thread_counts[] = {1, 2, 4, COPIER_MAX_THREADS};

static unsigned char *filled(size_t bytes, unsigned seed)
{
    unsigned char *memory = malloc(bytes);
    for (size_t i = 0; i < bytes; i++)
        memory[i] = (unsigned char)((i * 2654435761u + seed) >> 7);
    return memory;
}

static struct copier *copier_of(unsigned threads)
{
    struct copier *copier;
    ck_assert_int_eq(copier_create(&copier, threads), 0);
    ck_assert_uint_ge(copier_threads(copier), 1);
    ck_assert_uint_le(copier_threads(copier), threads == 0 ? 4 : threads);
    return copier;
}

START_TEST(every_piece_is_copied_when_it_was_waited_for)
{
    struct copier *copier = copier_of(thread_counts[_i]);
    unsigned char *from = filled(PIECE * PIECES, 1), *to = calloc(PIECES, PIECE);
    for (unsigned turn = 0; turn < 20; turn++) {
        uint64_t positions[PIECES];
        memset(to, 0, (size_t)PIECE * PIECES);
        from[turn]++;
        for (size_t i = 0; i < PIECES; i++)
            positions[i] = copier_offer(copier, to + i * PIECE, from + i * PIECE, PIECE - i);
        for (size_t i = 0; i < PIECES; i++) {
            copier_wait(copier, positions[i]);
            ck_assert_int_eq(memcmp(to + i * PIECE, from + i * PIECE, PIECE - i), 0);
            ck_assert(i == 0 || to[i * PIECE + PIECE - i] == 0);
        }
    }
    copier_destroy(&copier);
    ck_assert_ptr_null(copier);
    free(from);
    free(to);
}
END_TEST

START_TEST(pieces_that_are_worth_it_wake_the_other_threads)
{
    enum { COUNT = 8 };
    struct copier *copier = copier_of(thread_counts[_i]);
    unsigned char *from = filled(LARGE * COUNT, 3), *to = calloc(COUNT, LARGE);
    for (unsigned turn = 0; turn < 30; turn++) {
        memset(to, 0, (size_t)LARGE * COUNT);
        for (size_t i = 0; i < COUNT; i++)
            copier_offer(copier, to + i * LARGE, from + i * LARGE, LARGE);
        copier_wait_all(copier);
        ck_assert_int_eq(memcmp(to, from, (size_t)LARGE * COUNT), 0);
    }
    copier_destroy(&copier);
    free(from);
    free(to);
}
END_TEST

START_TEST(all_are_copied_when_all_were_waited_for_also_pieces_one_by_one)
{
    struct copier *copier = copier_of(thread_counts[_i]);
    unsigned char *from = filled(PIECE * PIECES, 2), *to = calloc(PIECES, PIECE);
    copier_wait_all(copier); /* there are none */
    for (unsigned turn = 0; turn < 5; turn++) {
        const size_t pieces = turn % 2 ? 1 : PIECES;
        memset(to, 0, (size_t)PIECE * PIECES);
        for (size_t i = 0; i < pieces; i++)
            copier_offer(copier, to + i * PIECE, from + i * PIECE, PIECE);
        copier_wait_all(copier);
        ck_assert_int_eq(memcmp(to, from, pieces * PIECE), 0);
    }
    copier_destroy(&copier);
    free(from);
    free(to);
}
END_TEST

/* Of sizes at which one thread begins to be too few, parts are equal, and parts are not. */
START_TEST(a_copy_is_whole_and_no_more_than_that)
{
    static const size_t sizes[] = {0, 1, COPIER_ALONE - 1, COPIER_ALONE, COPIER_ALONE + 1, (5 << 20) + 4097, 40 << 20};
    struct copier *copier = copier_of(thread_counts[_i]);
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        unsigned char *from = filled(sizes[s] + 1, (unsigned)s), *to = calloc(1, sizes[s] + 1);
        copier_copy(copier, to, from, sizes[s]);
        ck_assert_int_eq(memcmp(to, from, sizes[s]), 0);
        ck_assert_uint_eq(to[sizes[s]], 0);
        free(from);
        free(to);
    }
    copier_destroy(&copier);
}
END_TEST

/* A page that cannot be read, and what a thread that reads it does: another one than the caller loses time there. */
enum { PAGE = 4096, HELD_UP_MS = 20 };
static struct {
    unsigned char *page;
    pthread_t caller;
    bool hold_up;
    atomic_int others;
} pitfall;

static void fall_in(int number)
{
    (void)number;
    if (!pthread_equal(pthread_self(), pitfall.caller)) {
        pitfall.others++;
        if (pitfall.hold_up)
            nanosleep(&(struct timespec){.tv_nsec = HELD_UP_MS * 1000000}, NULL);
    }
    mprotect(pitfall.page, PAGE, PROT_READ | PROT_WRITE);
}

/* How often another thread than the caller reads the middle of what is copied; hold_up: until it does. */
static int copies_by_others(struct copier *copier, unsigned char *to, unsigned char *from, size_t bytes, int copies)
{
    pitfall.others = 0;
    for (int i = 0; i < copies && !(pitfall.hold_up && pitfall.others > 0); i++) {
        mprotect(pitfall.page, PAGE, PROT_NONE);
        copier_copy(copier, to, from, bytes);
        ck_assert_int_eq(memcmp(to, from, bytes), 0);
    }
    return pitfall.others;
}

static unsigned char *open_pitfall(size_t bytes, struct sigaction *before)
{
    struct sigaction action = {.sa_handler = fall_in};
    unsigned char *from = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert(from != MAP_FAILED);
    memset(from, 7, bytes);
    pitfall.page = from + bytes / 2 / PAGE * PAGE;
    pitfall.others = 0;
    pitfall.caller = pthread_self();
    sigaction(SIGSEGV, &action, before);
    return from;
}

START_TEST(after_a_copy_that_was_held_up_the_caller_copies_alone_for_a_while)
{
    enum { BYTES = 4 << 20, ALONE = 200, TRIES = 50, COPIES = 2000 };
    struct copier *copier = copier_of(2);
    struct sigaction before;
    unsigned char *to = malloc(BYTES), *from = open_pitfall(BYTES, &before);
    /* Where the caller itself was away while the other one was, it saw nothing: once more then. */
    int others = 1, helped = 0;
    for (int i = 0; i < TRIES && others > 0; i++) {
        pitfall.hold_up = true;
        helped = copies_by_others(copier, to, from, BYTES, COPIES);
        pitfall.hold_up = false;
        others = copies_by_others(copier, to, from, BYTES, ALONE);
    }
    ck_assert_int_eq(others, 0);
    /* And then with the others again, where they came to it before. */
    pitfall.hold_up = true;
    while (helped > 0 && copies_by_others(copier, to, from, BYTES, COPIES) == 0)
        ;
    sigaction(SIGSEGV, &before, NULL);
    copier_destroy(&copier);
    munmap(from, BYTES);
    free(to);
}
END_TEST

/* How many threads that copy have a status (proc(5)) that is so. */
static int threads_that(bool (*are_so)(const char *status))
{
    int count = 0;
    DIR *threads = opendir("/proc/self/task");
    for (struct dirent *entry; (entry = readdir(threads)) != NULL;) {
        char path[64], status[4096];
        snprintf(path, sizeof path, "/proc/self/task/%.20s/status", entry->d_name);
        FILE *file = fopen(path, "r");
        if (!file)
            continue;
        status[fread(status, 1, sizeof status - 1, file)] = 0;
        fclose(file);
        count += strstr(status, "Name:\tcopier\n") && are_so(status);
    }
    closedir(threads);
    return count;
}

static bool sleep_now(const char *status)
{
    return strstr(status, "\nState:\tS") != NULL;
}

/* Which is after they have begun: only then are their signals what they stay. */
static void until_all_sleep(const struct copier *copier)
{
    while (threads_that(sleep_now) + 1 < (int)copier_threads(copier))
        sched_yield();
}

static bool leave_signals(const char *status)
{
    const char *line = strstr(status, "\nSigBlk:\t");
    const uint64_t blocked = line ? strtoull(line + strlen("\nSigBlk:\t"), NULL, 16) : 0;
    const uint64_t others = 1u << (SIGTERM - 1) | 1u << (SIGINT - 1) | 1u << (SIGHUP - 1), own = 1u << (SIGSEGV - 1);
    return (blocked & (others | own)) == others;
}

START_TEST(a_piece_that_is_worth_it_wakes_a_thread_that_sleeps)
{
    struct copier *copier = copier_of(2);
    struct sigaction before;
    unsigned char *to = malloc(LARGE), *from = open_pitfall(LARGE, &before);
    until_all_sleep(copier);
    ck_assert_int_eq(mprotect(pitfall.page, PAGE, PROT_NONE), 0);
    const uint64_t position = copier_offer(copier, to, from, LARGE);
    while (pitfall.others == 0) /* the caller copies nothing meanwhile */
        sched_yield();
    copier_wait(copier, position);
    ck_assert_int_eq(memcmp(to, from, LARGE), 0);
    sigaction(SIGSEGV, &before, NULL);
    copier_destroy(&copier);
    munmap(from, LARGE);
    free(to);
}
END_TEST

START_TEST(threads_that_copy_leave_signals_to_others_but_for_those_of_their_own_faults)
{
    struct copier *copier = copier_of(3);
    until_all_sleep(copier);
    ck_assert_int_eq(threads_that(leave_signals), (int)copier_threads(copier) - 1);
    copier_destroy(&copier);
}
END_TEST

START_TEST(without_a_copier_the_caller_copies)
{
    char to[4] = "";
    copier_copy(NULL, to, "one", 4);
    ck_assert_str_eq(to, "one");
}
END_TEST

START_TEST(more_copiers_have_fewer_threads_each_and_at_least_the_caller)
{
    ck_assert_uint_le(copier_spare_threads(1), 4);
    ck_assert_uint_le(copier_spare_threads(2), copier_spare_threads(1));
    ck_assert_uint_eq(copier_spare_threads(100000), 1);
}
END_TEST

/* So that a transfer of the first one can begin. */
START_TEST(a_copier_of_one_thread_copies_what_is_waited_for_and_no_more)
{
    struct copier *copier = copier_of(1);
    char to[2][4] = {"", ""};
    const uint64_t first = copier_offer(copier, to[0], "one", 4), second = copier_offer(copier, to[1], "two", 4);
    copier_wait(copier, first);
    ck_assert_str_eq(to[0], "one");
    ck_assert_str_eq(to[1], "");
    copier_wait(copier, second);
    ck_assert_str_eq(to[1], "two");
    copier_destroy(&copier);
}
END_TEST

START_TEST(threads_are_as_many_as_the_machine_has_to_spare_and_end_unused)
{
    struct copier *copier = copier_of(0);
    copier_destroy(&copier);
    copier_destroy(&copier);
    copier = copier_of(8);
    copier_destroy(&copier);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("copier");
    tcase_set_timeout(all, 60);
    tcase_add_loop_test(all, every_piece_is_copied_when_it_was_waited_for, 0, 4);
    tcase_add_loop_test(all, pieces_that_are_worth_it_wake_the_other_threads, 0, 4);
    tcase_add_loop_test(all, all_are_copied_when_all_were_waited_for_also_pieces_one_by_one, 0, 4);
    tcase_add_loop_test(all, a_copy_is_whole_and_no_more_than_that, 0, 4);
    tcase_add_test(all, after_a_copy_that_was_held_up_the_caller_copies_alone_for_a_while);
    tcase_add_test(all, a_piece_that_is_worth_it_wakes_a_thread_that_sleeps);
    tcase_add_test(all, threads_that_copy_leave_signals_to_others_but_for_those_of_their_own_faults);
    tcase_add_test(all, without_a_copier_the_caller_copies);
    tcase_add_test(all, more_copiers_have_fewer_threads_each_and_at_least_the_caller);
    tcase_add_test(all, a_copier_of_one_thread_copies_what_is_waited_for_and_no_more);
    tcase_add_test(all, threads_are_as_many_as_the_machine_has_to_spare_and_end_unused);
    Suite *suite = suite_create("copier");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
