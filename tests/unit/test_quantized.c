// timeout: 600 (at the first run PoCL compiles five programs)
/* Weights in 8 and 4 bits: the numbers and scales of each group against the formula, written down once more in doubles;
 * both orientations and every width of panels; and whole experts, forward and back to their inputs, against a plain
 * interpreter of their block with the weights that are read back from them. */
#include <check.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/blocks/engine.h"
#include "runtime/compute/compute.h"
#include "runtime/compute/provider.h"
#include "runtime/compute/quantized.h"
#include "runtime/device/device_private.h"
#include "unit/support_device.h"
#include "unit/support_graph.h"

static const unsigned panels[] = {8, 16, 32, 64};
enum { WIDTHS = sizeof panels / sizeof panels[0] };

/* --- groups ------------------------------------------------------------------------------------------------------- */

/* What a group's value number i becomes, and how far at most that is from it. */
static double expected_of(unsigned bits, const float *values, unsigned count, unsigned i, double *bound)
{
    double greatest = 0;
    for (unsigned j = 0; j < count; j++)
        greatest = fabs((double)values[j]) > fabs(greatest) ? (double)values[j] : greatest;
    const float d = bits == 8 ? fabsf((float)greatest) / 127 : (float)greatest / -8;
    const double scale = (double)half_to_float(half_from_float(d)), least = bits == 8 ? 127 : 8;
    const double beside = fabs((double)d) < 0x1p-14 ? least * 0x1p-25 : 0;
    *bound = fabs(greatest) * ((bits == 8 ? 1.0 / 254 : 1.0 / 8) * (1 + 1e-5) + 0x1p-11) + beside;
    if (scale == 0) {
        *bound = least * 0x1p-25;
        return 0;
    }
    const float x = values[i] * (1 / d);
    return scale * (bits == 8 ? round((double)x) : fmin(floor((double)(x + 8.5f)) - 8, 7));
}

static void check_rounded(unsigned bits, uint64_t out, uint64_t in, const float *values, const float *found)
{
    for (uint64_t e = 0; e < out * in; e++) {
        const uint64_t begin = e % in / 32 * 32;
        const unsigned count = (unsigned)(in - begin < 32 ? in - begin : 32);
        double bound;
        const double expected =
            expected_of(bits, values + e / in * in + begin, count, (unsigned)(e % in - begin), &bound);
        ck_assert_msg((double)found[e] == expected, "%u bits: %a became %a, not %a", bits, (double)values[e],
                      (double)found[e], expected);
        ck_assert_msg(fabs((double)found[e] - (double)values[e]) <= bound, "%u bits: %a became %a, by more than %g",
                      bits, (double)values[e], (double)found[e], bound);
    }
}

/* Ordinary ones, tiny ones, large ones, groups of zeros, and one value beside zeros. */
static void draw(float *values, uint64_t out, uint64_t in, unsigned stream)
{
    static const float scales[] = {1, 1e-3f, 0, 3e4f, 2e-7f, 0x1p-30f, 0x1p-140f};
    support_random(values, out * in, stream, 1);
    for (uint64_t e = 0; e < out * in; e++) {
        const uint64_t group = e / in * ((in + 31) / 32) + e % in / 32;
        values[e] *= scales[group % 7];
        if (group % 7 == 2 && e % 5 == 1)
            values[e] = -0.25f;
    }
}

START_TEST(every_group_is_rounded_as_the_formula_says)
{
    enum { OUT = 70, IN = 77 };
    static float values[OUT * IN], found[OUT * IN];
    const unsigned bits = _i % 2 == 0 ? 8 : 4;
    for (unsigned p = 0; p < WIDTHS; p++) {
        for (unsigned transposed = 0; transposed < 2; transposed++) {
            const struct kernel_shape shape = {.panel = panels[p], .weight_bytes = 1, .quantized = bits};
            const struct quantized matrix = {&shape, OUT, IN, 1, 0, OUT, transposed};
            const uint64_t bytes =
                transposed ? kernel_weights(&shape, OUT, IN, true) : kernel_weights(&shape, IN, OUT, false);
            unsigned char *memory = calloc(1, bytes);
            draw(values, OUT, IN, p);
            quantized_pack(&matrix, memory, values);
            quantized_unpack(&matrix, memory, found);
            check_rounded(bits, OUT, IN, values, found);
            free(memory);
        }
    }
}
END_TEST

/* GGUF's own blocks hold the same: 32 numbers with a scale before them, of which these are written out. */
START_TEST(a_group_is_what_it_is_in_other_peoples_files)
{
    static float values[32] = {0.9375f, -0.5f, 0.25f, -2, 0.1f, 1.9375f, -1.25f, 0.875f};
    const struct kernel_shape eight = {.panel = 8, .weight_bytes = 1, .quantized = 8};
    const struct kernel_shape four = {.panel = 8, .weight_bytes = 1, .quantized = 4};
    const struct quantized matrix8 = {&eight, 1, 32, 1, 0, 1, false}, matrix4 = {&four, 1, 32, 1, 0, 1, false};
    static const signed char numbers8[] = {60, -32, 16, -127, 6, 123, -79, 56, 0};
    static const signed char numbers4[] = {4, -2, 1, -8, 0, 7, -5, 4, 0};
    uint16_t memory[256] = {0};
    unsigned char *bytes = (unsigned char *)memory;
    quantized_pack(&matrix8, memory, values);
    ck_assert_uint_eq(memory[0], half_from_float(2.0f / 127));
    for (unsigned i = 0; i < sizeof numbers8; i++)
        ck_assert_int_eq((signed char)bytes[16 + 8 * i], numbers8[i]);
    memset(memory, 0, sizeof memory);
    quantized_pack(&matrix4, memory, values);
    ck_assert_uint_eq(memory[0], half_from_float(0.25f));
    for (unsigned i = 0; i < sizeof numbers4; i++)
        ck_assert_int_eq((bytes[16 + 8 * i] & 15) ^ 8, numbers4[i] + 8);
}
END_TEST

/* Gates and what they let through share a matrix, and every byte, or its halves, has one owner. */
START_TEST(partners_do_not_touch_each_other_and_pads_stay_zero)
{
    enum { OUT = 21, IN = 45 };
    static float gate[OUT * IN], up[OUT * IN], found[OUT * IN];
    const unsigned bits = _i % 2 == 0 ? 8 : 4;
    for (unsigned p = 0; p < WIDTHS; p++) {
        const struct kernel_shape shape = {.panel = panels[p], .weight_bytes = 1, .quantized = bits};
        const uint64_t columns = kernel_paired_columns(&shape, OUT);
        for (unsigned transposed = 0; transposed < 2; transposed++) {
            const struct quantized gates = {&shape, OUT, IN, 2, 0, columns, transposed},
                                   ups = {&shape, OUT, IN, 2, 1, columns, transposed},
                                   all = {&shape,    columns, transposed ? kernel_panels(&shape, IN) * panels[p] : IN,
                                          1,         0,       columns,
                                          transposed};
            const uint64_t bytes =
                transposed ? kernel_weights(&shape, columns, IN, true) : kernel_weights(&shape, IN, columns, false);
            unsigned char *memory = calloc(1, bytes);
            float *whole = malloc(all.out * all.in * sizeof *whole);
            draw(gate, OUT, IN, p);
            draw(up, OUT, IN, 10 + p);
            quantized_pack(&gates, memory, gate);
            quantized_pack(&ups, memory, up);
            quantized_pack(&gates, memory, gate); /* once more, over itself */
            quantized_unpack(&gates, memory, found);
            check_rounded(bits, OUT, IN, gate, found);
            quantized_unpack(&ups, memory, found);
            check_rounded(bits, OUT, IN, up, found);
            quantized_unpack(&all, memory, whole);
            for (uint64_t e = 0; e < all.out * all.in; e++)
                if (e / all.in >= 2 * OUT || e % all.in >= IN)
                    ck_assert_msg(whole[e] == 0, "%u bits: there is %g in a pad", bits, (double)whole[e]);
            free(memory);
            free(whole);
        }
    }
}
END_TEST

/* --- experts ------------------------------------------------------------------------------------------------------ */

enum { MOST_ROWS = 150 };

struct trial {
    struct expert *expert;
    float *weights[PARAMETERS_MAX]; /* as the device has them */
};

static const float *weight_of(void *context, const char *name)
{
    const struct trial *trial = context;
    return trial->weights[expert_tensor_find(trial->expert, name)];
}

/* Writes all, and reads back what they were rounded to: to what the formula says. */
static void set_weights(struct trial *trial, unsigned bits)
{
    for (unsigned p = 0; p < expert_tensors(trial->expert); p++) {
        struct expert_tensor tensor;
        expert_tensor(trial->expert, p, &tensor);
        float *values = malloc(tensor.count * sizeof *values);
        trial->weights[p] = malloc(tensor.count * sizeof *values);
        support_random(values, tensor.count, p, tensor.ndim == 2 ? 1.5f / sqrtf((float)tensor.dims[1]) : 0.7f);
        ck_assert_int_eq(expert_tensor_write(trial->expert, p, values), 0);
        ck_assert_int_eq(expert_tensor_read(trial->expert, p, trial->weights[p]), 0);
        if (tensor.ndim == 2)
            check_rounded(bits, tensor.dims[0], tensor.dims[1], values, trial->weights[p]);
        free(values);
    }
}

static void check_rows(const float *found, const double *expected, size_t count, const char *what, unsigned rows)
{
    double magnitude = 0, difference = 0;
    for (size_t i = 0; i < count; i++) {
        ck_assert(!isnan(found[i]));
        magnitude = fmax(magnitude, fabs(expected[i]));
        difference = fmax(difference, fabs((double)found[i] - expected[i]));
    }
    ck_assert_msg(difference <= 1e-5 * magnitude, "%s of %u rows differs by %g of %g", what, rows, difference,
                  magnitude);
}

static void check_batch(struct trial *trial, unsigned rows)
{
    struct engine_expert *engine = (struct engine_expert *)trial->expert;
    const size_t hidden = tensor_row_bytes(&trial->expert->inputs.tensors[0]) / sizeof(float);
    const unsigned result = engine->model->graph->results[0];
    struct device_slab in[2] = {support_slab((rows + 1) * hidden), support_slab((rows + 1) * hidden)},
                       out = support_slab((rows + 1) * hidden);
    struct expert_batch batch = {.rows = rows, .inputs = in, .outputs = &out};
    struct support_graph reference;
    support_graph_open(&reference, engine->model->graph, rows, weight_of, trial);
    support_random(in[0].mapping, rows * hidden, 60, 1);
    support_random(in[1].mapping, rows * hidden, 61, 1);
    for (size_t i = 0; i < rows * hidden; i++) {
        reference.values[0][i] = (double)((const float *)in[0].mapping)[i];
        reference.gradients[result][i] = (double)((const float *)in[1].mapping)[i];
    }
    support_graph_forward(&reference);
    ck_assert_int_eq(expert_forward(trial->expert, &batch), 0);
    ck_assert_int_eq(expert_finish(trial->expert, &batch), 0);
    check_rows(out.mapping, reference.values[result], rows * hidden, "the output", rows);
    support_graph_backward(&reference);
    batch = (struct expert_batch){.rows = rows, .inputs = in, .outputs = &out};
    ck_assert_int_eq(expert_backward(trial->expert, &batch), 0);
    ck_assert_int_eq(expert_finish(trial->expert, &batch), 0);
    check_rows(out.mapping, reference.gradients[0], rows * hidden, "the gradient", rows);
    ck_assert_msg(isnan(((const float *)out.mapping)[rows * hidden]), "a row beyond the batch was written");
    support_graph_close(&reference);
    support_slab_free(&in[0]);
    support_slab_free(&in[1]);
    support_slab_free(&out);
}

START_TEST(experts_compute_with_what_their_weights_were_rounded_to)
{
    static const struct {
        const char *kernel;
        unsigned narrow, bits;
    } on[] = {{"auto", 0, 8}, {"auto", 0, 4}, {"cpu", 8, 4}, {"gpu", 0, 8}, {"gpu", 0, 4}};
    static const unsigned rows[] = {1, 2, 7, 19, MOST_ROWS};
    const bool eight = on[_i].bits == 8;
    struct support_device support;
    struct trial trial;
    /* Neither width is a multiple of 32, and the wider one is longer than what is widened at a time. */
    support_device_open(&support, on[_i].kernel, false, eight ? "precision: int8" : "precision: int4",
                        "block: swiglu, hidden_dim: 110, max_batch_size: 150, optimizer: none, "
                        "arguments: {intermediate_size: 607, bias: true}");
    if (on[_i].narrow > 0)
        support_device_narrow(&support, on[_i].narrow);
    ck_assert_str_eq(provider_name(support.device), _i >= 3 ? "gpu" : "cpu");
    ck_assert_int_eq(expert_create(&trial.expert, support.device, &support.config.experts[0], 1), 0);
    set_weights(&trial, on[_i].bits);
    /* Many rows are another way on a CPU alone, and slow with a GPU's kernels there. */
    for (unsigned i = 0; i < (_i >= 3 ? 4 : sizeof rows / sizeof rows[0]); i++)
        check_batch(&trial, rows[i]);
    for (unsigned p = 0; p < expert_tensors(trial.expert); p++)
        free(trial.weights[p]);
    expert_destroy(&trial.expert);
    support_device_close(&support);
}
END_TEST

START_TEST(what_trains_is_refused_and_memory_is_what_was_said)
{
    struct support_device support;
    struct expert *expert;
    uint64_t own, workspace;
    const bool eight = _i % 2 == 0;
    const char *precision = eight ? "precision: int8" : "precision: int4";
    support_device_open(&support, "cpu", false, precision, "block: swiglu, hidden_dim: 64, optimizer: sgd");
    ck_assert_int_eq(expert_create(&expert, support.device, &support.config.experts[0], 1), -EINVAL);
    support_device_close(&support);

    support_device_open(&support, "cpu", false, precision,
                        "block: swiglu, hidden_dim: 64, optimizer: none, backward: false, arguments: "
                        "{intermediate_size: 128}");
    ck_assert_int_eq(expert_memory(support.device, &support.config.experts[0], &own, &workspace), 0);
    ck_assert_uint_eq(own, 3 * 64 * 128 / 32 * (eight ? 34 : 18));
    support_device_close(&support);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("quantized");
    TCase *formula = tcase_create("formula"), *experts = tcase_create("experts");
    tcase_add_loop_test(formula, every_group_is_rounded_as_the_formula_says, 0, 2);
    tcase_add_test(formula, a_group_is_what_it_is_in_other_peoples_files);
    tcase_add_loop_test(formula, partners_do_not_touch_each_other_and_pads_stay_zero, 0, 2);
    tcase_add_loop_test(experts, experts_compute_with_what_their_weights_were_rounded_to, 0, 5);
    tcase_add_loop_test(experts, what_trains_is_refused_and_memory_is_what_was_said, 0, 2);
    tcase_set_timeout(formula, 300);
    tcase_set_timeout(experts, 600);
    suite_add_tcase(suite, formula);
    suite_add_tcase(suite, experts);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
