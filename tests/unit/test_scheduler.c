#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "pools/pool.h"
#include "runtime/serve/scheduler.h"

enum { POOLS = 40, MAX_ROWS = 8, NOW = 1000000 };

static char server[32];
static struct pool *producers[POOLS], *consumers[POOLS];
static struct scheduler *scheduler;
static uint32_t skipped[POOLS];

static void on_skipped(void *context, uint32_t index, uint32_t tasks)
{
    ck_assert_ptr_eq(context, skipped);
    skipped[index] += tasks;
}

static void open_pools(void)
{
    const struct schema schema = {.count = 1, .tensors = {{.dtype = DTYPE_FLOAT32, .ndim = 1, .dims = {4}}}};
    snprintf(server, sizeof server, "scheduler-%d", (int)getpid());
    for (uint32_t i = 0; i < POOLS; i++) {
        const struct pool_layout layout = {.server = server,
                                           .device = "d",
                                           .generation = 1,
                                           .index = i,
                                           .kind = POOL_FORWARD,
                                           .uid = "nop.0",
                                           .inputs = schema,
                                           .outputs = schema,
                                           .max_batch_size = MAX_ROWS,
                                           .queue_rows = 4 * MAX_ROWS,
                                           .queue_tasks = 32};
        ck_assert_int_eq(pool_create(&consumers[i], &layout), 0);
        ck_assert_int_eq(pool_attach(&producers[i], server, "d", 1, i), 0);
    }
    memset(skipped, 0, sizeof skipped);
    ck_assert_int_eq(scheduler_create(&scheduler, POOLS, on_skipped, skipped), 0);
    for (uint32_t i = 0; i < POOLS; i++)
        scheduler_add(scheduler, i, consumers[i], &(struct pool_limits){0});
}

static void close_pools(void)
{
    scheduler_destroy(&scheduler);
    scheduler_destroy(&scheduler);
    for (uint32_t i = 0; i < POOLS; i++) {
        pool_detach(&producers[i]);
        pool_detach(&consumers[i]);
        ck_assert_int_eq(pool_remove(server, "d", 1, i), 0);
    }
}

static const struct scheduler_wish no_wish = {0}, full = {.rows = UINT32_MAX, .until_ns = UINT64_MAX};

static uint64_t queue(uint32_t index, uint32_t rows, uint64_t queued_ns, uint64_t deadline_ns)
{
    struct pool_claim claim;
    ck_assert_int_eq(pool_claim(producers[index], rows, &claim), 0);
    pool_commit(producers[index], &claim, &(struct pool_task){.queued_ns = queued_ns, .deadline_ns = deadline_ns});
    return claim.task;
}

static void queue_and_notice(uint32_t index, uint32_t rows, uint64_t queued_ns)
{
    queue(index, rows, queued_ns, 0);
    scheduler_notice(scheduler, index, NOW);
}

/* Takes what is next and completes it: the pool's index, or -1. */
static int run_next(uint64_t now_ns, uint32_t *rows)
{
    uint32_t index;
    uint64_t retry_ns;
    struct pool_batch batch;
    while (scheduler_next(scheduler, now_ns, &index, &retry_ns) == 1) {
        if (scheduler_take(scheduler, index, &no_wish, now_ns, &batch) == 0)
            continue;
        pool_complete(consumers[index], &batch, STATUS_OK, NULL);
        if (rows)
            *rows = batch.rows;
        return (int)index;
    }
    return -1;
}

static void release_results(uint32_t index)
{
    struct pool_result result;
    while (pool_next_result(producers[index], &result) == 1)
        pool_release(producers[index], result.task);
}

START_TEST(the_pool_whose_oldest_task_is_oldest_is_next)
{
    static const uint64_t ages[6] = {500, 300, 900, 100, 700, 200};
    static const int order[6] = {3, 5, 1, 0, 4, 2};
    for (uint32_t i = 0; i < 6; i++)
        queue_and_notice(i, 1, ages[i]);
    for (int i = 0; i < 6; i++)
        ck_assert_int_eq(run_next(NOW, NULL), order[i]);
    ck_assert_int_eq(run_next(NOW, NULL), -1);
}
END_TEST

START_TEST(a_busy_pool_does_not_starve_another)
{
    queue_and_notice(7, 1, 1000);
    for (uint64_t i = 0; i < 50; i++) {
        /* Pool 3 always has a task, and has tasks that are older than pool 7's only until 1000 is reached. */
        queue_and_notice(3, MAX_ROWS, 990 + i);
        const int next = run_next(NOW, NULL);
        release_results(3);
        if (next == 7) {
            ck_assert_uint_ge(i, 10);
            ck_assert_uint_le(i, 11);
            return;
        }
    }
    ck_abort_msg("pool 7 was never served");
}
END_TEST

START_TEST(tasks_that_came_meanwhile_join_the_batch)
{
    uint32_t rows;
    queue_and_notice(2, 1, 100);
    queue(2, 3, 150, 0);
    ck_assert_int_eq(run_next(NOW, &rows), 2);
    ck_assert_uint_eq(rows, 4);
}
END_TEST

START_TEST(a_pool_waits_for_its_least_rows_and_not_longer_than_its_timeout)
{
    uint32_t index;
    uint64_t retry_ns;
    struct pool_batch batch;
    scheduler_add(scheduler, 4, consumers[4], &(struct pool_limits){.min_batch_size = 4, .batch_timeout_ns = 500});
    scheduler_add(scheduler, 5, consumers[5], &(struct pool_limits){.min_batch_size = 4, .batch_timeout_ns = 100});
    queue_and_notice(4, 2, NOW);
    queue_and_notice(5, 2, NOW);
    queue_and_notice(6, 1, NOW);
    /* The one that need not wait is not held up by them. */
    ck_assert_int_eq(run_next(NOW, NULL), 6);
    ck_assert_int_eq(run_next(NOW, NULL), -1);
    ck_assert_int_eq(scheduler_next(scheduler, NOW + 1, &index, &retry_ns), 0);
    ck_assert_uint_eq(retry_ns, NOW + 100);
    ck_assert_int_eq(run_next(NOW + 99, NULL), -1);
    ck_assert_int_eq(run_next(NOW + 100, NULL), 5);
    ck_assert_int_eq(scheduler_next(scheduler, NOW + 100, &index, &retry_ns), 0);
    ck_assert_uint_eq(retry_ns, NOW + 500);
    /* The rows come before the timeout. */
    queue_and_notice(4, 2, NOW + 200);
    ck_assert_int_eq(scheduler_next(scheduler, NOW + 200, &index, &retry_ns), 1);
    ck_assert_int_eq(scheduler_take(scheduler, index, &no_wish, NOW + 200, &batch), 1);
    ck_assert_uint_eq(batch.rows, 4);
    pool_complete(consumers[4], &batch, STATUS_OK, NULL);
    ck_assert_int_eq(scheduler_next(scheduler, NOW + 200, &index, &retry_ns), 0);
    ck_assert_uint_eq(retry_ns, UINT64_MAX);
}
END_TEST

START_TEST(cancelled_and_expired_tasks_do_not_count_as_oldest)
{
    const uint64_t cancelled = queue(1, 1, 100, 0);
    queue(1, 1, 800, 0);
    scheduler_notice(scheduler, 1, NOW);
    queue(2, 1, 200, NOW + 5);
    queue(2, 1, 900, 0);
    scheduler_notice(scheduler, 2, NOW);
    queue_and_notice(3, 1, 500);
    pool_cancel(producers[1], cancelled);
    ck_assert_int_eq(run_next(NOW + 10, NULL), 3);
    ck_assert_int_eq(run_next(NOW + 10, NULL), 1);
    ck_assert_int_eq(run_next(NOW + 10, NULL), 2);
    ck_assert_int_eq(run_next(NOW + 10, NULL), -1);
    ck_assert_uint_eq(skipped[1], 1);
    ck_assert_uint_eq(skipped[2], 1);
}
END_TEST

START_TEST(a_batch_that_would_grow_can_be_left)
{
    uint32_t index;
    uint64_t retry_ns;
    struct pool_batch batch;
    queue_and_notice(1, 5, 100);
    ck_assert_int_eq(scheduler_next(scheduler, NOW, &index, &retry_ns), 1);
    ck_assert_int_eq(scheduler_take(scheduler, index, &full, NOW, &batch), 0);
    ck_assert_int_eq(scheduler_next(scheduler, NOW, &index, &retry_ns), 1); /* it is still its turn */
    queue_and_notice(1, 4, 200);                                            /* does not fit: so it is full */
    ck_assert_int_eq(scheduler_take(scheduler, index, &full, NOW, &batch), 1);
    ck_assert_uint_eq(batch.rows, 5);
    pool_complete(consumers[1], &batch, STATUS_OK, NULL);
}
END_TEST

START_TEST(a_wish_ends_at_its_time_and_does_not_keep_others_waiting)
{
    uint32_t index, rows;
    uint64_t retry_ns;
    struct pool_batch batch;
    const struct scheduler_wish wish = {.rows = 4, .until_ns = NOW + 50};
    queue_and_notice(1, 2, NOW - 100);
    queue_and_notice(2, 1, NOW - 50);
    ck_assert_int_eq(scheduler_next(scheduler, NOW, &index, &retry_ns), 1);
    ck_assert_uint_eq(index, 1);
    ck_assert_int_eq(scheduler_take(scheduler, index, &wish, NOW, &batch), 0);
    ck_assert_int_eq(run_next(NOW, NULL), 2); /* the younger one, as the older waits */
    ck_assert_int_eq(scheduler_next(scheduler, NOW + 49, &index, &retry_ns), 0);
    ck_assert_uint_eq(retry_ns, NOW + 50);
    ck_assert_int_eq(run_next(NOW + 50, &rows), 1);
    ck_assert_uint_eq(rows, 2);

    queue_and_notice(1, 2, NOW);
    ck_assert_int_eq(scheduler_next(scheduler, NOW, &index, &retry_ns), 1);
    ck_assert_int_eq(scheduler_take(scheduler, index, &wish, NOW, &batch), 0);
    queue_and_notice(1, 2, NOW);
    ck_assert_int_eq(scheduler_next(scheduler, NOW, &index, &retry_ns), 1);
    ck_assert_int_eq(scheduler_take(scheduler, index, &wish, NOW, &batch), 1);
    ck_assert_uint_eq(batch.rows, 4);
    pool_complete(consumers[1], &batch, STATUS_OK, NULL);
}
END_TEST

START_TEST(a_wish_does_not_shorten_what_a_pool_was_told_to_wait)
{
    uint32_t index;
    uint64_t retry_ns;
    struct pool_batch batch;
    /* More rows than it waits for by itself, and for a shorter time; then one whose time is over. */
    static const struct scheduler_wish wishes[] = {{.rows = 8, .until_ns = NOW + 50}, {.rows = 8, .until_ns = NOW - 1}};
    scheduler_add(scheduler, 4, consumers[4], &(struct pool_limits){.min_batch_size = 4, .batch_timeout_ns = 500});
    for (size_t i = 0; i < sizeof wishes / sizeof wishes[0]; i++) {
        queue_and_notice(4, 2, NOW);
        ck_assert_int_eq(scheduler_next(scheduler, NOW, &index, &retry_ns), 1);
        ck_assert_int_eq(scheduler_take(scheduler, index, &wishes[i], NOW, &batch), 0);
        ck_assert_int_eq(scheduler_next(scheduler, NOW + 499, &index, &retry_ns), 0);
        ck_assert_uint_eq(retry_ns, NOW + 500);
        queue_and_notice(4, 2, NOW);
        ck_assert_int_eq(scheduler_next(scheduler, NOW, &index, &retry_ns), 1);
        ck_assert_int_eq(scheduler_take(scheduler, index, &wishes[i], NOW, &batch), 1);
        ck_assert_uint_eq(batch.rows, 4);
        pool_complete(consumers[4], &batch, STATUS_OK, NULL);
    }
}
END_TEST

START_TEST(a_pool_that_is_held_waits_until_it_is_released)
{
    queue_and_notice(1, 1, 100);
    scheduler_hold(scheduler, 1);
    queue_and_notice(1, 1, 150);
    queue_and_notice(2, 1, 200);
    ck_assert_int_eq(run_next(NOW, NULL), 2);
    ck_assert_int_eq(run_next(NOW, NULL), -1);
    scheduler_release(scheduler, 1, NOW);
    ck_assert_int_eq(run_next(NOW, NULL), 1);
}
END_TEST

START_TEST(a_damaged_pool_is_left_alone_and_the_others_are_served)
{
    queue_and_notice(1, 1, 100);
    queue_and_notice(2, 1, 200);
    /* The frontend's half of the segment is not to be trusted. The header is this process's copy: so through the slab's
     * address, of which the header tells where in the segment it lies. */
    struct pool_shared *shared =
        (struct pool_shared *)((char *)pool_input(consumers[1], 0) - pool_header(consumers[1])->input_offset[0]);
    atomic_store(&shared->frontend.committed, UINT64_MAX);
    ck_assert(!scheduler_broken(scheduler));
    ck_assert_int_eq(run_next(NOW, NULL), 2);
    ck_assert(scheduler_broken(scheduler));
    scheduler_notice(scheduler, 1, NOW);
    ck_assert_int_eq(run_next(NOW, NULL), -1);
    queue_and_notice(2, 1, 300);
    ck_assert_int_eq(run_next(NOW, NULL), 2);
}
END_TEST

/* Against the plain rule: of all pools with tasks, the one with the oldest. */
START_TEST(any_sequence_of_tasks_is_served_oldest_first)
{
    uint64_t oldest[POOLS] = {0}, clock = 1;
    uint32_t queued[POOLS] = {0};
    srand(7);
    for (int step = 0; step < 20000; step++) {
        if (rand() % 3 != 0) {
            const uint32_t index = (uint32_t)rand() % POOLS;
            if (queued[index] == 4)
                continue;
            oldest[index] = queued[index]++ == 0 ? clock : oldest[index];
            queue(index, 1 + (uint32_t)rand() % 2, clock++, 0);
            scheduler_notice(scheduler, index, NOW);
            continue;
        }
        int expected = -1;
        for (int i = 0; i < POOLS; i++)
            if (queued[i] > 0 && (expected < 0 || oldest[i] < oldest[expected]))
                expected = i;
        ck_assert_int_eq(run_next(NOW, NULL), expected);
        if (expected >= 0) {
            release_results((uint32_t)expected);
            queued[expected] = pool_tasks_queued(consumers[expected]);
            uint32_t completed;
            if (queued[expected] > 0)
                ck_assert_int_eq(pool_oldest(consumers[expected], NOW, &oldest[expected], &completed), 1);
        }
    }
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("scheduler");
    tcase_add_checked_fixture(all, open_pools, close_pools);
    tcase_add_test(all, the_pool_whose_oldest_task_is_oldest_is_next);
    tcase_add_test(all, a_busy_pool_does_not_starve_another);
    tcase_add_test(all, tasks_that_came_meanwhile_join_the_batch);
    tcase_add_test(all, a_pool_waits_for_its_least_rows_and_not_longer_than_its_timeout);
    tcase_add_test(all, cancelled_and_expired_tasks_do_not_count_as_oldest);
    tcase_add_test(all, a_batch_that_would_grow_can_be_left);
    tcase_add_test(all, a_wish_ends_at_its_time_and_does_not_keep_others_waiting);
    tcase_add_test(all, a_wish_does_not_shorten_what_a_pool_was_told_to_wait);
    tcase_add_test(all, a_pool_that_is_held_waits_until_it_is_released);
    tcase_add_test(all, a_damaged_pool_is_left_alone_and_the_others_are_served);
    tcase_add_test(all, any_sequence_of_tasks_is_served_oldest_first);
    Suite *suite = suite_create("scheduler");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
