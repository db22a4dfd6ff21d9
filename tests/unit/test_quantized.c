// timeout: 3000 (at the first run PoCL compiles ten programs)
/* Weights in few bits: the numbers and scales of each format against its formula, written down once more in doubles;
 * both orientations and every width of panels; every code through every kernel; and whole experts, forward and back to
 * their inputs, against a plain interpreter of their block with the weights that are read back from them. */
#include <check.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/small_float.h"
#include "runtime/blocks/engine.h"
#include "runtime/compute/compute.h"
#include "runtime/compute/provider.h"
#include "runtime/compute/quantized.h"
#include "runtime/device/device_private.h"
#include "unit/support_device.h"
#include "unit/support_graph.h"

static const unsigned panels[] = {8, 16, 32, 64};
static const char *const names[] = {"int8", "int4", "fp8", "mxfp4"};
enum { WIDTHS = sizeof panels / sizeof panels[0], FORMATS = sizeof names / sizeof names[0] };

/* --- groups ------------------------------------------------------------------------------------------------------- */

static bool is(const char *name, const char *other)
{
    return strcmp(name, other) == 0;
}

/* Of float formats: the nearest of all codes, of two the even one. */
static double nearest(const char *name, float x)
{
    double best = NAN;
    unsigned best_code = 0;
    for (unsigned code = 0; code < (is(name, "fp8") ? 256 : 16); code++) {
        const float of_code = is(name, "fp8") ? small_float_e4m3((uint8_t)code) : small_float_e2m1((uint8_t)code);
        const double number = (double)of_code, far = fabs(number - (double)x), best_far = fabs(best - (double)x);
        if (isnan(number) || far > best_far || (far == best_far && code % 2 > best_code % 2))
            continue;
        best = number;
        best_code = code;
    }
    return best;
}

/* What a value becomes, of those with the greatest m, and how far at most that is from it. */
static double expected_of(const char *name, float m, float value, double *bound)
{
    const double greatest = fabs((double)m), magnitude = fabs((double)value);
    const float d = is(name, "int8")   ? fabsf(m) / 127
                    : is(name, "int4") ? m / -8
                    : is(name, "fp8")  ? fabsf(m) / 448
                                       : (float)exp2(fmax(floor(log2(greatest)) - 2, -127));
    const bool is_half = is(name, "int8") || is(name, "int4");
    const double scale = is_half ? (double)half_to_float(half_from_float(d)) : (double)d;
    const double least = is(name, "int8") ? 127 : 8, beside = fabs((double)d) < 0x1p-14 ? least * 0x1p-25 : 0;
    *bound = is(name, "int8")   ? greatest * (1.0 / 254 * (1 + 1e-5) + 0x1p-11) + beside
             : is(name, "int4") ? greatest * (1.0 / 8 * (1 + 1e-5) + 0x1p-11) + beside
             : is(name, "fp8")  ? fmax(magnitude * (1.0 / 16 + 1e-5), greatest * 0x1p-18)
                                : fmax(magnitude * (1.0 / 4 + 1e-5), fmax(greatest / 16, 0x1p-129));
    if (m == 0 || scale == 0 || (is(name, "fp8") && scale < 0x1p-126)) {
        *bound = fmax(*bound, is_half ? least * 0x1p-25 : 448 * 0x1p-126);
        return 0;
    }
    const float x = value * (1 / d);
    if (is_half)
        return scale * (is(name, "int8") ? round((double)x) : fmin(floor((double)(x + 8.5f)) - 8, 7));
    return (double)(float)(scale * nearest(name, x));
}

static void check_extent(const char *name, uint64_t c, uint64_t k, uint64_t out, uint64_t in, const float *values,
                         const float *found)
{
    const uint64_t along = is(name, "fp8") ? 128 : 32;
    const uint64_t end_c = !is(name, "fp8") ? c + 1
                           : c + 128 < out  ? c + 128
                                            : out,
                   end_k = k + along < in ? k + along : in;
    float greatest = 0;
    for (uint64_t i = c; i < end_c; i++)
        for (uint64_t j = k; j < end_k; j++)
            greatest = fabsf(values[i * in + j]) > fabsf(greatest) ? values[i * in + j] : greatest;
    for (uint64_t i = c; i < end_c; i++) {
        for (uint64_t j = k; j < end_k; j++) {
            const uint64_t e = i * in + j;
            double bound;
            const double expected = expected_of(name, greatest, values[e], &bound);
            ck_assert_msg((double)found[e] == expected, "%s: %a became %a, not %a", name, (double)values[e],
                          (double)found[e], expected);
            ck_assert_msg(fabs((double)found[e] - (double)values[e]) <= bound, "%s: %a became %a, by more than %g",
                          name, (double)values[e], (double)found[e], bound);
        }
    }
}

static void check_rounded(const char *name, uint64_t out, uint64_t in, const float *values, const float *found)
{
    for (uint64_t c = 0; c < out; c += is(name, "fp8") ? 128 : 1)
        for (uint64_t k = 0; k < in; k += is(name, "fp8") ? 128 : 32)
            check_extent(name, c, k, out, in, values, found);
}

static void pack(const struct quantized *matrix, void *memory, const float *values)
{
    struct quantized_numbers numbers;
    ck_assert_int_eq(quantized_numbers_create(&numbers, matrix->out, matrix->in), 0);
    quantized_round(matrix->shape->quantized, matrix->out, matrix->in, values, &numbers);
    ck_assert(quantized_fits(matrix->shape->quantized, matrix->out, matrix->in, numbers.scales));
    quantized_place(matrix, memory, &numbers);
    quantized_numbers_destroy(&numbers);
}

static struct kernel_shape shape_of(unsigned panel, const char *name)
{
    return (struct kernel_shape){.panel = panel, .weight_bytes = 1, .quantized = weight_format_find(name)};
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
    enum { OUT = 150, IN = 141 };
    static float values[OUT * IN], found[OUT * IN];
    const char *name = names[_i];
    for (unsigned p = 0; p < WIDTHS; p++) {
        for (unsigned transposed = 0; transposed < 2; transposed++) {
            const struct kernel_shape shape = shape_of(panels[p], name);
            const struct quantized matrix = {&shape, OUT, IN, 1, 0, OUT, transposed};
            const uint64_t bytes =
                transposed ? kernel_weights(&shape, OUT, IN, true) : kernel_weights(&shape, IN, OUT, false);
            unsigned char *memory = calloc(1, bytes);
            draw(values, OUT, IN, p);
            pack(&matrix, memory, values);
            quantized_unpack(&matrix, memory, found);
            check_rounded(name, OUT, IN, values, found);
            free(memory);
        }
    }
}
END_TEST

/* GGUF's own blocks hold the same: 32 numbers with a scale before them, of which these are written out. */
START_TEST(a_group_is_what_it_is_in_other_peoples_files)
{
    static float values[32] = {0.9375f, -0.5f, 0.25f, -2, 0.1f, 1.9375f, -1.25f, 0.875f};
    const struct kernel_shape eight = shape_of(8, "int8"), four = shape_of(8, "int4");
    const struct quantized matrix8 = {&eight, 1, 32, 1, 0, 1, false}, matrix4 = {&four, 1, 32, 1, 0, 1, false};
    static const signed char numbers8[] = {60, -32, 16, -127, 6, 123, -79, 56, 0};
    static const signed char numbers4[] = {4, -2, 1, -8, 0, 7, -5, 4, 0};
    uint16_t memory[256] = {0};
    unsigned char *bytes = (unsigned char *)memory;
    pack(&matrix8, memory, values);
    ck_assert_uint_eq(memory[0], half_from_float(2.0f / 127));
    for (unsigned i = 0; i < sizeof numbers8; i++)
        ck_assert_int_eq((signed char)bytes[16 + 8 * i], numbers8[i]);
    memset(memory, 0, sizeof memory);
    pack(&matrix4, memory, values);
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
    const char *name = names[_i];
    for (unsigned p = 0; p < WIDTHS; p++) {
        const struct kernel_shape shape = shape_of(panels[p], name);
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
            pack(&gates, memory, gate);
            pack(&ups, memory, up);
            pack(&gates, memory, gate); /* once more, over itself */
            quantized_unpack(&gates, memory, found);
            check_rounded(name, OUT, IN, gate, found);
            quantized_unpack(&ups, memory, found);
            check_rounded(name, OUT, IN, up, found);
            quantized_unpack(&all, memory, whole);
            for (uint64_t e = 0; e < all.out * all.in; e++)
                if (e / all.in >= 2 * OUT || e % all.in >= IN)
                    ck_assert_msg(whole[e] == 0, "%s: there is %g in a pad", name, (double)whole[e]);
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

/* Writes all, and reads back what they were rounded to: to what the formula says. Of files' formats the numbers are
 * written, as floats are refused. */
static void write_tensor(struct trial *trial, unsigned index, const struct expert_tensor *tensor, const float *values)
{
    const struct weight_format *format = expert_tensor_format(trial->expert, index);
    struct quantized_numbers numbers;
    if (format == NULL) {
        ck_assert_int_eq(expert_tensor_write(trial->expert, index, values), 0);
        return;
    }
    ck_assert_int_eq(expert_tensor_write(trial->expert, index, values), -EINVAL);
    ck_assert_ptr_nonnull(strstr(device_error(trial->expert->device), "set another precision"));
    ck_assert_int_eq(quantized_numbers_create(&numbers, tensor->dims[0], tensor->dims[1]), 0);
    quantized_round(format, tensor->dims[0], tensor->dims[1], values, &numbers);
    ck_assert_int_eq(expert_tensor_write_numbers(trial->expert, index, &numbers), 0);
    quantized_numbers_destroy(&numbers);
}

static void set_weights(struct trial *trial, const char *name)
{
    for (unsigned p = 0; p < expert_tensors(trial->expert); p++) {
        struct expert_tensor tensor;
        expert_tensor(trial->expert, p, &tensor);
        float *values = malloc(tensor.count * sizeof *values);
        trial->weights[p] = malloc(tensor.count * sizeof *values);
        support_random(values, tensor.count, p, tensor.ndim == 2 ? 1.5f / sqrtf((float)tensor.dims[1]) : 0.7f);
        write_tensor(trial, p, &tensor, values);
        ck_assert_int_eq(expert_tensor_read(trial->expert, p, trial->weights[p]), 0);
        if (tensor.ndim == 2)
            check_rounded(name, tensor.dims[0], tensor.dims[1], values, trial->weights[p]);
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

/* The programs that tests build, each once. */
static const struct {
    const char *kernel;
    unsigned narrow;
    const char *name;
} programs[] = {{"auto", 0, "int8"}, {"auto", 0, "int4"}, {"cpu", 8, "int4"}, {"gpu", 0, "int4"},
                {"auto", 0, "fp8"},  {"cpu", 8, "fp8"},   {"gpu", 0, "fp8"},  {"auto", 0, "mxfp4"},
                {"cpu", 8, "mxfp4"}, {"gpu", 0, "mxfp4"}};
enum { PROGRAMS = sizeof programs / sizeof programs[0], OF_FILES = 4 /* the first program of a files' format */ };

static void open_program(struct support_device *support, int index, const char *expert)
{
    char precision[32];
    snprintf(precision, sizeof precision, "precision: %s", programs[index].name);
    support_device_open(support, programs[index].kernel, false, precision, expert);
    if (programs[index].narrow > 0)
        support_device_narrow(support, programs[index].narrow);
    ck_assert_str_eq(provider_name(support->device), is(programs[index].kernel, "gpu") ? "gpu" : "cpu");
}

START_TEST(experts_compute_with_what_their_weights_were_rounded_to)
{
    static const unsigned rows[] = {1, 2, 7, 19, MOST_ROWS};
    struct support_device support;
    struct trial trial;
    /* Neither width is a multiple of 32, and the wider one is longer than what is widened at a time. */
    open_program(&support, _i,
                 "block: swiglu, hidden_dim: 110, max_batch_size: 150, optimizer: none, "
                 "arguments: {intermediate_size: 607, bias: true}");
    ck_assert_int_eq(expert_create(&trial.expert, support.device, &support.config.experts[0], 1), 0);
    set_weights(&trial, programs[_i].name);
    /* Many rows are another way on a CPU alone, and slow with a GPU's kernels there. */
    for (unsigned i = 0; i < (is(programs[_i].kernel, "gpu") ? 4 : sizeof rows / sizeof rows[0]); i++)
        check_batch(&trial, rows[i]);
    for (unsigned p = 0; p < expert_tensors(trial.expert); p++)
        free(trial.weights[p]);
    expert_destroy(&trial.expert);
    support_device_close(&support);
}
END_TEST

/* --- every code --------------------------------------------------------------------------------------------------- */

enum { IN = 320, OUT = 272, GROUPS = IN / 32 };

/* All codes that are numbers, with scales of every size. */
static void set_codes(const char *name, struct quantized_numbers *numbers, float *values)
{
    static const float squares[] = {1, 0.1f, 0x1p-40f, 3e30f, 0.37f, 1e-30f, 0x1.fffffep-3f, 12345, 0};
    const struct weight_format *format = weight_format_find(name);
    for (unsigned c = 0; c < OUT; c++) {
        for (unsigned k = 0; k < IN; k++) {
            const unsigned any = is(name, "fp8") ? (c * 7 + k) % 256 : (c + k + c / 16) % 16;
            const uint8_t code = (uint8_t)(is(name, "fp8") && (any & 0x7f) == 0x7f ? any - 1 : any);
            const float scale = is(name, "fp8") ? squares[c / 128 * 3 + k / 128]
                                                : small_float_e8m0((uint8_t)((c * GROUPS + k / 32) % 253));
            numbers->codes[c * IN + k] = code;
            numbers->scales[c * GROUPS + k / 32] = scale;
            values[c * IN + k] = format->number(code) * scale;
        }
    }
}

/* Rows that are 1 at one place each, from the first-th on: what comes out are the weights that this meets. */
static void run_ones(struct expert *expert, bool backward, unsigned first, unsigned rows, const float *values)
{
    const unsigned from = backward ? OUT : IN, to = backward ? IN : OUT;
    struct device_slab in[2] = {support_slab((size_t)rows * IN), support_slab((size_t)rows * OUT)};
    struct device_slab out = support_slab((size_t)rows * to);
    struct expert_batch batch = {.rows = rows, .inputs = in, .outputs = &out};
    memset(in[0].mapping, 0, (size_t)rows * IN * sizeof(float));
    memset(in[1].mapping, 0, (size_t)rows * OUT * sizeof(float));
    for (unsigned r = 0; r < rows; r++)
        ((float *)in[backward].mapping)[r * from + first + r] = 1;
    ck_assert_int_eq(backward ? expert_backward(expert, &batch) : expert_forward(expert, &batch), 0);
    ck_assert_int_eq(expert_finish(expert, &batch), 0);
    for (unsigned r = 0; r < rows; r++) {
        for (unsigned i = 0; i < to; i++) {
            const float found = ((const float *)out.mapping)[r * to + i];
            const float expected = backward ? values[(first + r) * IN + i] : values[i * IN + first + r];
            ck_assert_msg(found == expected, "%s of %u rows: %a, not %a", backward ? "backward" : "forward", rows,
                          (double)found, (double)expected);
        }
    }
    support_slab_free(&in[0]);
    support_slab_free(&in[1]);
    support_slab_free(&out);
}

START_TEST(every_code_is_what_the_formula_says_in_every_kernel)
{
    const int program = OF_FILES + _i;
    static float values[OUT * IN], found[OUT * IN];
    struct support_device support;
    struct quantized_numbers numbers;
    struct expert *expert;
    open_program(
        &support, program,
        "block: one, hidden_dim: 320, max_batch_size: 320, optimizer: none}\n"
        "blocks:\n"
        "  - {name: one, inputs: [{name: x, shape: [hidden_dim]}], layers: [{name: w, layer: linear, input: x, "
        "size: 272, bias: false}], outputs: [{name: y, value: w}]");
    ck_assert_int_eq(expert_create(&expert, support.device, &support.config.experts[0], 1), 0);
    ck_assert_int_eq(quantized_numbers_create(&numbers, OUT, IN), 0);
    set_codes(programs[program].name, &numbers, values);
    ck_assert_int_eq(expert_tensor_write_numbers(expert, 0, &numbers), 0);
    ck_assert_int_eq(expert_tensor_read(expert, 0, found), 0);
    for (unsigned i = 0; i < OUT * IN; i++)
        ck_assert_msg(found[i] == values[i], "%a was read, not %a", (double)found[i], (double)values[i]);
    for (unsigned backward = 0; backward < 2; backward++) {
        const unsigned rows = backward ? OUT : IN;
        run_ones(expert, backward, 0, rows, values);
        for (unsigned first = 0; first < rows; first += 2)
            run_ones(expert, backward, first, 2, values);
        run_ones(expert, backward, 5, 1, values);
    }
    quantized_numbers_destroy(&numbers);
    expert_destroy(&expert);
    support_device_close(&support);
}
END_TEST

/* On a device whose weights are as files have them: what stands in rows is no matrix of a product, and so it is floats.
 */
START_TEST(constants_of_rows_stay_floats)
{
    static const char *const floats[] = {"a.weight", "a.bias", "l.bias"};
    const char *name = _i ? "mxfp4" : "fp8";
    float values[5 * 7], found[5 * 7];
    char precision[32];
    struct support_device support;
    struct expert *expert;
    snprintf(precision, sizeof precision, "precision: %s", name);
    support_device_open(
        &support, "auto", false, precision,
        "block: own, hidden_dim: 7, optimizer: none}\n"
        "blocks:\n"
        "  - {name: own, inputs: [{name: x, shape: [5, hidden_dim]}], layers: [{name: a, layer: affine, input: x, "
        "weight: fixed, bias: fixed, over: row}, {name: l, layer: linear, input: a, size: 6}], outputs: [{name: y, "
        "value: l}]");
    ck_assert_int_eq(expert_create(&expert, support.device, &support.config.experts[0], 1), 0);
    support_random(values, 5 * 7, 1, 1);
    for (unsigned i = 0; i < sizeof floats / sizeof floats[0]; i++) {
        const unsigned index = (unsigned)expert_tensor_find(expert, floats[i]);
        struct expert_tensor tensor;
        expert_tensor(expert, index, &tensor);
        ck_assert_ptr_null(expert_tensor_format(expert, index));
        ck_assert_int_eq(expert_tensor_write(expert, index, values), 0);
        ck_assert_int_eq(expert_tensor_read(expert, index, found), 0);
        ck_assert_mem_eq(found, values, tensor.count * sizeof *values);
    }
    const unsigned matrix = (unsigned)expert_tensor_find(expert, "l.weight");
    ck_assert_ptr_eq(expert_tensor_format(expert, matrix), weight_format_find(name));
    ck_assert_int_eq(expert_tensor_write(expert, matrix, values), -EINVAL);
    expert_destroy(&expert);
    support_device_close(&support);
}
END_TEST

START_TEST(scales_that_change_elsewhere_than_at_64_weights_do_not_fit)
{
    enum { ROWS = 130, COLUMNS = 200, OF_ROW = (COLUMNS + 31) / 32 };
    static float scales[ROWS * OF_ROW];
    const struct weight_format *fp8 = weight_format_find("fp8");
    for (unsigned i = 0; i < ROWS * OF_ROW; i++)
        scales[i] = (float)(1 + i / OF_ROW / 64 * 4 + i % OF_ROW / 2);
    ck_assert(quantized_fits(fp8, ROWS, COLUMNS, scales));
    for (unsigned i = 0; i < ROWS * OF_ROW; i++) {
        const float is_now = scales[i];
        scales[i] = 99;
        ck_assert(!quantized_fits(fp8, ROWS, COLUMNS, scales));
        ck_assert(quantized_fits(weight_format_find("mxfp4"), ROWS, COLUMNS, scales));
        scales[i] = is_now;
    }
}
END_TEST

START_TEST(what_trains_is_refused_and_memory_is_what_was_said)
{
    enum { NUMBERS = 3 * 64 * 128 };
    static const unsigned bytes[] = {NUMBERS / 32 * 34, NUMBERS / 32 * 18, NUMBERS, NUMBERS / 32 * 17};
    char precision[32];
    struct support_device support;
    struct expert *expert;
    uint64_t own, workspace;
    snprintf(precision, sizeof precision, "precision: %s", names[_i]);
    support_device_open(&support, "cpu", false, precision,
                        "block: swiglu, hidden_dim: 64, optimizer: none, backward: false, arguments: "
                        "{intermediate_size: 128}");
    ck_assert(config_device_quantizes(&support.config.devices[0]));
    ck_assert_int_eq(expert_memory(support.device, &support.config.experts[0], &own, &workspace), 0);
    const unsigned panel = provider_shape(support.device)->panel;
    ck_assert_uint_eq(own, bytes[_i] + (is(names[_i], "fp8") ? NUMBERS / (32 * panel) * 16 : 0));
    /* The configuration's check, which says it first, cannot look into shared objects. */
    support.config.experts[0].optimizer = "sgd";
    support.config.experts[0].backward = true;
    ck_assert_int_eq(expert_create(&expert, support.device, &support.config.experts[0], 1), -EINVAL);
    support_device_close(&support);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("quantized");
    TCase *formula = tcase_create("formula"), *experts = tcase_create("experts"), *rows = tcase_create("rows");
    tcase_add_loop_test(formula, every_group_is_rounded_as_the_formula_says, 0, FORMATS);
    tcase_add_test(formula, a_group_is_what_it_is_in_other_peoples_files);
    tcase_add_loop_test(formula, partners_do_not_touch_each_other_and_pads_stay_zero, 0, FORMATS);
    tcase_add_test(formula, scales_that_change_elsewhere_than_at_64_weights_do_not_fit);
    tcase_add_loop_test(experts, experts_compute_with_what_their_weights_were_rounded_to, 0, PROGRAMS);
    tcase_add_loop_test(experts, every_code_is_what_the_formula_says_in_every_kernel, 0, PROGRAMS - OF_FILES);
    tcase_add_loop_test(rows, constants_of_rows_stay_floats, 0, 2);
    tcase_add_loop_test(experts, what_trains_is_refused_and_memory_is_what_was_said, 0, FORMATS);
    tcase_set_timeout(formula, 300);
    tcase_set_timeout(experts, 600);
    tcase_set_timeout(rows, 600);
    suite_add_tcase(suite, formula);
    suite_add_tcase(suite, experts);
    suite_add_tcase(suite, rows);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
