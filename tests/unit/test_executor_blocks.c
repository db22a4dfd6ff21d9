// timeout: 3000 (at the first run PoCL compiles for minutes)
/* Batches of a real block, one behind the other or two at a time. */
#include <check.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/device/device_private.h"
#include "unit/executor_world.h"

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

/* Masks let some of it through, and leave out all keys of the second row. */
static void fill_rows(struct pool *pool, uint32_t tensor)
{
    const struct tensor_desc *desc = &pool_header(pool)->inputs.tensors[tensor];
    const size_t count = MAX_ROWS * tensor_row_bytes(desc) / dtype_size(desc->dtype), each = count / MAX_ROWS;
    float *values = malloc(count * sizeof *values);
    support_random(values, count, 70 + tensor, 1);
    for (size_t i = 0; i < count; i++) {
        const bool set = values[i] > 0.3f || i / each == 1;
        if (desc->dtype == DTYPE_FLOAT32)
            ((float *)pool_input(pool, tensor))[i] = values[i];
        else if (desc->dtype == DTYPE_BOOL)
            ((unsigned char *)pool_input(pool, tensor))[i] = set;
        else
            ((int64_t *)pool_input(pool, tensor))[i] = set;
    }
    free(values);
}

/* Tasks of these rows, MAX_ROWS in all, with the same content whatever they are divided into. */
static struct pool *run_tasks(uint32_t pool, const uint32_t rows[], unsigned tasks)
{
    struct pool *p = frontend.pools[pool];
    struct pool_result result;
    uint64_t position[MAX_ROWS];
    for (unsigned i = 0; i < tasks; i++)
        position[i] = support_frontend_put(&frontend, pool, rows[i], 0);
    for (uint32_t i = 0; i < pool_header(p)->inputs.count; i++)
        fill_rows(p, i);
    run_all();
    for (unsigned i = 0; i < tasks; i++)
        ck_assert_int_eq(support_frontend_wait(&frontend, pool, position[i], &result), STATUS_OK);
    return p;
}

static void expect_same_outputs(struct pool *pool, struct pool *model)
{
    const struct schema *outputs = &pool_header(model)->outputs;
    for (uint32_t i = 0; i < outputs->count; i++)
        ck_assert_mem_eq(pool_output(pool, i), pool_output(model, i),
                         MAX_ROWS * tensor_row_bytes(&outputs->tensors[i]));
}

static void merged_is_whole(void)
{
    static const uint32_t one[] = {MAX_ROWS}, some[] = {3, 1, 4}, each[] = {1, 1, 1, 1, 1, 1, 1, 1};
    make_alike(1, 0);
    make_alike(2, 0);
    for (uint32_t kind = FORWARD; kind <= BACKWARD; kind++) {
        struct pool *of_one = run_tasks(kind, one, 1);
        expect_same_outputs(run_tasks(2 + kind, some, 3), of_one);
        expect_same_outputs(run_tasks(4 + kind, each, MAX_ROWS), of_one);
    }
    ck_assert_uint_eq(support_frontend_counter(&frontend, CONTROL_BATCHES), 6);
    ck_assert_uint_eq(support_frontend_counter(&frontend, CONTROL_STEPS), 3);
    expect_alike(1, 0);
    expect_alike(2, 0);
}

START_TEST(merged_tasks_give_exactly_what_one_task_of_all_rows_gives)
{
    merged_is_whole();
}
END_TEST

/* Every kind of layer is in one of them. */
static const char *const blocks[] = {
    "block: ffn, hidden_dim: 16",
    "block: transformer, hidden_dim: 24, arguments: {sequence: 5, heads: 3}",
    "block: det_dropout, hidden_dim: 19",
    "block: perceptron, hidden_dim: 17",
    "block: swiglu, hidden_dim: 13",
    "block: own, hidden_dim: 12}\nblocks:\n  - {name: own, "
    "inputs: [{name: x, shape: [4, hidden_dim]}, {name: m, shape: [4, hidden_dim], dtype: bool}], "
    "layers: [{name: norm, layer: rms_norm, input: x}, {name: q, layer: activation, input: norm, activation: silu}, "
    "{name: k, layer: mask, inputs: [norm, m], scale: 2}, {name: v, layer: multiply, inputs: [norm, x]}, "
    "{name: attention, layer: attention, inputs: [q, k, v], heads: 2}, "
    "{name: sum, layer: add, inputs: [x, attention, v]}], outputs: [{name: y, value: sum}, {name: z, value: v}]",
};
static const struct {
    const char *kernel, *options;
    bool staged;
} providers[] = {
    {"cpu", "", false},    {"cpu", "precision: fp16", true},  {"amx", "", false},
    {"gpu", "", true},     {"mma", "precision: tf32", false}, {"mma", "precision: fp16", true},
    {"clblast", "", true}, /* the last, as it may be missing */
};
enum { BLOCKS = sizeof blocks / sizeof blocks[0], PROVIDERS = sizeof providers / sizeof providers[0] };

START_TEST(merged_tasks_are_one_task_of_all_rows_for_every_block_and_provider)
{
    for (unsigned i = 0; i < BLOCKS; i++) {
        char text[1200];
        snprintf(text, sizeof text, "max_batch_size: 8, queue_rows: 32, optimizer: adam, %s", blocks[i]);
        start_with(providers[_i].kernel, providers[_i].staged, providers[_i].options, text);
        merged_is_whole();
        tear_down();
    }
}
END_TEST

/* --- batches that go together ---------------------------------------------------------------------------------------
 */

static unsigned grouped; /* batches */
static int (*forward_group)(struct expert *const *, struct expert_batch *const *, unsigned);

static int count_group(struct expert *const *experts, struct expert_batch *const *batches, unsigned count)
{
    grouped += count;
    return forward_group(experts, batches, count);
}

/* Forwards of so many rows of all experts that are there at once. */
static void run_together(const uint32_t rows[EXPERTS], uint32_t poisoned)
{
    static struct expert_ops ops;
    struct pool_result result;
    uint64_t task[EXPERTS];
    ops = *backends[0].expert->ops;
    forward_group = ops.forward_group;
    ops.forward_group = count_group;
    grouped = 0;
    for (uint32_t i = 0; i < EXPERTS; i++) {
        struct pool *pool = frontend.pools[2 * i];
        backends[i].expert->ops = &ops;
        task[i] = support_frontend_put(&frontend, 2 * i, rows[i], 0);
        for (uint32_t t = 0; t < pool_header(pool)->inputs.count; t++)
            fill_rows(pool, t);
        const struct tensor_desc *desc = &pool_header(pool)->inputs.tensors[0];
        for (size_t v = 0; i == poisoned && v < rows[i] * tensor_row_bytes(desc) / sizeof(float); v++)
            ((float *)pool_input(pool, 0))[v] = NAN;
    }
    run_all();
    for (uint32_t i = 0; i < EXPERTS; i++) {
        ck_assert_int_eq(support_frontend_wait(&frontend, 2 * i, task[i], &result), STATUS_OK);
        ck_assert_uint_eq(result.row, 0);
    }
}

static void expect_first_rows(const struct pool *pool, const struct schema *outputs, char *const alone[], uint32_t rows)
{
    for (uint32_t i = 0; i < outputs->count; i++) {
        ck_assert_ptr_nonnull(alone[i]);
        ck_assert_mem_eq(pool_output(pool, i), alone[i], rows * tensor_row_bytes(&outputs->tensors[i]));
    }
}

/* Other rows than those of an expert's own batch touch neither its results nor, if they are NaN, anybody's. */
START_TEST(batches_that_go_together_are_bit_for_bit_what_they_are_alone)
{
    static const uint32_t rows[EXPERTS] = {MAX_ROWS, 1, 3};
    static const uint32_t all[] = {MAX_ROWS};
    const struct {
        const char *kernel, *options, *block;
    } worlds[] = {
        {"cpu", "", blocks[0]},
        {"cpu", "", blocks[1]},
        {"cpu", "", blocks[2]},
        {"cpu", "", blocks[3]},
        {"cpu", "", blocks[4]},
        {"amx", "", blocks[4]},
        {"cpu", "precision: fp16", blocks[4]},
    };
    char text[1200];
    snprintf(text, sizeof text, "max_batch_size: 16, queue_rows: 32, optimizer: none, %s", worlds[_i].block);
    for (uint32_t poisoned = 0; poisoned <= EXPERTS; poisoned += EXPERTS) {
        char *alone[SCHEMA_MAX_TENSORS] = {NULL};
        start_with(worlds[_i].kernel, false, worlds[_i].options, text);
        make_alike(1, 0);
        make_alike(2, 0);
        struct pool *first = run_tasks(FORWARD, all, 1);
        const struct schema *outputs = &pool_header(first)->outputs;
        for (uint32_t i = 0; i < outputs->count; i++) {
            const size_t bytes = MAX_ROWS * tensor_row_bytes(&outputs->tensors[i]);
            alone[i] = memcpy(malloc(bytes), pool_output(first, i), bytes);
        }
        tear_down();
        start_with(worlds[_i].kernel, false, worlds[_i].options, text);
        make_alike(1, 0);
        make_alike(2, 0);
        run_together(rows, poisoned);
        ck_assert_uint_eq(grouped, EXPERTS);
        outputs = &pool_header(frontend.pools[0])->outputs;
        for (uint32_t i = 0; i < EXPERTS; i++) {
            if (i != poisoned)
                expect_first_rows(frontend.pools[2 * i], outputs, alone, rows[i]);
        }
        if (poisoned == 0)
            ck_assert(isnan(*(const float *)pool_output(frontend.pools[0], 0)));
        for (uint32_t i = 0; i < outputs->count; i++)
            free(alone[i]);
        tear_down();
    }
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
    TCase *real = tcase_create("real blocks");
    tcase_set_timeout(real, 200);
    tcase_add_checked_fixture(real, set_up_ffn, tear_down);
    tcase_add_test(real, merged_tasks_give_exactly_what_one_task_of_all_rows_gives);
    tcase_add_test(real, a_poisoned_task_leaves_the_expert_to_the_healthy_ones_of_its_batch);
    TCase *each = tcase_create("every block and provider");
    tcase_set_timeout(each, 800); /* kernels are compiled at the first run */
    tcase_add_loop_test(each, merged_tasks_are_one_task_of_all_rows_for_every_block_and_provider, 0,
                        support_device_has_clblast() ? PROVIDERS : PROVIDERS - 1);
    TCase *together = tcase_create("together");
    tcase_set_timeout(together, 200);
    tcase_add_loop_test(together, batches_that_go_together_are_bit_for_bit_what_they_are_alone, 0, 7);
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
    Suite *suite = suite_create("executor_blocks");
    suite_add_tcase(suite, real);
    suite_add_tcase(suite, each);
    suite_add_tcase(suite, together);
    suite_add_tcase(suite, large);
    suite_add_tcase(suite, staged);
    return support_pool_main(suite);
}
