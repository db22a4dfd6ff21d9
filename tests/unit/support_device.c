#include "unit/support_device.h"

#include <check.h>
#include <dlfcn.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/half.h"
#include "runtime/compute/compute.h"
#include "runtime/compute/kernel_program.h"
#include "runtime/compute/linear_amx.h"
#include "runtime/compute/providers.h"
#include "runtime/device/device_private.h"
#include "runtime/train/parameters.h"

static bool opened;

/* What LeakSanitizer asks before it looks for leaks at the end. Where PoCL has just compiled a kernel, its look at the
 * threads that did it may crash, and the test would seem to fail; so it looks only where no device was opened. */
__attribute__((visibility("default"))) int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
    return opened;
}

const char *support_device_cache(void)
{
    const char *cache = getenv("TEST_CACHE");
    if (cache == NULL) { /* a test that is run by hand; a configuration elsewhere names it, too */
        static char path[PATH_MAX];
        char here[PATH_MAX - sizeof "/build/test-cache"];
        ck_assert_ptr_nonnull(getcwd(here, sizeof here));
        snprintf(path, sizeof path, "%s/build/test-cache", here);
        return path;
    }
    if (access(cache, F_OK) != 0)
        ck_assert_int_eq(system("tests/cache take >/dev/null"), 0);
    return cache;
}

void support_device_open(struct support_device *support, const char *kernel, bool staged, const char *device,
                         const char *expert)
{
    char text[2048];
    opened = true;
    snprintf(text, sizeof text,
             "devices:\n  - {name: device0, cache_dir: \"%s\", linear_kernel: %s%s%s%s}\n"
             "experts:\n  - {uid: ffn.0%s%s}\n",
             support_device_cache(), kernel, staged ? ", slabs: staged" : "", device[0] != '\0' ? ", " : "", device,
             expert[0] != '\0' ? ", " : "", expert);
    ck_assert_int_eq(config_parse(&support->config, text, strlen(text), "test"), 0);
    ck_assert_int_eq(device_open(&support->device, &support->config.devices[0]), 0);
    ck_assert_int_eq(compute_open(support->device), 0);
}

void support_device_emulate(struct support_device *support)
{
    struct device *device = support->device;
    struct amx *amx = device->compute->amx;
    kernel_program_release(device);
    for (unsigned k = 0; k < AMX_KERNELS; k++) {
        if (amx->kernels[k] != NULL)
            clReleaseKernel(amx->kernels[k]);
    }
    amx->emulated = true;
    ck_assert_msg(kernel_program_build(device) == 0, "%s", device_error(device));
    ck_assert_msg(device->compute->provider->open(device) == 0, "%s", device_error(device));
}

void support_device_narrow(struct support_device *support, unsigned vector_width)
{
    struct device *device = support->device;
    kernel_program_release(device);
    device->info.vector_width = vector_width;
    compute_set_shape(device);
    ck_assert_msg(kernel_program_build(device) == 0, "%s", device_error(device));
}

void support_device_close(struct support_device *support)
{
    compute_close(support->device);
    device_destroy(&support->device);
    config_destroy(&support->config);
}

bool support_device_has_clblast(void)
{
    const bool has = provider_clblast.products != NULL && dlopen("libclblast.so.1", RTLD_LAZY) != NULL;
    if (!has)
        printf("CLBlast is not installed, or was not when this was built: its kernels are not tested\n");
    return has;
}

struct expert *support_expert(struct support_device *support)
{
    struct expert *expert = NULL;
    const int result = expert_create(&expert, support->device, &support->config.experts[0], 1);
    ck_assert_msg(result == 0, "%s", device_error(support->device));
    for (unsigned i = 0; i < 2; i++) {
        const int index = expert_tensor_find(expert, i == 0 ? "layer_norm.weight" : "layer_norm.bias");
        struct expert_tensor tensor;
        if (index < 0)
            break; /* a block without */
        expert_tensor(expert, (unsigned)index, &tensor);
        float *values = malloc(tensor.count * sizeof *values);
        support_random(values, tensor.count, 1 + i, 0.25f);
        for (uint64_t c = 0; c < tensor.count && i == 0; c++)
            values[c] += 1.0f;
        ck_assert_int_eq(expert_tensor_write(expert, (unsigned)index, values), 0);
        free(values);
    }
    return expert;
}

struct device_slab support_slab(size_t floats)
{
    struct device_slab slab;
    const size_t bytes = (floats * sizeof(float) + 4095) / 4096 * 4096;
    float *values = aligned_alloc(4096, bytes);
    for (size_t i = 0; i < bytes / sizeof(float); i++)
        values[i] = NAN;
    device_slab_wrap(&slab, values, bytes);
    return slab;
}

void support_slab_free(struct device_slab *slab)
{
    void *memory = slab->mapping;
    device_slab_unwrap(slab);
    free(memory);
}

void *support_weights(const struct device *device, const float *values, size_t count, size_t *bytes)
{
    *bytes = count * provider_shape(device)->weight_bytes;
    void *weights = malloc(*bytes);
    uint16_t *halves = weights;
    if (provider_shape(device)->weight_bytes == sizeof *values)
        return memcpy(weights, values, *bytes);
    for (size_t i = 0; i < count; i++)
        halves[i] = kernel_weight_from_float(provider_shape(device), values[i]);
    return weights;
}

void support_random(float *values, size_t count, unsigned stream, float scale)
{
    for (size_t i = 0; i < count; i++)
        values[i] = scale * parameters_random(1, 1000 + stream, i);
}

double support_error(const float *values, const float *expected, size_t count)
{
    double difference = 0, magnitude = 0;
    for (size_t i = 0; i < count; i++) {
        if (isnan(values[i]))
            return INFINITY;
        difference = fmax(difference, fabs((double)values[i] - expected[i]));
        magnitude = fmax(magnitude, fabs((double)expected[i]));
    }
    return difference / (magnitude > 0 ? magnitude : 1);
}
