/* The matrix units' provider, emulated on the CPU: how operands are rounded, and that products keep to the bounds that
 * runtime/compute/linear.h states. That tiles, edges and epilogues are right is test_kernel's, with the references
 * rounded. */
#include <check.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/device/device_private.h"
#include "runtime/compute/compute.h"
#include "runtime/compute/linear.h"
#include "runtime/compute/providers.h"
#include "unit/support_device.h"
#include "unit/support_reference.h"

static const char *const precisions[] = {"tf32", "fp16"};
enum { TF32, FP16, PRECISIONS };

static struct support_device support;
static struct device *device;

static void begin(int precision)
{
    char options[32];
    snprintf(options, sizeof options, "precision: %s", precisions[precision]);
    support_device_open(&support, "mma", false, options, "hidden_dim: 8");
    device = support.device;
}

static cl_mem put_bytes(const void *bytes, size_t count)
{
    cl_mem buffer = NULL;
    ck_assert_int_eq(device_allocate(device, count, "a test", &buffer), 0);
    ck_assert_int_eq(device_write(device, buffer, 0, bytes, count), 0);
    return buffer;
}

static cl_mem put(const float *values, size_t count)
{
    return put_bytes(values, count * sizeof *values);
}

static cl_mem put_weights(const float *values, size_t count)
{
    size_t bytes;
    void *weights = support_weights(device, values, count, &bytes);
    const cl_mem buffer = put_bytes(weights, bytes);
    free(weights);
    return buffer;
}

/* out[rows][n] = a[rows][k] b[k][n], all of them row-major. */
static void multiply(size_t rows, size_t n, size_t k, const float *a, bool of_gradient, const float *b, float *out)
{
    const size_t packed_floats = kernel_packed_floats(provider_shape(device), k, n);
    float *packed = malloc(packed_floats * sizeof *packed);
    support_reference_pack(k, n, provider_shape(device)->panel, b, packed);
    cl_mem left = put(a, rows * k), right = put_weights(packed, packed_floats), product = put(out, rows * n);
    const struct linear_call call = {
        .rows = (cl_int)rows,
        .n = (cl_int)n,
        .k = (cl_int)k,
        .a = kernel_view_rows(provider_shape(device), left, 0, k),
        .of_gradient = of_gradient,
        .weights = right,
        .out = kernel_view_rows(provider_shape(device), product, 0, n),
    };
    ck_assert_msg(linear_layer_forward(device, &call) == 0, "%s", device_error(device));
    ck_assert_int_eq(device_read(device, product, 0, out, rows * n * sizeof *out), 0);
    device_release(device, &left);
    device_release(device, &right);
    device_release(device, &product);
    free(packed);
}

/* Powers of 2 and halfway between what the precision holds, to both sides of it, and of both signs. */
static size_t awkward_values(float *values)
{
    static const float whole[] = {0,        -0.0f,    1,        65503,    65504,    65519,     65520,    65536,
                                  1e6f,     3e38f,    INFINITY, 0x1p-14f, 0x1p-24f, 0x1p-25f,  0x3p-26f, 0x1p-126f,
                                  0x1p-40f, 0x3p-25f, 2047.5f,  2048.5f,  2049,     0x1.ffdp0f};
    size_t count = 0;
    for (size_t i = 0; i < sizeof whole / sizeof whole[0]; i++) {
        values[count++] = whole[i];
        values[count++] = -whole[i];
    }
    for (int exponent = -16; exponent <= 15; exponent++) {
        for (unsigned last = 0; last < 4; last++) { /* 11 bits, then a half and what is just beside it */
            const float tie = ldexpf(1025.5f + (float)last, exponent);
            values[count++] = tie;
            values[count++] = nextafterf(tie, 0);
            values[count++] = -nextafterf(tie, INFINITY);
        }
    }
    return count;
}

START_TEST(operands_are_rounded_to_nearest)
{
    float values[512], expected[512], found[512];
    const float one = 1;
    begin(_i);
    const size_t count = awkward_values(values);
    ck_assert_uint_le(count, 512);
    support_round(precisions[_i], values, count, expected);
    multiply(count, 1, 1, values, false, &one, found);
    for (size_t i = 0; i < count; i++)
        ck_assert_msg(found[i] == expected[i], "%a became %a instead of %a", (double)values[i], (double)found[i],
                      (double)expected[i]);
    const float none[2] = {NAN, -NAN};
    multiply(2, 1, 1, none, false, &one, found);
    ck_assert(isnan(found[0]) && isnan(found[1]));
    support_device_close(&support);
}
END_TEST

/* The bound for each element, from the sums of magnitudes. Weights are of magnitude `scale`, too, unless the other
 * operand is gradients. */
static void bound_holds(bool fp16, size_t rows, size_t n, size_t k, float scale, bool of_gradient)
{
    const double u = 0x1p-11;
    float *a = malloc(rows * k * sizeof *a), *b = malloc(k * n * sizeof *b), *out = calloc(rows * n, sizeof *out);
    support_random(a, rows * k, 1, scale);
    support_random(b, k * n, 2, of_gradient ? 1 : scale);
    multiply(rows, n, k, a, of_gradient, b, out);
    double largest = 0;
    for (size_t at = 0; at < rows * n; at++) {
        double exact = 0, magnitude = 0, magnitudes = 0;
        for (size_t i = 0; i < k; i++) {
            const double x = (double)a[at / n * k + i], y = (double)b[i * n + at % n];
            exact += x * y;
            magnitude += fabs(x * y);
            magnitudes += fabs(x) + (of_gradient ? 0 : fabs(y));
        }
        double bound = (2 * u + u * u + (double)k * 0x1p-22) * magnitude;
        if (fp16)
            bound += 0x1p-25 * magnitudes;
        const double error = fabs((double)out[at] - exact);
        ck_assert_msg(error <= bound, "%zu of %zu x %zu x %zu: off by %g, beyond %g", at, rows, n, k, error, bound);
        largest = fmax(largest, error / bound);
    }
    ck_assert_msg(largest > 0, "nothing was rounded");
    free(a);
    free(b);
    free(out);
}

START_TEST(products_keep_to_the_stated_bound)
{
    begin(_i);
    const bool fp16 = _i == FP16;
    bound_holds(fp16, 5, 7, 1, 1, false);
    bound_holds(fp16, 17, 33, 10, 1, false);
    bound_holds(fp16, 70, 65, 100, 100, false);
    bound_holds(fp16, 9, 40, 3000, 1, false);
    bound_holds(fp16, 20, 20, 64, 1e-4f, false);
    bound_holds(fp16, 20, 20, 64, 1e-6f, false);
    support_device_close(&support);
}
END_TEST

START_TEST(products_of_gradients_keep_to_it_however_small_they_are)
{
    begin(_i);
    bound_holds(_i == FP16, 70, 65, 100, 1e-9f, true);
    bound_holds(_i == FP16, 5, 33, 40, 1e-15f, true);
    bound_holds(_i == FP16, 20, 20, 64, 1e7f, true);
    support_device_close(&support);
}
END_TEST

START_TEST(what_fp16_does_not_hold_is_infinite_and_what_tf32_holds_is_not)
{
    float a[2 * 3] = {65520, 1, 1, 65519, 1, 1}, out[2];
    const float b[3] = {1, 1, 1};
    begin(_i);
    multiply(2, 1, 3, a, false, b, out);
    ck_assert(_i == FP16 ? isinf(out[0]) : fabsf(out[0] - 65522) <= 33);
    ck_assert(fabsf(out[1] - 65521) <= 33);
    support_device_close(&support);
}
END_TEST

/* Activations beyond fp16 leave an expert as it was; gradients may be as large or as small as they like. */
static void backward_takes(int precision, float inputs_scale, float gradients_scale, bool applied)
{
    enum { HIDDEN = 40, ROWS = 3, COUNT = ROWS * HIDDEN };
    char options[32];
    snprintf(options, sizeof options, "precision: %s", precisions[precision]);
    support_device_open(&support, "mma", false, options,
                        "hidden_dim: 40, max_batch_size: 8, optimizer: sgd, learning_rate: 1");
    struct expert *expert = support_expert(&support);
    struct device_slab inputs[2] = {support_slab(COUNT), support_slab(COUNT)}, grad_inputs = support_slab(COUNT);
    struct expert_tensor tensor;
    float before[4 * HIDDEN], after[4 * HIDDEN];
    support_random(inputs[0].mapping, COUNT, 7, inputs_scale);
    support_random(inputs[1].mapping, COUNT, 8, gradients_scale);
    const unsigned bias = (unsigned)expert_tensor_find(expert, "ffn.bias");
    expert_tensor(expert, bias, &tensor);
    ck_assert_uint_eq(tensor.count, 4 * HIDDEN);
    for (unsigned i = 0; i < 4 * HIDDEN; i++)
        before[i] = 0; /* so that the smallest step shows */
    ck_assert_int_eq(expert_tensor_write(expert, bias, before), 0);
    struct expert_batch batch = {.rows = ROWS, .inputs = inputs, .outputs = &grad_inputs};
    ck_assert_int_eq(expert_backward(expert, &batch), 0);
    ck_assert_int_eq(expert_finish(expert, &batch), 0);
    ck_assert_int_eq(expert_tensor_read(expert, bias, after), 0);
    ck_assert_int_eq(batch.step == EXPERT_STEP_APPLIED, applied);
    unsigned changed = 0; /* not all: the gelu's slope may be 0 */
    for (unsigned i = 0; i < 4 * HIDDEN; i++)
        changed += after[i] != 0;
    ck_assert(applied ? changed > HIDDEN : changed == 0);
    support_slab_free(&inputs[0]);
    support_slab_free(&inputs[1]);
    support_slab_free(&grad_inputs);
    expert_destroy(&expert);
    support_device_close(&support);
}

START_TEST(a_backward_is_applied_unless_activations_are_beyond_the_precision)
{
    backward_takes(_i, 1, 1e7f, true);
    backward_takes(_i, 1, 1e-12f, true);
    backward_takes(_i, 1e6f, 1, _i == TF32);
}
END_TEST

/* What the check sees of devices that this machine has not. */
START_TEST(a_device_without_the_matrix_units_is_refused_with_the_way_out)
{
    static const char *const vendors[] = {"Advanced Micro Devices, Inc.", "Intel(R) Corporation", "NVIDIA Corporation"};
    struct config_device config;
    begin(_i);
    config = *device->config;
    for (unsigned i = 0; i < sizeof vendors / sizeof vendors[0]; i++) {
        struct device other = {.info = device->info, .config = &config, .id = device->id};
        other.info.class = DEVICE_CLASS_GPU;
        snprintf(other.info.vendor, sizeof other.info.vendor, "%s", vendors[i]);
        for (unsigned automatic = 0; automatic < 2; automatic++) {
            config.linear_kernel = automatic ? "auto" : "mma";
            ck_assert_int_eq(provider_mma.check(&other), -EINVAL);
            ck_assert_ptr_nonnull(strstr(other.error, precisions[_i]));
            ck_assert_ptr_nonnull(strstr(other.error, _i == FP16 ? "set linear_kernel: auto" : "set precision: fp32"));
            ck_assert_ptr_nonnull(strstr(other.error, "precision: fp32"));
            ck_assert_ptr_nonnull(strstr(other.error, i < 2 ? vendors[i] : "compute capability"));
        }
    }
    config.linear_kernel = "auto"; /* the emulation is only for who asks for it */
    struct device cpu = {.info = device->info, .config = &config, .id = device->id};
    ck_assert_int_eq(provider_mma.check(&cpu), -EINVAL);
    support_device_close(&support);
}
END_TEST

static const char *automatic(const char *precision, enum device_class class, const char *vendor)
{
    const struct config_device config = {.linear_kernel = "auto", .precision = precision};
    struct device other = {.config = &config, .info = device->info, .id = device->id};
    other.info.class = class;
    other.info.vector_width = 8; /* a CPU without matrix units of its own; with them: test_linear_amx.c */
    snprintf(other.info.vendor, sizeof other.info.vendor, "%s", vendor);
    const char *name = compute_find_provider(&other)->name;
    ck_assert_str_eq(other.error, "");
    return name;
}

/* Products in tf32 are theirs alone; weights in fp16 are for every device. */
START_TEST(auto_takes_the_matrix_units_where_it_must_or_where_they_are)
{
    begin(TF32);
    ck_assert_str_eq(automatic("fp32", DEVICE_CLASS_CPU, "GenuineIntel"), "cpu");
    ck_assert_str_eq(automatic("fp32", DEVICE_CLASS_GPU, "NVIDIA Corporation"), "gpu");
    ck_assert_str_eq(automatic("tf32", DEVICE_CLASS_CPU, "GenuineIntel"), "mma");
    ck_assert_str_eq(automatic("tf32", DEVICE_CLASS_GPU, "Intel(R) Corporation"), "mma");
    ck_assert_str_eq(automatic("fp16", DEVICE_CLASS_CPU, "GenuineIntel"), "cpu");
    ck_assert_str_eq(automatic("fp16", DEVICE_CLASS_GPU, "Advanced Micro Devices, Inc."), "gpu");
    ck_assert_str_eq(automatic("fp16", DEVICE_CLASS_INTEGRATED, "Intel(R) Corporation"), "gpu");
    /* Its driver does not say what it has. */
    ck_assert_str_eq(automatic("fp16", DEVICE_CLASS_GPU, "NVIDIA Corporation"), "gpu");
    struct config_device config = {.linear_kernel = "gpu", .precision = "fp16"};
    struct device asked = {.config = &config, .info = device->info, .id = device->id};
    ck_assert_ptr_eq(compute_find_provider(&asked), &provider_gpu);
    support_device_close(&support);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("linear_mma");
    tcase_set_timeout(all, 200); /* kernels are compiled at the first run */
    tcase_add_loop_test(all, operands_are_rounded_to_nearest, 0, PRECISIONS);
    tcase_add_loop_test(all, products_keep_to_the_stated_bound, 0, PRECISIONS);
    tcase_add_loop_test(all, what_fp16_does_not_hold_is_infinite_and_what_tf32_holds_is_not, 0, PRECISIONS);
    tcase_add_loop_test(all, products_of_gradients_keep_to_it_however_small_they_are, 0, PRECISIONS);
    tcase_add_loop_test(all, a_backward_is_applied_unless_activations_are_beyond_the_precision, 0, PRECISIONS);
    tcase_add_loop_test(all, a_device_without_the_matrix_units_is_refused_with_the_way_out, 0, PRECISIONS);
    tcase_add_test(all, auto_takes_the_matrix_units_where_it_must_or_where_they_are);
    Suite *suite = suite_create("linear_mma");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
