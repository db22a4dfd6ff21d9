// timeout: 600 (at the first run PoCL compiles for minutes)
/* Products that are launched together, beside each by itself: bit for bit the same, on each provider of CPU devices. */
#include <stdio.h>

#include "runtime/compute/linear.h"
#include "runtime/compute/linear_group.h"
#include "unit/matrices_world.h"

/* A panel and a part of each size; `gated`: results of pairs. */
struct product {
    const char *what;
    unsigned flags;
    int n, k;
};
static const struct product products[] = {
    {"plain", 0, 200, 130},
    {"bias and activation", LINEAR_BIAS | LINEAR_GELU, 64, 65},
    {"a second operand", LINEAR_BIAS | LINEAR_ADD, 33, 70},
    {"gated", LINEAR_GATED | LINEAR_SILU, 256, 1100},
    {"gated, with bias", LINEAR_GATED | LINEAR_BIAS | LINEAR_SILU, 128, 40},
};
enum { PRODUCTS = sizeof products / sizeof products[0], MOST_ROWS = 40 };
static const int rows_of[LINEAR_GROUP] = {1, 6, 7, MOST_ROWS, 2, 18, 1, 13};

/* Of weights in few bits, codes and scales: a scale of mxfp4 is a power of two, and of int8 it is a half, small enough
 * that gates of whole codes are no zeros. */
static unsigned byte_of_few_bits(void)
{
    const char *precision = device->config->precision;
    return strcmp(precision, "mxfp4") == 0 ? 0x7a : strcmp(precision, "int8") == 0 ? 0x1c : 0x2c;
}

/* Bits that are numbers whatever weights are, and not the same from one to the next. */
static cl_mem put_weights(int n, int k, unsigned stream)
{
    const struct kernel_shape *shape = provider_shape(device);
    const uint64_t count = kernel_weights(shape, (uint64_t)k, (uint64_t)n, false);
    const size_t bytes = count * shape->weight_bytes;
    unsigned char *memory = calloc(1, bytes);
    float *values = random_values(count, stream);
    for (uint64_t i = 0; i < count; i++) {
        if (shape->weight_bytes == sizeof(float))
            ((float *)(void *)memory)[i] = values[i];
        else if (shape->weight_bytes == sizeof(uint16_t))
            ((uint16_t *)(void *)memory)[i] = kernel_weight_from_float(shape, values[i]);
        else
            memory[i] = (unsigned char)(byte_of_few_bits() + i * stream % 2);
    }
    const cl_mem buffer = put(memory, bytes);
    free(memory);
    free(values);
    return buffer;
}

struct member {
    struct linear_call together, alone;
    float *out;
};

static void make_member(struct member *member, const struct product *product, int rows, unsigned stream)
{
    const size_t count = (size_t)rows, n = (size_t)product->n, k = (size_t)product->k;
    const bool gated = (product->flags & LINEAR_GATED) != 0;
    const size_t columns = gated ? n / 2 - 5 : n;
    const uint64_t padded = kernel_packed_floats(provider_shape(device), 1, n);
    float *x = random_values(count * k, stream), *second = random_values(count * n, stream + 1),
          *bias = random_values(padded, stream + 2);
    struct linear_call call = {
        .rows = rows,
        .n = product->n,
        .k = product->k,
        .flags = product->flags,
        .a = matrix(count, k, false, x),
        .weights = put_weights(product->n, product->k, stream + 3),
        .bias = product->flags & LINEAR_BIAS ? put(bias, padded * sizeof *bias) : NULL,
        .gate = {INFINITY, 1, 0},
    };
    if (product->flags & LINEAR_TAKES_SECOND)
        call.second = matrix(count, n, false, second);
    if (gated)
        call.save = matrix(count, n, true, NULL).buffer;
    call.save_offset = GUARD;
    member->together = member->alone = call;
    member->together.out = matrix(count, columns, false, NULL);
    member->alone.out = matrix(count, columns, false, NULL);
    free(x);
    free(second);
    free(bias);
}

static void is_alike(const struct member *member, const char *what)
{
    const size_t rows = (size_t)member->alone.rows, columns = (size_t)member->alone.out.row_stride;
    float *together = take(&member->together.out, rows, columns), *alone = take(&member->alone.out, rows, columns);
    size_t numbers = 0;
    for (size_t i = 0; i < rows * columns; i++) {
        uint32_t bits[2];
        memcpy(&bits[0], &together[i], sizeof bits[0]);
        memcpy(&bits[1], &alone[i], sizeof bits[1]);
        numbers += !isnan(alone[i]) && alone[i] != 0.0f;
        ck_assert_msg(bits[0] == bits[1], "%s, %zu rows: %g is not %g at %zu", what, rows, (double)together[i],
                      (double)alone[i], i);
    }
    ck_assert_msg(numbers > 0, "%s: nothing was computed", what);
    free(together);
    free(alone);
}

static const struct {
    const char *kernel, *options;
    unsigned vector_width;
} worlds[] = {
    {"cpu", "", 0},
    {"cpu", "", 8},
    {"amx", "", 0},
    {"amx", "precision: bf16", 0},
    {"cpu", "precision: fp16", 0},
    {"cpu", "precision: bf16", 0},
    {"cpu", "precision: int8", 0},
    {"cpu", "precision: int4", 0},
    {"cpu", "precision: fp8", 0},
    {"cpu", "precision: mxfp4", 0},
};
enum { WORLDS = sizeof worlds / sizeof worlds[0] };

static void open_world(int index)
{
    support_device_open(&support, worlds[index].kernel, false, worlds[index].options, "hidden_dim: 8, optimizer: none");
    if (worlds[index].vector_width != 0)
        support_device_narrow(&support, worlds[index].vector_width);
    device = support.device;
}

START_TEST(a_product_of_a_group_is_what_it_is_alone)
{
    open_world(_i);
    ck_assert_msg(linear_layer_groups(device), "this driver should do groups");
    for (unsigned p = 0; p < PRODUCTS; p++) {
        struct member members[LINEAR_GROUP];
        struct linear_call calls[LINEAR_GROUP];
        for (unsigned i = 0; i < LINEAR_GROUP; i++) {
            make_member(&members[i], &products[p], rows_of[i], 100 * p + 10 * i);
            calls[i] = members[i].together;
        }
        ck_assert_int_eq(linear_layer_group(device, calls, LINEAR_GROUP), 0);
        for (unsigned i = 0; i < LINEAR_GROUP; i++) {
            ck_assert_int_eq(linear_layer_forward(device, &members[i].alone), 0);
            is_alike(&members[i], products[p].what);
        }
        forget();
    }
    end();
}
END_TEST

/* Many rows, and matrices in panels, are launched by themselves. */
START_TEST(what_the_kernel_is_not_for_is_computed_all_the_same)
{
    static const struct product product = {"in panels, and many rows", 0, 70, 66};
    open_world(0);
    struct member members[3];
    struct linear_call calls[3];
    for (unsigned i = 0; i < 3; i++) {
        make_member(&members[i], &product, i == 1 ? LINEAR_GROUP_ROWS + 5 : 4, i * 10);
        if (i == 2) {
            float *x = random_values(4 * 66, 99);
            members[i].together.a = members[i].alone.a = matrix(4, 66, true, x);
            free(x);
        }
        calls[i] = members[i].together;
    }
    ck_assert_int_eq(linear_layer_group(device, calls, 3), 0);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_int_eq(linear_layer_forward(device, &members[i].alone), 0);
        is_alike(&members[i], product.what);
    }
    end();
}
END_TEST

int main(void)
{
    TCase *all = tcase_create("linear_group");
    tcase_set_timeout(all, 300);
    tcase_add_loop_test(all, a_product_of_a_group_is_what_it_is_alone, 0, WORLDS);
    tcase_add_test(all, what_the_kernel_is_not_for_is_computed_all_the_same);
    Suite *suite = suite_create("linear_group");
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
