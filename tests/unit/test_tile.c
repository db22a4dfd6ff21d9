/* Each tile of the GPU's products against the plain C reference, at sizes that it does not divide; and all of them bit
 * by bit alike, as a batch's tile may not change a row's answer. */
// timeout: 3000 (at the first run PoCL compiles for more than a minute)
#include <check.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/compute/provider.h"
#include "runtime/compute/tuner.h"
#include "unit/support_device.h"
#include "unit/support_reference.h"

static struct support_device support;
static struct device *device;

/* Providers that have tiles, what they multiply, and how many of the tiles that are looked at they can be built for.
 * Where weights are halves, which is one and the same load in each tile, that is every third: PoCL compiles a tile for
 * seconds. */
static const struct {
    const char *kernel, *precision;
    unsigned tiles, step;
} providers[] = {
    {"gpu", "fp32", TILE_COUNT, 1}, {"gpu", "fp16", 6, 3}, {"mma", "tf32", TILE_COUNT - 3, 1}, {"mma", "fp16", 4, 3}};
enum { PROVIDERS = sizeof providers / sizeof providers[0] };

static void begin(int provider)
{
    char options[64];
    snprintf(options, sizeof options, "tune: off, precision: %s", providers[provider].precision);
    support_device_open(&support, providers[provider].kernel, false, options, "hidden_dim: 8");
    device = support.device;
}

START_TEST(names_say_what_tiles_are_and_find_them)
{
    for (unsigned i = 0; i < TILE_COUNT; i++) {
        const struct tile *tile = &tile_list[i];
        char name[64];
        snprintf(name, sizeof name, "%ux%u-%ux%u-%u-%u", tile->rows, tile->columns, tile->row_sums, tile->column_sums,
                 tile->slab, tile->stages);
        ck_assert_str_eq(tile->name, name);
        ck_assert_int_eq(tile_find(name, strlen(name)), (int)i);
        ck_assert_int_eq(tile_find(name, strlen(name) - 1), -ENOENT);
    }
    ck_assert_int_eq(tile_find("", 0), -ENOENT);
}
END_TEST

/* The kernels move groups of four, and every OpenCL 1.2 device has 32 KiB of local memory. */
START_TEST(every_tile_is_one_that_the_kernels_can_be)
{
    for (unsigned i = 0; i < TILE_COUNT; i++) {
        const struct tile *tile = &tile_list[i];
        ck_assert_uint_eq(tile->rows % 4, 0);
        ck_assert_uint_eq(tile->columns % 4, 0);
        ck_assert_uint_eq(tile->slab % 4, 0);
        ck_assert_uint_eq(tile->column_sums % 4, 0);
        ck_assert_uint_eq(tile->rows % tile->row_sums, 0);
        ck_assert_uint_eq(tile->columns % tile->column_sums, 0);
        ck_assert(tile->stages == 1 || tile->stages == 2);
        ck_assert_uint_le(tile_group(tile), 256);
        ck_assert(tile_local_bytes(tile) <= 32768 || i >= 3);
        ck_assert_uint_le(tile_local_bytes(tile), 48 * 1024);
    }
}
END_TEST

START_TEST(each_class_of_rows_has_candidates_of_its_size)
{
    static const uint64_t rows[] = {1, 16, 64, 256, 1024, 100000};
    for (unsigned r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        unsigned count = 0;
        for (unsigned i = 0; i < TILE_COUNT; i++)
            count += tile_suits(&tile_list[i], rows[r]);
        ck_assert_uint_ge(count, 3);
    }
    ck_assert(!tile_suits(&tile_list[TILE_LARGE], 16));
    ck_assert(!tile_suits(&tile_list[TILE_FEW_ROWS], 1024));
}
END_TEST

START_TEST(the_rule_takes_larger_tiles_only_where_each_unit_gets_one)
{
    const struct device_info small = {.compute_units = 1}, large = {.compute_units = 128}, odd = {.compute_units = 125};
    ck_assert_uint_eq(tile_rule(&small, 1, 4096), TILE_FEW_ROWS);
    ck_assert_uint_eq(tile_rule(&small, 64, 4096), TILE_OF_PROGRAM);
    ck_assert_uint_eq(tile_rule(&small, 128, 4096), TILE_LARGE);
    ck_assert_uint_eq(tile_rule(&large, 128, 4096), TILE_OF_PROGRAM);
    ck_assert_uint_eq(tile_rule(&large, 1024, 4096), TILE_LARGE);
    ck_assert_uint_eq(tile_rule(&large, 64, 1024), TILE_FEW_ROWS);
    /* As many as there are units, and one less. */
    ck_assert_uint_eq(tile_rule(&large, 512, 4096), TILE_LARGE);
    ck_assert_uint_eq(tile_rule(&odd, 512, 3968), TILE_OF_PROGRAM);
}
END_TEST

/* --- results ------------------------------------------------------------------------------------------------------ */

enum { ROWS = 137, N = 201, K = 75, MOST = ROWS * 224 };

/* Operands, also in panels of 32, one behind the other in a buffer, then the output, and what is
 * saved; the weights in a buffer of their own. */
struct operands {
    float *a, *b, *bias, *second;
    cl_mem buffer, weights;
    uint64_t a_at, bias_at, second_at, out_at, save_at, floats;
};

static float *random_packed(size_t rows, size_t columns, unsigned stream, float **packed)
{
    float *plain = malloc(rows * columns * sizeof *plain);
    *packed = calloc(kernel_packed_floats(provider_shape(device), rows, columns), sizeof **packed);
    support_random(plain, rows * columns, stream, 1);
    support_reference_pack(rows, columns, provider_shape(device)->panel, plain, *packed);
    return plain;
}

static float *put(uint64_t at, cl_mem buffer, size_t rows, size_t columns, unsigned stream)
{
    float *packed, *plain = random_packed(rows, columns, stream, &packed);
    const size_t bytes = kernel_packed_floats(provider_shape(device), rows, columns) * sizeof *packed;
    ck_assert_int_eq(device_write(device, buffer, at * sizeof(float), packed, bytes), 0);
    free(packed);
    return plain;
}

static float *put_weights(cl_mem *buffer, size_t rows, size_t columns, unsigned stream)
{
    float *packed, *plain = random_packed(rows, columns, stream, &packed);
    size_t bytes;
    void *weights =
        support_weights(device, packed, kernel_packed_floats(provider_shape(device), rows, columns), &bytes);
    ck_assert_int_eq(device_allocate(device, bytes, "a test", buffer), 0);
    ck_assert_int_eq(device_write(device, *buffer, 0, weights, bytes), 0);
    free(weights);
    free(packed);
    return plain;
}

static void operands_make(struct operands *o)
{
    const struct kernel_shape *shape = provider_shape(device);
    o->a_at = 0;
    o->bias_at = o->a_at + kernel_packed_floats(shape, ROWS, K);
    o->second_at = o->bias_at + kernel_packed_floats(shape, 1, N);
    o->out_at = o->second_at + kernel_packed_floats(shape, ROWS, N);
    o->save_at = o->out_at + MOST;
    o->floats = o->save_at + MOST;
    ck_assert_int_eq(device_allocate(device, o->floats * sizeof(float), "a test", &o->buffer), 0);
    o->a = put(o->a_at, o->buffer, ROWS, K, 10);
    o->b = put_weights(&o->weights, K, N, 11);
    o->bias = put(o->bias_at, o->buffer, 1, N, 12);
    o->second = put(o->second_at, o->buffer, ROWS, N, 13);
}

static void operands_free(struct operands *o)
{
    device_release(device, &o->buffer);
    device_release(device, &o->weights);
    free(o->a);
    free(o->b);
    free(o->bias);
    free(o->second);
}

/* The first `rows` of the product with its epilogue, in panels or row-major. */
static void product(const struct operands *o, int tile, unsigned rows, bool out_rows, float *out)
{
    const struct kernel_shape *shape = provider_shape(device);
    struct kernel_view a = kernel_view_packed(shape, o->buffer, o->a_at, ROWS);
    struct kernel_view second = kernel_view_packed(shape, o->buffer, o->second_at, ROWS);
    const struct linear_call call = {
        .rows = (cl_int)rows,
        .n = N,
        .k = K,
        .flags = LINEAR_BIAS | LINEAR_GELU | LINEAR_ADD,
        .a = a,
        .weights = o->weights,
        .out = out_rows ? kernel_view_rows(shape, o->buffer, o->out_at, N)
                        : kernel_view_packed(shape, o->buffer, o->out_at, rows),
        .bias = o->buffer,
        .bias_offset = o->bias_at,
        .second = second,
    };
    static float result[MOST];
    device->compute->tuner->forced = tile;
    ck_assert_msg(linear_layer_forward(device, &call) == 0, "%s", device_error(device));
    device->compute->tuner->forced = TUNING_NONE;
    ck_assert_int_eq(device_read(device, o->buffer, o->out_at * sizeof(float), result, sizeof result), 0);
    if (out_rows)
        memcpy(out, result, (size_t)rows * N * sizeof *out);
    else
        support_reference_unpack(rows, N, shape->panel, result, out);
}

static void gradient(const struct operands *o, int tile, float *out)
{
    static float result[MOST];
    struct linear_gradient_call call = {
        .rows = ROWS,
        .n = N,
        .k = K,
        .x = o->buffer,
        .dy = o->buffer,
        .dw = o->buffer,
        .x_offset = o->a_at,
        .dy_offset = o->second_at,
        .dw_offset = o->out_at,
    };
    device->compute->tuner->forced = tile;
    for (call.accumulate = 0; call.accumulate < 2; call.accumulate++)
        ck_assert_msg(linear_layer_gradient(device, &call) == 0, "%s", device_error(device));
    device->compute->tuner->forced = TUNING_NONE;
    ck_assert_int_eq(device_read(device, o->buffer, o->out_at * sizeof(float), result, sizeof result), 0);
    support_reference_unpack(K, N, provider_shape(device)->panel, result, out);
}

static void products_agree(const struct operands *o, int tile, const float *reference, float *first, float *values)
{
    static const unsigned rows[] = {ROWS, 65, 17, 3, 1};
    for (unsigned i = 0; i < 2 * sizeof rows / sizeof rows[0]; i++) {
        const unsigned count = rows[i / 2];
        product(o, tile, count, i % 2, values);
        ck_assert_msg(support_error(values, reference, (size_t)count * N) <= SUPPORT_TOLERANCE, "%s, %u rows",
                      tile_list[tile].name, count);
        if (tile == 0 && i == 0)
            memcpy(first, values, ROWS * N * sizeof *values);
        ck_assert_msg(memcmp(values, first, (size_t)count * N * sizeof *values) == 0,
                      "%s, %u rows: not bit by bit the first tile's", tile_list[tile].name, count);
    }
}

/* Both kinds of product, their operands rounded as the provider does. */
static void references(const struct operands *o, int provider, float *out, float *dw)
{
    static float a[ROWS * K], b[K * N], dy[ROWS * N];
    const char *kernel = providers[provider].kernel, *precision = providers[provider].precision;
    support_round_operand(kernel, precision, SUPPORT_ACTIVATION, o->a, ROWS * K, a);
    support_round_operand(kernel, precision, SUPPORT_WEIGHT, o->b, K * N, b);
    const struct reference_product expected = {
        .rows = ROWS,
        .n = N,
        .k = K,
        .flags = LINEAR_BIAS | LINEAR_GELU | LINEAR_ADD,
        .a = a,
        .b = b,
        .bias = o->bias,
        .second = o->second,
        .out = out,
    };
    reference_product(&expected);
    support_round_operand(kernel, precision, SUPPORT_OF_GRADIENT, o->a, ROWS * K, a);
    support_round_operand(kernel, precision, SUPPORT_OF_GRADIENT, o->second, ROWS * N, dy);
    reference_gradient(ROWS, N, K, a, dy, false, dw);
    reference_gradient(ROWS, N, K, a, dy, true, dw);
}

START_TEST(all_tiles_give_the_references_results_and_the_same_bits)
{
    static float reference[MOST], first[MOST], values[MOST], reference_w[K * N], first_w[K * N], values_w[K * N];
    struct operands o;
    unsigned built = 0;
    begin(_i);
    operands_make(&o);
    references(&o, _i, reference, reference_w);
    for (int tile = 0; tile < TILE_COUNT; tile += (int)providers[_i].step) {
        const int result = tile_build(&device->compute->tuner->kernels, device, (unsigned)tile);
        if (result == -ENOTSUP)
            continue;
        ck_assert_msg(result == 0, "%s", device_error(device));
        built++;
        products_agree(&o, tile, reference, first, values);
        gradient(&o, tile, values_w);
        ck_assert_msg(support_error(values_w, reference_w, K * N) <= SUPPORT_TOLERANCE, "%s", tile_list[tile].name);
        if (tile == 0)
            memcpy(first_w, values_w, sizeof first_w);
        ck_assert_msg(memcmp(values_w, first_w, sizeof first_w) == 0, "%s: other bits", tile_list[tile].name);
    }
    ck_assert_uint_eq(built, providers[_i].tiles);
    operands_free(&o);
    support_device_close(&support);
}
END_TEST

START_TEST(a_tile_that_the_device_has_no_room_for_is_refused_once_and_for_all)
{
    begin(_i);
    struct tile_kernels kernels = {0};
    const uint64_t bytes = device->info.local_memory_bytes;
    device->info.local_memory_bytes = 16384;
    ck_assert_int_eq(tile_build(&kernels, device, TILE_LARGE), -ENOTSUP);
    ck_assert(!tile_is_built(&kernels, TILE_LARGE));
    device->info.local_memory_bytes = bytes;
    ck_assert_int_eq(tile_build(&kernels, device, TILE_LARGE), -ENOTSUP);
    ck_assert_int_eq(tile_build(&kernels, device, TILE_OF_PROGRAM), 0);
    tile_release(&kernels);
    support_device_close(&support);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tile");
    TCase *rules = tcase_create("rules"), *kernels = tcase_create("kernels");
    suite_add_tcase(suite, rules);
    suite_add_tcase(suite, kernels);
    tcase_set_timeout(kernels, 380); /* they are compiled at the first run */
    tcase_add_test(rules, names_say_what_tiles_are_and_find_them);
    tcase_add_test(rules, every_tile_is_one_that_the_kernels_can_be);
    tcase_add_test(rules, each_class_of_rows_has_candidates_of_its_size);
    tcase_add_test(rules, the_rule_takes_larger_tiles_only_where_each_unit_gets_one);
    tcase_add_loop_test(kernels, all_tiles_give_the_references_results_and_the_same_bits, 0, PROVIDERS);
    tcase_add_loop_test(kernels, a_tile_that_the_device_has_no_room_for_is_refused_once_and_for_all, 0, PROVIDERS);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
