#include <check.h>
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/device_private.h"
#include "runtime/executor.h"
#include "runtime/pace.h"
#include "unit/support_device.h"
#include "unit/support_frontend.h"
#include "unit/support_pool.h"

enum { EXPERTS = 3, MAX_ROWS = 8, HIDDEN = 16, FORWARD = 0, BACKWARD = 1 };

static struct support_device support;
static char run_dir[128];
static struct backend backends[EXPERTS];
static struct control *control;
static struct executor *executor;
static struct support_frontend frontend;

/* --- an expert that writes a diary instead of computing -------------------------------------------------------------
 */

static char diary[256];                 /* "+0" expert 0 was given a batch, "-0" it was finished */
static int forward_error, finish_error; /* an -EAGAIN is of the next call only, unless it is */
static bool lasting;
static bool busy_once;

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
    note('+', expert);
    const float *in = (const float *)batch->inputs[0].mapping + batch->first_row * HIDDEN;
    float *out = (float *)batch->outputs[0].mapping + batch->first_row * HIDDEN;
    memcpy(out, in, batch->rows * HIDDEN * sizeof *out);
    return 0;
}

static int fake_finish(struct expert *expert, struct expert_batch *batch)
{
    note('-', expert);
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
    for (int i = 0; i < EXPERTS; i++)
        backends[i].expert->ops = &fake_ops;
    diary[0] = 0;
    forward_error = finish_error = 0;
    lasting = false;
    busy_once = false;
}

/* --- set up ----------------------------------------------------------------------------------------------------------
 */

static void start(const char *kernel, bool staged, const char *expert)
{
    const char *parent = getenv("TMPDIR");
    snprintf(run_dir, sizeof run_dir, "%s/executor.XXXXXX", parent ? parent : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(run_dir));
    support_device_open(&support, kernel, staged, "", expert);
    ck_assert_int_eq(control_create(&control, support_server(), "d", 1, EXPERTS), 0);
    const struct backend_place place = {
        .server = support_server(), .device = "d", .generation = control_generation(control)};
    for (uint32_t i = 0; i < EXPERTS; i++) {
        char uid[UID_SIZE];
        snprintf(uid, sizeof uid, "nop.%u", i);
        ck_assert_int_eq(backend_create(&backends[i], support.device, &support.config.experts[0], uid, ""), 0);
        ck_assert_int_eq(backend_open_pools(&backends[i], &place, i, false), 0);
        backend_set_record(&backends[i], control_expert(control, i), false);
    }
    control_publish(control);
    const struct executor_setup setup = {.backends = backends,
                                         .count = EXPERTS,
                                         .control = control,
                                         .device = support.device,
                                         .run_dir = run_dir,
                                         .server = support_server()};
    ck_assert_int_eq(executor_create(&executor, &setup), 0);
    support_frontend_open(&frontend, run_dir, support_server(), "d");
}

static void set_up(void)
{
    start("cpu", false, "block: nop, hidden_dim: 16, max_batch_size: 8, queue_rows: 32");
}

static const char *const ffn = "block: ffn, hidden_dim: 16, max_batch_size: 8, queue_rows: 32, optimizer: adam";

static void set_up_ffn(void)
{
    start("cpu", false, ffn);
}

static void set_up_staged(void)
{
    start("gpu", true, ffn);
}

static void set_up_large(void)
{
    start("cpu", false, "block: ffn, hidden_dim: 16, max_batch_size: 256, queue_rows: 512");
}

static void tear_down(void)
{
    char path[256];
    support_frontend_close(&frontend);
    executor_destroy(&executor);
    for (int i = 0; i < EXPERTS; i++)
        backend_destroy(&backends[i]);
    control_retire(&control);
    support_device_close(&support);
    snprintf(path, sizeof path, "%s/%s.frontend.bell", run_dir, support_server());
    unlink(path);
    rmdir(run_dir);
}

static void run_all(void)
{
    uint64_t retry_ns;
    int rc;
    /* A time to look again at: a pool waits for those who were just answered (runtime/pace.h). */
    while ((rc = executor_step(executor, &retry_ns)) == 1 || retry_ns != UINT64_MAX)
        ck_assert_int_ge(rc, 0);
    ck_assert_int_eq(rc, 0);
}

/* --- tests -----------------------------------------------------------------------------------------------------------
 */

START_TEST(a_task_is_computed_and_announced)
{
    const uint64_t task = support_frontend_put(&frontend, FORWARD, 3, 2.5f);
    run_all();
    support_frontend_expect(&frontend, FORWARD, task, STATUS_OK, 2.5f);
    ck_assert(control_any_done(frontend.control));
    ck_assert_uint_eq(support_frontend_counter(&frontend, CONTROL_BATCHES), 1);
    ck_assert_uint_eq(support_frontend_counter(&frontend, CONTROL_TASKS), 1);
    ck_assert_uint_eq(support_frontend_counter(&frontend, CONTROL_ROWS), 3);
    const struct control_shared *page = control_page(frontend.control);
    ck_assert_uint_eq(atomic_load(&page->runtime.completed_batches), 1);
    ck_assert_uint_eq(atomic_load(&page->runtime.busy_since_ns), 0);
    ck_assert_uint_gt(support_frontend_counter(&frontend, CONTROL_BUSY_NS), 0);
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
    uint64_t retry_ns;
    use_fakes();
    support_frontend_put(&frontend, 0, MAX_ROWS, 0);
    ck_assert_int_eq(executor_step(executor, &retry_ns), 1);
    support_frontend_put(&frontend, 0, 3, 0);
    ck_assert_int_eq(executor_step(executor, &retry_ns), 1); /* finishes the first */
    ck_assert_str_eq(diary, "+0-0");
    ck_assert_int_eq(executor_step(executor, &retry_ns), 1);
    support_frontend_put(&frontend, 0, MAX_ROWS, 0);
    ck_assert_int_eq(executor_step(executor, &retry_ns), 1); /* starts beside it */
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
    run_all();
    ck_assert_str_eq(diary, "+0-0+0-0+0-0");
    ck_assert_uint_eq(support_frontend_counter(&frontend, CONTROL_STEPS), 3);
    ck_assert_uint_eq(atomic_load(&control_expert(frontend.control, 0)->runtime.updates), 3);
}
END_TEST

START_TEST(a_device_that_is_busy_is_given_time)
{
    uint64_t retry_ns;
    use_fakes();
    const uint64_t first = support_frontend_put(&frontend, 0, 1, 1);
    const uint64_t second = support_frontend_put(&frontend, 2, 1, 2);
    ck_assert_int_eq(executor_step(executor, &retry_ns), 1);
    busy_once = true;
    run_all();
    ck_assert_str_eq(diary, "+0?1-0+1-1");
    support_frontend_expect(&frontend, 0, first, STATUS_OK, 1);
    support_frontend_expect(&frontend, 2, second, STATUS_OK, 2);
}
END_TEST

START_TEST(a_batch_of_which_nothing_ran_is_run_again)
{
    uint64_t retry_ns;
    use_fakes();
    const uint64_t first = support_frontend_put(&frontend, BACKWARD, 1, 1);
    const uint64_t second = support_frontend_put(&frontend, 2, 1, 2);
    ck_assert_int_eq(executor_step(executor, &retry_ns), 1);
    ck_assert_int_eq(executor_step(executor, &retry_ns), 1);
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
    uint64_t retry_ns;
    struct pool_result result;
    use_fakes();
    const uint64_t first = support_frontend_put(&frontend, 0, 1, 1);
    ck_assert_int_eq(executor_step(executor, &retry_ns), 1);
    const uint64_t second = support_frontend_put(&frontend, 2, 1, 2);
    forward_error = -EIO;
    ck_assert_int_eq(executor_step(executor, &retry_ns), 1);
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
    ck_assert_int_eq(executor_step(executor, &retry_ns), 1);
    finish_error = -ENODEV;
    ck_assert_int_eq(executor_step(executor, &retry_ns), -ENODEV);
    ck_assert_int_eq(pool_next_result(frontend.pools[0], &result), 0);
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
    ck_assert_uint_eq(support_frontend_counter(&frontend, CONTROL_SKIPPED_STEPS), 2); /* the whole one, and its own */
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
    ck_assert_uint_eq(control_take_ready(control, forget, NULL), 1); /* by a runtime that died then */
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

/* --- batches of a real block -----------------------------------------------------------------------------------------
 */

static float *tensor_of(int expert, unsigned index, size_t *bytes)
{
    struct expert_tensor tensor;
    expert_tensor(backends[expert].expert, index, &tensor);
    float *values = malloc(*bytes = tensor.count * sizeof *values);
    ck_assert_int_eq(expert_tensor_read(backends[expert].expert, index, values), 0);
    return values;
}

static void make_alike(int expert, int model)
{
    for (unsigned i = 0; i < expert_tensors(backends[model].expert); i++) {
        size_t bytes;
        float *values = tensor_of(model, i, &bytes);
        ck_assert_int_eq(expert_tensor_write(backends[expert].expert, i, values), 0);
        free(values);
    }
}

static void expect_alike(int expert, int model)
{
    for (unsigned i = 0; i < expert_tensors(backends[model].expert); i++) {
        size_t bytes;
        float *one = tensor_of(model, i, &bytes), *other = tensor_of(expert, i, &bytes);
        ck_assert_mem_eq(one, other, bytes);
        free(one);
        free(other);
    }
}

/* Tasks of these rows, MAX_ROWS in all, with the same content whatever they are divided into; their outputs. */
static const float *run_tasks(uint32_t pool, const uint32_t rows[], unsigned tasks)
{
    struct pool *p = frontend.pools[pool];
    struct pool_result result;
    uint64_t position[MAX_ROWS];
    for (unsigned i = 0; i < tasks; i++)
        position[i] = support_frontend_put(&frontend, pool, rows[i], 0);
    for (uint32_t i = 0; i < pool_header(p)->inputs.count; i++)
        support_random(pool_input(p, i), MAX_ROWS * HIDDEN, 70 + i, 1);
    run_all();
    for (unsigned i = 0; i < tasks; i++)
        ck_assert_int_eq(support_frontend_wait(&frontend, pool, position[i], &result), STATUS_OK);
    return pool_output(p, 0);
}

START_TEST(merged_tasks_give_exactly_what_one_task_of_all_rows_gives)
{
    static const uint32_t one[] = {MAX_ROWS}, some[] = {3, 1, 4}, each[] = {1, 1, 1, 1, 1, 1, 1, 1};
    make_alike(1, 0);
    make_alike(2, 0);
    for (uint32_t kind = FORWARD; kind <= BACKWARD; kind++) {
        const float *of_one = run_tasks(kind, one, 1), *of_some = run_tasks(2 + kind, some, 3);
        const float *of_each = run_tasks(4 + kind, each, MAX_ROWS);
        ck_assert_mem_eq(of_one, of_some, MAX_ROWS * HIDDEN * sizeof(float));
        ck_assert_mem_eq(of_one, of_each, MAX_ROWS * HIDDEN * sizeof(float));
    }
    ck_assert_uint_eq(support_frontend_counter(&frontend, CONTROL_BATCHES), 6);
    ck_assert_uint_eq(support_frontend_counter(&frontend, CONTROL_STEPS), 3);
    expect_alike(1, 0);
    expect_alike(2, 0);
}
END_TEST

/* What the healthy ones of a batch do is what they do alone, one by one. */
START_TEST(a_poisoned_task_leaves_the_expert_to_the_healthy_ones_of_its_batch)
{
    struct pool_result result;
    make_alike(1, 0);
    for (int i = 0; i < 2; i++) {
        const uint64_t alone = support_frontend_put(&frontend, BACKWARD, 2, i ? 0.5f : 1);
        run_all();
        support_frontend_expect(&frontend, BACKWARD, alone, STATUS_OK, NAN);
    }
    const uint64_t first = support_frontend_put(&frontend, 2 + BACKWARD, 2, 1);
    const uint64_t poisoned = support_frontend_put(&frontend, 2 + BACKWARD, 1, INFINITY);
    const uint64_t last = support_frontend_put(&frontend, 2 + BACKWARD, 2, 0.5f);
    run_all();
    support_frontend_expect(&frontend, 2 + BACKWARD, first, STATUS_OK, NAN);
    ck_assert_int_eq(support_frontend_wait(&frontend, 2 + BACKWARD, poisoned, &result), STATUS_ABORTED);
    pool_release(frontend.pools[2 + BACKWARD], poisoned);
    support_frontend_expect(&frontend, 2 + BACKWARD, last, STATUS_OK, NAN);
    ck_assert_uint_eq(backends[1].expert->counters.updates, 2);
    ck_assert_uint_eq(backends[1].expert->counters.examples, 4);
    expect_alike(1, 0);
}
END_TEST

/* --- two batches at a time -------------------------------------------------------------------------------------------
 */

static atomic_bool waiting;
static uint64_t late;
static uint32_t late_rows;

static void *put_late(void *unused)
{
    while (!atomic_load(&waiting))
        ;
    late = support_frontend_put(&frontend, 2, late_rows, 0.5f);
    return unused;
}

static bool late_is_taken(void)
{
    return pool_tasks_held(frontend.pools[2]) == 1 && pool_tasks_queued(backends[1].pools[0].pool) == 0;
}

/* Where the slabs are the device's buffers, only batches of some length are worth it. */
START_TEST(a_task_that_comes_while_a_batch_computes_is_put_beside_it)
{
    struct pool_result result;
    uint64_t retry_ns;
    pthread_t thread;
    cl_int error;
    cl_event held = clCreateUserEvent(support.device->context, &error);
    ck_assert_int_eq(clEnqueueBarrierWithWaitList(support.device->queue, 1, &held, NULL), CL_SUCCESS);
    late_rows = support.device->staged ? 1 : PACE_FULL_ROWS;
    const uint64_t first = support_frontend_put(&frontend, 0, late_rows, 1);
    ck_assert_int_eq(pthread_create(&thread, NULL, put_late, NULL), 0);
    ck_assert_int_eq(executor_step(executor, &retry_ns), 1);
    atomic_store(&waiting, true);
    while (!late_is_taken())
        ck_assert_int_eq(executor_step(executor, &retry_ns), 1);
    pthread_join(thread, NULL);
    ck_assert_int_eq(clSetUserEventStatus(held, CL_COMPLETE), CL_SUCCESS);
    run_all();
    ck_assert_int_eq(support_frontend_wait(&frontend, 0, first, &result), STATUS_OK);
    ck_assert_int_eq(support_frontend_wait(&frontend, 2, late, &result), STATUS_OK);
    clReleaseEvent(held);
}
END_TEST

/* All experts at once, again and again, forward and backward in turn, as tasks of two pools that are there at the same
 * time may be taken in either order: each answer is that of its own task. */
START_TEST(batches_two_in_flight_answer_each_task_with_its_own)
{
    enum { TURNS = 20, POOLS = 2 * EXPERTS };
    make_alike(1, 0);
    make_alike(2, 0);
    for (int turn = 0; turn < 2 * TURNS; turn++) {
        struct pool_result result;
        uint64_t task[POOLS];
        float answer[POOLS];
        for (uint32_t pool = (uint32_t)turn % 2; pool < POOLS; pool += 2) {
            task[pool] = support_frontend_put(&frontend, pool, 1 + (uint32_t)turn % MAX_ROWS, (float)turn / TURNS);
        }
        run_all();
        for (uint32_t pool = (uint32_t)turn % 2; pool < POOLS; pool += 2) {
            ck_assert_int_eq(support_frontend_wait(&frontend, pool, task[pool], &result), STATUS_OK);
            answer[pool] = ((const float *)pool_output(frontend.pools[pool], 0))[result.row * HIDDEN];
            ck_assert(answer[pool] == answer[pool % 2]); /* alike at the start, and trained alike */
            pool_release(frontend.pools[pool], task[pool]);
        }
    }
    ck_assert_uint_eq(backends[0].expert->counters.updates, TURNS);
    expect_alike(1, 0);
    expect_alike(2, 0);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("executor");
    tcase_set_timeout(all, 200); /* kernels are compiled at the first run */
    tcase_add_checked_fixture(all, set_up, tear_down);
    tcase_add_test(all, a_task_is_computed_and_announced);
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
    tcase_add_test(all, a_backward_whose_step_was_skipped_may_be_repeated);
    tcase_add_test(all, what_was_queued_before_the_executor_came_is_found);
    TCase *real = tcase_create("real blocks");
    tcase_set_timeout(real, 200);
    tcase_add_checked_fixture(real, set_up_ffn, tear_down);
    tcase_add_test(real, merged_tasks_give_exactly_what_one_task_of_all_rows_gives);
    tcase_add_test(real, a_poisoned_task_leaves_the_expert_to_the_healthy_ones_of_its_batch);
    TCase *large = tcase_create("large batches");
    tcase_add_checked_fixture(large, set_up_large, tear_down);
    tcase_add_test(large, a_task_that_comes_while_a_batch_computes_is_put_beside_it);
    TCase *staged = tcase_create("rows that are staged");
    tcase_set_timeout(staged, 200);
    tcase_add_checked_fixture(staged, set_up_staged, tear_down);
    tcase_add_test(staged, a_task_that_comes_while_a_batch_computes_is_put_beside_it);
    tcase_add_test(staged, batches_two_in_flight_answer_each_task_with_its_own);
    tcase_add_test(staged, merged_tasks_give_exactly_what_one_task_of_all_rows_gives);
    tcase_add_test(staged, a_poisoned_task_leaves_the_expert_to_the_healthy_ones_of_its_batch);
    Suite *suite = suite_create("executor");
    suite_add_tcase(suite, all);
    suite_add_tcase(suite, real);
    suite_add_tcase(suite, large);
    suite_add_tcase(suite, staged);
    return support_pool_main(suite);
}
