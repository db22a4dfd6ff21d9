/* What a runtime's death leaves, and what the next one makes of it. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support_pool.h"

/* Runs `life` as a runtime in a child that then kills itself with SIGKILL; another one adopts the pool. */
static void die_as_runtime(struct pool_pair *pair, void (*life)(struct pool_pair *pair))
{
    pool_detach(&pair->runtime);
    const pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        if (pool_adopt(&pair->runtime, &pair->layout) == 0)
            life(pair);
        _exit(1); /* life did not kill it */
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    ck_assert_int_eq(pool_adopt(&pair->runtime, &pair->layout), 0);
}

static bool take_or_fail(struct pool_pair *pair, struct pool_batch *batch)
{
    uint64_t retry_ns;
    uint32_t completed;
    return pool_take(pair->runtime, &(struct pool_limits){0, 0}, 1000, batch, &retry_ns, &completed) == 1;
}

static void die_while_running(struct pool_pair *pair)
{
    struct pool_batch first, second;
    if (take_or_fail(pair, &first) && take_or_fail(pair, &second))
        raise(SIGKILL);
}

static void die_after_the_step(struct pool_pair *pair)
{
    struct pool_batch first, second;
    if (!take_or_fail(pair, &first) || !take_or_fail(pair, &second))
        return;
    support_compute(pair, &first);
    pool_applied(pair->runtime, &first);
    raise(SIGKILL);
}

static void die_after_the_second_step(struct pool_pair *pair)
{
    struct pool_batch first, second;
    if (!take_or_fail(pair, &first) || !take_or_fail(pair, &second))
        return;
    pool_applied(pair->runtime, &second); /* the first one's outcome is open */
    raise(SIGKILL);
}

START_TEST(forwards_that_ran_when_the_runtime_died_run_again)
{
    struct pool_pair pair;
    struct pool_batch batch;
    support_open(&pair, POOL_FORWARD, 64, 16, 2);
    support_put(&pair, 2);
    support_expect_batch(&pair, &batch, 0, 1);
    support_run(&pair, &batch);
    for (int i = 1; i < 7; i++)
        support_put(&pair, 1);
    die_as_runtime(&pair, die_while_running);
    support_put(&pair, 1); /* the frontend goes on */
    ck_assert_uint_eq(pool_tasks_queued(pair.runtime), 7);
    for (uint64_t task = 1; task < 7; task += 2) {
        support_expect_batch(&pair, &batch, task, 2);
        support_run(&pair, &batch);
    }
    support_expect_batch(&pair, &batch, 7, 1);
    support_run(&pair, &batch);
    for (uint64_t task = 0; task < 8; task++)
        support_expect(&pair, task, STATUS_OK, false);
    support_close(&pair);
}
END_TEST

START_TEST(backwards_that_ran_when_the_runtime_died_are_unavailable)
{
    struct pool_pair pair;
    struct pool_batch batch;
    support_open(&pair, POOL_BACKWARD, 64, 16, 2);
    for (uint64_t i = 0; i < 5; i++)
        support_put_named(&pair, 1, i);
    die_as_runtime(&pair, die_while_running);
    for (uint64_t task = 0; task < 4; task++)
        support_expect(&pair, task, STATUS_UNAVAILABLE, false);
    support_put_named(&pair, 1, 0); /* the client tries again */
    support_expect_batch(&pair, &batch, 4, 2);
    support_step(&pair, &batch);
    support_expect(&pair, 4, STATUS_OK, false);
    support_expect(&pair, 5, STATUS_OK, false);
    support_close(&pair);
}
END_TEST

START_TEST(steps_that_were_applied_before_the_death_are_ok)
{
    struct pool_pair pair;
    struct pool_batch batch;
    support_open(&pair, POOL_BACKWARD, 64, 16, 2);
    for (uint64_t i = 0; i < 4; i++)
        support_put_named(&pair, 1, i);
    die_as_runtime(&pair, die_after_the_step);
    support_expect(&pair, 0, STATUS_OK, false); /* with its outputs */
    support_expect(&pair, 1, STATUS_OK, false);
    support_expect(&pair, 2, STATUS_UNAVAILABLE, false);
    support_expect(&pair, 3, STATUS_UNAVAILABLE, false);
    support_put_named(&pair, 1, 1);
    support_put_named(&pair, 1, 2);
    support_expect_batch(&pair, &batch, 5, 1);
    support_expect(&pair, 4, STATUS_ALREADY_EXISTS, false);
    support_close(&pair);
}
END_TEST

START_TEST(a_step_behind_an_open_one_does_not_speak_for_it)
{
    struct pool_pair pair;
    struct pool_batch batch;
    support_open(&pair, POOL_BACKWARD, 64, 16, 2);
    for (uint64_t i = 0; i < 4; i++)
        support_put_named(&pair, 1, i);
    die_as_runtime(&pair, die_after_the_second_step);
    for (uint64_t task = 0; task < 4; task++)
        support_expect(&pair, task, STATUS_UNAVAILABLE, false);
    support_put_named(&pair, 1, 0);
    support_put_named(&pair, 1, 3); /* its record is there */
    support_expect_batch(&pair, &batch, 4, 1);
    support_step(&pair, &batch);
    support_expect(&pair, 4, STATUS_OK, false);
    ck_assert_uint_eq(support_take(&pair, &batch), 0);
    support_expect(&pair, 5, STATUS_ALREADY_EXISTS, false);
    support_close(&pair);
}
END_TEST

START_TEST(an_outcome_that_was_written_is_kept)
{
    struct pool_pair pair;
    struct pool_batch batch;
    support_open(&pair, POOL_BACKWARD, 64, 16, 2);
    support_put_named(&pair, 1, 1);
    support_expect_batch(&pair, &batch, 0, 1);
    pool_complete(pair.runtime, &batch, STATUS_ABORTED, "the gradients are not finite");
    /* As it is when the runtime dies between its last two stores. */
    atomic_store(&pair.runtime->shared->runtime.done, 0);
    support_restart_runtime(&pair);
    support_expect(&pair, 0, STATUS_ABORTED, false);
    support_close(&pair);
}
END_TEST

START_TEST(a_queue_survives_any_number_of_deaths)
{
    struct pool_pair pair;
    struct pool_batch batch;
    support_open(&pair, POOL_FORWARD, 16, 8, 4);
    uint64_t answered = 0;
    for (uint64_t i = 0; i < 200; i++) {
        struct pool_claim claim;
        if (pool_claim(pair.frontend, 1 + i % 4, &claim) == 0)
            support_put(&pair, 1 + i % 4);
        if (i % 3 == 0)
            (void)support_take(&pair, &batch);
        support_restart_runtime(&pair);
        if (i % 2 == 0 && support_take(&pair, &batch) > 0) {
            support_run(&pair, &batch);
            for (uint32_t t = 0; t < batch.tasks; t++)
                support_expect(&pair, answered++, STATUS_OK, false);
        }
    }
    ck_assert_uint_gt(answered, 90);
    support_close(&pair);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("pool_adopt");
    tcase_add_test(all, forwards_that_ran_when_the_runtime_died_run_again);
    tcase_add_test(all, backwards_that_ran_when_the_runtime_died_are_unavailable);
    tcase_add_test(all, steps_that_were_applied_before_the_death_are_ok);
    tcase_add_test(all, a_step_behind_an_open_one_does_not_speak_for_it);
    tcase_add_test(all, an_outcome_that_was_written_is_kept);
    tcase_add_test(all, a_queue_survives_any_number_of_deaths);
    Suite *suite = suite_create("pool_adopt");
    suite_add_tcase(suite, all);
    return support_pool_main(suite);
}
