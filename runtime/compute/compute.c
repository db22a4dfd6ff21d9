#include "runtime/compute/compute.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "runtime/compute/kernel_program.h"
#include "runtime/compute/linear_amx.h"
#include "runtime/compute/providers.h"
#include "runtime/device/device_private.h"

/* --- which provider ----------------------------------------------------------------------------------------------- */

static const struct kernel_provider *const providers[] = {&provider_cpu, &provider_amx, &provider_gpu, &provider_mma,
                                                          &provider_clblast};

/* The matrix units for what they are there for. Weights of 16 bits are worth their half of the memory on any device. */
static const char *choose(struct device *device)
{
    const char *precision = device->config->precision;
    if (strcmp(precision, "tf32") == 0)
        return "mma";
    if (weight_format_find(precision) != NULL)
        return device->info.class == DEVICE_CLASS_CPU ? "cpu" : "gpu";
    if (strcmp(precision, "fp32") != 0 && provider_mma.check(device) == 0)
        return "mma";
    device->error[0] = '\0';
    if (device->info.class != DEVICE_CLASS_CPU)
        return "gpu";
    return device->info.vector_width >= AMX_VECTOR_WIDTH && linear_amx_usable() ? "amx" : "cpu";
}

const struct kernel_provider *compute_find_provider(struct device *device)
{
    const char *name = device->config->linear_kernel;
    if (strcmp(name, "auto") == 0)
        name = choose(device);
    for (size_t i = 0; i < sizeof providers / sizeof providers[0]; i++) {
        if (strcmp(providers[i]->name, name) == 0)
            return providers[i];
    }
    return NULL;
}

void compute_set_shape(struct device *device)
{
    struct compute *compute = device->compute;
    compute->provider->shape(&device->info, &compute->shape);
    compute->shape.bfloat = strcmp(device->config->precision, "bf16") == 0;
    compute->shape.weight_bytes = compute->shape.bfloat || strcmp(device->config->precision, "fp16") == 0 ? 2 : 4;
    compute->shape.quantized = weight_format_find(device->config->precision);
    if (compute->shape.quantized != NULL)
        compute->shape.weight_bytes = 1;
}

static int take_provider(struct device *device)
{
    const struct config_device *config = device->config;
    device->compute->provider = compute_find_provider(device);
    if (device->compute->provider == NULL)
        return device_complain(device, -EINVAL, "there is no linear_kernel %s", config->linear_kernel);
    compute_set_shape(device);
    if (strcmp(config->precision, "tf32") == 0 && device->compute->provider != &provider_mma)
        return device_complain(device, -EINVAL,
                               "linear_kernel %s does not multiply in tf32: set linear_kernel: auto, or precision: "
                               "fp32",
                               config->linear_kernel);
    if (device->compute->shape.quantized != NULL && device->compute->provider != &provider_cpu &&
        device->compute->provider != &provider_gpu)
        return device_complain(device, -EINVAL,
                               "linear_kernel %s does not read weights of precision %s: set linear_kernel: auto, or "
                               "another precision",
                               config->linear_kernel, config->precision);
    return device->compute->provider->check != NULL ? device->compute->provider->check(device) : 0;
}

static int make_kernels(struct device *device)
{
    char why[sizeof device->error];
    const int result = kernel_program_build(device);
    if (result != -EIO || strcmp(device->config->precision, "fp32") == 0)
        return result;
    memcpy(why, device->error, sizeof why);
    return device_complain(device, result, "%.400s; what precision %s needs, precision: fp32 does not", why,
                           device->config->precision);
}

static int open_provider(struct device *device)
{
    const int result = make_kernels(device);
    return result == 0 && device->compute->provider->open != NULL ? device->compute->provider->open(device) : result;
}

static void close_provider(struct device *device)
{
    const struct kernel_provider *provider = device->compute->provider;
    if (provider != NULL && provider->close != NULL)
        provider->close(device);
    kernel_program_release(device);
}

/* Where a CPU's matrix units are of no use after all, it does without. */
static int open_some_provider(struct device *device)
{
    const int result = open_provider(device);
    if (result == 0 || device->lost || device->compute->provider != &provider_amx ||
        strcmp(device->config->linear_kernel, "auto") != 0)
        return result;
    log_warning("device %s: its matrix units (AMX) are not used: %s", device->config->name, device->error);
    close_provider(device);
    device->compute->provider = &provider_cpu;
    compute_set_shape(device);
    return open_provider(device);
}

static int make_control(struct device *device)
{
    float control[PROVIDER_CONTROL_FLOATS] = {0};
    control[PROVIDER_CONTROL_OPEN + 2] = 1.0f;
    int result = device_allocate(device, sizeof control, "control", &device->compute->control);
    if (result == 0)
        result = device_allocate(device, PROVIDER_PARTIALS * sizeof(float), "partial sums", &device->compute->partials);
    if (result == 0)
        result = device_allocate(device, 2 * sizeof(cl_int), "shares", &device->compute->shares);
    return result == 0 ? device_write(device, device->compute->control, 0, control, sizeof control) : result;
}

int compute_open(struct device *device)
{
    const struct config_device *config = device->config;
    device->compute = calloc(1, sizeof *device->compute);
    int result = device->compute != NULL ? take_provider(device) : -ENOMEM;
    if (result == 0)
        result = make_control(device);
    if (result == 0)
        result = open_some_provider(device);
    if (result != 0) {
        log_error("device %s (%s): %s", config->name, device->info.name,
                  device->compute != NULL ? device->error : strerror(ENOMEM));
        compute_close(device);
        return result;
    }
    log_info("device %s: %s, %s, %s, %u compute units, %.1f GiB, %s kernels, precision %s", config->name,
             device->info.name, device->info.vendor, device_class_name(device->info.class), device->info.compute_units,
             (double)device->info.memory_bytes / (1u << 30), device->compute->provider->name, config->precision);
    return 0;
}

void compute_close(struct device *device)
{
    struct compute *compute = device != NULL ? device->compute : NULL;
    if (compute == NULL)
        return;
    if (!device->lost)
        (void)device_finish(device);
    device_release(device, &compute->control);
    device_release(device, &compute->partials);
    device_release(device, &compute->shares);
    close_provider(device);
    free(compute);
    device->compute = NULL;
}
