// timeout: 3000 (at the first run PoCL compiles for more than a minute)
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/compute/linear_amx.h"
#include "unit/support_device.h"
#include "unit/support_fixture.h"

enum { MAX_ROWS = 2048 };
static const unsigned batch_rows[] = {1, 3, 17, 255, MAX_ROWS};

/* Kernels, and how far they may be from PyTorch's double precision, of the greatest magnitude: outputs and grad_inputs,
 * and parameters after training. What is multiplied in 11 significant bits has errors of about 2^-11 in each of the
 * products, which mostly cancel; less where only the weights are so. */
struct kind {
    const char *kernel, *precision;
    double tolerance, training;
};
static const struct kind cpu = {"cpu", "fp32", 1e-5, 1e-4}, gpu = {"gpu", "fp32", 1e-5, 1e-4},
                         amx = {"amx", "fp32", 1e-5, 1e-4}, clblast = {"clblast", "fp32", 1e-5, 1e-4};
static const struct kind reduced[] = {{"mma", "tf32", 5e-4, 1e-3}, {"mma", "fp16", 5e-4, 1e-3}},
                         halves[] = {{"cpu", "fp16", 2e-4, 5e-4},
                                     {"gpu", "fp16", 2e-4, 5e-4},
                                     {"amx", "fp16", 2e-4, 5e-4},
                                     {"cpu", "bf16", 2e-3, 4e-3}};
enum { ON_GPU = 1, ON_AMX, HALVES };

/* The elements that tests/fixtures/make_fixtures.py samples of a tensor. */
static size_t sampled(size_t i, size_t count)
{
    return (i * 7919 + 13) % count;
}

static void check_rows(const float *y, const float *expected, size_t count, double tolerance)
{
    ck_assert_double_le(support_error(y, expected, count), tolerance);
}

static void check_sample(const float *y, size_t count, const struct support_fixture *fixture, unsigned hidden,
                         double tolerance)
{
    size_t samples;
    const float *expected = support_fixture_find(fixture, &samples, "forward.%u.sample", hidden);
    float *values = malloc(samples * sizeof *values);
    for (size_t i = 0; i < samples; i++)
        values[i] = y[sampled(i, count)];
    check_rows(values, expected, samples, tolerance);
    free(values);
}

/* A sanitizer sees what the host does, which no size changes, at several times the cost: then kernels other than the
 * first have the small sizes alone. */
#ifdef __SANITIZE_ADDRESS__
enum { WIDEST_ELSEWHERE = 96 };
#else
enum { WIDEST_ELSEWHERE = 1024 };
#endif

/* Rows [5, 5 + rows) of the slabs are the batch; what is around them must stay as it was. */
static void forward_agrees(const struct kind *kind, bool staged, unsigned hidden, unsigned sizes)
{
    if (kind != &cpu && hidden > WIDEST_ELSEWHERE)
        return;
    struct support_fixture *fixture = support_fixture_open("ffn");
    struct support_device support;
    char options[64], device[64];
    size_t count;
    snprintf(options, sizeof options, "hidden_dim: %u", hidden);
    snprintf(device, sizeof device, "precision: %s, chunk_rows: 1000", kind->precision);
    support_device_open(&support, kind->kernel, staged, device, options);
    struct expert *expert = support_expert(&support);
    struct device_slab slabs[2] = {support_slab((MAX_ROWS + 10) * hidden), support_slab((MAX_ROWS + 10) * hidden)};
    float *x = (float *)slabs[0].mapping + 5 * hidden, *y = (float *)slabs[1].mapping + 5 * hidden;
    support_random(x, (size_t)MAX_ROWS * hidden, 3, 2);
    const float *expected = support_fixture_find(fixture, &count, "forward.%u.rows", hidden);
    for (unsigned i = 0; i < sizes; i++) {
        const size_t rows = batch_rows[i];
        struct expert_batch batch = {.first_row = 5, .rows = rows, .inputs = &slabs[0], .outputs = &slabs[1]};
        ck_assert_msg(expert_forward(expert, &batch) == 0, "%s", device_error(support.device));
        ck_assert_msg(expert_finish(expert, &batch) == 0, "%s", device_error(support.device));
        ck_assert_int_eq(batch.step, EXPERT_STEP_NONE);
        check_rows(y, expected, (rows < 3 ? rows : 3) * hidden, kind->tolerance);
        ck_assert_msg(isnan(y[-1]) && isnan(y[rows * hidden]), "a row outside of the batch was written");
    }
    if (sizes == 5)
        check_sample(y, (size_t)MAX_ROWS * hidden, fixture, hidden, kind->tolerance);
    for (unsigned i = 0; i < 2; i++)
        support_slab_free(&slabs[i]);
    expert_destroy(&expert);
    support_device_close(&support);
    support_fixture_close(&fixture);
}

static const unsigned hidden_sizes[] = {64, 96, 1000, 1024};

START_TEST(forward_on_the_cpu_kernels_is_pytorchs)
{
    forward_agrees(&cpu, false, hidden_sizes[_i], 5);
}
END_TEST

START_TEST(forward_through_staging_buffers_is_the_same)
{
    forward_agrees(&cpu, true, 96, 5);
}
END_TEST

START_TEST(forward_on_the_gpu_kernels_is_pytorchs)
{
    /* At 2,048 rows and 1,024 columns PoCL takes minutes for what a GPU does in a millisecond. */
    static const unsigned sizes[] = {5, 5, 4, 3};
    forward_agrees(&gpu, _i % 2 == 1, hidden_sizes[_i], sizes[_i]);
}
END_TEST

/* What is emulated is slow, so there it is fewer rows. */
START_TEST(forward_on_matrix_units_is_pytorchs)
{
    static const unsigned emulated[] = {4, 3, 3, 3};
    forward_agrees(&amx, _i == 1, hidden_sizes[_i], linear_amx_usable() ? 5 : emulated[_i]);
}
END_TEST

START_TEST(forward_with_clblast_is_pytorchs)
{
    static const unsigned sizes[] = {5, 5, 4, 3};
    forward_agrees(&clblast, _i % 2 == 1, hidden_sizes[_i], sizes[_i]);
}
END_TEST

START_TEST(forward_in_reduced_precision_is_near_pytorchs)
{
    static const unsigned sizes[] = {5, 4, 3, 2};
    forward_agrees(&reduced[_i % 2], _i % 4 == 1, hidden_sizes[_i / 2], sizes[_i / 2]);
}
END_TEST

START_TEST(forward_with_weights_of_16_bits_is_near_pytorchs)
{
    static const unsigned slow[] = {5, 4, 3, 3};
    const struct kind *kind = &halves[_i % HALVES];
    const unsigned size = (unsigned)_i / HALVES;
    const bool fast = kind != &halves[ON_GPU] && (kind != &halves[ON_AMX] || linear_amx_usable());
    forward_agrees(kind, size % 2 == 1, hidden_sizes[size], fast ? 5 : slow[size]);
}
END_TEST

/* --- backward ----------------------------------------------------------------------------------------------------- */

struct training {
    struct support_device support;
    struct expert *expert;
    struct device_slab inputs[2], grad_inputs;
    unsigned hidden, rows;
};

static void training_open(struct training *training, const struct kind *kind, bool staged, const char *device,
                          unsigned hidden, unsigned rows, const char *options)
{
    char text[512], device_options[128];
    snprintf(text, sizeof text, "hidden_dim: %u, max_batch_size: 64%s%s", hidden, options[0] != '\0' ? ", " : "",
             options);
    snprintf(device_options, sizeof device_options, "precision: %s%s%s", kind->precision, device[0] != '\0' ? ", " : "",
             device);
    support_device_open(&training->support, kind->kernel, staged, device_options, text);
    training->expert = support_expert(&training->support);
    training->hidden = hidden;
    training->rows = rows;
    for (unsigned i = 0; i < 2; i++)
        training->inputs[i] = support_slab((size_t)rows * hidden);
    training->grad_inputs = support_slab((size_t)rows * hidden);
}

static void training_close(struct training *training)
{
    for (unsigned i = 0; i < 2; i++)
        support_slab_free(&training->inputs[i]);
    support_slab_free(&training->grad_inputs);
    expert_destroy(&training->expert);
    support_device_close(&training->support);
}

/* One backward batch of rows [first, first + rows) of what the fixture's step takes. */
static struct expert_batch train_rows(struct training *training, unsigned first, unsigned rows)
{
    struct expert_batch batch = {
        .first_row = first, .rows = rows, .inputs = training->inputs, .outputs = &training->grad_inputs};
    const struct device *device = training->support.device;
    ck_assert_msg(expert_backward(training->expert, &batch) == 0, "%s", device_error(device));
    ck_assert_msg(expert_finish(training->expert, &batch) == 0, "%s", device_error(device));
    return batch;
}

static struct expert_batch train_step(struct training *training, unsigned step)
{
    const size_t count = (size_t)training->rows * training->hidden;
    support_random(training->inputs[0].mapping, count, 100 + step, 2);
    support_random(training->inputs[1].mapping, count, 300 + step, 0.5f);
    return train_rows(training, 0, training->rows);
}

/* The tensor's sampled elements against the fixture's; 0 elements if the fixture stores none. */
static double tensor_error(const struct training *training, const struct support_fixture *fixture, const char *name,
                           const char *key)
{
    struct expert_tensor tensor;
    size_t samples;
    const int index = expert_tensor_find(training->expert, name);
    ck_assert_int_ge(index, 0);
    expert_tensor(training->expert, (unsigned)index, &tensor);
    const float *expected = support_fixture_find(fixture, &samples, "%s.%s", key, name);
    float *values = malloc(tensor.count * sizeof *values), *sample = malloc(samples * sizeof *sample);
    ck_assert_int_eq(expert_tensor_read(training->expert, (unsigned)index, values), 0);
    for (size_t i = 0; i < samples; i++)
        sample[i] = values[sampled(i, tensor.count)];
    const double error = support_error(sample, expected, samples);
    free(values);
    free(sample);
    return error;
}

static const char *const parameters[] = {"ffn.weight",      "ffn.bias",          "ffn_output.weight",
                                         "ffn_output.bias", "layer_norm.weight", "layer_norm.bias"};
enum { PARAMETERS = sizeof parameters / sizeof parameters[0] };

struct optimizer_case {
    const char *name, *options;
};
#define CLIP_LINEAR ", clip_norm: 1.5, schedule: linear, warmup_steps: 10, total_steps: 120"
static const struct optimizer_case optimizer_cases[] = {
    {"adam", "optimizer: adam"},
    {"adam_clip_linear", "optimizer: adam, learning_rate: 0.005, beta1: 0.8, beta2: 0.95, epsilon: 1e-6" CLIP_LINEAR},
    {"sgd", "optimizer: sgd"},
    {"sgd_momentum_clip_linear", "optimizer: sgd, learning_rate: 0.005, momentum: 0.9" CLIP_LINEAR},
};

/* The parameters after that many steps, and the last one's norm, where the fixture has that number. */
static void step_agrees(const struct training *training, const struct support_fixture *fixture, const char *name,
                        unsigned step, double grad_norm, double tolerance)
{
    char key[80];
    size_t count;
    if (step != 1 && step != 2 && step != 100)
        return;
    snprintf(key, sizeof key, "train.%u.%s.%u", training->hidden, name, step);
    const float *norm = support_fixture_find(fixture, &count, "%s.norm", key);
    ck_assert_double_le(fabs(grad_norm / (double)norm[0] - 1), tolerance);
    for (unsigned p = 0; p < PARAMETERS; p++) {
        const double error = tensor_error(training, fixture, parameters[p], key);
        ck_assert_msg(error <= tolerance, "%s.%s: %g", key, parameters[p], error);
    }
}

static void training_agrees(const struct kind *kind, bool staged, const char *device, unsigned hidden, unsigned rows,
                            const struct optimizer_case *wanted, unsigned steps)
{
    struct support_fixture *fixture = support_fixture_open("ffn");
    struct training training;
    training_open(&training, kind, staged, device, hidden, rows, wanted->options);
    for (unsigned step = 1; step <= steps; step++) {
        const struct expert_batch batch = train_step(&training, step - 1);
        size_t count;
        ck_assert_int_eq(batch.step, EXPERT_STEP_APPLIED);
        ck_assert_uint_eq(training.expert->counters.updates, step);
        if (step == 1) {
            const float *expected = support_fixture_find(fixture, &count, "backward.%u.grad_inputs", hidden);
            ck_assert_double_le(support_error(training.grad_inputs.mapping, expected, count), kind->tolerance);
        }
        step_agrees(&training, fixture, wanted->name, step, batch.grad_norm, kind->training);
    }
    training_close(&training);
    support_fixture_close(&fixture);
}

START_TEST(a_hundred_steps_of_each_optimizer_are_pytorchs)
{
    training_agrees(&cpu, false, "", _i % 2 ? 96 : 64, _i % 2 ? 40 : 17, &optimizer_cases[_i / 2], 100);
}
END_TEST

START_TEST(parameter_gradients_summed_over_chunks_are_pytorchs)
{
    training_agrees(&cpu, true, "chunk_rows: 7", 64, 17, &optimizer_cases[0], 2);
}
END_TEST

/* What a step does to what is there shows at the second one; what adds up (moments, the schedule, precision) is the
 * same code everywhere, so of other kernels than the CPU's the case that has all of it goes on. */
static unsigned steps_of(unsigned optimizer)
{
    return optimizer == sizeof optimizer_cases / sizeof optimizer_cases[0] - 1 ? 100 : 2;
}

START_TEST(training_on_the_gpu_kernels_is_pytorchs)
{
    training_agrees(&gpu, _i % 2 == 1, _i == 1 ? "chunk_rows: 7" : "", _i ? 64 : 96, _i ? 17 : 40, &optimizer_cases[_i],
                    steps_of((unsigned)_i));
}
END_TEST

START_TEST(training_on_matrix_units_is_pytorchs)
{
    training_agrees(&amx, _i == 1, "", 96, 40, &optimizer_cases[_i], steps_of((unsigned)_i));
}
END_TEST

START_TEST(training_with_clblast_is_pytorchs)
{
    training_agrees(&clblast, _i % 2 == 1, _i == 1 ? "chunk_rows: 7" : "", _i % 2 ? 96 : 64, _i % 2 ? 40 : 17,
                    &optimizer_cases[_i], steps_of((unsigned)_i));
}
END_TEST

START_TEST(training_in_reduced_precision_is_near_pytorchs)
{
    const unsigned optimizer = (unsigned)_i / 2;
    struct kind kind = reduced[_i % 2];
    /* Adam's first step is the rate times the sign of the gradient, so where that is almost 0 it may be two rates off.
     */
    if (optimizer == 0)
        kind.training = 0.02;
    training_agrees(&kind, _i % 4 == 1, "", optimizer % 2 ? 96 : 64, optimizer % 2 ? 40 : 17,
                    &optimizer_cases[optimizer], steps_of(optimizer));
}
END_TEST

START_TEST(training_with_weights_of_16_bits_is_near_pytorchs)
{
    const unsigned optimizer = (unsigned)_i / HALVES;
    struct kind kind = halves[_i % HALVES];
    /* What the units of a CPU multiply has more rows than 17. */
    const bool large = optimizer % 2 == 1 || _i % HALVES == ON_AMX;
    /* As above; two rates are that much of the largest of ffn_output.weight. */
    if (optimizer == 0)
        kind.training = large ? 0.04 : 0.033;
    training_agrees(&kind, optimizer == 2, optimizer == 1 ? "chunk_rows: 33" : "", large ? 96 : 64, large ? 40 : 17,
                    &optimizer_cases[optimizer], steps_of(optimizer));
}
END_TEST

/* Gradients are sums over rows, so the rows of one of PyTorch's batches in three of ours make the same step. */
START_TEST(accumulated_batches_make_pytorchs_steps)
{
    const struct optimizer_case *wanted = &optimizer_cases[_i / 2 ? 3 : 1];
    const unsigned hidden = 64, rows = 17, steps = _i % 2 ? 2 : 100;
    char options[256];
    snprintf(options, sizeof options, "%s, grad_accumulation: 3", wanted->options);
    struct support_fixture *fixture = support_fixture_open("ffn");
    struct training training;
    training_open(&training, _i % 2 ? &gpu : &cpu, false, "", hidden, rows, options);
    for (unsigned step = 1; step <= steps; step++) {
        support_random(training.inputs[0].mapping, rows * hidden, 99 + step, 2);
        support_random(training.inputs[1].mapping, rows * hidden, 299 + step, 0.5f);
        ck_assert_int_eq(train_rows(&training, 0, 3).step, EXPERT_STEP_ACCUMULATED);
        ck_assert_int_eq(train_rows(&training, 3, 1).step, EXPERT_STEP_ACCUMULATED);
        const struct expert_batch last = train_rows(&training, 4, rows - 4);
        ck_assert_int_eq(last.step, EXPERT_STEP_APPLIED);
        step_agrees(&training, fixture, wanted->name, step, last.grad_norm, cpu.training);
    }
    ck_assert_uint_eq(training.expert->counters.updates, steps);
    ck_assert_uint_eq(training.expert->counters.examples, steps * rows);
    training_close(&training);
    support_fixture_close(&fixture);
}
END_TEST

static TCase *add_case(Suite *suite, const char *name)
{
    TCase *tcase = tcase_create(name);
    tcase_set_timeout(tcase, 60);
    suite_add_tcase(suite, tcase);
    return tcase;
}

int main(void)
{
    Suite *suite = suite_create("ffn");
    TCase *forward = add_case(suite, "forward"), *training = add_case(suite, "training");
    TCase *sums = add_case(suite, "sums");
    tcase_add_loop_test(forward, forward_on_the_cpu_kernels_is_pytorchs, 0, 4);
    tcase_add_test(forward, forward_through_staging_buffers_is_the_same);
    tcase_add_loop_test(forward, forward_on_the_gpu_kernels_is_pytorchs, 0, 4);
    tcase_add_loop_test(forward, forward_on_matrix_units_is_pytorchs, 0, 4);
    tcase_add_loop_test(forward, forward_in_reduced_precision_is_near_pytorchs, 0, 8);
    tcase_add_loop_test(forward, forward_with_weights_of_16_bits_is_near_pytorchs, 0, 4 * HALVES);
    tcase_add_loop_test(training, a_hundred_steps_of_each_optimizer_are_pytorchs, 0, 8);
    tcase_add_loop_test(training, training_on_the_gpu_kernels_is_pytorchs, 0, 4);
    tcase_add_loop_test(training, training_on_matrix_units_is_pytorchs, 0, 4);
    tcase_add_loop_test(training, training_in_reduced_precision_is_near_pytorchs, 0, 8);
    tcase_add_loop_test(training, training_with_weights_of_16_bits_is_near_pytorchs, 0, 4 * HALVES);
    tcase_add_test(sums, parameter_gradients_summed_over_chunks_are_pytorchs);
    tcase_add_loop_test(sums, accumulated_batches_make_pytorchs_steps, 0, 4);
    if (support_device_has_clblast()) {
        tcase_add_loop_test(forward, forward_with_clblast_is_pytorchs, 0, 4);
        tcase_add_loop_test(training, training_with_clblast_is_pytorchs, 0, 4);
    }
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
