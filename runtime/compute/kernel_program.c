#include "runtime/compute/kernel_program.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "runtime/compute/kernels.h"
#include "runtime/compute/provider.h"
#include "runtime/device/device_private.h"

enum { MAX_SOURCES = 16 };

static const char *find_source(const char *name)
{
    for (const struct kernel_source *source = kernel_sources; source->name != NULL; source++) {
        if (strcmp(source->name, name) == 0)
            return source->text;
    }
    return NULL;
}

const char *kernel_program_weights(const struct device *device)
{
    const struct kernel_shape *shape = provider_shape(device);
    if (shape->quantized != NULL)
        return shape->quantized->options;
    return shape->bfloat ? " -DHALF_WEIGHTS -DBFLOAT_WEIGHTS" : shape->weight_bytes == 2 ? " -DHALF_WEIGHTS" : "";
}

int kernel_program_compile(struct device *device, const char *const *sources, const char *more_options,
                           cl_program *program)
{
    const struct kernel_shape *shape = provider_shape(device);
    const char *texts[MAX_SOURCES];
    unsigned count = 0;
    char options[512];
    *program = NULL;
    for (const char *const *name = sources; *name != NULL && count < MAX_SOURCES; name++) {
        texts[count] = find_source(*name);
        if (texts[count++] == NULL)
            return device_complain(device, -EINVAL, "no kernel source %s", *name);
    }
    snprintf(options, sizeof options, "-DVEC=%u -DPANEL=%u -DTILE_ROWS=%u%s %s", shape->vec, shape->panel,
             shape->tile_rows, kernel_program_weights(device), more_options);
    return device_program_compile(device, texts, count, options, program);
}

int kernel_program_build(struct device *device)
{
    struct compute *compute = device->compute;
    const struct kernel_provider *provider = compute->provider;
    const char *options = provider->options != NULL ? provider->options(device) : "";
    const int result = kernel_program_compile(device, provider->sources, options, &compute->program);
    if (result != 0)
        return result;
    for (unsigned k = 0; k < KERNEL_COUNT; k++) {
        cl_int error;
        if (k == KERNEL_WEIGHT_GRADIENT && provider->no_gradient_kernel)
            continue;
        if (k == KERNEL_LINEAR_GROUP && !provider->groups)
            continue;
        if ((k == KERNEL_STEP_ADAM || k == KERNEL_STEP_SGD) && compute->shape.quantized != NULL)
            continue; /* nothing trains */
        compute->kernels[k] = clCreateKernel(compute->program, kernel_name(k), &error);
        if (compute->kernels[k] == NULL)
            return device_fail(device, error, kernel_name(k));
    }
    return 0;
}

void kernel_program_release(struct device *device)
{
    struct compute *compute = device->compute;
    for (unsigned k = 0; k < KERNEL_COUNT; k++) {
        if (compute->kernels[k] != NULL)
            clReleaseKernel(compute->kernels[k]);
        compute->kernels[k] = NULL;
    }
    if (compute->program != NULL)
        clReleaseProgram(compute->program);
    compute->program = NULL;
}

uint64_t kernel_program_hash(const struct device *device, const char *const *sources)
{
    const struct kernel_provider *provider = device->compute->provider;
    const char *texts[MAX_SOURCES + 2];
    unsigned count = 0;
    texts[count++] = kernel_program_weights(device);
    if (provider->options != NULL)
        texts[count++] = provider->options(device);
    for (const char *const *name = sources; *name != NULL && count < MAX_SOURCES + 2; name++) {
        const char *text = find_source(*name);
        texts[count++] = text != NULL ? text : "";
    }
    return device_program_hash(device, texts, count);
}
