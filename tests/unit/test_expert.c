#include <check.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "unit/support_fixture.h"
#include "unit/support_training.h"

enum { PARAMETERS = 6 };
static const char *const kernels[] = {"cpu", "gpu"};

START_TEST(every_block_that_a_configuration_may_name_is_there)
{
    const struct block *block;
    for (unsigned i = 0; (block = block_builtin_nth(i)) != NULL; i++) {
        const struct config_expert config = {.block = block->name};
        ck_assert_msg(expert_find(&config), "%s", block->name);
    }
}
END_TEST

START_TEST(a_batch_of_several_tasks_steps_as_one_task_of_all_rows_wherever_they_lie)
{
    enum { HIDDEN = 70, ROWS = 29, SHIFT = 8 };
    struct training training;
    training_open(&training, kernels[_i], false, "chunk_rows: 11", HIDDEN, ROWS + SHIFT, "");
    struct expert *twin = training_twin(&training);
    training_fill(&training, 0);
    training_backward(&training, training.expert, 0, ROWS);
    for (unsigned i = 0; i < 2; i++)
        memmove((float *)training.inputs[i].mapping + SHIFT * HIDDEN, training.inputs[i].mapping,
                ROWS * HIDDEN * sizeof(float));
    training_backward(&training, twin, SHIFT, ROWS);
    training_check_same(training.expert, twin);
    expert_destroy(&twin);
    training_close(&training);
}
END_TEST

START_TEST(batches_may_be_enqueued_back_to_back_and_one_backward_of_an_expert_at_a_time)
{
    enum { HIDDEN = 64, ROWS = 12 };
    struct training training;
    struct device_slab outputs[2] = {support_slab((size_t)ROWS * HIDDEN), support_slab((size_t)ROWS * HIDDEN)};
    training_open(&training, kernels[_i], false, "", HIDDEN, ROWS, "");
    struct expert *twin = training_twin(&training);
    training_fill(&training, 0);
    struct expert_batch forwards[2],
        backward = {.rows = ROWS, .inputs = training.inputs, .outputs = &training.grad_inputs};
    struct expert_batch second = backward;
    for (unsigned i = 0; i < 2; i++)
        forwards[i] = (struct expert_batch){.rows = ROWS, .inputs = training.inputs, .outputs = &outputs[i]};
    ck_assert_int_eq(expert_forward(training.expert, &forwards[0]), 0);
    ck_assert_int_eq(expert_backward(training.expert, &backward), 0);
    ck_assert_int_eq(expert_backward(training.expert, &second), -EBUSY);
    ck_assert_int_eq(expert_forward(training.expert, &forwards[1]), 0);
    ck_assert_int_eq(expert_finish(training.expert, &forwards[0]), 0);
    ck_assert_int_eq(expert_finish(training.expert, &backward), 0);
    ck_assert_int_eq(expert_finish(training.expert, &forwards[1]), 0);
    /* The second forward was enqueued behind the step. */
    training_backward(&training, twin, 0, ROWS);
    struct device_slab expected = support_slab((size_t)ROWS * HIDDEN);
    struct expert_batch again = {.rows = ROWS, .inputs = training.inputs, .outputs = &expected};
    ck_assert_int_eq(expert_forward(twin, &again), 0);
    ck_assert_int_eq(expert_finish(twin, &again), 0);
    ck_assert_int_eq(memcmp(outputs[1].mapping, expected.mapping, ROWS * HIDDEN * sizeof(float)), 0);
    ck_assert_int_ne(memcmp(outputs[0].mapping, expected.mapping, ROWS * HIDDEN * sizeof(float)), 0);
    expert_destroy(&twin);
    support_slab_free(&expected);
    for (unsigned i = 0; i < 2; i++)
        support_slab_free(&outputs[i]);
    training_close(&training);
}
END_TEST

START_TEST(staging_holds_two_batches_and_says_busy_to_a_third)
{
    enum { HIDDEN = 16, ROWS = 4, BATCHES = EXPERT_IN_FLIGHT + 1 };
    struct training training;
    struct device_slab outputs = support_slab((size_t)BATCHES * ROWS * HIDDEN);
    training_open(&training, "cpu", true, "", HIDDEN, BATCHES * ROWS, "");
    training_fill(&training, 0);
    struct expert_batch batches[BATCHES];
    for (unsigned i = 0; i < BATCHES; i++)
        batches[i] =
            (struct expert_batch){.first_row = i * ROWS, .rows = ROWS, .inputs = training.inputs, .outputs = &outputs};
    ck_assert_int_eq(expert_forward(training.expert, &batches[0]), 0);
    ck_assert_int_eq(expert_forward(training.expert, &batches[1]), 0);
    ck_assert_int_eq(expert_forward(training.expert, &batches[2]), -EBUSY);
    struct expert_batch backward = {.rows = ROWS, .inputs = training.inputs, .outputs = &training.grad_inputs};
    ck_assert_int_eq(expert_backward(training.expert, &backward), -EBUSY);
    ck_assert_int_eq(expert_finish(training.expert, &batches[0]), 0);
    ck_assert_int_eq(expert_forward(training.expert, &batches[2]), 0);
    ck_assert_int_eq(expert_finish(training.expert, &batches[1]), 0);
    ck_assert_int_eq(expert_finish(training.expert, &batches[2]), 0);
    /* One that could not begin is not in flight. */
    ck_assert_int_eq(expert_backward(training.expert, &backward), 0);
    ck_assert_int_eq(expert_finish(training.expert, &backward), 0);
    for (unsigned i = 0; i < BATCHES * ROWS * HIDDEN; i++)
        ck_assert(isfinite(((const float *)outputs.mapping)[i]));
    support_slab_free(&outputs);
    training_close(&training);
}
END_TEST

static uint64_t workspace_of(const char *device)
{
    uint64_t own, workspace;
    struct support_device support;
    support_device_open(&support, "cpu", false, device, "hidden_dim: 256, max_batch_size: 4096");
    ck_assert_int_eq(expert_memory(support.device, &support.config.experts[0], &own, &workspace), 0);
    ck_assert_uint_gt(own, 0);
    support_device_close(&support);
    return workspace;
}

/* An eighth at most, beside the gradients of the parameters, whatever number of rows is wished for. */
START_TEST(a_batch_goes_in_chunks_that_leave_the_devices_memory_to_weights)
{
    enum { GRADIENTS = 2 * 4 * 256 * 256 * sizeof(float), LITTLE_MIB = 32 };
    const uint64_t much = workspace_of("chunk_rows: 1024"), little = workspace_of("chunk_rows: 1024, memory: 32");
    ck_assert_uint_gt(much, 2 * (UINT64_C(1) << 20) * LITTLE_MIB / 8 + GRADIENTS);
    ck_assert_uint_lt(little, 3 * (UINT64_C(1) << 20) * LITTLE_MIB / 8 / 2 + GRADIENTS);
}
END_TEST

/* Decay alone would show a step whose gradients are zeros. */
START_TEST(warming_up_is_no_step_and_leaves_nothing_behind)
{
    static const char *const options[] = {"optimizer: adamw, learning_rate: 0.1, weight_decay: 0.5",
                                          "optimizer: adamw, learning_rate: 0.1, weight_decay: 0.5, "
                                          "grad_accumulation: 2"};
    struct training training;
    training_open(&training, kernels[_i % 2], false, "", 40, 5, options[_i / 2]);
    const struct config_expert *config = &training.support.config.experts[0];
    struct expert *cold, *warm;
    const struct expert_ops *ops = expert_find(config);
    ck_assert_int_eq(ops->create(&cold, training.support.device, config, 3), 0);
    ck_assert_int_eq(expert_create(&warm, training.support.device, config, 3), 0);
    training_check_same(warm, cold);
    const struct expert_counters none = {0};
    ck_assert_mem_eq(&warm->counters, &none, sizeof none);
    ck_assert_uint_eq(warm->accumulated, 0);
    for (unsigned step = 0; step < 2; step++) {
        training_fill(&training, step);
        const struct expert_batch one = training_backward(&training, warm, 0, training.rows);
        const struct expert_batch other = training_backward(&training, cold, 0, training.rows);
        ck_assert_int_eq(one.step, other.step);
        ck_assert_double_eq(one.grad_norm, other.grad_norm);
    }
    training_check_same(warm, cold);
    expert_destroy(&cold);
    expert_destroy(&warm);
    training_close(&training);
}
END_TEST

static void poison(struct training *training, float value)
{
    ((float *)training->inputs[1].mapping)[training->hidden + 1] = value;
}

START_TEST(a_batch_with_nan_inf_or_an_overflow_changes_nothing_and_is_counted)
{
    static const float poisons[] = {NAN, INFINITY, 1e30f};
    struct training training;
    training_open(&training, kernels[_i], false, "", 64, 17, "clip_norm: 1");
    struct expert *twin = training_twin(&training);
    for (unsigned i = 0; i < 3; i++) {
        training_fill(&training, i);
        poison(&training, poisons[i]);
        const struct expert_batch batch = training_backward(&training, training.expert, 0, training.rows);
        ck_assert_int_eq(batch.step, EXPERT_STEP_SKIPPED);
        ck_assert(!isfinite(batch.grad_norm));
        ck_assert_uint_eq(training.expert->counters.skipped, i + 1);
        training_check_same(training.expert, twin);
    }
    ck_assert_uint_eq(training.expert->counters.updates, 0);
    ck_assert_uint_eq(training.expert->counters.examples, 0);
    training_fill(&training, 0);
    ck_assert_int_eq(training_backward(&training, training.expert, 0, training.rows).step, EXPERT_STEP_APPLIED);
    training_backward(&training, twin, 0, training.rows);
    training_check_same(training.expert, twin);
    expert_destroy(&twin);
    training_close(&training);
}
END_TEST

START_TEST(accumulated_batches_step_as_one_and_a_poisoned_one_among_them_is_left_out)
{
    enum { HIDDEN = 40, ROWS = 20, FIRST = 13 };
    struct training training, whole;
    training_open(&training, kernels[_i], false, "", HIDDEN, ROWS, "grad_accumulation: 2, clip_norm: 0.5");
    training_open(&whole, kernels[_i], false, "", HIDDEN, ROWS, "clip_norm: 0.5");
    for (unsigned step = 0; step < 2; step++) {
        training_fill(&training, step);
        training_fill(&whole, step);
        const struct expert_batch all = training_backward(&whole, whole.expert, 0, ROWS);
        ck_assert_int_eq(training_backward(&training, training.expert, 0, FIRST).step, EXPERT_STEP_ACCUMULATED);
        ck_assert_uint_eq(training.expert->counters.updates, step);
        const float kept = ((float *)training.inputs[1].mapping)[HIDDEN + 1];
        poison(&training, NAN);
        ck_assert_int_eq(training_backward(&training, training.expert, 0, FIRST).step, EXPERT_STEP_SKIPPED);
        poison(&training, kept);
        ck_assert_uint_eq(training.expert->accumulated, 1);
        const struct expert_batch last = training_backward(&training, training.expert, FIRST, ROWS - FIRST);
        ck_assert_int_eq(last.step, EXPERT_STEP_APPLIED);
        ck_assert_double_eq_tol(last.grad_norm / all.grad_norm, 1, 1e-5);
    }
    ck_assert_uint_eq(training.expert->counters.examples, 2 * ROWS);
    for (unsigned p = 0; p < PARAMETERS; p++) {
        struct expert_tensor tensor;
        expert_tensor(whole.expert, p, &tensor);
        float *a = malloc(tensor.count * sizeof *a), *b = malloc(tensor.count * sizeof *b);
        ck_assert_int_eq(expert_tensor_read(whole.expert, p, a), 0);
        ck_assert_int_eq(expert_tensor_read(training.expert, p, b), 0);
        ck_assert_double_le(support_error(b, a, tensor.count), 1e-4);
        free(a);
        free(b);
    }
    training_close(&training);
    training_close(&whole);
}
END_TEST

START_TEST(without_an_optimizer_only_grad_inputs_are_made)
{
    struct support_fixture *fixture = support_fixture_open("ffn");
    const bool fp16 = _i / 2 != 0;
    struct training training;
    size_t count;
    training_open(&training, kernels[_i % 2], false, fp16 ? "precision: fp16" : "", 64, 17, "optimizer: none");
    struct expert *twin = training_twin(&training);
    ck_assert_int_eq(training_step(&training, 0).step, EXPERT_STEP_NONE);
    const float *expected = support_fixture_find(fixture, &count, "backward.64.grad_inputs");
    ck_assert_double_le(support_error(training.grad_inputs.mapping, expected, count), fp16 ? 2e-4 : 1e-5);
    training_check_same(training.expert, twin);
    ck_assert_uint_eq(training.expert->counters.examples, 17);
    expert_destroy(&twin);
    training_close(&training);
    support_fixture_close(&fixture);
}
END_TEST

START_TEST(training_goes_on_from_a_copied_state_as_if_nothing_had_happened)
{
    struct training training;
    training_open(&training, kernels[_i % 2], false, _i / 2 != 0 ? "precision: fp16" : "", 50, 9,
                  "grad_accumulation: 2, schedule: linear, total_steps: 9");
    for (unsigned step = 0; step < 3; step++)
        training_step(&training, step);
    struct expert *copy = training_twin(&training);
    struct expert_snapshot snapshot = {.memory = malloc(expert_snapshot_bytes(training.expert))};
    ck_assert_int_eq(expert_snapshot_take(training.expert, &snapshot), 0);
    for (unsigned i = 0; i < expert_tensors(copy); i++) {
        struct expert_tensor tensor;
        expert_tensor(copy, i, &tensor);
        float *values = malloc(tensor.count * sizeof *values);
        expert_snapshot_tensor(training.expert, &snapshot, i, values);
        ck_assert_int_eq(expert_tensor_write(copy, (unsigned)expert_tensor_find(copy, tensor.name), values), 0);
        free(values);
    }
    expert_set_counters(copy, &snapshot.counters, snapshot.accumulated);
    for (unsigned step = 3; step < 6; step++) {
        training_step(&training, step);
        training_backward(&training, copy, 0, training.rows);
    }
    training_check_same(training.expert, copy);
    ck_assert_uint_eq(copy->counters.updates, 3);
    free(snapshot.memory);
    expert_destroy(&copy);
    training_close(&training);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("expert");
    tcase_set_timeout(all, 60);
    tcase_add_test(all, every_block_that_a_configuration_may_name_is_there);
    tcase_add_loop_test(all, a_batch_of_several_tasks_steps_as_one_task_of_all_rows_wherever_they_lie, 0, 2);
    tcase_add_loop_test(all, batches_may_be_enqueued_back_to_back_and_one_backward_of_an_expert_at_a_time, 0, 2);
    tcase_add_test(all, staging_holds_two_batches_and_says_busy_to_a_third);
    tcase_add_test(all, a_batch_goes_in_chunks_that_leave_the_devices_memory_to_weights);
    tcase_add_loop_test(all, warming_up_is_no_step_and_leaves_nothing_behind, 0, 4);
    tcase_add_loop_test(all, a_batch_with_nan_inf_or_an_overflow_changes_nothing_and_is_counted, 0, 2);
    tcase_add_loop_test(all, accumulated_batches_step_as_one_and_a_poisoned_one_among_them_is_left_out, 0, 2);
    tcase_add_loop_test(all, without_an_optimizer_only_grad_inputs_are_made, 0, 4);
    tcase_add_loop_test(all, training_goes_on_from_a_copied_state_as_if_nothing_had_happened, 0, 4);
    Suite *suite = suite_create("expert");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
