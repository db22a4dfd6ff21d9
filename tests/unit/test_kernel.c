// timeout: 3000 (at the first run PoCL compiles for more than a minute)
/* Each kernel of each provider against its plain C reference, at sizes that no tile divides, in both layouts. Around
 * every output lies NaN that must stay, and pad columns must be 0. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/device/device_private.h"
#include "runtime/compute/provider.h"
#include "runtime/layers/layer_norm.h"
#include "runtime/layers/rms_norm.h"
#include "runtime/compute/linear.h"
#include "runtime/compute/rows.h"
#include "common/half.h"
#include "unit/support_device.h"
#include "unit/support_reference.h"

enum { EMULATED = 1 };

/* The CPU's kernels also as they are for narrower vectors, which this machine can run too; 0: the device's own. The
 * matrix units' (emulated all the same where there are none) also EMULATED. The references of products round as the
 * precision does. */
static const struct provider {
    const char *kernel;
    unsigned vector_width;
    const char *precision;
} providers[] = {
    {"cpu", 0, "bf16"}, {"cpu", 4, "bf16"}, {"amx", EMULATED, "bf16"}, {"gpu", 0, "bf16"}, {"mma", 0, "bf16"},
    {"cpu", 0, "fp16"}, {"cpu", 8, "fp16"}, {"cpu", 4, "fp16"},        {"amx", 0, "fp16"}, {"amx", EMULATED, "fp16"},
    {"gpu", 0, "fp16"}, {"mma", 0, "fp16"}, {"amx", EMULATED, "fp32"}, {"cpu", 0, "fp32"}, {"cpu", 8, "fp32"},
    {"cpu", 4, "fp32"}, {"amx", 0, "fp32"}, {"gpu", 0, "fp32"},        {"mma", 0, "tf32"}, {"clblast", 0, "fp32"},
};
enum {
    /* What differs among those before is how products read their weights; the kernels of rows, which have floats, are
     * the same text with the same sizes. */
    ROWS_BEGIN = 13,
    PROVIDERS = sizeof providers / sizeof providers[0],
    GUARD_ROWS = 5,
    MAX_BUFFERS = 16
};

static struct support_device support;
static struct device *device;
static const struct provider *provider;
static cl_mem buffers[MAX_BUFFERS];
static unsigned n_buffers;
static float *memories[2 * MAX_BUFFERS];
static unsigned n_memories;

static void begin(int index)
{
    char options[32];
    provider = &providers[index];
    snprintf(options, sizeof options, "precision: %s", provider->precision);
    support_device_open(&support, provider->kernel, false, options, "hidden_dim: 8");
    if (provider->vector_width == EMULATED)
        support_device_emulate(&support);
    else if (provider->vector_width != 0)
        support_device_narrow(&support, provider->vector_width);
    device = support.device;
}

/* What a size took; the device stays. */
static void forget(void)
{
    while (n_buffers > 0)
        device_release(device, &buffers[--n_buffers]);
    while (n_memories > 0)
        free(memories[--n_memories]);
}

static void end(void)
{
    forget();
    support_device_close(&support);
}

static float *floats(size_t count)
{
    ck_assert_uint_lt(n_memories, 2 * MAX_BUFFERS);
    float *values = calloc(count, sizeof *values);
    ck_assert_ptr_nonnull(values);
    return memories[n_memories++] = values;
}

static float *random_floats(size_t count, unsigned stream)
{
    float *values = floats(count);
    support_random(values, count, stream, 1);
    return values;
}

static float *rounded(const float *values, size_t count, enum support_operand operand)
{
    float *result = floats(count);
    support_round_operand(provider->kernel, provider->precision, operand, values, count, result);
    return result;
}

/* --- matrices on the device ------------------------------------------------------------------------------------------
 */

/* A matrix within its buffer: guards of NaN lie before and behind it. */
struct matrix {
    struct kernel_view view;
    size_t rows, columns, guard, floats;
};

/* Of floats, or (only in panels) as matrices of weights are. */
static struct matrix matrix_put_as(size_t rows, size_t columns, bool packed, bool weights, const float *plain)
{
    const size_t panel = provider_shape(device)->panel, width = kernel_panel_width(provider_shape(device), columns);
    struct matrix matrix = {.rows = rows, .columns = columns};
    matrix.floats = packed ? kernel_packed_floats(provider_shape(device), rows, columns) : rows * columns;
    matrix.guard = GUARD_ROWS * (packed ? width : columns); /* as far as a batch's first row may lie */
    const size_t total = matrix.floats + 2 * matrix.guard;
    float *all = malloc(total * sizeof *all);
    for (size_t i = 0; i < total; i++)
        all[i] = NAN;
    if (plain != NULL && packed)
        support_reference_pack(rows, columns, panel, plain, all + matrix.guard);
    else if (plain != NULL)
        memcpy(all + matrix.guard, plain, matrix.floats * sizeof *all);
    ck_assert_uint_lt(n_buffers, MAX_BUFFERS);
    cl_mem *buffer = &buffers[n_buffers++];
    size_t bytes = total * sizeof *all;
    void *elements = weights ? support_weights(device, all, total, &bytes) : NULL;
    ck_assert_int_eq(device_allocate(device, bytes, "a test", buffer), 0);
    ck_assert_int_eq(device_write(device, *buffer, 0, weights ? elements : all, bytes), 0);
    free(elements);
    free(all);
    matrix.view = packed ? kernel_view_packed(provider_shape(device), *buffer, matrix.guard, rows)
                         : kernel_view_rows(provider_shape(device), *buffer, matrix.guard, columns);
    return matrix;
}

static struct matrix matrix_put(size_t rows, size_t columns, bool packed, const float *plain)
{
    return matrix_put_as(rows, columns, packed, false, plain);
}

static struct device_rows matrix_rows(const struct matrix *matrix)
{
    return (struct device_rows){.buffer = matrix->view.buffer, .offset = matrix->view.offset};
}

static void matrix_is(const struct matrix *matrix, const float *expected, double tolerance, const char *what)
{
    const size_t total = matrix->floats + 2 * matrix->guard;
    float *all = malloc(total * sizeof *all), *plain = malloc(matrix->rows * matrix->columns * sizeof *plain);
    ck_assert_int_eq(device_read(device, matrix->view.buffer, 0, all, total * sizeof *all), 0);
    for (size_t i = 0; i < matrix->guard; i++)
        ck_assert_msg(isnan(all[i]) && isnan(all[total - 1 - i]), "%s: written outside of its rows", what);
    const float *data = all + matrix->guard;
    if (matrix->view.rows) {
        memcpy(plain, data, matrix->floats * sizeof *plain);
    } else {
        float *again = malloc(matrix->floats * sizeof *again);
        support_reference_unpack(matrix->rows, matrix->columns, provider_shape(device)->panel, data, plain);
        support_reference_pack(matrix->rows, matrix->columns, provider_shape(device)->panel, plain, again);
        for (size_t i = 0; i < matrix->floats; i++)
            ck_assert_msg(again[i] == data[i], "%s: a pad column is not 0", what);
        free(again);
    }
    const double error = support_error(plain, expected, matrix->rows * matrix->columns);
    ck_assert_msg(error <= tolerance, "%s, %zu rows of %zu: error %g", what, matrix->rows, matrix->columns, error);
    free(all);
    free(plain);
}

/* --- the linear layer ------------------------------------------------------------------------------------------------
 */

struct size {
    size_t rows, n, k;
};
static const struct size sizes[] = {{1, 1, 1},      {1, 130, 65},   {2, 33, 7},   {3, 64, 129},   {5, 31, 200},
                                    {7, 65, 64},    {13, 100, 33},  {17, 9, 257}, {67, 70, 31},   {255, 66, 40},
                                    {129, 129, 5},  {12, 192, 128}, {32, 64, 32}, {45, 330, 300}, {300, 65, 290},
                                    {25, 70, 1100}, {16, 70, 300}};
enum { SIZES = sizeof sizes / sizeof sizes[0] };

/* A sanitizer sees what the host does for a kernel, which no size changes, at several times the cost: then each
 * provider has another quarter of the sizes. */
#ifdef __SANITIZE_ADDRESS__
enum { SIZE_STEP = 4 };
#else
enum { SIZE_STEP = 1 };
#endif
static unsigned first_size(void)
{
    return (unsigned)(provider - providers) % SIZE_STEP;
}

/* As the block ffn uses them, in its order; then the other epilogues. */
static const struct {
    unsigned flags;
    bool a_packed, out_packed, second_packed, of_gradient;
} uses[] = {
    {LINEAR_BIAS | LINEAR_GELU, false, true, false, false},
    {LINEAR_BIAS | LINEAR_ADD, true, false, false, false},
    {LINEAR_BIAS | LINEAR_SAVE | LINEAR_GELU, true, true, false, false},
    {LINEAR_BIAS | LINEAR_ADD, true, true, true, false},
    {LINEAR_GELU_GRAD, true, true, true, true},
    {LINEAR_ADD, true, false, true, true},
    {0, false, false, false, false},
    {LINEAR_BIAS | LINEAR_SAVE | LINEAR_RELU, false, true, false, false},
    {LINEAR_BIAS | LINEAR_GELU_ERF, true, false, false, false},
    {LINEAR_BIAS | LINEAR_SILU | LINEAR_MULTIPLY, false, false, true, false},
    {LINEAR_RELU_GRAD, true, true, true, true},
    {LINEAR_GELU_ERF_GRAD, true, false, false, true},
    {LINEAR_SILU_GRAD, true, true, false, true},
    {LINEAR_MULTIPLY | LINEAR_ADD, false, true, false, false},
};
enum { USES = sizeof uses / sizeof uses[0] };

static void product_agrees(const struct size *size, unsigned use)
{
    const unsigned flags = uses[use].flags;
    struct reference_product expected = {
        .rows = size->rows,
        .n = size->n,
        .k = size->k,
        .flags = flags,
        .a = random_floats(size->rows * size->k, 10),
        .b = random_floats(size->k * size->n, 11),
        .bias = random_floats(size->n, 12),
        .second = random_floats(size->rows * size->n, 13),
        .out = floats(size->rows * size->n),
        .save = floats(size->rows * size->n),
    };
    const float *plain_a = expected.a, *plain_b = expected.b;
    expected.a =
        rounded(plain_a, size->rows * size->k, uses[use].of_gradient ? SUPPORT_OF_GRADIENT : SUPPORT_ACTIVATION);
    expected.b = rounded(plain_b, size->k * size->n, SUPPORT_WEIGHT);
    reference_product(&expected);
    const struct matrix a = matrix_put(size->rows, size->k, uses[use].a_packed, plain_a);
    const struct matrix b = matrix_put_as(size->k, size->n, true, true, plain_b);
    const struct matrix bias = matrix_put(1, size->n, true, expected.bias);
    const struct matrix second = matrix_put(size->rows, size->n, uses[use].second_packed, expected.second);
    const struct matrix out = matrix_put(size->rows, size->n, uses[use].out_packed, NULL);
    const struct matrix save = matrix_put(size->rows, size->n, uses[use].out_packed, NULL);
    struct linear_call call = {
        .rows = (cl_int)size->rows,
        .n = (cl_int)size->n,
        .k = (cl_int)size->k,
        .flags = flags,
        .a = a.view,
        .of_gradient = uses[use].of_gradient,
        .weights = b.view.buffer,
        .weights_offset = b.view.offset,
        .out = out.view,
    };
    if (flags & LINEAR_BIAS) {
        call.bias = bias.view.buffer;
        call.bias_offset = bias.view.offset;
    }
    if (flags & LINEAR_TAKES_SECOND)
        call.second = second.view;
    if (flags & LINEAR_SAVE) {
        call.save = save.view.buffer;
        call.save_offset = save.view.offset;
    }
    ck_assert_msg(linear_layer_forward(device, &call) == 0, "%s", device_error(device));
    ck_assert_int_eq(device_finish(device), 0);
    matrix_is(&out, expected.out, SUPPORT_TOLERANCE, "linear");
    if (flags & LINEAR_SAVE)
        matrix_is(&save, expected.save, SUPPORT_TOLERANCE, "linear's saved values");
}

START_TEST(products_with_every_epilogue_are_the_references)
{
    begin(_i);
    for (unsigned size = first_size(); size < SIZES; size += SIZE_STEP) {
        /* Each provider has half of the pairs, and its neighbour the others. */
        for (unsigned use = (size / SIZE_STEP + (unsigned)_i) % 2; use < USES; use += 2) {
            product_agrees(&sizes[size], use);
            forget();
        }
    }
    end();
}
END_TEST

/* --- gated products --------------------------------------------------------------------------------------------------
 */

static const struct {
    unsigned flags, back;
    double limit, alpha, shift;
    bool bias, save, a_packed, out_packed;
} gates[] = {
    {LINEAR_SILU, LINEAR_SILU_GRAD, INFINITY, 1, 0, false, false, false, false},
    {LINEAR_SILU, LINEAR_SILU_GRAD, 0.7, 1.702, 1, true, true, true, true},
    {LINEAR_GELU, LINEAR_GELU_GRAD, INFINITY, 1, 0, true, false, false, true},
    {LINEAR_RELU, LINEAR_RELU_GRAD, 2, 1, 0, false, true, true, false},
    {LINEAR_GELU_ERF, LINEAR_GELU_ERF_GRAD, INFINITY, 2, -0.5, true, true, false, true},
};
enum { GATES = sizeof gates / sizeof gates[0] };

/* The pairs' columns as the weights have them, with zeros up to whole panels. */
static float *spread(const float *plain, size_t rows, size_t columns, size_t wide)
{
    float *all = floats(rows * wide);
    for (size_t row = 0; row < rows; row++)
        memcpy(all + row * wide, plain + row * columns, columns * sizeof *all);
    return all;
}

static void gated_agrees(const struct size *size, unsigned which)
{
    const size_t rows = size->rows, n = size->n, k = size->k;
    const size_t wide = kernel_paired_columns(provider_shape(device), n);
    struct reference_product sums = {
        .rows = rows,
        .n = 2 * n,
        .k = k,
        .flags = gates[which].bias ? LINEAR_BIAS : 0,
        .a = random_floats(rows * k, 14),
        .b = random_floats(k * 2 * n, 15),
        .bias = random_floats(2 * n, 16),
        .out = floats(rows * 2 * n),
    };
    const float *plain_a = sums.a, *plain_b = sums.b;
    sums.a = rounded(plain_a, rows * k, SUPPORT_ACTIVATION);
    sums.b = rounded(plain_b, k * 2 * n, SUPPORT_WEIGHT);
    reference_product(&sums);
    const struct reference_gate expected = {
        .count = rows * n,
        .flags = gates[which].flags | gates[which].back,
        .limit = gates[which].limit,
        .alpha = gates[which].alpha,
        .shift = gates[which].shift,
        .pairs = sums.out,
        .dy = random_floats(rows * n, 17),
        .out = floats(rows * n),
        .gradients = floats(rows * 2 * n),
    };
    reference_gate(&expected);
    reference_gate_backward(&expected);
    const struct matrix a = matrix_put(rows, k, gates[which].a_packed, plain_a);
    const struct matrix b = matrix_put_as(k, wide, true, true, spread(plain_b, k, 2 * n, wide));
    const struct matrix bias = matrix_put(1, wide, true, spread(sums.bias, 1, 2 * n, wide));
    const struct matrix out = matrix_put(rows, n, gates[which].out_packed, NULL);
    const struct matrix save = matrix_put(rows, wide, true, NULL), back = matrix_put(rows, wide, true, NULL);
    const struct matrix dy = matrix_put(rows, n, !gates[which].out_packed, expected.dy);
    const struct linear_gate how = {(cl_float)gates[which].limit, (cl_float)gates[which].alpha,
                                    (cl_float)gates[which].shift};
    const struct linear_call call = {
        .rows = (cl_int)rows,
        .n = (cl_int)wide,
        .k = (cl_int)k,
        .flags = LINEAR_GATED | gates[which].flags | sums.flags | (gates[which].save ? LINEAR_SAVE : 0),
        .a = a.view,
        .weights = b.view.buffer,
        .weights_offset = b.view.offset,
        .out = out.view,
        .bias = bias.view.buffer,
        .bias_offset = bias.view.offset,
        .save = save.view.buffer,
        .save_offset = save.view.offset,
        .gate = how,
    };
    ck_assert_msg(linear_layer_forward(device, &call) == 0, "%s", device_error(device));
    ck_assert_int_eq(device_finish(device), 0);
    matrix_is(&out, expected.out, 3 * SUPPORT_TOLERANCE, "gated"); /* of two sums, each with its rounding */
    if (!gates[which].save)
        return;
    const struct rows_gate gate = {
        .flags = expected.flags, .how = how, .pairs = matrix_rows(&save), .gradients = matrix_rows(&back)};
    matrix_is(&save, spread(sums.out, rows, 2 * n, wide), SUPPORT_TOLERANCE, "the pairs of gated");
    ck_assert_int_eq(rows_gate_backward(device, (cl_int)rows, (cl_int)n, &gate, &dy.view), 0);
    ck_assert_int_eq(device_finish(device), 0);
    /* What is at a corner, or at a limit, is decided by rounding. */
    float *found = floats(rows * 2 * n), *all = floats(rows * wide), *raw = floats(back.floats + 2 * back.guard);
    ck_assert_int_eq(device_read(device, back.view.buffer, 0, raw, (back.floats + 2 * back.guard) * sizeof *raw), 0);
    support_reference_unpack(rows, wide, provider_shape(device)->panel, raw + back.guard, all);
    for (size_t i = 0; i < rows * 2 * n; i++) {
        const double pair = (double)sums.out[i], edge = i % 2 == 0 ? pair : fabs(pair);
        const bool corner = fabs(edge - gates[which].limit) < 1e-3 ||
                            (fabs((double)sums.out[i / 2 * 2]) < 1e-3 && gates[which].flags == LINEAR_RELU);
        found[i] = corner ? expected.gradients[i] : all[i / (2 * n) * wide + i % (2 * n)];
    }
    const double error = support_error(found, expected.gradients, rows * 2 * n);
    ck_assert_msg(error <= 3 * SUPPORT_TOLERANCE, "gate_backward, %zu rows of %zu: error %g", rows, n, error);
}

START_TEST(gated_products_and_their_way_back_are_the_references)
{
    begin(_i);
    for (unsigned size = first_size(); size < SIZES; size += SIZE_STEP) {
        for (unsigned which = size % 2; which < GATES; which += 2) {
            gated_agrees(&sizes[size], which);
            forget();
        }
        gated_agrees(&sizes[size], 1);
        forget();
    }
    end();
}
END_TEST

START_TEST(weight_gradients_are_the_references)
{
    begin(_i);
    for (unsigned i = first_size(); i < SIZES; i += SIZE_STEP) {
        const size_t rows = sizes[i].rows, n = sizes[i].n, k = sizes[i].k;
        const float *x = random_floats(rows * k, 20), *dy = random_floats(rows * n, 21);
        const float *rounded_x = rounded(x, rows * k, SUPPORT_OF_GRADIENT);
        const float *rounded_dy = rounded(dy, rows * n, SUPPORT_OF_GRADIENT);
        float *expected = floats(k * n);
        const struct matrix xs = matrix_put(rows, k, true, x), dys = matrix_put(rows, n, true, dy);
        const struct matrix dw = matrix_put(k, n, true, NULL);
        struct linear_gradient_call call = {
            .rows = (cl_int)rows,
            .n = (cl_int)n,
            .k = (cl_int)k,
            .x = xs.view.buffer,
            .dy = dys.view.buffer,
            .dw = dw.view.buffer,
            .x_offset = xs.view.offset,
            .dy_offset = dys.view.offset,
            .dw_offset = dw.view.offset,
        };
        for (call.accumulate = 0; call.accumulate < 2; call.accumulate++) {
            ck_assert_msg(linear_layer_gradient(device, &call) == 0, "%s", device_error(device));
            ck_assert_int_eq(device_finish(device), 0);
            reference_gradient(rows, n, k, rounded_x, rounded_dy, call.accumulate != 0, expected);
            matrix_is(&dw, expected, SUPPORT_TOLERANCE, "weight_gradient");
        }
        forget();
    }
    end();
}
END_TEST

/* --- rows ------------------------------------------------------------------------------------------------------------
 */

static const struct size row_sizes[] = {{1, 3, 0}, {2, 33, 0}, {7, 64, 0}, {13, 130, 0}, {65, 257, 0}, {255, 31, 0}};
enum { ROW_SIZES = sizeof row_sizes / sizeof row_sizes[0] };
/* The last one is so large that a result shows where it is added. */
static const double epsilons[] = {1e-12, 1e-5, 0.5};
enum { EPSILONS = sizeof epsilons / sizeof epsilons[0] };

START_TEST(layer_norm_is_the_references)
{
    begin(_i);
    for (unsigned i = 0; i < ROW_SIZES; i++) {
        const size_t rows = row_sizes[i].rows, columns = row_sizes[i].n;
        const float *x = random_floats(rows * columns, 30);
        const float *gamma = random_floats(columns, 31), *beta = random_floats(columns, 32);
        float *expected = floats(rows * columns);
        const double eps = epsilons[i % EPSILONS];
        const struct matrix data = matrix_put(rows, columns, i & 1, x), norm = matrix_put(2, columns, true, NULL);
        const struct matrix out = matrix_put(rows, columns, i & 2, NULL);
        const struct matrix gammas = matrix_put(1, columns, true, gamma), betas = matrix_put(1, columns, true, beta);
        /* Both vectors lie in one buffer. */
        float *both = floats(norm.floats);
        support_reference_pack(1, columns, provider_shape(device)->panel, gamma, both);
        support_reference_pack(1, columns, provider_shape(device)->panel, beta, both + gammas.floats);
        ck_assert_int_eq(device_write(device, norm.view.buffer, norm.view.offset * sizeof(float), both,
                                      (gammas.floats + betas.floats) * sizeof(float)),
                         0);
        reference_layer_norm(rows, columns, eps, gamma, beta, x, expected);
        for (unsigned in_place = 0; in_place < 2; in_place++) {
            const struct matrix *to = in_place ? &data : &out;
            ck_assert_int_eq(layer_norm_forward(device, (cl_int)rows, (cl_int)columns, (cl_float)eps, &data.view,
                                                &to->view, norm.view.buffer, norm.view.offset,
                                                norm.view.offset + gammas.floats),
                             0);
            ck_assert_int_eq(device_finish(device), 0);
            matrix_is(to, expected, SUPPORT_TOLERANCE, "layer_norm");
        }
        forget();
    }
    end();
}
END_TEST

static void norm_backward_agrees(size_t rows, size_t columns, double eps, unsigned packed)
{
    const float *x = random_floats(rows * columns, 40), *dy = random_floats(rows * columns, 41);
    const float *gamma = random_floats(columns, 42);
    const struct reference_norm_gradients expected = {
        .dx = floats(rows * columns),
        .stats = floats(2 * rows),
        .dgamma = floats(columns),
        .dbeta = floats(columns),
        .dbias = floats(columns),
    };
    reference_layer_norm_backward(rows, columns, eps, gamma, x, dy, &expected);
    const struct matrix xs = matrix_put(rows, columns, packed & 1, x), dys = matrix_put(rows, columns, packed & 2, dy);
    const struct matrix dx = matrix_put(rows, columns, packed & 4, NULL), stats = matrix_put(rows, 2, false, NULL);
    const struct matrix gammas = matrix_put(1, columns, true, gamma);
    const size_t padded = gammas.floats;
    const struct matrix sums = matrix_put(3, padded, false, NULL);
    struct norm_backward_call call = {
        .rows = (cl_int)rows,
        .columns = (cl_int)columns,
        .eps = (cl_float)eps,
        .x = xs.view,
        .dy = dys.view,
        .dx = dx.view,
        .stats = matrix_rows(&stats),
        .weights = gammas.view.buffer,
        .gamma_offset = gammas.view.offset,
        .gradients = sums.view.buffer,
        .dgamma_offset = sums.view.offset,
        .dbeta_offset = sums.view.offset + padded,
        .dbias_offset = sums.view.offset + 2 * padded,
    };
    float *expected_sums = floats(3 * padded);
    for (call.accumulate = 0; call.accumulate < 2; call.accumulate++) {
        ck_assert_msg(norm_backward(device, KERNEL_LAYER_NORM_BACKWARD, &call) == 0, "%s", device_error(device));
        ck_assert_msg(layer_norm_sums(device, &call) == 0, "%s", device_error(device));
        ck_assert_int_eq(device_finish(device), 0);
        const float *const each[3] = {expected.dgamma, expected.dbeta, expected.dbias};
        for (size_t i = 0; i < 3 * padded; i++)
            expected_sums[i] = i % padded < columns ? (float)(call.accumulate + 1) * each[i / padded][i % padded] : 0;
        matrix_is(&dx, expected.dx, SUPPORT_TOLERANCE, "layer_norm_backward");
        matrix_is(&stats, expected.stats, SUPPORT_TOLERANCE, "layer_norm_backward's statistics");
        matrix_is(&sums, expected_sums, SUPPORT_TOLERANCE, "layer_norm_sums");
    }
}

START_TEST(layer_norm_backward_and_its_sums_are_the_references)
{
    begin(_i);
    for (unsigned i = 0; i < ROW_SIZES; i++) {
        norm_backward_agrees(row_sizes[i].rows, row_sizes[i].n, epsilons[i % EPSILONS], i < 2 ? 5 : i + 1);
        forget();
    }
    end();
}
END_TEST

START_TEST(column_sums_and_packing_are_the_references)
{
    begin(_i);
    for (unsigned i = 0; i < ROW_SIZES; i++) {
        const size_t rows = row_sizes[i].rows, columns = row_sizes[i].n;
        const float *x = random_floats(rows * columns, 50);
        const struct matrix plain = matrix_put(rows, columns, false, x), packed = matrix_put(rows, columns, true, NULL);
        const struct matrix sums = matrix_put(1, columns, true, NULL);
        const struct device_rows from = matrix_rows(&plain), to = matrix_rows(&packed);
        float *expected = floats(columns);
        ck_assert_int_eq(rows_pack(device, (cl_int)rows, (cl_int)columns, &from, &to), 0);
        ck_assert_int_eq(device_finish(device), 0);
        matrix_is(&packed, x, 0, "pack_rows");
        reference_column_sums(rows, columns, x, expected);
        for (cl_int accumulate = 0; accumulate < 2; accumulate++) {
            ck_assert_int_eq(rows_column_sums(device, (cl_int)rows, (cl_int)columns, accumulate, &to, sums.view.buffer,
                                              sums.view.offset),
                             0);
            ck_assert_int_eq(device_finish(device), 0);
            for (size_t c = 0; c < columns && accumulate; c++)
                expected[c] *= 2;
            matrix_is(&sums, expected, SUPPORT_TOLERANCE, "column_sums");
        }
        forget();
    }
    end();
}
END_TEST

static void rms_norm_agrees(size_t rows, size_t columns, double eps, unsigned packed)
{
    const float *x = random_floats(rows * columns, 45), *dy = random_floats(rows * columns, 46);
    const float *gamma = random_floats(columns, 47);
    float *y = floats(rows * columns), *dx = floats(rows * columns), *stats = floats(rows), *dgamma = floats(columns);
    reference_rms_norm(rows, columns, eps, gamma, x, y);
    reference_rms_norm_backward(rows, columns, eps, gamma, x, dy, dx, stats, dgamma);
    const struct matrix xs = matrix_put(rows, columns, packed & 1, x), gammas = matrix_put(1, columns, true, gamma);
    const struct matrix ys = matrix_put(rows, columns, packed & 2, NULL),
                        dys = matrix_put(rows, columns, packed & 2, dy);
    const struct matrix dxs = matrix_put(rows, columns, packed & 4, NULL), at = matrix_put(rows, 1, false, NULL);
    const struct matrix sums = matrix_put(1, columns, true, NULL);
    ck_assert_int_eq(rms_norm_forward(device, (cl_int)rows, (cl_int)columns, (cl_float)eps, &xs.view, &ys.view,
                                      gammas.view.buffer, gammas.view.offset),
                     0);
    ck_assert_int_eq(device_finish(device), 0);
    matrix_is(&ys, y, SUPPORT_TOLERANCE, "rms_norm");
    struct norm_backward_call call = {
        .rows = (cl_int)rows,
        .columns = (cl_int)columns,
        .eps = (cl_float)eps,
        .x = xs.view,
        .dy = dys.view,
        .dx = dxs.view,
        .stats = matrix_rows(&at),
        .weights = gammas.view.buffer,
        .gamma_offset = gammas.view.offset,
        .gradients = sums.view.buffer,
        .dgamma_offset = sums.view.offset,
    };
    for (call.accumulate = 0; call.accumulate < 2; call.accumulate++) {
        ck_assert_msg(norm_backward(device, KERNEL_RMS_NORM_BACKWARD, &call) == 0, "%s", device_error(device));
        ck_assert_msg(rms_norm_sums(device, &call) == 0, "%s", device_error(device));
        ck_assert_int_eq(device_finish(device), 0);
        for (size_t c = 0; c < columns && call.accumulate; c++)
            dgamma[c] *= 2;
        matrix_is(&dxs, dx, SUPPORT_TOLERANCE, "rms_norm_backward");
        matrix_is(&at, stats, SUPPORT_TOLERANCE, "rms_norm_backward's statistics");
        matrix_is(&sums, dgamma, SUPPORT_TOLERANCE, "rms_norm_sums");
    }
    ck_assert_int_eq(rms_norm_forward(device, (cl_int)rows, (cl_int)columns, (cl_float)eps, &xs.view, &xs.view,
                                      gammas.view.buffer, gammas.view.offset),
                     0);
    ck_assert_int_eq(device_finish(device), 0);
    matrix_is(&xs, y, SUPPORT_TOLERANCE, "rms_norm in place");
}

START_TEST(rms_norm_and_its_backward_are_the_references)
{
    begin(_i);
    for (unsigned i = 0; i < ROW_SIZES; i++) {
        for (unsigned packed = i % 2; packed < 8; packed += 3) {
            rms_norm_agrees(row_sizes[i].rows, row_sizes[i].n, epsilons[i % EPSILONS], packed);
            forget();
        }
    }
    end();
}
END_TEST

static const unsigned applied[] = {0,
                                   LINEAR_ADD,
                                   LINEAR_MULTIPLY,
                                   LINEAR_GELU,
                                   LINEAR_RELU,
                                   LINEAR_GELU_ERF,
                                   LINEAR_SILU,
                                   LINEAR_GELU_GRAD,
                                   LINEAR_RELU_GRAD,
                                   LINEAR_GELU_ERF_GRAD,
                                   LINEAR_SILU_GRAD,
                                   LINEAR_SILU | LINEAR_MULTIPLY};
enum { APPLIED = sizeof applied / sizeof applied[0] };

/* In each layout, and over one of the operands. */
static void applied_agrees(size_t rows, size_t columns, unsigned which)
{
    const unsigned flags = applied[which];
    const bool a_packed = which & 1, second_packed = which & 2, out_packed = (rows + which) & 1;
    float *a = random_floats(rows * columns, 60), *second = random_floats(rows * columns, 61);
    for (size_t i = 0; i < rows * columns; i++) { /* as far as activations bend, and beyond */
        a[i] *= 12;
        second[i] *= 12;
    }
    float *expected = floats(rows * columns);
    reference_apply(rows * columns, flags, a, second, expected);
    const struct matrix as = matrix_put(rows, columns, a_packed, a);
    const struct matrix seconds = matrix_put(rows, columns, second_packed, second);
    const struct matrix out = matrix_put(rows, columns, out_packed, NULL);
    const struct kernel_view *with = flags & LINEAR_TAKES_SECOND ? &seconds.view : NULL;
    ck_assert_int_eq(rows_apply(device, (cl_int)rows, (cl_int)columns, flags, &as.view, with, &out.view), 0);
    ck_assert_int_eq(device_finish(device), 0);
    matrix_is(&out, expected, SUPPORT_TOLERANCE, "apply");
    ck_assert_int_eq(rows_apply(device, (cl_int)rows, (cl_int)columns, flags, &as.view, with, &as.view), 0);
    ck_assert_int_eq(device_finish(device), 0);
    matrix_is(&as, expected, SUPPORT_TOLERANCE, "apply in place");
}

START_TEST(epilogues_without_a_product_are_the_references)
{
    begin(_i);
    for (unsigned i = 0; i < ROW_SIZES; i++) {
        for (unsigned which = 0; which < APPLIED; which++) {
            applied_agrees(row_sizes[i].rows, row_sizes[i].n, which);
            forget();
        }
    }
    end();
}
END_TEST

START_TEST(what_is_not_a_number_stays_none)
{
    begin(_i);
    float values[] = {NAN, 1, INFINITY, -1};
    for (unsigned which = 3; which < 7; which++) {
        const struct matrix a = matrix_put(1, 4, false, values), out = matrix_put(1, 4, false, NULL);
        float results[4];
        ck_assert_int_eq(rows_apply(device, 1, 4, applied[which], &a.view, NULL, &out.view), 0);
        ck_assert_int_eq(device_read(device, out.view.buffer, out.view.offset * sizeof(float), results, sizeof results),
                         0);
        ck_assert(isnan(results[0]) && results[1] > 0.7f && isinf(results[2]) && results[3] <= 0);
        forget();
    }
    end();
}
END_TEST

static void masked_agrees(size_t rows, size_t columns, bool wide)
{
    const float scale = 1.25f, *x = random_floats(rows * columns, 62);
    const size_t count = rows * columns, skip = wide ? 3 * sizeof(int64_t) : 3; /* no float begins there */
    const size_t room = (skip + count) * sizeof(int64_t);
    unsigned char *bytes = calloc(room, 1);
    float *expected = floats(count);
    for (size_t i = 0; i < count; i++) {
        const int64_t number = (int64_t)(i * 7 % 5) - 1;
        if (wide)
            memcpy(bytes + skip + i * sizeof number, &number, sizeof number);
        else
            bytes[skip + i] = (unsigned char)(number > 0 ? number : 0);
    }
    reference_mask(count, x, bytes + skip, wide, (double)scale, expected);
    cl_mem *buffer = &buffers[n_buffers++];
    ck_assert_int_eq(device_allocate(device, (skip + count) * sizeof(int64_t), "a test", buffer), 0);
    ck_assert_int_eq(device_write(device, *buffer, 0, bytes, (skip + count) * sizeof(int64_t)), 0);
    free(bytes);
    const struct rows_mask mask = {*buffer, skip, wide};
    for (unsigned packed = 0; packed < 4; packed++) {
        const struct matrix in = matrix_put(rows, columns, packed & 1, x);
        const struct matrix out = matrix_put(rows, columns, packed & 2, NULL);
        ck_assert_int_eq(rows_mask(device, (cl_int)rows, (cl_int)columns, scale, &in.view, &mask, &out.view), 0);
        ck_assert_int_eq(device_finish(device), 0);
        matrix_is(&out, expected, 1e-7, "mask_rows");
    }
}

START_TEST(masks_of_bools_and_of_numbers_are_the_references)
{
    begin(_i);
    for (unsigned i = 0; i < ROW_SIZES; i++) {
        for (unsigned wide = 0; wide < 2; wide++) {
            masked_agrees(row_sizes[i].rows, row_sizes[i].n, wide);
            forget();
        }
    }
    end();
}
END_TEST

/* --- affine ----------------------------------------------------------------------------------------------------------
 */

/* which: bits of what there is (a weight, a bias), and of which views are in panels. */
static void affine_agrees(size_t rows, size_t columns, size_t period, unsigned which)
{
    const size_t count = rows * columns, constants = period * columns;
    const float *x = random_floats(count, 70), *dy = random_floats(count, 71);
    const float *weight = random_floats(constants, 72), *bias = random_floats(constants, 73);
    struct reference_affine reference = {.rows = rows,
                                         .columns = columns,
                                         .period = period,
                                         .scale = -1.75,
                                         .shift = 0.5,
                                         .x = x,
                                         .weight = which & 1 ? weight : NULL,
                                         .bias = which & 2 ? bias : NULL,
                                         .y = floats(count),
                                         .grad = dy,
                                         .grad_x = floats(count),
                                         .grad_weight = floats(constants),
                                         .grad_bias = floats(constants)};
    reference_affine(&reference);
    /* Vectors are in panels, and so one behind the other. */
    const struct matrix weights = matrix_put(1, constants, true, weight), biases = matrix_put(1, constants, true, bias);
    const struct matrix xs = matrix_put(rows, columns, which & 4, x), dys = matrix_put(rows, columns, which & 8, dy);
    const struct matrix ys = matrix_put(rows, columns, which & 8, NULL);
    struct rows_affine affine = {-1.75f, 0.5f, NULL, ROWS_NONE, ROWS_NONE, (cl_int)period};
    /* One buffer has both in a server; here each call has one of them, beside a bias, or a weight, of none. */
    if (which & 1) {
        affine.constants = weights.view.buffer;
        affine.weight = weights.view.offset;
    } else if (which & 2) {
        affine.constants = biases.view.buffer;
        affine.bias = biases.view.offset;
    }
    ck_assert_int_eq(rows_affine(device, (cl_int)rows, (cl_int)columns, &affine, &xs.view, &ys.view), 0);
    ck_assert_int_eq(device_finish(device), 0);
    matrix_is(&ys, reference.y, SUPPORT_TOLERANCE, "affine_rows");
    ck_assert_int_eq(rows_affine(device, (cl_int)rows, (cl_int)columns, &affine, &xs.view, &xs.view), 0);
    ck_assert_int_eq(device_finish(device), 0);
    matrix_is(&xs, reference.y, SUPPORT_TOLERANCE, "affine_rows in place");
    if (!(which & 3))
        return;
    const struct matrix again = matrix_put(rows, columns, which & 4, x), sums = matrix_put(1, constants, true, NULL);
    struct rows_affine gradients = affine;
    gradients.constants = sums.view.buffer;
    gradients.weight = which & 1 ? sums.view.offset : ROWS_NONE;
    gradients.bias = which & 1 ? ROWS_NONE : sums.view.offset;
    float *expected = which & 1 ? reference.grad_weight : reference.grad_bias;
    const struct kernel_view nothing = {0};
    for (cl_int accumulate = 0; accumulate < 2; accumulate++) {
        ck_assert_int_eq(rows_affine_sums(device, (cl_int)rows, (cl_int)columns, accumulate, &gradients,
                                          which & 1 ? &again.view : &nothing, &dys.view),
                         0);
        ck_assert_int_eq(device_finish(device), 0);
        for (size_t c = 0; c < constants && accumulate; c++)
            expected[c] *= 2;
        matrix_is(&sums, expected, SUPPORT_TOLERANCE, "affine_sums");
    }
}

START_TEST(affine_rows_and_their_sums_are_the_references)
{
    begin(_i);
    for (unsigned i = 0; i < ROW_SIZES; i++) {
        for (unsigned which = 0; which < 3; which++) {
            affine_agrees(3 * row_sizes[i].rows, row_sizes[i].n, i % 2 ? 3 : 1, which | (i + which) % 4 << 2);
            forget();
        }
    }
    end();
}
END_TEST

/* --- numbers of 16 bits ----------------------------------------------------------------------------------------------
 */

static float short_value(uint16_t bits, bool brain)
{
    return brain ? half_float_of_bits((uint32_t)bits << 16) : half_to_float(bits);
}

static uint16_t short_of(float value, bool brain)
{
    const uint32_t bits = half_float_bits(value);
    return brain ? (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16) : half_from_float(value);
}

/* Every value there is, but NaN, by rows of all sizes; then what lies between them. */
static void shorts_agree(size_t rows, size_t columns, bool brain, unsigned first)
{
    const size_t count = rows * columns, skip = 3; /* no float begins there */
    uint16_t *bits = calloc(2 * skip + count + 1, sizeof *bits), *found = calloc(2 * skip + count + 1, sizeof *found);
    float *values = floats(count);
    for (size_t i = 0; i < count; i++) {
        const uint16_t one = (uint16_t)(first + 7 * i);
        bits[skip + i] = isfinite(short_value(one, brain)) ? one : 0;
        values[i] = short_value(bits[skip + i], brain);
    }
    cl_mem *buffer = &buffers[n_buffers++];
    const size_t bytes = (2 * skip + count + 1) / 2 * 2 * sizeof *bits; /* whole words, as memory is made */
    ck_assert_int_eq(device_allocate(device, bytes, "a test", buffer), 0);
    const struct rows_short place = {*buffer, skip * sizeof *bits, brain};
    for (unsigned packed = 0; packed < 2; packed++) {
        ck_assert_int_eq(device_write(device, *buffer, 0, bits, bytes), 0);
        const struct matrix out = matrix_put(rows, columns, packed, NULL);
        ck_assert_int_eq(rows_widen(device, (cl_int)rows, (cl_int)columns, &place, &out.view), 0);
        ck_assert_int_eq(device_finish(device), 0);
        matrix_is(&out, values, 0, "widen_rows");
        float *between = floats(count);
        for (size_t i = 0; i < count; i++) { /* a quarter, half and three quarters of the way to the next one */
            const float next = short_value((uint16_t)(bits[skip + i] + 1), brain);
            between[i] = isfinite(next) ? values[i] + (next - values[i]) * (float)(i % 4) / 4 : values[i];
        }
        const struct matrix in = matrix_put(rows, columns, packed, between);
        ck_assert_int_eq(rows_narrow(device, (cl_int)rows, (cl_int)columns, &in.view, &place), 0);
        ck_assert_int_eq(device_read(device, *buffer, 0, found, bytes), 0);
        for (size_t i = 0; i < skip; i++)
            ck_assert(found[i] == 0 && found[skip + count + i] == 0);
        for (size_t i = 0; i < count; i++)
            ck_assert_msg(found[skip + i] == short_of(between[i], brain), "%a became %x", (double)between[i],
                          found[skip + i]);
    }
    free(bits);
    free(found);
}

START_TEST(numbers_of_16_bits_are_widened_exactly_and_rounded_to_the_nearest)
{
    begin(_i);
    for (unsigned i = 0; i < 2 * ROW_SIZES; i++) {
        shorts_agree(row_sizes[i / 2].rows, row_sizes[i / 2].n, i % 2 != 0, 9377 * i);
        forget();
    }
    float odd[] = {NAN, INFINITY, -INFINITY, 3e38f, -3.4e38f};
    for (unsigned brain = 0; brain < 2; brain++) {
        uint16_t found[6];
        cl_mem *buffer = &buffers[n_buffers++];
        ck_assert_int_eq(device_allocate(device, sizeof found, "a test", buffer), 0);
        const struct matrix in = matrix_put(1, 5, false, odd);
        const struct rows_short place = {*buffer, 0, brain};
        ck_assert_int_eq(rows_narrow(device, 1, 5, &in.view, &place), 0);
        ck_assert_int_eq(device_read(device, *buffer, 0, found, sizeof found), 0);
        ck_assert(isnan(short_value(found[0], brain)));
        for (unsigned i = 1; i < 5; i++)
            ck_assert_msg(found[i] == short_of(odd[i], brain), "%a became %x", (double)odd[i], found[i]);
        forget();
    }
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

/* cpu-fp32, cpu-8-fp16, amx-emulated-bf16: so that one can be run alone (CK_RUN_CASE). */
static const char *case_name(int index)
{
    static char names[PROVIDERS][32];
    char width[16] = "";
    if (providers[index].vector_width != 0)
        snprintf(width, sizeof width, "%u-", providers[index].vector_width);
    snprintf(names[index], sizeof names[index], "%s-%s%s", providers[index].kernel,
             providers[index].vector_width == EMULATED ? "emulated-" : width, providers[index].precision);
    return names[index];
}

int main(void)
{
    Suite *suite = suite_create("kernel");
    const int count = support_device_has_clblast() ? PROVIDERS : PROVIDERS - 1;
    for (int i = 0; i < count; i++) {
        TCase *products = add_case(suite, case_name(i));
        tcase_add_loop_test(products, products_with_every_epilogue_are_the_references, i, i + 1);
        tcase_add_loop_test(products, gated_products_and_their_way_back_are_the_references, i, i + 1);
        tcase_add_loop_test(products, weight_gradients_are_the_references, i, i + 1);
    }
    TCase *rows = add_case(suite, "rows");
    tcase_add_loop_test(rows, layer_norm_is_the_references, ROWS_BEGIN, count);
    tcase_add_loop_test(rows, layer_norm_backward_and_its_sums_are_the_references, ROWS_BEGIN, count);
    tcase_add_loop_test(rows, column_sums_and_packing_are_the_references, ROWS_BEGIN, count);
    tcase_add_loop_test(rows, rms_norm_and_its_backward_are_the_references, ROWS_BEGIN, count);
    tcase_add_loop_test(rows, epilogues_without_a_product_are_the_references, ROWS_BEGIN, count);
    tcase_add_loop_test(rows, what_is_not_a_number_stays_none, ROWS_BEGIN, count);
    tcase_add_loop_test(rows, numbers_of_16_bits_are_widened_exactly_and_rounded_to_the_nearest, ROWS_BEGIN, count);
    tcase_add_loop_test(rows, masks_of_bools_and_of_numbers_are_the_references, ROWS_BEGIN, count);
    tcase_add_loop_test(rows, affine_rows_and_their_sums_are_the_references, ROWS_BEGIN, count);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
