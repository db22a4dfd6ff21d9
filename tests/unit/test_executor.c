#include <check.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "unit/executor_world.h"

/* --- an expert that writes a diary instead of computing -------------------------------------------------------------
 */

static char diary[256];                 /* "+0" expert 0 was given a batch, "-0" it was finished */
static int forward_error, finish_error; /* an -EAGAIN is of the next call only, unless it is */
static bool lasting;
static bool busy_once;
static bool accumulating;   /* steps come later */
static uint64_t later_ns;   /* batches of expert 0 are to be answered no earlier */
static uint64_t group_rows; /* of forwards that go together, at most; 0: none do */
static int group_error;     /* why they cannot be enqueued */
static bool group_fails;    /* on the device, where nobody knows which of them is to blame */
static int broken = -1;     /* an expert that fails by itself, too */
enum { OF_GROUP = 1 };      /* of a batch's `staging` */

static void write_down(const char *text)
{
    const size_t length = strlen(diary);
    snprintf(diary + length, sizeof diary - length, "%s", text);
}

static void note(char what, const struct expert *expert)
{
    const size_t length = strlen(diary);
    int number = 0;
    while (backends[number].expert != expert)
        number++;
    snprintf(diary + length, sizeof diary - length, "%c%d", what, number);
}

/* Rows of NaN are what a backward skips. */
static int fake_compute(struct expert *expert, struct expert_batch *batch)
{
    if (busy_once) {
        busy_once = false;
        note('?', expert);
        return -EBUSY;
    }
    if (forward_error) {
        const int result = forward_error;
        forward_error = result == -EAGAIN && !lasting ? 0 : result;
        return result;
    }
    if (broken >= 0 && expert == backends[broken].expert) {
        note('!', expert);
        return -EIO;
    }
    note('+', expert);
    batch->ready_ns = expert == backends[0].expert ? later_ns : 0;
    const float *in = (const float *)batch->inputs[0].mapping + batch->first_row * HIDDEN;
    float *out = (float *)batch->outputs[0].mapping + batch->first_row * HIDDEN;
    memcpy(out, in, batch->rows * HIDDEN * sizeof *out);
    return 0;
}

static struct expert_group fake_group_of(const struct expert *expert)
{
    return group_rows > 0 ? (struct expert_group){expert->ops, group_rows, EXPERT_GROUP} : (struct expert_group){0};
}

static int fake_forward_group(struct expert *const *experts, struct expert_batch *const *batches, unsigned count)
{
    write_down(group_error ? "[x" : "[");
    for (unsigned i = 0; i < count && !group_error; i++) {
        const int was = broken;
        broken = -1;
        ck_assert_int_eq(fake_compute(experts[i], batches[i]), 0);
        broken = was;
        batches[i]->staging = OF_GROUP;
    }
    write_down("]");
    return group_error;
}

static int fake_finish(struct expert *expert, struct expert_batch *batch)
{
    note('-', expert);
    if (group_fails && batch->staging == OF_GROUP) {
        batch->staging = 0;
        return -EIO;
    }
    if (finish_error) {
        const int result = finish_error;
        finish_error = result == -EAGAIN && !lasting ? 0 : result;
        return result;
    }
    batch->step = batch->backward ? EXPERT_STEP_APPLIED : EXPERT_STEP_NONE;
    const float *in = (const float *)batch->inputs[0].mapping;
    for (uint64_t row = batch->first_row; batch->backward && row < batch->first_row + batch->rows; row++)
        if (isnan(in[row * HIDDEN]))
            batch->step = EXPERT_STEP_SKIPPED;
    if (batch->step == EXPERT_STEP_APPLIED && accumulating)
        batch->step = EXPERT_STEP_ACCUMULATED;
    if (batch->step == EXPERT_STEP_APPLIED)
        expert->counters.updates++;
    if (batch->step == EXPERT_STEP_SKIPPED)
        expert->counters.skipped++;
    return 0;
}

static struct expert_ops fake_ops;

static void use_fakes(void)
{
    fake_ops = *backends[0].expert->ops;
    fake_ops.forward = fake_ops.backward = fake_compute;
    fake_ops.finish = fake_finish;
    fake_ops.group_of = fake_group_of;
    fake_ops.forward_group = fake_forward_group;
    group_rows = 0;
    group_error = 0;
    group_fails = false;
    broken = -1;
    for (int i = 0; i < EXPERTS; i++)
        backends[i].expert->ops = &fake_ops;
    diary[0] = 0;
    forward_error = finish_error = 0;
    lasting = false;
    busy_once = accumulating = false;
    later_ns = 0;
}

/* Until something is done: on a slow machine a batch waits a moment for the rows that the one before it lets expect. */
static void step(void)
{
    uint64_t retry_ns;
    int rc = 0;
    while (rc == 0)
        rc = executor_step(executor, &retry_ns);
    ck_assert_int_eq(rc, 1);
}

static void set_up(void)
{
    start("cpu", false, "block: nop, hidden_dim: 16, max_batch_size: 8, queue_rows: 32");
}

/* --- tests -----------------------------------------------------------------------------------------------------------
 */

START_TEST(a_task_is_computed_and_announced)
{
    const uint64_t task = support_frontend_put(&frontend, FORWARD, 3, 2.5f);
    run_all();
    support_frontend_expect(&frontend, FORWARD, task, STATUS_OK, 2.5f);
    ck_assert_uint_eq(support_frontend_counter(&frontend, CONTROL_BATCHES), 1);
    ck_assert_uint_eq(support_frontend_counter(&frontend, CONTROL_TASKS), 1);
    ck_assert_uint_eq(support_frontend_counter(&frontend, CONTROL_ROWS), 3);
    const struct control_shared *page = control_page(frontend.control);
    ck_assert_uint_eq(atomic_load(&page->runtime.completed_batches), 1);
    ck_assert_uint_eq(atomic_load(&page->runtime.busy_since_ns), 0);
    ck_assert_uint_gt(support_frontend_counter(&frontend, CONTROL_BUSY_NS), 0);
}
END_TEST

static uint64_t measured(enum pool_kind kind, enum control_histogram histogram, uint64_t *sum)
{
    const struct histogram *shared = &control_page(frontend.control)->statistics.histograms[kind][histogram];
    uint64_t values = 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        values += atomic_load(&shared->counts[i]);
    *sum = atomic_load(&shared->sum);
    return values;
}

START_TEST(batches_and_waits_are_measured)
{
    uint64_t sum;
    for (uint32_t i = 0; i < 5; i++)
        support_frontend_put(&frontend, FORWARD + 2, 2, (float)i);
    run_all();
    ck_assert_uint_eq(measured(POOL_FORWARD, CONTROL_BATCH_ROWS, &sum), 2); /* of 8 rows and 2 */
    ck_assert_uint_eq(sum, 10);
    ck_assert_uint_eq(measured(POOL_FORWARD, CONTROL_COMPUTE_TIME, &sum), 2);
    ck_assert_uint_gt(sum, 0);
    ck_assert_uint_eq(measured(POOL_FORWARD, CONTROL_QUEUE_TIME, &sum), 5); /* a value for each task */
    ck_assert_uint_eq(measured(POOL_BACKWARD, CONTROL_BATCH_ROWS, &sum), 0);
    ck_assert_uint_eq(support_frontend_counter(&frontend, CONTROL_CLOSED_FULL) +
                          support_frontend_counter(&frontend, CONTROL_CLOSED_ROWS) +
                          support_frontend_counter(&frontend, CONTROL_CLOSED_TIMEOUT) +
                          support_frontend_counter(&frontend, CONTROL_CLOSED_FREE) +
                          support_frontend_counter(&frontend, CONTROL_CLOSED_PACE),
                      2);
    ck_assert_uint_ge(support_frontend_counter(&frontend, CONTROL_CLOSED_FULL), 1); /* the fifth did not fit */
}
END_TEST

START_TEST(tasks_are_merged_and_answered_each)
{
    uint64_t tasks[5];
    for (uint32_t i = 0; i < 5; i++)
        tasks[i] = support_frontend_put(&frontend, FORWARD + 2, 2, (float)i);
    run_all();
    for (uint32_t i = 0; i < 5; i++)
        support_frontend_expect(&frontend, FORWARD + 2, tasks[i], STATUS_OK, (float)i);
    ck_assert_uint_eq(support_frontend_counter(&frontend, CONTROL_BATCHES), 2); /* of 8 rows and 2 */
}
END_TEST

START_TEST(experts_take_turns_by_age_two_of_them_in_flight)
{
    use_fakes();
    support_frontend_put(&frontend, 4, 1, 0);
    support_frontend_put(&frontend, 0, 1, 0);
    support_frontend_put(&frontend, 2, 1, 0);
    support_frontend_put(&frontend, 4, 1, 0); /* joins the first */
    run_all();
    ck_assert_str_eq(diary, "+2+0-2+1-0-1");
}
END_TEST

START_TEST(beside_a_batch_of_the_same_expert_only_a_full_one_is_taken)
{
    use_fakes();
    support_frontend_put(&frontend, 0, MAX_ROWS, 0);
    step();
    support_frontend_put(&frontend, 0, 3, 0);
    step(); /* finishes the first */
    ck_assert_str_eq(diary, "+0-0");
    step();
    support_frontend_put(&frontend, 0, MAX_ROWS, 0);
    step(); /* starts beside it */
    ck_assert_str_eq(diary, "+0-0+0+0");
    run_all();
    ck_assert_str_eq(diary, "+0-0+0+0-0-0");
}
END_TEST

START_TEST(an_expert_never_has_two_backwards_in_flight)
{
    use_fakes();
    for (int i = 0; i < 3; i++)
        support_frontend_put(&frontend, BACKWARD, MAX_ROWS, 0);
    /* The second one is not even taken before it is known what became of the first. */
    step();
    ck_assert_str_eq(diary, "+0");
    ck_assert_uint_eq(pool_tasks_queued(backends[0].pools[BACKWARD].pool), 2);
    step();
    ck_assert_str_eq(diary, "+0-0");
    run_all();
    ck_assert_str_eq(diary, "+0-0+0-0+0-0");
    ck_assert_uint_eq(support_frontend_counter(&frontend, CONTROL_STEPS), 3);
    ck_assert_uint_eq(atomic_load(&control_expert(frontend.control, 0)->runtime.updates), 3);
}
END_TEST

START_TEST(a_device_that_is_busy_is_given_time)
{
    use_fakes();
    const uint64_t first = support_frontend_put(&frontend, 0, 1, 1);
    const uint64_t second = support_frontend_put(&frontend, 2, 1, 2);
    step();
    busy_once = true;
    run_all();
    ck_assert_str_eq(diary, "+0?1-0+1-1");
    support_frontend_expect(&frontend, 0, first, STATUS_OK, 1);
    support_frontend_expect(&frontend, 2, second, STATUS_OK, 2);
}
END_TEST

START_TEST(a_batch_of_which_nothing_ran_is_run_again)
{
    use_fakes();
    const uint64_t first = support_frontend_put(&frontend, BACKWARD, 1, 1);
    const uint64_t second = support_frontend_put(&frontend, 2, 1, 2);
    step();
    step();
    ck_assert_str_eq(diary, "+0+1");
    finish_error = -EAGAIN;
    run_all();
    ck_assert_str_eq(diary, "+0+1-0+0-0-1");
    support_frontend_expect(&frontend, BACKWARD, first, STATUS_OK, 1);
    support_frontend_expect(&frontend, 2, second, STATUS_OK, 2);
    ck_assert_uint_eq(support_frontend_counter(&frontend, CONTROL_STEPS), 1);
    forward_error = -EAGAIN;
    const uint64_t third = support_frontend_put(&frontend, 4, 1, 3);
    run_all();
    support_frontend_expect(&frontend, 4, third, STATUS_OK, 3);
    ck_assert_uint_eq(support_frontend_counter(&frontend, CONTROL_FAILED_TASKS), 0);
    lasting = true; /* but once only */
    for (int i = 0; i < 2; i++) {
        *(i ? &finish_error : &forward_error) = -EAGAIN;
        const uint64_t fourth = support_frontend_put(&frontend, 4, 1, 4);
        run_all();
        support_frontend_expect(&frontend, 4, fourth, STATUS_INTERNAL, NAN);
        forward_error = finish_error = 0;
    }
    const uint64_t fifth = support_frontend_put(&frontend, 4, 1, 5);
    run_all();
    support_frontend_expect(&frontend, 4, fifth, STATUS_OK, 5);
}
END_TEST

START_TEST(a_failed_batch_fails_its_own_tasks_only)
{
    struct pool_result result;
    use_fakes();
    const uint64_t first = support_frontend_put(&frontend, 0, 1, 1);
    step();
    const uint64_t second = support_frontend_put(&frontend, 2, 1, 2);
    forward_error = -EIO;
    step();
    forward_error = 0;
    finish_error = -EIO;
    const uint64_t third = support_frontend_put(&frontend, 4, 1, 3);
    run_all();
    finish_error = 0;
    const uint64_t fourth = support_frontend_put(&frontend, 2, 1, 4);
    run_all();
    support_frontend_expect(&frontend, 0, first, STATUS_OK, 1);
    ck_assert_int_eq(support_frontend_wait(&frontend, 2, second, &result), STATUS_INTERNAL);
    ck_assert_str_ne(result.message, "");
    support_frontend_expect(&frontend, 4, third, STATUS_INTERNAL, NAN);
    support_frontend_expect(&frontend, 2, fourth, STATUS_OK, 4);
    ck_assert_uint_eq(support_frontend_counter(&frontend, CONTROL_FAILED_TASKS), 2);
    ck_assert_uint_eq(atomic_load(&control_page(frontend.control)->runtime.busy_since_ns), 0);
}
END_TEST

START_TEST(a_lost_device_leaves_the_tasks_to_the_next_runtime)
{
    uint64_t retry_ns;
    struct pool_result result;
    use_fakes();
    support_frontend_put(&frontend, 0, 1, 1);
    step();
    finish_error = -ENODEV;
    uint64_t sum;
    ck_assert_int_eq(executor_step(executor, &retry_ns), -ENODEV);
    ck_assert_int_eq(pool_next_result(frontend.pools[0], &result), 0);
    ck_assert_uint_eq(measured(POOL_FORWARD, CONTROL_COMPUTE_TIME, &sum), 0); /* nobody computed it */
}
END_TEST

START_TEST(only_the_poisoned_task_of_a_backward_batch_is_refused)
{
    struct pool_result result;
    use_fakes();
    const uint64_t first = support_frontend_put(&frontend, BACKWARD, 2, 1);
    const uint64_t second = support_frontend_put(&frontend, BACKWARD, 1, NAN);
    const uint64_t third = support_frontend_put(&frontend, BACKWARD, 3, 3);
    run_all();
    support_frontend_expect(&frontend, BACKWARD, first, STATUS_OK, 1);
    ck_assert_int_eq(support_frontend_wait(&frontend, BACKWARD, second, &result), STATUS_ABORTED);
    ck_assert_ptr_nonnull(strstr(result.message, "NaN"));
    support_frontend_expect(&frontend, BACKWARD, third, STATUS_OK, 3);
    ck_assert_uint_eq(support_frontend_counter(&frontend, CONTROL_STEPS), 2);
    ck_assert_uint_eq(support_frontend_counter(&frontend, CONTROL_SKIPPED_STEPS), 1); /* not the whole one too */
    ck_assert_uint_eq(atomic_load(&control_expert(frontend.control, 0)->runtime.skipped_steps), 1);
    ck_assert_uint_eq(support_frontend_counter(&frontend, CONTROL_TASKS), 2);
    ck_assert_str_eq(diary, "+0-0+0-0+0-0+0-0");
}
END_TEST

START_TEST(a_repeated_backward_does_not_step_twice)
{
    use_fakes();
    const uint64_t first = support_frontend_put(&frontend, BACKWARD, MAX_ROWS, 1);
    frontend.next_request--;
    const uint64_t second = support_frontend_put(&frontend, BACKWARD, MAX_ROWS, 1);
    run_all();
    support_frontend_expect(&frontend, BACKWARD, first, STATUS_OK, 1);
    support_frontend_expect(&frontend, BACKWARD, second, STATUS_ALREADY_EXISTS, NAN);
    ck_assert_uint_eq(support_frontend_counter(&frontend, CONTROL_STEPS), 1);
    ck_assert_uint_eq(support_frontend_counter(&frontend, CONTROL_SKIPPED_TASKS), 1);
}
END_TEST

/* What waits for its step has been taken in: a repeat would count it twice. */
START_TEST(a_backward_that_was_accumulated_is_not_taken_again)
{
    use_fakes();
    accumulating = true;
    const uint64_t first = support_frontend_put(&frontend, BACKWARD, MAX_ROWS, 1);
    run_all();
    frontend.next_request--;
    const uint64_t second = support_frontend_put(&frontend, BACKWARD, MAX_ROWS, 1);
    run_all();
    support_frontend_expect(&frontend, BACKWARD, first, STATUS_OK, 1);
    support_frontend_expect(&frontend, BACKWARD, second, STATUS_ALREADY_EXISTS, NAN);
    ck_assert_str_eq(diary, "+0-0");
}
END_TEST

/* Without an optimizer there is no step that notices. The experts are nop: grad_inputs are grad_outputs. */
START_TEST(gradients_that_are_not_finite_are_refused_also_where_nothing_trains)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    const uint64_t alone = support_frontend_put(&frontend, BACKWARD, 1, bad[_i]);
    run_all();
    support_frontend_expect(&frontend, BACKWARD, alone, STATUS_ABORTED, NAN);
    const uint64_t first = support_frontend_put(&frontend, BACKWARD, 2, 1);
    const uint64_t second = support_frontend_put(&frontend, BACKWARD, 1, bad[_i]);
    const uint64_t third = support_frontend_put(&frontend, BACKWARD, 3, 3);
    run_all();
    support_frontend_expect(&frontend, BACKWARD, first, STATUS_OK, 1);
    support_frontend_expect(&frontend, BACKWARD, second, STATUS_ABORTED, NAN);
    support_frontend_expect(&frontend, BACKWARD, third, STATUS_OK, 3);
}
END_TEST

START_TEST(a_backward_whose_step_was_skipped_may_be_repeated)
{
    use_fakes();
    const uint64_t first = support_frontend_put(&frontend, BACKWARD, 1, NAN);
    run_all();
    support_frontend_expect(&frontend, BACKWARD, first, STATUS_ABORTED, NAN);
    frontend.next_request--;
    const uint64_t second = support_frontend_put(&frontend, BACKWARD, 1, 1);
    run_all();
    support_frontend_expect(&frontend, BACKWARD, second, STATUS_OK, 1);
}
END_TEST

static void forget(uint32_t pool, void *context)
{
    ck_assert_uint_eq(pool, 4);
    ck_assert_ptr_null(context);
}

START_TEST(what_was_queued_before_the_executor_came_is_found)
{
    executor_destroy(&executor);
    const uint64_t task = support_frontend_put(&frontend, 4, 1, 1);
    ck_assert_uint_eq(control_take_ready(control, (control_visit *const[]){forget}, 1, NULL),
                      1); /* by a runtime that died then */
    const struct executor_setup setup = {.backends = backends,
                                         .count = EXPERTS,
                                         .control = control,
                                         .device = support.device,
                                         .run_dir = run_dir,
                                         .server = support_server()};
    ck_assert_int_eq(executor_create(&executor, &setup), 0);
    run_all();
    support_frontend_expect(&frontend, 4, task, STATUS_OK, 1);
}
END_TEST

START_TEST(a_batch_that_is_answered_later_keeps_its_own_pool_waiting_and_no_other)
{
    struct pool_result result;
    uint64_t retry_ns;
    use_fakes();
    later_ns = clock_now_ns() + 3600 * NS_PER_S;
    const uint64_t first = support_frontend_put(&frontend, FORWARD, 8, 1);
    while (executor_step(executor, &retry_ns) == 1)
        ;
    ck_assert_uint_eq(retry_ns, later_ns); /* the runtime sleeps so long */
    ck_assert_uint_eq(atomic_load(&control_page(frontend.control)->runtime.busy_since_ns), 0);
    const uint64_t second = support_frontend_put(&frontend, FORWARD, 1, 2);
    const uint64_t other = support_frontend_put(&frontend, 2 + FORWARD, 1, 3);
    const uint64_t backward = support_frontend_put(&frontend, 2 + BACKWARD, 1, 4);
    while (executor_step(executor, &retry_ns) == 1 || retry_ns < later_ns)
        ;
    ck_assert_str_eq(diary, "+0+1-1+1-1");
    support_frontend_expect(&frontend, 2 + FORWARD, other, STATUS_OK, 3);
    support_frontend_expect(&frontend, 2 + BACKWARD, backward, STATUS_OK, NAN);
    later_ns = 0;
    ck_assert_int_eq(executor_drain(executor), 0); /* who ends waits for no clock */
    ck_assert_int_eq(support_frontend_wait(&frontend, FORWARD, first, &result), STATUS_OK);
    run_all();
    ck_assert_int_eq(support_frontend_wait(&frontend, FORWARD, second, &result), STATUS_OK);
    ck_assert_str_eq(diary, "+0+1-1+1-1-0+0-0");
}
END_TEST

START_TEST(a_batch_is_answered_when_its_time_has_come)
{
    uint64_t task[EXPERTS];
    use_fakes();
    later_ns = clock_now_ns() + 20 * NS_PER_MS;
    for (uint32_t i = 0; i < EXPERTS; i++)
        task[i] = support_frontend_put(&frontend, 2 * i + FORWARD, 1, (float)i);
    run_all();
    ck_assert_uint_ge(clock_now_ns(), later_ns);
    for (uint32_t i = 0; i < EXPERTS; i++)
        support_frontend_expect(&frontend, 2 * i + FORWARD, task[i], STATUS_OK, (float)i);
    ck_assert_str_eq(diary, "+0+1+2-1-2-0");
}
END_TEST

/* --- forwards that are enqueued together -----------------------------------------------------------------------------
 */

static void use_groups(uint64_t rows)
{
    use_fakes();
    group_rows = rows;
}

/* A forward of each expert, oldest first in this order, with its number as value. */
static void put_each(uint64_t task[EXPERTS], uint32_t rows)
{
    for (uint32_t i = 0; i < EXPERTS; i++)
        task[i] = support_frontend_put(&frontend, 2 * i + FORWARD, rows, (float)i);
}

static void expect_each(const uint64_t task[EXPERTS])
{
    for (uint32_t i = 0; i < EXPERTS; i++)
        support_frontend_expect(&frontend, 2 * i + FORWARD, task[i], STATUS_OK, (float)i);
}

START_TEST(forwards_of_one_kin_that_are_ready_go_together_oldest_first)
{
    uint64_t task[EXPERTS], sum;
    use_groups(64);
    put_each(task, 2);
    step();
    ck_assert_str_eq(diary, "[+0+1+2]");
    step(); /* what was done together is finished together, but each is answered by itself */
    ck_assert_str_eq(diary, "[+0+1+2]-0-1-2");
    expect_each(task);
    ck_assert_uint_eq(support_frontend_counter(&frontend, CONTROL_BATCHES), EXPERTS);
    ck_assert_uint_eq(measured(POOL_FORWARD, CONTROL_COMPUTE_TIME, &sum), EXPERTS);
    ck_assert_uint_eq(atomic_load(&control_page(frontend.control)->runtime.busy_since_ns), 0);
    put_each(task, 1);
    run_all();
    ck_assert_str_eq(diary, "[+0+1+2]-0-1-2[+0+1+2]-0-1-2");
    expect_each(task);
}
END_TEST

START_TEST(two_launches_are_in_flight_whatever_they_hold)
{
    use_groups(64);
    support_frontend_put(&frontend, 0, 1, 0);
    support_frontend_put(&frontend, 2, 1, 0);
    step();
    support_frontend_put(&frontend, 4, 1, 0);
    step();
    support_frontend_put(&frontend, 4, MAX_ROWS, 0);
    step(); /* a third one has to wait */
    ck_assert_str_eq(diary, "[+0+1]+2-0-1");
    run_all();
    ck_assert_str_eq(diary, "[+0+1]+2-0-1+2-2-2");
}
END_TEST

START_TEST(a_backward_or_the_same_expert_again_ends_a_group)
{
    use_groups(64);
    support_frontend_put(&frontend, 2 + FORWARD, 1, 0);
    support_frontend_put(&frontend, 4 + FORWARD, 1, 0);
    support_frontend_put(&frontend, BACKWARD, 1, 0);
    support_frontend_put(&frontend, FORWARD, 1, 0);
    run_all();
    ck_assert_str_eq(diary, "[+1+2]+0-1-2-0+0-0");
    use_groups(64);
    support_frontend_put(&frontend, 2, MAX_ROWS, 0);
    support_frontend_put(&frontend, 2, MAX_ROWS, 0);
    support_frontend_put(&frontend, 4, 1, 0);
    run_all();
    ck_assert_str_eq(diary, "+1[+1+2]-1-1-2");
}
END_TEST

START_TEST(a_group_has_no_more_rows_than_its_experts_can_have_together)
{
    uint64_t task[EXPERTS];
    use_groups(12);
    task[0] = support_frontend_put(&frontend, 0, 4, 0);
    task[1] = support_frontend_put(&frontend, 2, 4, 1);
    task[2] = support_frontend_put(&frontend, 4, MAX_ROWS, 2);
    run_all();
    ck_assert_str_eq(diary, "[+0+1]+2-0-1-2");
    expect_each(task);
    diary[0] = 0;
    put_each(task, MAX_ROWS);
    run_all();
    ck_assert_str_eq(diary, "+0+1-0+2-1-2");
    expect_each(task);
}
END_TEST

START_TEST(what_cannot_be_enqueued_together_goes_one_by_one)
{
    uint64_t task[EXPERTS];
    use_groups(64);
    group_error = -EIO;
    put_each(task, 1);
    run_all();
    ck_assert_str_eq(diary, "[x]+0+1+2-0-1-2");
    expect_each(task);
    ck_assert_uint_eq(support_frontend_counter(&frontend, CONTROL_FAILED_TASKS), 0);
}
END_TEST

START_TEST(of_a_group_that_failed_only_who_fails_alone_is_refused)
{
    uint64_t task[EXPERTS];
    use_groups(64);
    group_fails = true;
    broken = 1;
    put_each(task, 1);
    run_all();
    ck_assert_str_eq(diary, "[+0+1+2]-0+0-0-1!1-2+2-2");
    support_frontend_expect(&frontend, 0, task[0], STATUS_OK, 0);
    support_frontend_expect(&frontend, 2, task[1], STATUS_INTERNAL, NAN);
    support_frontend_expect(&frontend, 4, task[2], STATUS_OK, 2);
    ck_assert_uint_eq(support_frontend_counter(&frontend, CONTROL_FAILED_TASKS), 1);
}
END_TEST

START_TEST(a_lost_device_leaves_a_whole_group_to_the_next_runtime)
{
    uint64_t task[EXPERTS], retry_ns;
    struct pool_result result;
    use_groups(64);
    put_each(task, 1);
    step();
    finish_error = -ENODEV;
    ck_assert_int_eq(executor_step(executor, &retry_ns), -ENODEV);
    for (uint32_t i = 0; i < EXPERTS; i++)
        ck_assert_int_eq(pool_next_result(frontend.pools[2 * i], &result), 0);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("executor");
    tcase_set_timeout(all, 200); /* kernels are compiled at the first run */
    tcase_add_checked_fixture(all, set_up, tear_down);
    tcase_add_test(all, a_task_is_computed_and_announced);
    tcase_add_test(all, batches_and_waits_are_measured);
    tcase_add_test(all, tasks_are_merged_and_answered_each);
    tcase_add_test(all, experts_take_turns_by_age_two_of_them_in_flight);
    tcase_add_test(all, beside_a_batch_of_the_same_expert_only_a_full_one_is_taken);
    tcase_add_test(all, an_expert_never_has_two_backwards_in_flight);
    tcase_add_test(all, a_device_that_is_busy_is_given_time);
    tcase_add_test(all, a_batch_of_which_nothing_ran_is_run_again);
    tcase_add_test(all, a_failed_batch_fails_its_own_tasks_only);
    tcase_add_test(all, a_lost_device_leaves_the_tasks_to_the_next_runtime);
    tcase_add_test(all, only_the_poisoned_task_of_a_backward_batch_is_refused);
    tcase_add_test(all, a_repeated_backward_does_not_step_twice);
    tcase_add_test(all, a_backward_that_was_accumulated_is_not_taken_again);
    tcase_add_loop_test(all, gradients_that_are_not_finite_are_refused_also_where_nothing_trains, 0, 3);
    tcase_add_test(all, a_backward_whose_step_was_skipped_may_be_repeated);
    tcase_add_test(all, what_was_queued_before_the_executor_came_is_found);
    tcase_add_test(all, a_batch_that_is_answered_later_keeps_its_own_pool_waiting_and_no_other);
    tcase_add_test(all, a_batch_is_answered_when_its_time_has_come);
    TCase *groups = tcase_create("groups");
    tcase_set_timeout(groups, 200);
    tcase_add_checked_fixture(groups, set_up, tear_down);
    tcase_add_test(groups, forwards_of_one_kin_that_are_ready_go_together_oldest_first);
    tcase_add_test(groups, two_launches_are_in_flight_whatever_they_hold);
    tcase_add_test(groups, a_backward_or_the_same_expert_again_ends_a_group);
    tcase_add_test(groups, a_group_has_no_more_rows_than_its_experts_can_have_together);
    tcase_add_test(groups, what_cannot_be_enqueued_together_goes_one_by_one);
    tcase_add_test(groups, of_a_group_that_failed_only_who_fails_alone_is_refused);
    tcase_add_test(groups, a_lost_device_leaves_a_whole_group_to_the_next_runtime);
    Suite *suite = suite_create("executor");
    suite_add_tcase(suite, all);
    suite_add_tcase(suite, groups);
    return support_pool_main(suite);
}
