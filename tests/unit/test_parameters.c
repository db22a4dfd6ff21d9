#include <check.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/device/device_private.h"
#include "runtime/train/parameters.h"
#include "unit/support_device.h"
#include "unit/support_reference.h"

static struct expert *create(struct support_device *support, uint64_t seed)
{
    struct expert *expert;
    ck_assert_int_eq(expert_create(&expert, support->device, &support->config.experts[0], seed), 0);
    return expert;
}

static float *values_of(struct expert *expert, const char *name, struct expert_tensor *tensor)
{
    const int index = expert_tensor_find(expert, name);
    ck_assert_msg(index >= 0, "no tensor %s", name);
    expert_tensor(expert, (unsigned)index, tensor);
    float *values = malloc(tensor->count * sizeof *values);
    ck_assert_int_eq(expert_tensor_read(expert, (unsigned)index, values), 0);
    return values;
}

START_TEST(tensors_have_pytorchs_names_and_shapes_parameters_first)
{
    static const struct {
        const char *name;
        unsigned ndim;
        uint64_t dims[2];
    } wanted[] = {
        {"ffn.weight", 2, {200, 50}},    {"ffn.bias", 1, {200, 0}},         {"ffn_output.weight", 2, {50, 200}},
        {"ffn_output.bias", 1, {50, 0}}, {"layer_norm.weight", 1, {50, 0}}, {"layer_norm.bias", 1, {50, 0}},
    };
    struct support_device support;
    struct expert_tensor tensor;
    support_device_open(&support, "cpu", false, "", "hidden_dim: 50, grad_accumulation: 3");
    struct expert *expert = create(&support, 1);
    ck_assert_uint_eq(expert_tensors(expert), 4 * 6);
    for (unsigned i = 0; i < 6; i++) {
        expert_tensor(expert, i, &tensor);
        ck_assert_str_eq(tensor.name, wanted[i].name);
        ck_assert_uint_eq(tensor.ndim, wanted[i].ndim);
        ck_assert_int_eq(memcmp(tensor.dims, wanted[i].dims, sizeof tensor.dims), 0);
        ck_assert(tensor.is_parameter);
    }
    expert_tensor(expert, 6, &tensor);
    ck_assert_str_eq(tensor.name, "optimizer.exp_avg.ffn.weight");
    ck_assert(!tensor.is_parameter);
    expert_tensor(expert, 17, &tensor);
    ck_assert_str_eq(tensor.name, "optimizer.exp_avg_sq.layer_norm.bias");
    expert_tensor(expert, 18, &tensor);
    ck_assert_str_eq(tensor.name, "optimizer.gradient.ffn.weight");
    ck_assert_int_eq(expert_tensor_find(expert, "ffn.weigh"), -ENOENT);
    expert_destroy(&expert);
    support_device_close(&support);
}
END_TEST

START_TEST(initial_values_are_uniform_within_the_fan_ins_bound_and_come_from_the_seed)
{
    struct support_device support;
    struct expert_tensor tensor;
    support_device_open(&support, "cpu", false, "", "hidden_dim: 100");
    struct expert *expert = create(&support, 7), *same = create(&support, 7), *other = create(&support, 8);
    static const struct {
        const char *name;
        double fan_in;
    } wanted[] = {{"ffn.weight", 100}, {"ffn.bias", 100}, {"ffn_output.weight", 400}, {"ffn_output.bias", 400}};
    for (unsigned i = 0; i < 4; i++) {
        float *a = values_of(expert, wanted[i].name, &tensor), *b = values_of(same, wanted[i].name, &tensor);
        float *c = values_of(other, wanted[i].name, &tensor);
        const double bound = 1 / sqrt(wanted[i].fan_in);
        double sum = 0, squares = 0;
        for (uint64_t j = 0; j < tensor.count; j++) {
            ck_assert_double_le(fabs((double)a[j]), bound * (1 + 1e-6));
            sum += (double)a[j];
            squares += (double)a[j] * (double)a[j];
        }
        ck_assert_double_le(fabs(sum / (double)tensor.count), 5 * bound / sqrt(3 * (double)tensor.count));
        ck_assert_double_eq_tol(squares / (double)tensor.count / (bound * bound / 3), 1, 0.2);
        ck_assert_int_eq(memcmp(a, b, tensor.count * sizeof *a), 0);
        ck_assert_int_ne(memcmp(a, c, tensor.count * sizeof *a), 0);
        free(a);
        free(b);
        free(c);
    }
    float *gamma = values_of(expert, "layer_norm.weight", &tensor);
    float *beta = values_of(expert, "layer_norm.bias", &tensor);
    for (unsigned i = 0; i < 100; i++)
        ck_assert(gamma[i] == 1 && beta[i] == 0);
    free(gamma);
    free(beta);
    expert_destroy(&expert);
    expert_destroy(&same);
    expert_destroy(&other);
    support_device_close(&support);
}
END_TEST

/* What trains keeps its masters, also where products read halves. */
START_TEST(what_is_written_is_read_back_and_is_in_a_snapshot)
{
    static const char *const kernels[][2] = {
        {"cpu", ""}, {"gpu", ""}, {"cpu", "precision: fp16"}, {"gpu", "precision: fp16"}, {"clblast", ""}};
    /* Each matrix by itself; and two that are one, column by column, with pads of both. */
    static const char *const blocks[] = {
        "hidden_dim: 33", "hidden_dim: 33, block: swiglu, arguments: {intermediate_size: 21, bias: true}"};
    const unsigned count = support_device_has_clblast() ? 5 : 4;
    struct support_device support;
    struct expert_tensor tensor;
    for (unsigned k = 0; k < count; k++) {
        support_device_open(&support, kernels[k][0], false, kernels[k][1], blocks[_i]);
        struct expert *expert = create(&support, 1);
        struct expert_snapshot snapshot = {.memory = malloc(expert_snapshot_bytes(expert))};
        for (unsigned i = 0; i < expert_tensors(expert); i++) {
            expert_tensor(expert, i, &tensor);
            float *values = malloc(tensor.count * sizeof *values);
            support_random(values, tensor.count, i, 1);
            ck_assert_int_eq(expert_tensor_write(expert, i, values), 0);
            free(values);
        }
        expert_set_counters(expert, &(struct expert_counters){3, 4, 5}, 0);
        ck_assert_int_eq(expert_snapshot_take(expert, &snapshot), 0);
        ck_assert_uint_eq(snapshot.counters.examples, 4);
        for (unsigned i = 0; i < expert_tensors(expert); i++) {
            expert_tensor(expert, i, &tensor);
            float *values = malloc(tensor.count * sizeof *values), *expected = malloc(tensor.count * sizeof *values);
            support_random(expected, tensor.count, i, 1);
            ck_assert_int_eq(expert_tensor_read(expert, i, values), 0);
            ck_assert_int_eq(memcmp(values, expected, tensor.count * sizeof *values), 0);
            memset(values, 0, tensor.count * sizeof *values);
            expert_snapshot_tensor(expert, &snapshot, i, values);
            ck_assert_int_eq(memcmp(values, expected, tensor.count * sizeof *values), 0);
            free(values);
            free(expected);
        }
        free(snapshot.memory);
        expert_destroy(&expert);
        support_device_close(&support);
    }
}
END_TEST

/* Of a.weight and b.bias, which are fixed, neither gradients nor moments are kept, and what lies where their gradients
 * would be (NaN here) is in no norm. */
static const char fixed_text[] =
    "experts: [{uid: e.0, block: own, hidden_dim: 7, optimizer: adam, clip_norm: 0.5, grad_accumulation: 2,\n"
    "           learning_rate: 0.0001, max_batch_size: 8}]\n"
    "blocks:\n"
    "  - name: own\n"
    "    inputs: [{name: x, shape: [5, hidden_dim]}]\n"
    "    layers: [{name: a, layer: affine, input: x, weight: fixed, bias: trained, over: row},\n"
    "             {name: l, layer: linear, input: a, size: 6},\n"
    "             {name: b, layer: affine, input: l, weight: trained, bias: fixed}]\n"
    "    outputs: [{name: y, value: b}]\n";
static const struct {
    const char *name;
    unsigned ndim;
    uint64_t dims[2];
    bool fixed;
} fixed_tensors[] = {{"a.weight", 2, {5, 7}, true}, {"a.bias", 2, {5, 7}, false},   {"l.weight", 2, {6, 7}, false},
                     {"l.bias", 1, {6, 0}, false},  {"b.weight", 1, {6, 0}, false}, {"b.bias", 1, {6, 0}, true}};
static const char *const fixed_copies[] = {"exp_avg", "exp_avg_sq", "gradient"};

static void tensors_are_listed(struct expert *expert)
{
    struct expert_tensor tensor;
    char name[EXPERT_TENSOR_NAME_SIZE];
    ck_assert_uint_eq(expert_tensors(expert), 6 + 3 * 4);
    for (unsigned i = 0; i < 6; i++) {
        expert_tensor(expert, i, &tensor);
        ck_assert_str_eq(tensor.name, fixed_tensors[i].name);
        ck_assert_uint_eq(tensor.ndim, fixed_tensors[i].ndim);
        ck_assert_int_eq(memcmp(tensor.dims, fixed_tensors[i].dims, tensor.ndim * sizeof tensor.dims[0]), 0);
        ck_assert(tensor.is_parameter);
    }
    for (unsigned i = 0; i < 12; i++) {
        expert_tensor(expert, 6 + i, &tensor);
        snprintf(name, sizeof name, "optimizer.%s.%s", fixed_copies[i / 4], fixed_tensors[1 + i % 4].name);
        ck_assert_str_eq(tensor.name, name);
        ck_assert(!tensor.is_parameter);
    }
}

static void spoil_workspace(struct support_device *support)
{
    const size_t bytes = support->device->workspace_bytes;
    float *values = malloc(bytes);
    for (size_t i = 0; i < bytes / sizeof *values; i++)
        values[i] = NAN;
    ck_assert_int_eq(device_write(support->device, support->device->workspace, 0, values, bytes), 0);
    free(values);
}

START_TEST(what_is_fixed_stays_and_has_no_gradient_and_no_moments)
{
    static const char *const kernels[] = {"cpu", "gpu", "clblast"};
    struct support_device support;
    struct config config;
    struct expert *expert;
    float *before[18], *after[18];
    support_device_open(&support, kernels[_i], false, "", "");
    ck_assert_int_eq(config_parse(&config, fixed_text, strlen(fixed_text), "fixed"), 0);
    ck_assert_int_eq(expert_create(&expert, support.device, &config.experts[0], 1), 0);
    tensors_are_listed(expert);
    const struct parameters *parameters = expert->ops->parameters(expert);
    const uint64_t once = parameters->primary_floats, copies = 3 * parameters->trained_floats;
    ck_assert_uint_lt(parameters->trained_floats, once);
    ck_assert_uint_eq(parameters_bytes(parameters), (once + parameters->transposed_weights + copies) * sizeof(float));
    ck_assert_uint_eq(expert_snapshot_bytes(expert), (once + copies) * sizeof(float));
    struct expert_tensor tensor;
    for (unsigned i = 0; i < 6; i++) {
        expert_tensor(expert, i, &tensor);
        before[i] = malloc(tensor.count * sizeof(float));
        support_random(before[i], tensor.count, i, 1);
        ck_assert_int_eq(expert_tensor_write(expert, i, before[i]), 0);
    }
    struct device_slab slabs[3] = {support_slab(4096), support_slab(4096), support_slab(4096)};
    support_random(slabs[0].mapping, 3 * 35, 90, 1);
    support_random(slabs[1].mapping, 3 * 30, 91, 1);
    for (unsigned step = 0; step < 4; step++) {
        struct expert_batch batch = {.rows = 3, .inputs = slabs, .outputs = &slabs[2]};
        spoil_workspace(&support);
        ck_assert_int_eq(expert_backward(expert, &batch), 0);
        ck_assert_int_eq(expert_finish(expert, &batch), 0);
        ck_assert_int_eq(batch.step, step % 2 ? EXPERT_STEP_APPLIED : EXPERT_STEP_ACCUMULATED);
    }
    struct expert_snapshot snapshot = {.memory = malloc(expert_snapshot_bytes(expert))};
    ck_assert_int_eq(expert_snapshot_take(expert, &snapshot), 0);
    for (unsigned i = 0; i < 18; i++) {
        expert_tensor(expert, i, &tensor);
        after[i] = malloc(tensor.count * sizeof(float));
        float *saved = malloc(tensor.count * sizeof(float));
        ck_assert_int_eq(expert_tensor_read(expert, i, after[i]), 0);
        expert_snapshot_tensor(expert, &snapshot, i, saved);
        ck_assert_int_eq(memcmp(after[i], saved, tensor.count * sizeof(float)), 0);
        if (i < 6) /* each number moves by about twice the rate, where it has a gradient */
            ck_assert_int_eq(memcmp(before[i], after[i], tensor.count * sizeof(float)) == 0, fixed_tensors[i].fixed);
        for (uint64_t j = 0; j < tensor.count; j++)
            ck_assert_msg(isfinite(after[i][j]), "%s: %g", tensor.name, (double)after[i][j]);
        free(saved);
    }
    /* What the moments are of: a parameter's stand where its name says. */
    for (unsigned i = 1; i < 5; i++) {
        expert_tensor(expert, i, &tensor);
        for (uint64_t j = 0; j < tensor.count; j++)
            ck_assert((after[5 + i][j] > 0) == (after[i][j] < before[i][j]) || after[5 + i][j] == 0);
    }
    for (unsigned i = 0; i < 18; i++) {
        free(i < 6 ? before[i] : NULL);
        free(after[i]);
    }
    for (unsigned i = 0; i < 3; i++)
        support_slab_free(&slabs[i]);
    free(snapshot.memory);
    expert_destroy(&expert);
    config_destroy(&config);
    support_device_close(&support);
}
END_TEST

START_TEST(what_does_not_train_keeps_halves_alone_which_are_what_is_read_and_saved)
{
    static const char *const kernels[] = {"cpu", "gpu"};
    const char *precision = _i / 2 == 0 ? "fp16" : "bf16",
               *option = _i / 2 == 0 ? "precision: fp16" : "precision: bf16";
    struct support_device support;
    struct expert_tensor tensor;
    support_device_open(&support, kernels[_i % 2], false, option, "hidden_dim: 33, optimizer: none");
    struct expert *expert = create(&support, 1);
    const struct parameters *parameters = expert->ops->parameters(expert);
    ck_assert_ptr_null(parameters->masters);
    struct expert_snapshot snapshot = {.memory = malloc(expert_snapshot_bytes(expert))};
    for (unsigned written = 0; written < 2; written++) { /* first what it was made with */
        for (unsigned i = 0; i < expert_tensors(expert) && written; i++) {
            expert_tensor(expert, i, &tensor);
            float *values = malloc(tensor.count * sizeof *values);
            support_random(values, tensor.count, i, 1e-4f);
            values[0] = 65519;
            ck_assert_int_eq(expert_tensor_write(expert, i, values), 0);
            free(values);
        }
        ck_assert_int_eq(expert_snapshot_take(expert, &snapshot), 0);
        for (unsigned i = 0; i < expert_tensors(expert); i++) {
            expert_tensor(expert, i, &tensor);
            const size_t bytes = tensor.count * sizeof(float);
            float *values = malloc(bytes), *expected = malloc(bytes), *saved = malloc(bytes);
            const float scale = i < 4 ? 1 / sqrtf(i < 2 ? 33 : 4 * 33) : 0;
            for (uint64_t j = 0; j < tensor.count; j++)
                expected[j] = i < 4 ? scale * parameters_random(1, i, j) : i == 4 ? 1 : 0;
            if (written) {
                support_random(expected, tensor.count, i, 1e-4f);
                expected[0] = 65519;
            }
            support_round(tensor.ndim == 2 ? precision : "fp32", expected, tensor.count, expected);
            ck_assert_int_eq(expert_tensor_read(expert, i, values), 0);
            expert_snapshot_tensor(expert, &snapshot, i, saved);
            for (uint64_t j = 0; j < tensor.count; j++)
                ck_assert_msg(values[j] == expected[j] && saved[j] == expected[j], "%s: %a and %a instead of %a",
                              tensor.name, (double)values[j], (double)saved[j], (double)expected[j]);
            free(values);
            free(expected);
            free(saved);
        }
    }
    free(snapshot.memory);
    expert_destroy(&expert);
    support_device_close(&support);
}
END_TEST

static uint64_t bytes_of(const char *kernel, const char *precision, const char *optimizer)
{
    struct support_device support;
    char options[32], text[64];
    uint64_t own, workspace;
    snprintf(options, sizeof options, "precision: %s", precision);
    snprintf(text, sizeof text, "hidden_dim: 64, optimizer: %s", optimizer);
    support_device_open(&support, kernel, false, options, text);
    struct expert *first = create(&support, 1); /* takes the workspace along */
    const uint64_t used = device_memory_used(support.device);
    struct expert *expert = create(&support, 1);
    ck_assert_int_eq(expert_memory(support.device, &support.config.experts[0], &own, &workspace), 0);
    ck_assert_uint_eq(device_memory_used(support.device) - used, own);
    expert_destroy(&expert);
    ck_assert_uint_eq(device_memory_used(support.device), used);
    expert_destroy(&first);
    support_device_close(&support);
    return own;
}

START_TEST(the_memory_that_an_expert_takes_is_what_was_said_and_halves_are_half_of_it)
{
    static const char *const kernels[] = {"cpu", "gpu"};
    const uint64_t matrices = 2 * 4 * 64 * 64, vectors = 4 * 64 + 3 * 64;
    const char *kernel = kernels[_i];
    ck_assert_uint_eq(bytes_of(kernel, "fp32", "none"), 8 * matrices + 4 * vectors);
    ck_assert_uint_eq(bytes_of(kernel, "fp16", "none"), 4 * matrices + 4 * vectors);
    ck_assert_uint_eq(bytes_of(kernel, "bf16", "none"), 4 * matrices + 4 * vectors);
    ck_assert_uint_eq(bytes_of(kernel, "fp32", "none, backward: false"), 4 * matrices + 4 * vectors);
    ck_assert_uint_eq(bytes_of(kernel, "bf16", "none, backward: false"), 2 * matrices + 4 * vectors);
    ck_assert_uint_eq(bytes_of(kernel, "fp32", "adam"), 16 * matrices + 12 * vectors);
    ck_assert_uint_eq(bytes_of(kernel, "fp16", "adam"), 16 * matrices + 12 * vectors);
    ck_assert_uint_eq(bytes_of(kernel, "fp16", "sgd"), 8 * matrices + 4 * vectors);
}
END_TEST

static void forward_of(const char *kernel, const char *more, float *values)
{
    enum { ROWS = 3, HIDDEN = 64 };
    struct support_device support;
    char options[128];
    snprintf(options, sizeof options, "hidden_dim: 64, max_batch_size: 8, optimizer: none%s", more);
    support_device_open(&support, kernel, false, "precision: bf16", options);
    struct expert *expert = create(&support, 5);
    struct device_slab in = support_slab((size_t)8 * HIDDEN), out = support_slab((size_t)8 * HIDDEN);
    struct expert_batch batch = {.rows = ROWS, .inputs = &in, .outputs = &out};
    support_random(in.mapping, (size_t)ROWS * HIDDEN, 1, 1);
    ck_assert_int_eq(expert_forward(expert, &batch), 0);
    ck_assert_int_eq(expert_finish(expert, &batch), 0);
    memcpy(values, out.mapping, sizeof *values * ROWS * HIDDEN);
    if (*more)
        ck_assert_int_eq(expert_backward(expert, &batch), -EOPNOTSUPP);
    expert_destroy(&expert);
    support_slab_free(&in);
    support_slab_free(&out);
    support_device_close(&support);
}

START_TEST(one_that_takes_no_backward_computes_the_same_and_refuses_backwards)
{
    static const char *const kernels[] = {"cpu", "gpu"};
    float with[3 * 64], without[3 * 64];
    forward_of(kernels[_i], "", with);
    forward_of(kernels[_i], ", backward: false", without);
    ck_assert_mem_eq(with, without, sizeof with);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("parameters");
    tcase_set_timeout(all, 60);
    tcase_add_test(all, tensors_have_pytorchs_names_and_shapes_parameters_first);
    tcase_add_test(all, initial_values_are_uniform_within_the_fan_ins_bound_and_come_from_the_seed);
    tcase_add_loop_test(all, what_is_written_is_read_back_and_is_in_a_snapshot, 0, 2);
    tcase_add_loop_test(all, what_is_fixed_stays_and_has_no_gradient_and_no_moments, 0,
                        support_device_has_clblast() ? 3 : 2);
    tcase_add_loop_test(all, what_does_not_train_keeps_halves_alone_which_are_what_is_read_and_saved, 0, 4);
    tcase_add_loop_test(all, the_memory_that_an_expert_takes_is_what_was_said_and_halves_are_half_of_it, 0, 2);
    tcase_add_loop_test(all, one_that_takes_no_backward_computes_the_same_and_refuses_backwards, 0, 2);
    Suite *suite = suite_create("parameters");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
