/* Matrices on a device of each provider, between guards of NaN, for tests that call kernels. */
#ifndef EXPERTD_TESTS_MATRICES_WORLD_H
#define EXPERTD_TESTS_MATRICES_WORLD_H

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/device/device_private.h"
#include "runtime/compute/provider.h"
#include "unit/support_device.h"
#include "unit/support_reference.h"

static const struct {
    const char *kernel;
    unsigned vector_width; /* 0: the device's own */
    const char *options;
} providers[] = {{"cpu", 0, ""},
                 {"cpu", 8, ""},
                 {"cpu", 4, ""},
                 {"amx", 0, ""},
                 {"gpu", 0, ""},
                 {"mma", 0, "precision: tf32"},
                 {"cpu", 0, "precision: fp16"},
                 {"clblast", 0, ""}};
enum { PROVIDERS = sizeof providers / sizeof providers[0], GUARD = 1000, BUFFERS = 64 };

static struct support_device support;
static struct device *device;
static cl_mem buffers[BUFFERS];
static unsigned n_buffers;

__attribute__((unused)) static void begin(int index)
{
    support_device_open(&support, providers[index].kernel, false, providers[index].options, "hidden_dim: 8");
    if (providers[index].vector_width != 0)
        support_device_narrow(&support, providers[index].vector_width);
    device = support.device;
}

static void forget(void)
{
    while (n_buffers > 0)
        device_release(device, &buffers[--n_buffers]);
}

static void end(void)
{
    forget();
    support_device_close(&support);
}

static cl_mem put(const void *from, size_t bytes)
{
    ck_assert_uint_lt(n_buffers, BUFFERS);
    cl_mem *buffer = &buffers[n_buffers++];
    ck_assert_int_eq(device_allocate(device, (bytes + 3) & ~(size_t)3, "a test", buffer), 0);
    ck_assert_int_eq(device_write(device, *buffer, 0, from, bytes), 0);
    return *buffer;
}

/* A matrix between guards; plain NULL: of NaN. */
static struct kernel_view matrix(size_t rows, size_t columns, bool packed, const float *plain)
{
    const struct kernel_shape *shape = provider_shape(device);
    const size_t count = packed ? kernel_packed_floats(shape, rows, columns) : rows * columns;
    float *all = malloc((count + 2 * GUARD) * sizeof *all);
    for (size_t i = 0; i < count + 2 * GUARD; i++)
        all[i] = NAN;
    if (plain != NULL && packed)
        support_reference_pack(rows, columns, shape->panel, plain, all + GUARD);
    else if (plain != NULL)
        memcpy(all + GUARD, plain, count * sizeof *all);
    const cl_mem buffer = put(all, (count + 2 * GUARD) * sizeof *all);
    free(all);
    return packed ? kernel_view_packed(shape, buffer, GUARD, rows) : kernel_view_rows(shape, buffer, GUARD, columns);
}

/* The matrix, when its guards and pads are as they should. */
static float *take(const struct kernel_view *view, size_t rows, size_t columns)
{
    const struct kernel_shape *shape = provider_shape(device);
    const size_t count = view->rows ? rows * columns : kernel_packed_floats(shape, rows, columns);
    float *all = malloc((count + 2 * GUARD) * sizeof *all), *plain = malloc(rows * columns * sizeof *plain);
    ck_assert_int_eq(device_read(device, view->buffer, 0, all, (count + 2 * GUARD) * sizeof *all), 0);
    for (size_t i = 0; i < GUARD; i++)
        ck_assert_msg(isnan(all[i]) && isnan(all[GUARD + count + i]), "written outside of its rows");
    if (view->rows) {
        memcpy(plain, all + GUARD, rows * columns * sizeof *plain);
    } else {
        float *again = malloc(count * sizeof *again);
        support_reference_unpack(rows, columns, shape->panel, all + GUARD, plain);
        support_reference_pack(rows, columns, shape->panel, plain, again);
        for (size_t i = 0; i < count; i++)
            ck_assert_msg(again[i] == all[GUARD + i] || isnan(again[i]), "a pad column is not 0");
        free(again);
    }
    free(all);
    return plain;
}

__attribute__((unused)) static void is(const struct kernel_view *view, size_t rows, size_t columns,
                                       const float *expected, const char *what)
{
    float *found = take(view, rows, columns);
    const double error = support_error(found, expected, rows * columns);
    ck_assert_msg(error <= SUPPORT_TOLERANCE, "%s: error %g", what, error);
    free(found);
}

static float *random_values(size_t count, unsigned stream)
{
    float *values = malloc(count * sizeof *values);
    support_random(values, count, stream, 2);
    return values;
}

#endif
