// timeout: 3000 (at the first run PoCL compiles for minutes)
/* The optimizer's kernels of each provider against their plain C reference: norm, clipping, accumulation, adam, sgd, on
 * parameters of sizes that no panel divides; and what is not finite changes nothing. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/device/device_private.h"
#include "runtime/train/optimizer_step.h"
#include "unit/support_device.h"
#include "unit/support_fixture.h"
#include "unit/support_reference.h"

/* Of the CPU's kernels also those for narrower vectors; 0: the device's own. */
static const struct provider {
    const char *kernel, *precision;
    unsigned vector_width;
} kernels[] = {{"cpu", "fp32", 0}, {"gpu", "fp32", 0}, {"cpu", "fp16", 0}, {"cpu", "fp16", 8},    {"cpu", "fp16", 4},
               {"gpu", "fp16", 0}, {"cpu", "bf16", 0}, {"gpu", "bf16", 0}, {"clblast", "fp32", 0}};
enum { PROVIDERS = sizeof kernels / sizeof kernels[0], HIDDEN = 33, UPDATES = 3, COPIES = 1 + OPTIMIZER_MOMENTS_MAX };
static int providers = PROVIDERS;

static struct support_device support;
static struct expert *expert;
static struct parameters *parameters;
static cl_mem gradient_buffer;
static float *gradients[PARAMETERS_MAX];        /* by parameter, row-major */
static float *expected[COPIES][PARAMETERS_MAX]; /* weights and moments */

static void begin(const struct provider *provider, const char *options)
{
    char text[256], precision[32];
    snprintf(text, sizeof text, "hidden_dim: %d, %s", HIDDEN, options);
    snprintf(precision, sizeof precision, "precision: %s", provider->precision);
    support_device_open(&support, provider->kernel, false, precision, text);
    if (provider->vector_width != 0)
        support_device_narrow(&support, provider->vector_width);
    expert = support_expert(&support);
    parameters = expert->ops->parameters(expert);
    ck_assert_int_eq(
        device_allocate(support.device, parameters->primary_floats * sizeof(float), "a test", &gradient_buffer), 0);
    for (unsigned p = 0; p < parameters->count; p++) {
        struct expert_tensor tensor;
        expert_tensor(expert, p, &tensor);
        gradients[p] = calloc(tensor.count, sizeof(float));
        for (unsigned copy = 0; copy < COPIES; copy++)
            expected[copy][p] = calloc(tensor.count, sizeof(float));
        ck_assert_int_eq(expert_tensor_read(expert, p, expected[0][p]), 0);
    }
}

static void end(void)
{
    for (unsigned p = 0; p < parameters->count; p++) {
        free(gradients[p]);
        for (unsigned copy = 0; copy < COPIES; copy++)
            free(expected[copy][p]);
    }
    device_release(support.device, &gradient_buffer);
    expert_destroy(&expert);
    support_device_close(&support);
}

/* A weight (out, in) lies as the panels of its transpose, (in, out). */
static void transpose(const float *plain, size_t rows, size_t columns, float *transposed)
{
    for (size_t row = 0; row < rows; row++)
        for (size_t column = 0; column < columns; column++)
            transposed[column * rows + row] = plain[row * columns + column];
}

/* Gradients of that stream to the device; their norm. */
static double put_gradients(unsigned stream, float scale)
{
    float *all = calloc(parameters->primary_floats, sizeof *all);
    double squares = 0;
    for (unsigned p = 0; p < parameters->count; p++) {
        const struct parameter *item = &parameters->items[p];
        const size_t in = item->in > 0 ? item->in : 1, count = item->out * in;
        float *turned = malloc(count * sizeof *turned);
        support_random(gradients[p], count, stream + p, scale);
        transpose(gradients[p], item->out, in, turned);
        support_reference_pack(in, item->out, parameters->shape.panel, turned, all + item->offset);
        squares += pow(support_reference_norm(gradients[p], count), 2);
        free(turned);
    }
    ck_assert_int_eq(device_write(support.device, gradient_buffer, 0, all, parameters->primary_floats * sizeof *all),
                     0);
    free(all);
    return sqrt(squares);
}

static struct expert_batch step(void)
{
    const struct trainee trainee = expert_trainee(expert);
    struct expert_batch batch = {.rows = 5, .backward = true};
    ck_assert_msg(optimizer_step_enqueue(&trainee, parameters, gradient_buffer, 0, false) == 0, "%s",
                  device_error(support.device));
    ck_assert_int_eq(device_finish(support.device), 0);
    batch.step = optimizer_step_finish(&trainee, parameters, batch.rows, &batch.grad_norm);
    return batch;
}

static void expect_steps(unsigned update, double norm)
{
    const double clip = expert->optimizer.clip_norm;
    for (unsigned p = 0; p < parameters->count; p++) {
        struct expert_tensor tensor;
        expert_tensor(expert, p, &tensor);
        support_reference_step(&expert->optimizer, update, clip > 0 ? fmin(1, clip / (norm + 1e-6)) : 1, tensor.count,
                               gradients[p], expected[0][p], expected[1][p], expected[2][p], expected[3][p]);
    }
}

static void state_agrees(double tolerance)
{
    for (unsigned i = 0; i < (1 + parameters->moments) * parameters->count; i++) {
        struct expert_tensor tensor;
        expert_tensor(expert, i, &tensor);
        float *values = malloc(tensor.count * sizeof *values);
        ck_assert_int_eq(expert_tensor_read(expert, i, values), 0);
        const double error =
            support_error(values, expected[i / parameters->count][i % parameters->count], tensor.count);
        ck_assert_msg(error <= tolerance, "%s: %g", tensor.name, error);
        free(values);
    }
}

/* Elements of a buffer of matrices, as floats. */
static float *read_elements(cl_mem buffer, size_t count)
{
    const size_t bytes = count * parameters->shape.weight_bytes;
    float *values = malloc(count * sizeof *values);
    uint16_t *halves = malloc(bytes);
    const bool are_halves = parameters->shape.weight_bytes == sizeof *halves;
    ck_assert_int_eq(device_read(support.device, buffer, 0, are_halves ? (void *)halves : values, bytes), 0);
    for (size_t i = 0; i < count && are_halves; i++)
        values[i] = kernel_weight_to_float(&parameters->shape, halves[i]);
    free(halves);
    return values;
}

/* What products read, in both orientations, is what the masters are, or the nearest to it, to the bit; also pads. */
static void orientations_agree(void)
{
    const size_t panel = parameters->shape.panel;
    float *matrices = read_elements(parameters->matrices, parameters->vectors_offset);
    float *all_transposed = read_elements(parameters->transposed, parameters->transposed_weights);
    for (unsigned p = 0; p < parameters->count; p++) {
        const struct parameter *item = &parameters->items[p];
        if (item->in == 0)
            continue;
        const size_t count = item->in * item->out, bytes = count * sizeof(float);
        const size_t packed = kernel_packed_floats(&parameters->shape, item->in, item->out);
        const size_t packed_transposed = kernel_packed_floats(&parameters->shape, item->out, item->in);
        float *values = malloc(bytes), *turned = malloc(bytes);
        float *one = malloc(packed * sizeof *one), *other = malloc(packed_transposed * sizeof *other);
        ck_assert_int_eq(expert_tensor_read(expert, p, values), 0);
        support_round(support.config.devices[0].precision, values, count, values);
        transpose(values, item->out, item->in, turned);
        support_reference_pack(item->in, item->out, panel, turned, one);
        support_reference_pack(item->out, item->in, panel, values, other);
        ck_assert_mem_eq(matrices + item->at, one, packed * sizeof *one);
        ck_assert_mem_eq(all_transposed + item->transposed, other, packed_transposed * sizeof *other);
        free(values);
        free(turned);
        free(one);
        free(other);
    }
    free(matrices);
    free(all_transposed);
}

static const char *const optimizers[] = {
    "optimizer: adam",
    "optimizer: adam, learning_rate: 0.01, beta1: 0.7, beta2: 0.9, epsilon: 1e-5, clip_norm: 2.5",
    "optimizer: sgd",
    "optimizer: sgd, learning_rate: 0.1, momentum: 0.8, clip_norm: 2.5",
    "optimizer: sgd, learning_rate: 0.1, schedule: linear, warmup_steps: 2, total_steps: 3",
    "optimizer: adam, learning_rate: 0.01, beta2: 0.5, amsgrad: true, weight_decay: 0.3, clip_norm: 2.5",
    "optimizer: adamw, learning_rate: 0.1, weight_decay: 0.2, schedule: cosine, warmup_steps: 1, total_steps: 4",
    "optimizer: adamw, learning_rate: 0.1, beta2: 0.5, weight_decay: 0.2, amsgrad: true",
    "optimizer: sgd, learning_rate: 0.1, momentum: 0.8, weight_decay: 0.3",
};
enum { OPTIMIZERS = sizeof optimizers / sizeof optimizers[0] };

/* A sanitizer sees what the host does, which is the same for each optimizer's kernel of each provider: then each of
 * both is there, but not each pair. */
#ifdef __SANITIZE_ADDRESS__
enum { EACH_PAIR = 0 };
#else
enum { EACH_PAIR = 1 };
#endif

START_TEST(steps_are_the_references)
{
    if (!EACH_PAIR && _i / providers % providers != _i % providers)
        return;
    begin(&kernels[_i % providers], optimizers[_i / providers]);
    for (unsigned update = 0; update < UPDATES; update++) {
        const double norm = put_gradients(100 * (update + 1), 0.5f);
        const struct expert_batch batch = step();
        ck_assert_int_eq(batch.step, EXPERT_STEP_APPLIED);
        ck_assert_double_le(fabs(batch.grad_norm / norm - 1), SUPPORT_TOLERANCE);
        expect_steps(update, norm);
        state_agrees(SUPPORT_TOLERANCE);
        orientations_agree();
    }
    ck_assert_uint_eq(expert->counters.updates, UPDATES);
    ck_assert_uint_eq(expert->counters.examples, UPDATES * 5);
    end();
}
END_TEST

/* The optimizers of tests/fixtures/make_optimizer_fixtures.py. */
static const struct {
    const char *name, *options;
} pytorchs[] = {
    {"adamw", "optimizer: adamw, learning_rate: 0.005, weight_decay: 0.1"},
    {"adamw_amsgrad_cosine", "optimizer: adamw, learning_rate: 0.01, beta1: 0.8, beta2: 0.95, weight_decay: 0.02, "
                             "amsgrad: true, schedule: cosine, warmup_steps: 10, total_steps: 120"},
    {"adam_amsgrad_decay", "optimizer: adam, learning_rate: 0.005, beta2: 0.9, amsgrad: true, weight_decay: 0.05"},
    {"sgd_decay", "optimizer: sgd, learning_rate: 0.02, weight_decay: 0.1"},
    {"sgd_momentum_decay_cosine", "optimizer: sgd, learning_rate: 0.05, momentum: 0.9, weight_decay: 0.01, "
                                  "schedule: cosine, total_steps: 100"},
};
enum { PYTORCHS = sizeof pytorchs / sizeof pytorchs[0], STEPS = 100 };

/* The sampled elements of every parameter and moment. */
static void fixture_agrees(const struct support_fixture *fixture, const char *name, unsigned steps)
{
    for (unsigned i = 0; i < (1 + parameters->moments) * parameters->count; i++) {
        struct expert_tensor tensor;
        size_t count;
        expert_tensor(expert, i, &tensor);
        const float *values = support_fixture_find(fixture, &count, "%s.%u.%s", name, steps, tensor.name);
        float *all = malloc(tensor.count * sizeof *all), *sample = malloc(count * sizeof *sample);
        ck_assert_int_eq(expert_tensor_read(expert, i, all), 0);
        for (size_t s = 0; s < count; s++)
            sample[s] = all[(s * 7919 + 13) % tensor.count];
        const double error = support_error(sample, values, count);
        ck_assert_msg(error <= 2e-5, "%s after %u steps: %s: %g", name, steps, tensor.name, error);
        free(all);
        free(sample);
    }
}

START_TEST(after_100_steps_all_is_where_pytorchs_is)
{
    static const struct provider on[] = {{"cpu", "fp32", 0}, {"gpu", "fp32", 0}};
    struct support_fixture *fixture = support_fixture_open("optimizers");
    const char *name = pytorchs[_i % PYTORCHS].name;
    begin(&on[_i / PYTORCHS], pytorchs[_i % PYTORCHS].options);
    for (unsigned update = 0; update < STEPS; update++) {
        put_gradients(100 * (update + 1), update % 7 == 3 ? 2.0f : 0.25f);
        ck_assert_int_eq(step().step, EXPERT_STEP_APPLIED);
        if (update == 1)
            fixture_agrees(fixture, name, 2);
    }
    fixture_agrees(fixture, name, STEPS);
    end();
    support_fixture_close(&fixture);
}
END_TEST

START_TEST(accumulated_gradients_make_one_step_of_their_sum)
{
    begin(&kernels[_i], "optimizer: adam, clip_norm: 2.5, grad_accumulation: 3");
    for (unsigned round = 0; round < 2; round++) {
        float *sums[PARAMETERS_MAX];
        for (unsigned p = 0; p < parameters->count; p++)
            sums[p] = calloc(parameters->items[p].out * (parameters->items[p].in + 1), sizeof(float));
        double squares = 0;
        for (unsigned batch = 0; batch < 3; batch++) {
            put_gradients(1000 * round + 100 * (batch + 1), 0.5f);
            ck_assert_int_eq(step().step, batch < 2 ? EXPERT_STEP_ACCUMULATED : EXPERT_STEP_APPLIED);
            for (unsigned p = 0; p < parameters->count; p++) {
                struct expert_tensor tensor;
                expert_tensor(expert, p, &tensor);
                for (uint64_t i = 0; i < tensor.count; i++)
                    sums[p][i] += gradients[p][i];
                squares += batch == 2 ? pow(support_reference_norm(sums[p], tensor.count), 2) : 0;
            }
            if (batch < 2)
                state_agrees(round == 0 ? 0 : SUPPORT_TOLERANCE); /* parameters and moments are as they were */
        }
        for (unsigned p = 0; p < parameters->count; p++) {
            free(gradients[p]);
            gradients[p] = sums[p];
        }
        expect_steps(round, sqrt(squares));
        state_agrees(SUPPORT_TOLERANCE);
        orientations_agree();
    }
    ck_assert_uint_eq(expert->counters.updates, 2);
    end();
}
END_TEST

START_TEST(finite_gradients_whose_sum_overflows_are_dropped_together)
{
    const float large = 1.5e19f; /* its square is finite, that of two is not */
    begin(&kernels[_i], "optimizer: adam, grad_accumulation: 2");
    const size_t at = parameters->items[1].offset;
    for (unsigned batch = 0; batch < 2; batch++) {
        put_gradients(100, 0.5f);
        ck_assert_int_eq(device_write(support.device, gradient_buffer, at * sizeof large, &large, sizeof large), 0);
        ck_assert_int_eq(step().step, batch == 0 ? EXPERT_STEP_ACCUMULATED : EXPERT_STEP_SKIPPED);
    }
    ck_assert_uint_eq(expert->counters.updates, 0);
    ck_assert_uint_eq(expert->counters.skipped, 1);
    state_agrees(0);
    put_gradients(100, 0.5f);
    ck_assert_int_eq(step().step, EXPERT_STEP_ACCUMULATED);
    end();
}
END_TEST

/* Finite ones whose norm overflows are no better than infinite ones. */
static const float bad_values[] = {NAN, INFINITY, -INFINITY, 3e38f};

START_TEST(gradients_that_are_not_finite_change_nothing)
{
    for (unsigned bad = 0; bad < sizeof bad_values / sizeof bad_values[0]; bad++) {
        begin(&kernels[_i % providers], _i / providers ? "optimizer: adam, grad_accumulation: 2" : "optimizer: adam");
        const unsigned needed = expert->optimizer.grad_accumulation;
        put_gradients(100, 0.5f);
        const size_t at = parameters->items[1].offset; /* one element of one bias */
        ck_assert_int_eq(
            device_write(support.device, gradient_buffer, at * sizeof(float), &bad_values[bad], sizeof bad_values[bad]),
            0);
        ck_assert_int_eq(step().step, EXPERT_STEP_SKIPPED);
        ck_assert_uint_eq(expert->counters.skipped, 1);
        ck_assert_uint_eq(expert->counters.updates, 0);
        ck_assert_uint_eq(expert->counters.examples, 0);
        state_agrees(0);
        orientations_agree();
        double norm = 0;
        for (unsigned batch = 0; batch < needed; batch++) {
            norm = put_gradients(200, 0.5f / (float)needed);
            ck_assert_int_eq(step().step, batch + 1 < needed ? EXPERT_STEP_ACCUMULATED : EXPERT_STEP_APPLIED);
        }
        for (unsigned p = 0; p < parameters->count; p++)
            support_random(gradients[p],
                           parameters->items[p].out * (parameters->items[p].in ? parameters->items[p].in : 1), 200 + p,
                           0.5f);
        expect_steps(0, norm * needed);
        state_agrees(SUPPORT_TOLERANCE);
        end();
    }
}
END_TEST

/* What makes a step of finite gradients leave what is not: nothing of it is left behind, and it is named. */
static const struct {
    const char *options, *precision;
    unsigned parameter;
    double learning_rate;   /* more than a configuration may say */
    float weight, gradient; /* of one element; the others have none */
} wild[] = {
    {"optimizer: sgd", "", 0, 1e20, 1, 1e19f},
    {"optimizer: sgd, momentum: 1", "", 0, 1e20, 1, 1e19f},
    {"optimizer: sgd", "", 1, 1e20, 1, 1e19f}, /* a vector */
    {"optimizer: adam", "", 2, 3e38, -3e38f, 5},
    {"optimizer: adam", "", 5, 3e38, -3e38f, 5},
    {"optimizer: adam, epsilon: 0", "", 0, 1e-3, 1, 1e-25f},
    {"optimizer: sgd", "fp16", 0, 1000, 65000, -5},
    {"optimizer: adam", "fp16", 2, 1000, -65000, 5},
};

START_TEST(a_step_leaves_nothing_that_is_not_finite)
{
    const unsigned which = (unsigned)_i % (sizeof wild / sizeof wild[0]), chosen = wild[which].parameter;
    struct provider provider = kernels[_i / (int)(sizeof wild / sizeof wild[0])];
    if (wild[which].precision[0] != '\0')
        provider.precision = wild[which].precision;
    begin(&provider, wild[which].options);
    expert->optimizer.learning_rate = wild[which].learning_rate;
    const struct parameter *item = &parameters->items[chosen];
    const size_t in = item->in > 0 ? 3 : 0, element = 3 * item->in + in; /* (out 3, in 3) */
    expected[0][chosen][element + (item->in > 0 ? 0 : 3)] = wild[which].weight;
    ck_assert_int_eq(expert_tensor_write(expert, chosen, expected[0][chosen]), 0);
    (void)put_gradients(100, 0);
    /* In the panels of the transposed one: panel 0, row 3 (of a vector, 0), column 3. */
    const size_t at = item->offset + in * parameters->shape.panel + 3;
    for (unsigned i = 0; i < 2; i++) { /* the second one meets the buffers of the first */
        ck_assert_int_eq(device_write(support.device, gradient_buffer, at * sizeof(float), &wild[which].gradient,
                                      sizeof wild[which].gradient),
                         0);
        ck_assert_int_eq(step().step, EXPERT_STEP_APPLIED);
    }
    ck_assert_ptr_nonnull(expert_held(expert));
    ck_assert_str_eq(expert_held(expert), item->name);
    float *values = malloc(parameters->primary_floats * sizeof *values);
    for (unsigned i = 0; i < (1 + parameters->moments) * parameters->count; i++) {
        struct expert_tensor tensor;
        expert_tensor(expert, i, &tensor);
        ck_assert_int_eq(expert_tensor_read(expert, i, values), 0);
        ck_assert_msg(floats_are_finite(DTYPE_FLOAT32, values, tensor.count), "%s", tensor.name);
        if (i == chosen)
            ck_assert_msg(memcmp(values, expected[0][chosen], tensor.count * sizeof *values) == 0, "it has moved");
    }
    free(values);
    orientations_agree();
    /* Nothing was left behind in its buffers either, and it is not said of the next one. */
    (void)put_gradients(200, 0);
    expert->optimizer.learning_rate = 1e-3;
    ck_assert_int_eq(step().step, EXPERT_STEP_APPLIED);
    if (expert->optimizer.epsilon > 0) /* else a moment's trace is still divided by a root that is 0 */
        ck_assert_ptr_null(expert_held(expert));
    end();
}
END_TEST

/* 0 / 0 is no step. */
START_TEST(adam_without_epsilon_does_not_move_what_has_no_gradient)
{
    begin(&kernels[_i], "optimizer: adam, epsilon: 0");
    (void)put_gradients(100, 0);
    ck_assert_int_eq(step().step, EXPERT_STEP_APPLIED);
    state_agrees(0);
    orientations_agree();
    ck_assert_ptr_null(expert_held(expert));
    end();
}
END_TEST

static TCase *add_case(Suite *suite, const char *name)
{
    TCase *tcase = tcase_create(name);
    tcase_set_timeout(tcase, 200); /* kernels are compiled at the first run */
    suite_add_tcase(suite, tcase);
    return tcase;
}

int main(void)
{
    Suite *suite = suite_create("optimizer_step");
    TCase *all = add_case(suite, "steps"), *finite = add_case(suite, "finite");
    if (!support_device_has_clblast())
        providers--;
    tcase_add_loop_test(all, steps_are_the_references, 0, providers * OPTIMIZERS);
    tcase_add_loop_test(all, after_100_steps_all_is_where_pytorchs_is, 0, 2 * PYTORCHS);
    tcase_add_loop_test(all, accumulated_gradients_make_one_step_of_their_sum, 0, providers);
    tcase_add_loop_test(all, finite_gradients_whose_sum_overflows_are_dropped_together, 0, providers);
    tcase_add_loop_test(all, gradients_that_are_not_finite_change_nothing, 0, 2 * providers);
    tcase_add_loop_test(finite, a_step_leaves_nothing_that_is_not_finite, 0, 2 * (int)(sizeof wild / sizeof wild[0]));
    tcase_add_loop_test(all, adam_without_epsilon_does_not_move_what_has_no_gradient, 0, 4);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
