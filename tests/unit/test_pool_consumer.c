/* The runtime's half of a pool: which batch is next, and when. */
#include <stdio.h>
#include <string.h>

#include "support_pool.h"

static const struct pool_limits at_once = {0, 0};

/* pool_take at a time; -1: *retry_ns does not matter. */
static int take_at(struct pool_pair *pair, const struct pool_limits *limits, uint64_t now_ns, struct pool_batch *batch,
                   uint64_t wanted_retry_ns, uint32_t wanted_completed)
{
    uint64_t retry_ns;
    uint32_t completed;
    const int rc = pool_take(pair->runtime, limits, now_ns, batch, &retry_ns, &completed);
    if (rc >= 0) {
        ck_assert_uint_eq(retry_ns, wanted_retry_ns);
        ck_assert_uint_eq(completed, wanted_completed);
    }
    return rc;
}

START_TEST(the_oldest_task_has_its_age)
{
    struct pool_pair pair;
    uint64_t queued_ns = 0;
    uint32_t completed = 9;
    support_open(&pair, POOL_FORWARD, 64, 8, 16);
    ck_assert_int_eq(pool_oldest(pair.runtime, 1000, &queued_ns, &completed), 0);
    ck_assert_uint_eq(completed, 0);
    support_put_task(&pair, 1, &(struct pool_task){.queued_ns = 500});
    support_put_task(&pair, 1, &(struct pool_task){.queued_ns = 700});
    ck_assert_int_eq(pool_oldest(pair.runtime, 1000, &queued_ns, &completed), 1);
    ck_assert_uint_eq(queued_ns, 500);
    ck_assert_int_eq(pool_oldest(pair.runtime, 300, &queued_ns, &completed), 1);
    ck_assert_uint_eq(queued_ns, 300); /* nothing was queued in the future */
    ck_assert_uint_eq(pool_tasks_queued(pair.runtime), 2);
    support_close(&pair);
}
END_TEST

START_TEST(a_batch_is_whole_tasks_up_to_its_limit)
{
    struct pool_pair pair;
    struct pool_batch batch;
    support_open(&pair, POOL_FORWARD, 64, 16, 10);
    const uint32_t rows[] = {4, 4, 3, 10, 1, 9, 1};
    for (int i = 0; i < 7; i++)
        support_put(&pair, rows[i]);
    support_expect_batch(&pair, &batch, 0, 2);
    support_run(&pair, &batch);
    support_expect_batch(&pair, &batch, 2, 1);
    support_run(&pair, &batch);
    support_expect_batch(&pair, &batch, 3, 1);
    ck_assert_uint_eq(pool_tasks_queued(pair.runtime), 3);
    support_run(&pair, &batch);
    support_expect_batch(&pair, &batch, 4, 2);
    ck_assert_uint_eq(batch.row, 21);
    support_run(&pair, &batch);
    support_expect_batch(&pair, &batch, 6, 1);
    support_run(&pair, &batch);
    for (uint64_t task = 0; task < 7; task++)
        support_expect(&pair, task, STATUS_OK, false);
    ck_assert_uint_eq(support_take(&pair, &batch), 0);
    support_close(&pair);
}
END_TEST

START_TEST(rows_are_waited_for_no_longer_than_the_timeout)
{
    struct pool_pair pair;
    struct pool_batch batch;
    const struct pool_limits limits = {.min_batch_size = 8, .batch_timeout_ns = 50};
    support_open(&pair, POOL_FORWARD, 64, 16, 10);
    ck_assert_int_eq(take_at(&pair, &limits, 1000, &batch, UINT64_MAX, 0), 0);
    support_put_task(&pair, 3, &(struct pool_task){.queued_ns = 1000});
    ck_assert_int_eq(take_at(&pair, &limits, 1000, &batch, 1050, 0), 0);
    support_put_task(&pair, 3, &(struct pool_task){.queued_ns = 1020});
    ck_assert_int_eq(take_at(&pair, &limits, 1049, &batch, 1050, 0), 0);
    ck_assert_int_eq(take_at(&pair, &limits, 1050, &batch, UINT64_MAX, 0), 1); /* the oldest one's age counts */
    ck_assert_uint_eq(batch.tasks, 2);
    ck_assert_int_eq((int)batch.closed, POOL_CLOSED_TIMEOUT);
    ck_assert_uint_eq(pool_batch_queued_ns(pair.runtime, &batch, 0), 1000);
    ck_assert_uint_eq(pool_batch_queued_ns(pair.runtime, &batch, 1), 1020);
    support_run(&pair, &batch);
    support_put_task(&pair, 3, &(struct pool_task){.queued_ns = 2000});
    support_put_task(&pair, 5, &(struct pool_task){.queued_ns = 2000});
    ck_assert_int_eq(take_at(&pair, &limits, 2000, &batch, UINT64_MAX, 0), 1); /* enough */
    ck_assert_int_eq((int)batch.closed, POOL_CLOSED_ROWS);
    support_run(&pair, &batch);
    support_put_task(&pair, 5, &(struct pool_task){.queued_ns = 3000});
    ck_assert_int_eq(take_at(&pair, &limits, 3000, &batch, 3050, 0), 0);
    support_put_task(&pair, 6, &(struct pool_task){.queued_ns = 3000});
    ck_assert_int_eq(take_at(&pair, &limits, 3000, &batch, UINT64_MAX, 0),
                     1); /* the next does not fit: no more comes */
    ck_assert_uint_eq(batch.rows, 5);
    ck_assert_int_eq((int)batch.closed, POOL_CLOSED_FULL);
    support_run(&pair, &batch);
    const struct pool_limits forever = {.min_batch_size = 8, .batch_timeout_ns = UINT64_MAX};
    ck_assert_int_eq(take_at(&pair, &forever, 1 << 30, &batch, UINT64_MAX, 0), 0);
    const struct pool_limits too_many = {.min_batch_size = 1000, .batch_timeout_ns = UINT64_MAX};
    support_put_task(&pair, 4, &(struct pool_task){.queued_ns = 3000});
    ck_assert_int_eq(take_at(&pair, &too_many, 3000, &batch, UINT64_MAX, 0), 1); /* max_batch_size is enough */
    ck_assert_uint_eq(batch.rows, 10);
    support_close(&pair);
}
END_TEST

START_TEST(what_was_measured_is_summed_over_tasks_and_seen_by_both_sides)
{
    struct pool_pair pair;
    support_open(&pair, POOL_FORWARD, 16, 16, 10);
    pool_measure(pair.runtime, 3, 30, 100);
    pool_measure(pair.runtime, 1, 5, 7);
    const struct pool_measures measured = pool_measured(pair.frontend);
    ck_assert_uint_eq(measured.batches, 2);
    ck_assert_uint_eq(measured.tasks, 4);
    ck_assert_uint_eq(measured.queue_ns, 35);
    ck_assert_uint_eq(measured.compute_ns, 307);
    support_close(&pair);
}
END_TEST

START_TEST(rows_behind_a_gap_are_not_waited_for)
{
    struct pool_pair pair;
    struct pool_batch batch;
    const struct pool_limits limits = {.min_batch_size = 5, .batch_timeout_ns = 1000000};
    support_open(&pair, POOL_FORWARD, 10, 16, 6);
    support_put(&pair, 6);
    support_put(&pair, 2);
    support_expect_batch(&pair, &batch, 0, 1);
    support_run(&pair, &batch);
    support_expect(&pair, 0, STATUS_OK, false);
    ck_assert_int_eq(take_at(&pair, &limits, 100, &batch, 1000100, 0), 0);
    support_put(&pair, 4); /* at row 0: rows 8 and 9 are skipped */
    ck_assert_int_eq(take_at(&pair, &limits, 100, &batch, UINT64_MAX, 0), 1);
    ck_assert_uint_eq(batch.row, 6);
    ck_assert_uint_eq(batch.rows, 2);
    support_close(&pair);
}
END_TEST

START_TEST(a_slab_that_is_full_to_its_end_is_a_gap_too)
{
    struct pool_pair pair;
    struct pool_batch batch;
    support_open(&pair, POOL_FORWARD, 8, 16, 8);
    support_put(&pair, 4);
    support_put(&pair, 4);
    support_expect_batch(&pair, &batch, 0, 2);
    support_run(&pair, &batch);
    support_expect(&pair, 0, STATUS_OK, false);
    support_put(&pair, 2); /* row position 8: right behind, but row 0 */
    support_expect(&pair, 1, STATUS_OK, false);
    support_put(&pair, 6);
    support_expect_batch(&pair, &batch, 2, 2);
    ck_assert_uint_eq(batch.row, 0);
    support_close(&pair);
}
END_TEST

START_TEST(tasks_at_the_head_that_nobody_waits_for_do_not_run)
{
    struct pool_pair pair;
    struct pool_batch batch;
    uint64_t queued_ns;
    uint32_t completed;
    support_open(&pair, POOL_FORWARD, 64, 16, 10);
    support_put_task(&pair, 1, &(struct pool_task){.queued_ns = 1, .deadline_ns = 1000});
    support_put_task(&pair, 1, &(struct pool_task){.queued_ns = 2});
    support_put_task(&pair, 1, &(struct pool_task){.queued_ns = 3, .deadline_ns = 1001});
    support_put_task(&pair, 1, &(struct pool_task){.queued_ns = 4, .deadline_ns = 900});
    pool_cancel(pair.frontend, 1);
    ck_assert_int_eq(pool_oldest(pair.runtime, 1000, &queued_ns, &completed), 1);
    ck_assert_uint_eq(queued_ns, 3);
    ck_assert_uint_eq(completed, 2);
    support_expect(&pair, 0, STATUS_DEADLINE_EXCEEDED, false);
    support_expect(&pair, 1, STATUS_DEADLINE_EXCEEDED, false);
    support_expect_batch(&pair, &batch, 2, 2); /* inside of a batch it is cheaper to compute than to gather */
    support_run(&pair, &batch);
    support_expect(&pair, 2, STATUS_OK, false);
    support_expect(&pair, 3, STATUS_OK, false);
    for (int i = 0; i < 5; i++)
        pool_cancel(pair.frontend, support_put(&pair, 1));
    ck_assert_int_eq(take_at(&pair, &at_once, 1000, &batch, UINT64_MAX, 5), 0);
    support_close(&pair);
}
END_TEST

START_TEST(a_head_that_expires_while_it_waits_makes_room_in_the_batch)
{
    struct pool_pair pair;
    struct pool_batch batch;
    const struct pool_limits limits = {.min_batch_size = 8, .batch_timeout_ns = 100};
    support_open(&pair, POOL_FORWARD, 64, 16, 8);
    support_put_task(&pair, 3, &(struct pool_task){.queued_ns = 1000, .deadline_ns = 1050});
    support_put_task(&pair, 4, &(struct pool_task){.queued_ns = 1010});
    ck_assert_int_eq(take_at(&pair, &limits, 1040, &batch, 1100, 0), 0);
    support_put_task(&pair, 4, &(struct pool_task){.queued_ns = 1045}); /* would not fit behind 3 + 4 */
    ck_assert_int_eq(take_at(&pair, &limits, 1060, &batch, UINT64_MAX, 1), 1);
    ck_assert_uint_eq(batch.first_task, 1);
    ck_assert_uint_eq(batch.row, 3);
    ck_assert_uint_eq(batch.rows, 8);
    support_run(&pair, &batch);
    support_expect(&pair, 0, STATUS_DEADLINE_EXCEEDED, false);
    support_expect(&pair, 1, STATUS_OK, false);
    support_expect(&pair, 2, STATUS_OK, false);
    support_close(&pair);
}
END_TEST

START_TEST(a_backward_batch_ends_before_what_must_not_step)
{
    struct pool_pair pair;
    struct pool_batch batch;
    support_open(&pair, POOL_BACKWARD, 64, 16, 10);
    support_put_named(&pair, 1, 1);
    support_put_named(&pair, 1, 2);
    pool_cancel(pair.frontend, support_put_named(&pair, 1, 3));
    support_put_named(&pair, 1, 4);
    support_put_task(&pair, 1, &(struct pool_task){.queued_ns = 100, .deadline_ns = 999});
    support_put_named(&pair, 1, 5);
    support_put_named(&pair, 2, 5); /* another client's */
    support_put_named(&pair, 1, 5); /* again */
    support_put_named(&pair, 1, 1); /* applied by then */
    support_expect_batch(&pair, &batch, 0, 2);
    support_step(&pair, &batch);
    support_expect_batch(&pair, &batch, 3, 1);
    ck_assert_uint_eq(batch.row, 3);
    support_step(&pair, &batch);
    support_expect_batch(&pair, &batch, 5, 2);
    support_step(&pair, &batch);
    ck_assert_int_eq(take_at(&pair, &at_once, 1000, &batch, UINT64_MAX, 2), 0);
    static const enum status wanted[] = {STATUS_OK,
                                         STATUS_OK,
                                         STATUS_DEADLINE_EXCEEDED,
                                         STATUS_OK,
                                         STATUS_DEADLINE_EXCEEDED,
                                         STATUS_OK,
                                         STATUS_OK,
                                         STATUS_ALREADY_EXISTS,
                                         STATUS_ALREADY_EXISTS};
    for (uint64_t task = 0; task < 9; task++)
        support_expect(&pair, task, wanted[task], false);
    support_close(&pair);
}
END_TEST

START_TEST(tasks_of_unknown_clients_are_never_repeats)
{
    struct pool_pair pair;
    struct pool_batch batch;
    support_open(&pair, POOL_BACKWARD, 64, 16, 10);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 3; i++)
            support_put_task(&pair, 1, &(struct pool_task){.queued_ns = 100, .request_id = 7});
        support_expect_batch(&pair, &batch, 3 * (uint64_t)round, 3);
        support_step(&pair, &batch);
    }
    support_close(&pair);
}
END_TEST

START_TEST(a_repeat_of_a_backward_in_flight_waits_for_it)
{
    struct pool_pair pair;
    struct pool_batch batch, other;
    uint64_t queued_ns;
    uint32_t completed;
    support_open(&pair, POOL_BACKWARD, 64, 16, 10);
    support_put_named(&pair, 1, 1);
    support_expect_batch(&pair, &batch, 0, 1);
    support_put_named(&pair, 1, 1);
    ck_assert_int_eq(pool_oldest(pair.runtime, 1000, &queued_ns, &completed), 0);
    ck_assert_int_eq(take_at(&pair, &at_once, 1000, &other, UINT64_MAX, 0), 0);
    if (_i == 0) {
        pool_applied(pair.runtime, &batch);
        ck_assert_int_eq(take_at(&pair, &at_once, 1000, &other, UINT64_MAX, 1), 0);
        support_compute(&pair, &batch);
        pool_complete(pair.runtime, &batch, STATUS_OK, NULL);
        support_expect(&pair, 0, STATUS_OK, false);
        support_expect(&pair, 1, STATUS_ALREADY_EXISTS, false);
    } else {
        /* Its step was skipped, or it failed: the client may try again. */
        pool_complete(pair.runtime, &batch, STATUS_ABORTED, "not finite");
        support_expect_batch(&pair, &batch, 1, 1);
        support_step(&pair, &batch);
        support_expect(&pair, 0, STATUS_ABORTED, false);
        support_expect(&pair, 1, STATUS_OK, false);
    }
    support_close(&pair);
}
END_TEST

START_TEST(repeats_are_known_within_the_window_and_not_beyond)
{
    struct pool_pair pair;
    struct pool_batch batch;
    support_open(&pair, POOL_BACKWARD, 64, 16, 10);
    uint64_t task = 0;
    for (uint64_t request = 0; request < POOL_APPLIED_RECORDS + 10; request++, task++) {
        support_put_named(&pair, 1, request);
        support_expect_batch(&pair, &batch, task, 1);
        support_step(&pair, &batch);
        support_expect(&pair, task, STATUS_OK, false);
        if (request % 100 == 50)
            support_restart_runtime(&pair);
    }
    for (uint64_t request = 10; request < POOL_APPLIED_RECORDS + 10; request += 13, task++) {
        support_put_named(&pair, 1, request);
        ck_assert_uint_eq(support_take(&pair, &batch), 0);
        support_expect(&pair, task, STATUS_ALREADY_EXISTS, false);
    }
    for (uint64_t request = 0; request < 10; request++, task++) { /* slid out */
        support_put_named(&pair, 1, request);
        support_expect_batch(&pair, &batch, task, 1);
        support_step(&pair, &batch);
        support_expect(&pair, task, STATUS_OK, false);
    }
    support_close(&pair);
}
END_TEST

/* As a checkpoint has it: of a segment that is gone. */
START_TEST(what_was_applied_to_an_earlier_pool_is_known)
{
    static struct applied_key keys[POOL_APPLIED_RECORDS], listed[POOL_APPLIED_RECORDS];
    struct pool_pair pair;
    struct pool_batch batch;
    const uint32_t count = 5;
    support_open(&pair, POOL_BACKWARD, 64, 16, 10);
    for (uint32_t i = 0; i < count; i++) {
        const struct pool_task task = support_named(1, 100 + i);
        keys[i] = (struct applied_key){{task.client[0], task.client[1]}, task.request_id};
    }
    ck_assert_int_eq(pool_restore_applied(pair.runtime, keys, count), 0);
    ck_assert_uint_eq(pool_list_applied(pair.runtime, listed), count);
    ck_assert_mem_eq(listed, keys, count * sizeof *keys);
    const uint64_t repeated = support_put_named(&pair, 1, 102);
    ck_assert_uint_eq(support_take(&pair, &batch), 0);
    support_expect(&pair, repeated, STATUS_ALREADY_EXISTS, false);
    const uint64_t other = support_put_named(&pair, 1, 105);
    support_expect_batch(&pair, &batch, other, 1);
    support_step(&pair, &batch);
    support_expect(&pair, other, STATUS_OK, false);
    /* The list goes on from what it was. */
    ck_assert_uint_eq(pool_list_applied(pair.runtime, listed), count + 1);
    ck_assert_mem_eq(listed, keys, count * sizeof *keys);
    ck_assert_uint_eq(listed[count].request_id, 105);
    support_close(&pair);
}
END_TEST

START_TEST(batches_in_flight_are_completed_in_order)
{
    struct pool_pair pair;
    struct pool_batch batches[4];
    support_open(&pair, POOL_FORWARD, 64, 16, 2);
    for (int i = 0; i < 8; i++)
        support_put(&pair, 1);
    for (int i = 0; i < 4; i++)
        support_expect_batch(&pair, &batches[i], 2 * (uint64_t)i, 2);
    ck_assert_uint_eq(pool_tasks_queued(pair.runtime), 0);
    support_expect_none(&pair);
    for (int i = 0; i < 4; i++) {
        support_run(&pair, &batches[i]);
        support_expect(&pair, 2 * (uint64_t)i, STATUS_OK, false);
        support_expect(&pair, 2 * (uint64_t)i + 1, STATUS_OK, false);
        support_expect_none(&pair);
    }
    support_close(&pair);
}
END_TEST

START_TEST(tasks_skipped_behind_running_batches_are_answered_in_order)
{
    struct pool_pair pair;
    struct pool_batch batches[6];
    uint64_t queued_ns;
    uint32_t completed;
    support_open(&pair, POOL_FORWARD, 64, 32, 1);
    for (uint64_t i = 0; i < 6; i++) { /* run, cancelled, cancelled; ... */
        ck_assert_uint_eq(support_put(&pair, 1), 3 * i);
        pool_cancel(pair.frontend, support_put(&pair, 1));
        pool_cancel(pair.frontend, support_put(&pair, 1));
    }
    for (uint64_t i = 0; i < POOL_SKIPPED_RUNS + 1; i++)
        support_expect_batch(&pair, &batches[i], 3 * i, 1);
    /* No more of them are kept in mind than batches can be in flight: the last run of them waits. */
    ck_assert_int_eq(pool_oldest(pair.runtime, 1000, &queued_ns, &completed), 0);
    support_expect_none(&pair);
    support_run(&pair, &batches[0]);
    support_expect(&pair, 0, STATUS_OK, false);
    support_expect(&pair, 1, STATUS_DEADLINE_EXCEEDED, false);
    support_expect(&pair, 2, STATUS_DEADLINE_EXCEEDED, false);
    support_expect_none(&pair);
    support_expect_batch(&pair, &batches[5], 15, 1);
    for (uint64_t i = 1; i < 6; i++) {
        support_run(&pair, &batches[i]);
        support_expect(&pair, 3 * i, STATUS_OK, false);
        if (i == 5)
            ck_assert_int_eq(pool_oldest(pair.runtime, 1000, &queued_ns, &completed), 0);
        support_expect(&pair, 3 * i + 1, STATUS_DEADLINE_EXCEEDED, false);
        support_expect(&pair, 3 * i + 2, STATUS_DEADLINE_EXCEEDED, false);
    }
    support_close(&pair);
}
END_TEST

START_TEST(a_batch_leaves_out_what_none_of_its_tasks_wants)
{
    struct pool_pair pair;
    struct pool_batch batch, first;
    support_open(&pair, POOL_BACKWARD, 16, 8, 16);
    const uint32_t unwanted[] = {6, 3, 7};
    for (uint64_t i = 0; i < 3; i++) {
        struct pool_task task = support_named(1, 1 + i);
        task.unwanted = unwanted[i];
        support_put_task(&pair, 1, &task);
    }
    uint64_t again;
    ck_assert_int_eq(pool_queue_again(pair.frontend, 2, 100, &again), 0);
    pool_cancel(pair.frontend, 2);
    support_expect_batch(&pair, &batch, 0, 2);
    ck_assert_uint_eq(pool_batch_unwanted(pair.runtime, &batch), 2);
    support_step(&pair, &batch);
    support_expect_batch(&pair, &batch, 3, 1);
    ck_assert_uint_eq(pool_batch_unwanted(pair.runtime, &batch), 7);
    first = batch;
    support_step(&pair, &first);
    support_close(&pair);
}
END_TEST

START_TEST(a_batch_is_worked_off_task_by_task)
{
    struct pool_pair pair;
    struct pool_batch batch, first;
    support_open(&pair, POOL_BACKWARD, 64, 16, 10);
    for (uint32_t i = 1; i < 4; i++) {
        const struct pool_task task = support_named(1, i);
        support_put_task(&pair, i, &task);
    }
    support_expect_batch(&pair, &batch, 0, 3);
    pool_batch_split_first(pair.runtime, &batch, &first);
    ck_assert_uint_eq(first.rows, 1);
    ck_assert_uint_eq(batch.rows, 5);
    ck_assert_uint_eq(batch.row, 1);
    ck_assert_uint_eq(batch.tasks, 2);
    pool_complete(pair.runtime, &first, STATUS_INTERNAL, "CL_OUT_OF_RESOURCES");
    pool_batch_split_first(pair.runtime, &batch, &first);
    ck_assert_uint_eq(first.rows, 2);
    support_step(&pair, &first);
    ck_assert_uint_eq(batch.row, 3);
    support_step(&pair, &batch);
    support_expect(&pair, 0, STATUS_INTERNAL, false);
    support_expect(&pair, 1, STATUS_OK, false);
    support_expect(&pair, 2, STATUS_OK, false);
    support_put_named(&pair, 1, 1);
    support_expect_batch(&pair, &batch, 3, 1); /* it was not applied */
    support_close(&pair);
}
END_TEST

START_TEST(a_frontend_that_scribbles_is_noticed)
{
    struct pool_pair pair;
    struct pool_batch batch;
    uint64_t queued_ns;
    uint32_t completed;
    support_open(&pair, POOL_BACKWARD, 64, 8, 16);
    support_put(&pair, 2);
    support_expect_batch(&pair, &batch, 0, 1);
    support_put(&pair, 2);
    struct pool_shared *shared = pair.frontend->shared;
    struct pool_task_shared *task = pool_task_at(pair.frontend, 1);
    switch (_i) {
    case 0:
        task->rows = 0;
        break;
    case 1:
        task->rows = 17;
        break;
    case 2:
        task->rows = UINT32_MAX;
        break;
    case 3:
        task->row_position = 63;
        break; /* it would wrap */
    case 4:
        task->row_position = 1;
        break; /* rows that run */
    case 5:
        task->row_position = UINT64_MAX - 1;
        break;
    case 6:
        atomic_store(&shared->frontend.committed, 10);
        break; /* more than the slots */
    case 7:
        atomic_store(&shared->frontend.committed, 0);
        break; /* back */
    case 8:
        atomic_store(&shared->frontend.committed_rows, 3);
        break; /* rows without pages */
    case 9:
        atomic_store(&shared->frontend.committed_rows, 65);
        break;
    default:
        atomic_store(&shared->frontend.committed_tasks, 9);
        atomic_store(&shared->frontend.committed, 3);
        break;
    }
    ck_assert_int_eq(pool_oldest(pair.runtime, 1000, &queued_ns, &completed), -EPROTO);
    ck_assert_int_eq(take_at(&pair, &at_once, 1000, &batch, 0, 0), -EPROTO);
    ck_assert_uint_le(pool_tasks_queued(pair.runtime), 8);
    pool_applied(pair.runtime, &batch); /* what runs can still be completed */
    pool_complete(pair.runtime, &batch, STATUS_OK, NULL);
    support_close(&pair);
}
END_TEST

START_TEST(a_task_that_changes_after_it_was_checked_changes_nothing)
{
    struct pool_pair pair;
    struct pool_batch batch;
    support_open(&pair, POOL_FORWARD, 64, 8, 16);
    support_put(&pair, 2);
    support_put(&pair, 3);
    const struct pool_limits limits = {.min_batch_size = 16, .batch_timeout_ns = UINT64_MAX};
    ck_assert_int_eq(take_at(&pair, &limits, 1000, &batch, UINT64_MAX, 0), 0);
    pool_task_at(pair.frontend, 0)->rows = 60;
    pool_task_at(pair.frontend, 1)->row_position = 1 << 20;
    support_expect_batch(&pair, &batch, 0, 2);
    ck_assert_uint_eq(batch.rows, 5);
    pool_task_at(pair.frontend, 1)->rows = UINT32_MAX;
    uint32_t row, rows;
    pool_batch_task(pair.runtime, &batch, 1, &row, &rows);
    ck_assert_uint_eq(row, 2);
    ck_assert_uint_eq(rows, 3);
    support_close(&pair);
}
END_TEST

int main(void)
{
    TCase *taking = tcase_create("taking");
    tcase_add_test(taking, the_oldest_task_has_its_age);
    tcase_add_test(taking, a_batch_is_whole_tasks_up_to_its_limit);
    tcase_add_test(taking, rows_are_waited_for_no_longer_than_the_timeout);
    tcase_add_test(taking, what_was_measured_is_summed_over_tasks_and_seen_by_both_sides);
    tcase_add_test(taking, rows_behind_a_gap_are_not_waited_for);
    tcase_add_test(taking, a_slab_that_is_full_to_its_end_is_a_gap_too);
    tcase_add_test(taking, tasks_at_the_head_that_nobody_waits_for_do_not_run);
    tcase_add_test(taking, a_head_that_expires_while_it_waits_makes_room_in_the_batch);
    tcase_add_test(taking, a_backward_batch_ends_before_what_must_not_step);
    tcase_add_test(taking, tasks_of_unknown_clients_are_never_repeats);
    tcase_add_loop_test(taking, a_repeat_of_a_backward_in_flight_waits_for_it, 0, 2);
    tcase_add_test(taking, repeats_are_known_within_the_window_and_not_beyond);
    tcase_add_test(taking, what_was_applied_to_an_earlier_pool_is_known);
    tcase_add_test(taking, batches_in_flight_are_completed_in_order);
    tcase_add_test(taking, tasks_skipped_behind_running_batches_are_answered_in_order);
    tcase_add_test(taking, a_batch_leaves_out_what_none_of_its_tasks_wants);
    tcase_add_test(taking, a_batch_is_worked_off_task_by_task);
    tcase_add_loop_test(taking, a_frontend_that_scribbles_is_noticed, 0, 11);
    tcase_add_test(taking, a_task_that_changes_after_it_was_checked_changes_nothing);
    Suite *suite = suite_create("pool_consumer");
    suite_add_tcase(suite, taking);
    return support_pool_main(suite);
}
