/* The frontend's half of a pool: claims, space, results. */
#include <string.h>

#include "support_pool.h"

START_TEST(tasks_lie_one_behind_the_other)
{
    struct pool_pair pair;
    support_open(&pair, POOL_FORWARD, 64, 8, 16);
    ck_assert_uint_eq(support_put(&pair, 3), 0);
    ck_assert_uint_eq(support_put(&pair, 1), 1);
    ck_assert_uint_eq(support_put(&pair, 5), 2);
    ck_assert_uint_eq(pool_tasks_held(pair.frontend), 3);
    struct pool_batch batch;
    ck_assert_uint_eq(support_take(&pair, &batch), 3);
    ck_assert_uint_eq(batch.row, 0);
    ck_assert_uint_eq(batch.rows, 9);
    support_run(&pair, &batch);
    for (uint64_t task = 0; task < 3; task++)
        support_expect(&pair, task, STATUS_OK, false);
    support_expect_none(&pair);
    ck_assert_uint_eq(pool_tasks_held(pair.frontend), 0);
    support_close(&pair);
}
END_TEST

START_TEST(rows_outside_of_the_limits_are_refused)
{
    struct pool_pair pair;
    struct pool_claim claim;
    support_open(&pair, POOL_FORWARD, 64, 8, 16);
    ck_assert_int_eq(support_claim(&pair, 0, &claim), -EINVAL);
    ck_assert_int_eq(support_claim(&pair, 17, &claim), -EINVAL);
    ck_assert_int_eq(support_claim(&pair, UINT32_MAX, &claim), -EINVAL);
    ck_assert_int_eq(support_claim(&pair, 16, &claim), 0);
    support_close(&pair);
}
END_TEST

START_TEST(a_forgotten_claim_leaves_nothing)
{
    struct pool_pair pair;
    struct pool_claim claim, again;
    struct pool_batch batch;
    support_open(&pair, POOL_FORWARD, 64, 8, 16);
    ck_assert_int_eq(support_claim(&pair, 7, &claim), 0);
    ck_assert_uint_eq(support_take(&pair, &batch), 0);
    ck_assert_uint_eq(pool_tasks_queued(pair.runtime), 0);
    ck_assert_int_eq(support_claim(&pair, 2, &again), 0);
    ck_assert_uint_eq(again.task, claim.task);
    ck_assert_uint_eq(again.row, claim.row);
    support_close(&pair);
}
END_TEST

START_TEST(a_task_may_be_queued_again_behind_all_others)
{
    struct pool_pair pair;
    struct pool_batch batch;
    uint64_t again;
    support_open(&pair, POOL_BACKWARD, 64, 4, 16);
    ck_assert_uint_eq(support_put_named(&pair, 7, 1), 0);
    ck_assert_uint_eq(support_put_named(&pair, 8, 1), 1);
    ck_assert_int_eq(pool_queue_again(pair.frontend, 0, 200, &again), 0);
    ck_assert_uint_eq(again, 2);
    pool_cancel(pair.frontend, 0);
    ck_assert_uint_eq(support_put_named(&pair, 9, 1), 3);
    ck_assert_int_eq(pool_queue_again(pair.frontend, 1, 200, &again), -EAGAIN); /* full */
    uint64_t queued_ns;
    uint32_t completed;
    ck_assert_int_eq(pool_oldest(pair.runtime, 1000, &queued_ns, &completed), 1);
    ck_assert_uint_eq(completed, 1); /* the first one is not run */
    support_expect_batch(&pair, &batch, 1, 3);
    support_step(&pair, &batch);
    support_expect(&pair, 0, STATUS_DEADLINE_EXCEEDED, false);
    support_expect(&pair, 1, STATUS_OK, false);
    struct pool_result result;
    ck_assert_int_eq(pool_next_result(pair.frontend, &result), 1);
    ck_assert_uint_eq(result.task, 2);
    ck_assert_int_eq((int)result.status, STATUS_OK);
    const float *output = pool_output(pair.frontend, 0);
    ck_assert_float_eq(output[result.row * 16], 1); /* of the rows of task 0, which were copied */
    support_close(&pair);
}
END_TEST

START_TEST(a_task_that_began_is_not_run_again)
{
    struct pool_pair pair;
    struct pool_batch batch;
    uint64_t again, queued_ns;
    uint32_t completed;
    support_open(&pair, POOL_BACKWARD, 64, 4, 16);
    support_put_named(&pair, 7, 1);
    support_expect_batch(&pair, &batch, 0, 1);
    ck_assert_int_eq(pool_queue_again(pair.frontend, 0, 200, &again), 0);
    pool_cancel(pair.frontend, 0);
    support_step(&pair, &batch);
    ck_assert_int_eq(pool_oldest(pair.runtime, 1000, &queued_ns, &completed), 0);
    ck_assert_uint_eq(completed, 1);
    support_expect(&pair, 0, STATUS_OK, false);
    support_expect(&pair, 1, STATUS_ALREADY_EXISTS, false);
    support_close(&pair);
}
END_TEST

START_TEST(an_empty_pool_begins_at_row_0)
{
    struct pool_pair pair;
    struct pool_batch batch;
    support_open(&pair, POOL_FORWARD, 64, 8, 16);
    for (uint64_t task = 0; task < 100; task++) {
        ck_assert_uint_eq(support_put(&pair, 1 + task % 16), task);
        ck_assert_uint_eq(support_take(&pair, &batch), 1);
        ck_assert_uint_eq(batch.row, 0);
        support_run(&pair, &batch);
        support_expect(&pair, task, STATUS_OK, false);
    }
    support_close(&pair);
}
END_TEST

START_TEST(a_task_never_wraps)
{
    struct pool_pair pair;
    struct pool_batch batch;
    struct pool_claim claim;
    support_open(&pair, POOL_FORWARD, 10, 8, 4);
    support_put(&pair, 4);                                      /* rows 0-3 */
    support_put(&pair, 4);                                      /* rows 4-7 */
    ck_assert_int_eq(support_claim(&pair, 3, &claim), -EAGAIN); /* rows 8-9 are not enough, 0-3 not free */
    ck_assert_uint_eq(support_take(&pair, &batch), 1);
    support_run(&pair, &batch);
    support_expect(&pair, 0, STATUS_OK, false);
    ck_assert_int_eq(support_claim(&pair, 3, &claim), 0);
    ck_assert_uint_eq(claim.row, 0);
    ck_assert_uint_eq(claim.row_position, 10); /* 8 and 9 were skipped */
    support_put(&pair, 3);
    ck_assert_uint_eq(support_take(&pair, &batch), 1); /* it ends before the gap */
    ck_assert_uint_eq(batch.row, 4);
    support_run(&pair, &batch);
    ck_assert_uint_eq(support_take(&pair, &batch), 1);
    ck_assert_uint_eq(batch.row, 0);
    support_run(&pair, &batch);
    support_expect(&pair, 1, STATUS_OK, false);
    support_expect(&pair, 2, STATUS_OK, false);
    support_close(&pair);
}
END_TEST

START_TEST(a_pool_is_full_of_rows)
{
    struct pool_pair pair;
    struct pool_claim claim;
    struct pool_batch batch;
    support_open(&pair, POOL_FORWARD, 32, 64, 16);
    support_put(&pair, 16);
    support_put(&pair, 15);
    ck_assert_int_eq(support_claim(&pair, 2, &claim), -EAGAIN);
    ck_assert_int_eq(support_claim(&pair, 1, &claim), 0);
    support_put(&pair, 1);
    ck_assert_int_eq(support_claim(&pair, 1, &claim), -EAGAIN);
    /* The rows come back with the release, not before. */
    ck_assert_uint_eq(support_take(&pair, &batch), 1);
    ck_assert_int_eq(support_claim(&pair, 1, &claim), -EAGAIN);
    support_run(&pair, &batch);
    ck_assert_int_eq(support_claim(&pair, 1, &claim), -EAGAIN);
    support_expect(&pair, 0, STATUS_OK, false);
    ck_assert_int_eq(support_claim(&pair, 16, &claim), 0);
    ck_assert_uint_eq(claim.row, 0);
    support_close(&pair);
}
END_TEST

START_TEST(a_pool_is_full_of_tasks)
{
    struct pool_pair pair;
    struct pool_claim claim;
    struct pool_batch batch;
    support_open(&pair, POOL_FORWARD, 64, 8, 4);
    for (int i = 0; i < 8; i++)
        support_put(&pair, 1);
    ck_assert_int_eq(support_claim(&pair, 1, &claim), -EAGAIN);
    ck_assert_uint_eq(support_take(&pair, &batch), 4); /* max_batch_size */
    support_run(&pair, &batch);
    ck_assert_int_eq(support_claim(&pair, 1, &claim), -EAGAIN);
    support_expect(&pair, 0, STATUS_OK, false);
    ck_assert_uint_eq(support_put(&pair, 1), 8);
    ck_assert_int_eq(support_claim(&pair, 1, &claim), -EAGAIN);
    support_close(&pair);
}
END_TEST

START_TEST(releases_come_in_any_order)
{
    struct pool_pair pair;
    struct pool_result result;
    struct pool_claim claim;
    struct pool_batch batch;
    support_open(&pair, POOL_FORWARD, 256, 128, 16);
    for (uint64_t round = 0; round < 20; round++) {
        const uint64_t first = round * 100;
        for (int i = 0; i < 100; i++)
            support_put(&pair, 1);
        while (support_take(&pair, &batch) > 0)
            support_run(&pair, &batch);
        for (int i = 0; i < 100; i++)
            ck_assert_int_eq(pool_next_result(pair.frontend, &result), 1);
        for (uint64_t i = 0; i < 99; i++) { /* 37 and 100 have no common divisor: all but the last, which is 0 */
            pool_release(pair.frontend, first + (i + 1) * 37 % 100);
            ck_assert_uint_eq(pool_tasks_held(pair.frontend), 100);
        }
        pool_release(pair.frontend, first);
        ck_assert_uint_eq(pool_tasks_held(pair.frontend), 0);
    }
    ck_assert_int_eq(support_claim(&pair, 16, &claim), 0);
    support_close(&pair);
}
END_TEST

START_TEST(messages_of_any_length_arrive)
{
    struct pool_pair pair;
    struct pool_batch batch;
    struct pool_result result;
    support_open(&pair, POOL_FORWARD, 64, 8, 1);
    static const char *const given[] = {"CL_OUT_OF_RESOURCES",
                                        "0123456789012345678901234567890123456789012345678901234",
                                        "01234567890123456789012345678901234567890123456789012345",
                                        "01234567890123456789012345678901234567890123456789012\xe2\x82\xac and more"};
    static const char *const wanted[] = {"CL_OUT_OF_RESOURCES",
                                         "0123456789012345678901234567890123456789012345678901234",
                                         "0123456789012345678901234567890123456789012345678901234",
                                         "01234567890123456789012345678901234567890123456789012"};
    for (int i = 0; i < 4; i++) {
        support_put(&pair, 1);
        ck_assert_uint_eq(support_take(&pair, &batch), 1);
        pool_complete(pair.runtime, &batch, STATUS_INTERNAL, given[i]);
        ck_assert_int_eq(pool_next_result(pair.frontend, &result), 1);
        ck_assert_int_eq(result.status, STATUS_INTERNAL);
        ck_assert_str_eq(result.message, wanted[i]);
        pool_release(pair.frontend, result.task);
    }
    support_close(&pair);
}
END_TEST

START_TEST(a_runtime_that_scribbles_is_noticed)
{
    struct pool_pair pair;
    struct pool_batch batch;
    struct pool_result result;
    struct pool_claim claim;
    support_open(&pair, POOL_FORWARD, 64, 8, 16);
    support_put(&pair, 1);
    support_put(&pair, 1);
    ck_assert_uint_eq(support_take(&pair, &batch), 2);
    support_run(&pair, &batch);
    struct pool_shared *shared = pair.runtime->shared;
    switch (_i) {
    case 0:
        atomic_store(&shared->runtime.done, 3); /* more than there are */
        break;
    case 1:
        pool_task_at(pair.runtime, 0)->rows = 17;
        break;
    case 2:
        pool_task_at(pair.runtime, 0)->row_position = 63; /* no row of a held task */
        break;
    case 3:
        pool_task_at(pair.runtime, 0)->row_position = UINT64_MAX;
        break;
    case 4:
        pool_task_at(pair.runtime, 0)->row_position = 1; /* the other task's */
        break;
    case 5:
        pool_task_at(pair.runtime, 0)->rows = 2;
        break;
    default:
        /* Only words: not harmful, and made harmless. */
        pool_task_at(pair.runtime, 0)->status = 12345;
        memset(pool_task_at(pair.runtime, 0)->message, 'x', POOL_MESSAGE_SIZE);
        ck_assert_int_eq(pool_next_result(pair.frontend, &result), 1);
        ck_assert_int_eq(result.status, STATUS_INTERNAL);
        ck_assert_uint_eq(strlen(result.message), POOL_MESSAGE_SIZE - 1);
        support_close(&pair);
        return;
    }
    ck_assert_int_eq(pool_next_result(pair.frontend, &result), -EPROTO);
    ck_assert_int_eq(pool_next_result(pair.frontend, &result), -EPROTO); /* and stays */
    ck_assert_int_eq(support_claim(&pair, 1, &claim), -EPROTO);
    support_close(&pair);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("pool_producer");
    tcase_add_test(all, tasks_lie_one_behind_the_other);
    tcase_add_test(all, rows_outside_of_the_limits_are_refused);
    tcase_add_test(all, a_forgotten_claim_leaves_nothing);
    tcase_add_test(all, a_task_may_be_queued_again_behind_all_others);
    tcase_add_test(all, a_task_that_began_is_not_run_again);
    tcase_add_test(all, an_empty_pool_begins_at_row_0);
    tcase_add_test(all, a_task_never_wraps);
    tcase_add_test(all, a_pool_is_full_of_rows);
    tcase_add_test(all, a_pool_is_full_of_tasks);
    tcase_add_test(all, releases_come_in_any_order);
    tcase_add_test(all, messages_of_any_length_arrive);
    tcase_add_loop_test(all, a_runtime_that_scribbles_is_noticed, 0, 7);
    Suite *suite = suite_create("pool_producer");
    suite_add_tcase(suite, all);
    return support_pool_main(suite);
}
