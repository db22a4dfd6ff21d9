/* What is particular to the matrix units of CPUs: numbers in planes, and which of the kernels makes a product. That
 * they compute what others do is shown where those are: test_kernel.c, test_ffn.c, test_ffn_backward.c. */
#include <check.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/compute/providers.h"
#include "runtime/device/device_private.h"
#include "runtime/compute/linear.h"
#include "runtime/compute/linear_amx.h"
#include "unit/support_device.h"

enum { WIDTH = 64, ROWS = 96 };

static struct support_device support;
static struct device *device;
static cl_mem memory;

/* As the machine has it, and emulated. */
static void begin(int emulated)
{
    support_device_open(&support, "amx", false, "", "hidden_dim: 64");
    device = support.device;
    if (emulated)
        support_device_emulate(&support);
    ck_assert_int_eq(device_allocate(device, 4 * ROWS * WIDTH * sizeof(float), "a test", &memory), 0);
}

static void end(void)
{
    device_release(device, &memory);
    support_device_close(&support);
}

/* out[rows][WIDTH] = x[rows][WIDTH] w[WIDTH][WIDTH] */
static void multiply(unsigned rows, const float *x, const float *w, float *out)
{
    const cl_ulong w_at = ROWS * WIDTH, out_at = w_at + WIDTH * WIDTH;
    const struct linear_call call = {
        .rows = (cl_int)rows,
        .n = WIDTH,
        .k = WIDTH,
        .a = kernel_view_rows(provider_shape(device), memory, 0, WIDTH),
        .weights = memory,
        .weights_offset = w_at,
        .out = kernel_view_rows(provider_shape(device), memory, out_at, WIDTH),
    };
    ck_assert_int_eq(device_write(device, memory, 0, x, rows * WIDTH * sizeof(float)), 0);
    ck_assert_int_eq(device_write(device, memory, w_at * sizeof(float), w, WIDTH * WIDTH * sizeof(float)), 0);
    ck_assert_int_eq(linear_layer_forward(device, &call), 0);
    ck_assert_int_eq(device_read(device, memory, out_at * sizeof(float), out, rows * WIDTH * sizeof(float)), 0);
}

static void scaled_identity(float w[WIDTH * WIDTH], float scale)
{
    memset(w, 0, WIDTH * WIDTH * sizeof(float));
    for (unsigned i = 0; i < WIDTH; i++)
        w[i * WIDTH + i] = scale;
}

/* All 24 bits of a number are in its planes, whatever its magnitude; and each is multiplied with every plane of the
 * other side that is not 0. */
START_TEST(a_number_times_a_power_of_two_is_exact)
{
    static float x[ROWS * WIDTH], y[ROWS * WIDTH], w[WIDTH * WIDTH];
    begin(_i % 2);
    support_random(x, ROWS * WIDTH, 1, 1);
    for (unsigned i = 0; i < ROWS * WIDTH; i++)
        x[i] = ldexpf(x[i], (int)(i % 180) - 90);
    x[7] = 0x1.fffffep+100f; /* all bits */
    x[8] = -0x1.000002p-80f; /* the first and the last */
    x[9] = 0;
    scaled_identity(w, _i / 2 ? -4.0f : 1.0f);
    multiply(ROWS, x, w, y);
    for (unsigned i = 0; i < ROWS * WIDTH; i++)
        ck_assert_msg(y[i] == (_i / 2 ? -4.0f : 1.0f) * x[i], "%a became %a", (double)x[i], (double)y[i]);
    /* The other side, too: rows of the identity take w's rows. */
    scaled_identity(y, 1);
    multiply(WIDTH, y, x, w);
    for (unsigned i = 0; i < WIDTH * WIDTH; i++)
        ck_assert_msg(w[i] == x[i], "%a of w became %a", (double)x[i], (double)w[i]);
    end();
}
END_TEST

/* What is left out of a product is less than 2^-21 of it, and the rest is sums' rounding. */
START_TEST(one_product_is_within_its_bound)
{
    static float x[ROWS * WIDTH], y[ROWS * WIDTH], w[WIDTH * WIDTH];
    begin(_i);
    support_random(x, ROWS * WIDTH, 2, 1);
    for (unsigned i = 0; i < WIDTH; i++)
        w[i * WIDTH + i] = 0x1.fffffep-1f - (float)i * 0x1p-9f;
    multiply(ROWS, x, w, y);
    for (unsigned i = 0; i < ROWS * WIDTH; i++) {
        const double exact = (double)x[i] * (double)w[i % WIDTH * (WIDTH + 1)];
        ck_assert_double_le(fabs((double)y[i] - exact), 0x1p-20 * fabs(exact));
    }
    end();
}
END_TEST

START_TEST(what_is_not_finite_stays_in_its_row)
{
    static float x[ROWS * WIDTH], y[ROWS * WIDTH], w[WIDTH * WIDTH];
    begin(_i);
    for (unsigned i = 0; i < ROWS * WIDTH; i++)
        x[i] = 1;
    x[3 * WIDTH + 5] = NAN;
    x[20 * WIDTH] = INFINITY;
    for (unsigned i = 0; i < WIDTH * WIDTH; i++)
        w[i] = 0.5f;
    multiply(ROWS, x, w, y);
    for (unsigned i = 0; i < ROWS * WIDTH; i++) {
        if (i / WIDTH == 3 || i / WIDTH == 20)
            ck_assert(!isfinite(y[i]));
        else
            ck_assert_float_eq(y[i], WIDTH / 2);
    }
    end();
}
END_TEST

/* The first rows of large and small batches, both with the units and without. */
START_TEST(a_row_does_not_depend_on_how_many_are_beside_it)
{
    static float x[ROWS * WIDTH], all[ROWS * WIDTH], some[ROWS * WIDTH], w[WIDTH * WIDTH];
    static const unsigned counts[] = {32, 33, 47, 48, 64, 95};
    begin(_i);
    support_random(x, ROWS * WIDTH, 3, 1);
    support_random(w, WIDTH * WIDTH, 4, 1);
    multiply(ROWS, x, w, all);
    for (unsigned i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        multiply(counts[i], x, w, some);
        ck_assert_msg(memcmp(some, all, counts[i] * WIDTH * sizeof(float)) == 0, "%u rows", counts[i]);
    }
    multiply(AMX_LEAST_ROWS - 1, x, w, some);
    ck_assert_double_le(support_error(some, all, (AMX_LEAST_ROWS - 1) * WIDTH), 1e-6);
    end();
}
END_TEST

/* One tile of rows has a loop of its own where weights are of 16 bits, over all of k: as many steps as do not lie in
 * one block, and a tail. */
START_TEST(a_tile_of_rows_alone_is_as_it_is_among_others)
{
    enum { DEEP = 1101 };
    static float x[ROWS * DEEP], all[ROWS * WIDTH], some[ROWS * WIDTH], plain[DEEP * WIDTH];
    static uint16_t w[DEEP * WIDTH];
    static const unsigned counts[] = {AMX_LEAST_BFLOAT_ROWS, 15, 16, 17, 32};
    support_device_open(&support, "amx", false, "precision: bf16", "hidden_dim: 64");
    device = support.device;
    if (_i)
        support_device_emulate(&support);
    const struct kernel_shape *shape = provider_shape(device);
    const cl_ulong w_at = ROWS * DEEP, out_at = w_at + DEEP * WIDTH;
    ck_assert_int_eq(device_allocate(device, (out_at + ROWS * WIDTH) * sizeof(float), "a test", &memory), 0);
    support_random(x, ROWS * DEEP, 6, 1);
    support_random(plain, DEEP * WIDTH, 7, 1);
    for (unsigned i = 0; i < DEEP * WIDTH; i++)
        w[i] = kernel_weight_from_float(shape, plain[i]);
    ck_assert_int_eq(device_write(device, memory, 0, x, sizeof x), 0);
    ck_assert_int_eq(device_write(device, memory, w_at * sizeof(float), w, sizeof w), 0);
    struct linear_call call = {
        .rows = ROWS,
        .n = WIDTH,
        .k = DEEP,
        .a = kernel_view_rows(shape, memory, 0, DEEP),
        .weights = memory,
        .weights_offset = w_at * sizeof(float) / sizeof w[0],
        .out = kernel_view_rows(shape, memory, out_at, WIDTH),
    };
    ck_assert_int_eq(linear_layer_forward(device, &call), 0);
    ck_assert_int_eq(device_read(device, memory, out_at * sizeof(float), all, sizeof all), 0);
    for (unsigned row = 0; row < ROWS; row += ROWS - 1) {
        double exact = 0;
        for (unsigned i = 0; i < DEEP; i++)
            exact += (double)x[row * DEEP + i] * (double)kernel_weight_to_float(shape, w[i * WIDTH + row % WIDTH]);
        ck_assert_double_le(fabs((double)all[row * WIDTH + row % WIDTH] - exact), 1e-3);
    }
    for (unsigned i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        call.rows = (cl_int)counts[i];
        ck_assert_int_eq(linear_layer_forward(device, &call), 0);
        ck_assert_int_eq(device_read(device, memory, out_at * sizeof(float), some, counts[i] * WIDTH * sizeof(float)),
                         0);
        ck_assert_msg(memcmp(some, all, counts[i] * WIDTH * sizeof(float)) == 0, "%u rows", counts[i]);
    }
    end();
}
END_TEST

/* Weights of 16 bits have fewer planes, of which none is left out: each number of x times one of them, from one tile of
 * rows on, and as many rows as there are. */
START_TEST(weights_of_sixteen_bits_lose_nothing)
{
    static float x[ROWS * WIDTH], y[ROWS * WIDTH];
    static uint16_t w[WIDTH * WIDTH];
    static const unsigned counts[] = {AMX_LEAST_BFLOAT_ROWS, 16, 31, 32, 49, ROWS};
    const bool bfloat = _i / 2;
    support_device_open(&support, "amx", false, bfloat ? "precision: bf16" : "precision: fp16", "hidden_dim: 64");
    device = support.device;
    if (_i % 2)
        support_device_emulate(&support);
    const struct kernel_shape *shape = provider_shape(device);
    ck_assert_int_eq(device->compute->amx->least_rows, bfloat ? AMX_LEAST_BFLOAT_ROWS : AMX_LEAST_ROWS);
    ck_assert_int_eq(device_allocate(device, 4 * ROWS * WIDTH * sizeof(float), "a test", &memory), 0);
    support_random(x, ROWS * WIDTH, 5, 1);
    memset(w, 0, sizeof w);
    for (unsigned i = 0; i < WIDTH; i++)
        w[i * WIDTH + (i + 1) % WIDTH] = kernel_weight_from_float(shape, 0x1.fffp-1f - (float)i * 0x1.8p-8f);
    const cl_ulong w_at = ROWS * WIDTH, out_at = w_at + WIDTH * WIDTH;
    ck_assert_int_eq(device_write(device, memory, 0, x, sizeof x), 0);
    ck_assert_int_eq(device_write(device, memory, w_at * sizeof(float), w, sizeof w), 0);
    for (unsigned c = 0; c < sizeof counts / sizeof counts[0]; c++) {
        const struct linear_call call = {
            .rows = (cl_int)counts[c],
            .n = WIDTH,
            .k = WIDTH,
            .a = kernel_view_rows(shape, memory, 0, WIDTH),
            .weights = memory,
            .weights_offset = w_at * sizeof(float) / sizeof w[0],
            .out = kernel_view_rows(shape, memory, out_at, WIDTH),
        };
        ck_assert_int_eq(linear_layer_forward(device, &call), 0);
        ck_assert_int_eq(device_read(device, memory, out_at * sizeof(float), y, counts[c] * WIDTH * sizeof(float)), 0);
        for (unsigned i = 0; i < counts[c] * WIDTH; i++) {
            const unsigned column = (i + 1) % WIDTH;
            const double exact = (double)x[i] * (double)kernel_weight_to_float(shape, w[i % WIDTH * WIDTH + column]);
            ck_assert_double_le(fabs((double)y[i / WIDTH * WIDTH + column] - exact), 0x1p-22 * fabs(exact));
        }
    }
    end();
}
END_TEST

/* The device opens in any case, and measures whether it uses the units, but not from how many rows on. */
START_TEST(auto_takes_them_where_there_are_any_and_measures)
{
    static const char *const options[] = {"", "tune: off", "precision: bf16", "precision: bf16, tune: off"};
    support_device_open(&support, "auto", false, options[_i], "hidden_dim: 64, max_batch_size: 512");
    device = support.device;
    if (!linear_amx_usable()) {
        ck_assert_str_eq(provider_name(device), "cpu");
        support_device_close(&support);
        return;
    }
    ck_assert_str_eq(provider_name(device), "amx");
    ck_assert_int_eq(device->compute->amx->undecided, !(_i % 2));
    struct expert *expert = support_expert(&support);
    ck_assert(!device->compute->amx->undecided);
    const uint64_t least = device->compute->amx->least_rows, rule = _i / 2 ? AMX_LEAST_BFLOAT_ROWS : AMX_RULE_ROWS;
    ck_assert(least == rule || (!(_i % 2) && least == UINT64_MAX));
    expert_destroy(&expert);
    support_device_close(&support);
}
END_TEST

START_TEST(devices_that_are_no_cpus_are_refused)
{
    struct config_device config = {.name = "gpu0", .linear_kernel = "amx", .precision = "fp32"};
    struct compute compute = {.provider = &provider_amx};
    struct device gpu = {.config = &config, .info.class = DEVICE_CLASS_GPU, .compute = &compute};
    ck_assert_int_eq(provider_amx.check(&gpu), -EINVAL);
    ck_assert_ptr_nonnull(strstr(gpu.error, "linear_kernel: auto"));
    ck_assert_ptr_null(compute.amx);
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("linear_amx");
    tcase_set_timeout(all, 200); /* kernels are compiled at the first run */
    tcase_add_loop_test(all, a_number_times_a_power_of_two_is_exact, 0, 4);
    tcase_add_loop_test(all, one_product_is_within_its_bound, 0, 2);
    tcase_add_loop_test(all, weights_of_sixteen_bits_lose_nothing, 0, 4);
    tcase_add_loop_test(all, a_tile_of_rows_alone_is_as_it_is_among_others, 0, 2);
    tcase_add_loop_test(all, what_is_not_finite_stays_in_its_row, 0, 2);
    tcase_add_loop_test(all, a_row_does_not_depend_on_how_many_are_beside_it, 0, 2);
    tcase_add_loop_test(all, auto_takes_them_where_there_are_any_and_measures, 0, 4);
    tcase_add_test(all, devices_that_are_no_cpus_are_refused);
    Suite *suite = suite_create("linear_amx");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
