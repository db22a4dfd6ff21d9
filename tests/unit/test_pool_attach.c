/* What a frontend's death leaves, and what the next one makes of it. */
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support_pool.h"

START_TEST(what_an_earlier_frontend_left_is_orphaned)
{
    struct pool_pair pair;
    struct pool_batch first, second;
    struct pool_result result;
    support_open(&pair, POOL_FORWARD, 64, 16, 2);
    for (int i = 0; i < 8; i++)
        support_put(&pair, 1);
    ck_assert_uint_eq(support_take(&pair, &first), 2);
    support_run(&pair, &first);
    ck_assert_uint_eq(support_take(&pair, &first), 2);
    support_run(&pair, &first);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(pool_next_result(pair.frontend, &result), 1);
    pool_release(pair.frontend, 0);
    pool_release(pair.frontend, 2);                     /* out of order: nobody will know */
    ck_assert_uint_eq(support_take(&pair, &second), 2); /* tasks 4 and 5 run while the frontend dies; 6, 7 are queued */

    support_restart_frontend(&pair);
    ck_assert_uint_eq(pool_tasks_held(pair.frontend), 7);
    ck_assert_uint_eq(support_put(&pair, 1), 8); /* of the new epoch */
    support_run(&pair, &second);
    uint32_t completed;
    uint64_t queued_ns;
    ck_assert_int_eq(pool_oldest(pair.runtime, 1000, &queued_ns, &completed), 1);
    ck_assert_uint_eq(completed, 2); /* 6 and 7 do not run */
    ck_assert_uint_eq(support_take(&pair, &second), 1);
    ck_assert_uint_eq(second.first_task, 8);
    support_run(&pair, &second);
    for (uint64_t task = 1; task < 6; task++)
        support_expect(&pair, task, STATUS_OK, true);
    support_expect(&pair, 6, STATUS_DEADLINE_EXCEEDED, true);
    support_expect(&pair, 7, STATUS_DEADLINE_EXCEEDED, true);
    support_expect(&pair, 8, STATUS_OK, false);
    support_expect_none(&pair);
    ck_assert_uint_eq(pool_tasks_held(pair.frontend), 0);
    support_close(&pair);
}
END_TEST

START_TEST(no_row_is_reused_before_the_runtime_is_done_with_it)
{
    struct pool_pair pair;
    struct pool_batch batch;
    struct pool_claim claim;
    support_open(&pair, POOL_FORWARD, 16, 16, 8);
    support_put(&pair, 8);
    support_put(&pair, 8);
    ck_assert_uint_eq(support_take(&pair, &batch), 1);
    for (int i = 0; i < 3; i++) {
        support_restart_frontend(&pair);
        ck_assert_int_eq(support_claim(&pair, 1, &claim), -EAGAIN);
    }
    support_run(&pair, &batch);
    ck_assert_int_eq(support_claim(&pair, 1, &claim), -EAGAIN);
    support_expect(&pair, 0, STATUS_OK, true);
    ck_assert_int_eq(support_claim(&pair, 8, &claim), 0);
    ck_assert_uint_eq(claim.row, 0);
    ck_assert_uint_eq(support_put(&pair, 8), 2);
    ck_assert_int_eq(support_claim(&pair, 1, &claim), -EAGAIN);
    ck_assert_uint_eq(support_take(&pair, &batch), 1);
    ck_assert_uint_eq(batch.first_task, 2);
    support_run(&pair, &batch);
    support_expect(&pair, 1, STATUS_DEADLINE_EXCEEDED, true);
    support_expect(&pair, 2, STATUS_OK, false);
    support_close(&pair);
}
END_TEST

/* Runs `life` as a frontend in a child that then kills itself with SIGKILL. */
static void die_as_frontend(struct pool_pair *pair, void (*life)(struct pool *pool))
{
    pool_detach(&pair->frontend);
    const pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        struct pool *pool;
        if (pool_attach(&pool, support_server(), pair->device, 1, pair->layout.index) == 0)
            life(pool);
        _exit(1); /* life did not kill it */
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    ck_assert_int_eq(pool_attach(&pair->frontend, support_server(), pair->device, 1, pair->layout.index), 0);
}

static void die_between_claim_and_commit(struct pool *pool)
{
    struct pool_claim claim;
    if (pool_claim(pool, 4, &claim) != 0)
        return;
    memset((char *)pool_input(pool, 0) + claim.row * pool_input_row_bytes(pool, 0), 0xff, 100);
    raise(SIGKILL);
}

static void die_after_commit(struct pool *pool)
{
    struct pool_claim claim;
    if (pool_claim(pool, 4, &claim) != 0)
        return;
    memset((char *)pool_input(pool, 0) + claim.row * pool_input_row_bytes(pool, 0), 0, 4 * 64);
    pool_commit(pool, &claim, &(struct pool_task){.queued_ns = 7, .client = {1, 2}, .request_id = 3});
    raise(SIGKILL);
}

/* As it is between the two stores of pool_commit. */
static void die_within_commit(struct pool *pool)
{
    struct pool_claim claim;
    if (pool_claim(pool, 4, &claim) != 0)
        return;
    pool_task_at(pool, claim.task)->rows = 0;
    atomic_store(&pool->shared->frontend.row_position, claim.row_position + claim.rows);
    raise(SIGKILL);
}

START_TEST(a_frontend_killed_between_claim_and_commit_leaves_nothing)
{
    struct pool_pair pair;
    struct pool_batch batch;
    support_open(&pair, POOL_FORWARD, 16, 4, 8);
    for (uint64_t task = 0; task < 50; task++) {
        die_as_frontend(&pair, task % 2 ? die_within_commit : die_between_claim_and_commit);
        ck_assert_uint_eq(support_take(&pair, &batch), 0);
        ck_assert_uint_eq(pool_tasks_held(pair.frontend), 0);
        ck_assert_uint_eq(support_put(&pair, 8), task);
        ck_assert_uint_eq(support_take(&pair, &batch), 1);
        support_run(&pair, &batch);
        support_expect(&pair, task, STATUS_OK, false);
    }
    support_close(&pair);
}
END_TEST

START_TEST(a_claim_behind_held_tasks_may_be_lost_too)
{
    struct pool_pair pair;
    struct pool_batch batch;
    support_open(&pair, POOL_FORWARD, 16, 8, 8);
    support_put(&pair, 5);
    ck_assert_uint_eq(support_take(&pair, &batch), 1);
    die_as_frontend(&pair, die_within_commit); /* rows 5-8 are lost until the pool is empty */
    ck_assert_uint_eq(support_put(&pair, 3), 1);
    support_run(&pair, &batch);
    ck_assert_uint_eq(support_take(&pair, &batch), 1);
    ck_assert_uint_eq(batch.row, 9);
    support_run(&pair, &batch);
    support_expect(&pair, 0, STATUS_OK, true);
    support_expect(&pair, 1, STATUS_OK, false);
    support_close(&pair);
}
END_TEST

START_TEST(a_frontend_killed_before_it_rings_leaves_an_orphan)
{
    struct pool_pair pair;
    struct pool_batch batch;
    support_open(&pair, POOL_BACKWARD, 16, 8, 8);
    for (uint64_t task = 0; task < 50; task++) {
        die_as_frontend(&pair, die_after_commit);
        ck_assert_uint_eq(pool_tasks_held(pair.frontend), 1);
        ck_assert_uint_eq(support_take(&pair, &batch), 0); /* completes it on the way */
        support_expect(&pair, task, STATUS_DEADLINE_EXCEEDED, true);
        support_expect_none(&pair);
    }
    support_close(&pair);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("pool_attach");
    tcase_add_test(all, what_an_earlier_frontend_left_is_orphaned);
    tcase_add_test(all, no_row_is_reused_before_the_runtime_is_done_with_it);
    tcase_add_test(all, a_frontend_killed_between_claim_and_commit_leaves_nothing);
    tcase_add_test(all, a_claim_behind_held_tasks_may_be_lost_too);
    tcase_add_test(all, a_frontend_killed_before_it_rings_leaves_an_orphan);
    Suite *suite = suite_create("pool_attach");
    suite_add_tcase(suite, all);
    return support_pool_main(suite);
}
