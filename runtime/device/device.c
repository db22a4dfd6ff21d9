#include "runtime/device/device.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "runtime/device/device_private.h"
#include "runtime/compute/linear.h"

int device_fail(struct device *device, cl_int error, const char *what)
{
    snprintf(device->error, sizeof device->error, "%s: %s", what, opencl_error_name(error));
    if (opencl_error_is_loss(error)) {
        device->lost = true;
        return -ENODEV;
    }
    return error == CL_MEM_OBJECT_ALLOCATION_FAILURE || error == CL_OUT_OF_HOST_MEMORY ? -ENOMEM : -EIO;
}

int device_complain(struct device *device, int result, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vsnprintf(device->error, sizeof device->error, format, list);
    va_end(list);
    return result;
}

static int take_provider(struct device *device)
{
    const struct config_device *config = device->config;
    device->provider = linear_provider_find(device);
    if (device->provider == NULL)
        return device_complain(device, -EINVAL, "there is no linear_kernel %s", config->linear_kernel);
    linear_shape(device, &device->shape);
    if (strcmp(config->precision, "tf32") == 0 && device->provider != &linear_provider_mma)
        return device_complain(device, -EINVAL,
                               "linear_kernel %s does not multiply in tf32: set linear_kernel: auto, or precision: "
                               "fp32",
                               config->linear_kernel);
    return device->provider->check != NULL ? device->provider->check(device) : 0;
}

static int make_queue(struct device *device)
{
    cl_int error;
    device->context = clCreateContext(NULL, 1, &device->id, NULL, NULL, &error);
    if (device->context == NULL)
        return device_fail(device, error, "clCreateContext");
    device->queue = clCreateCommandQueue(device->context, device->id, 0, &error);
    if (device->queue == NULL)
        return device_fail(device, error, "clCreateCommandQueue");
    return 0;
}

static int make_kernels(struct device *device)
{
    char why[sizeof device->error];
    const int result = device_program_build(device);
    if (result != -EIO || strcmp(device->config->precision, "fp32") == 0)
        return result;
    memcpy(why, device->error, sizeof why);
    return device_complain(device, result, "%.400s; what precision %s needs, precision: fp32 does not", why,
                           device->config->precision);
}

static int open_provider(struct device *device)
{
    const int result = make_kernels(device);
    return result == 0 && device->provider->open != NULL ? device->provider->open(device) : result;
}

static void close_provider(struct device *device)
{
    if (device->provider != NULL && device->provider->close != NULL)
        device->provider->close(device);
    for (unsigned k = 0; k < KERNEL_COUNT; k++) {
        if (device->kernels[k] != NULL)
            clReleaseKernel(device->kernels[k]);
        device->kernels[k] = NULL;
    }
    if (device->program != NULL)
        clReleaseProgram(device->program);
    device->program = NULL;
}

/* Where a CPU's matrix units are of no use after all, it does without. */
static int open_some_provider(struct device *device)
{
    const int result = open_provider(device);
    if (result == 0 || device->lost || device->provider != &linear_provider_amx ||
        strcmp(device->config->linear_kernel, "auto") != 0)
        return result;
    log_warning("device %s: its matrix units (AMX) are not used: %s", device->config->name, device->error);
    close_provider(device);
    device->provider = &linear_provider_cpu;
    linear_shape(device, &device->shape);
    return open_provider(device);
}

static int make_control(struct device *device)
{
    float control[DEVICE_CONTROL_FLOATS] = {0};
    control[DEVICE_CONTROL_OPEN + 2] = 1.0f;
    int result = device_allocate(device, sizeof control, "control", &device->control);
    if (result == 0)
        result = device_allocate(device, DEVICE_PARTIALS * sizeof(float), "partial sums", &device->partials);
    if (result == 0)
        result = device_allocate(device, 2 * sizeof(cl_int), "shares", &device->shares);
    return result == 0 ? device_write(device, device->control, 0, control, sizeof control) : result;
}

static bool stages_rows(const struct device *device)
{
    const char *slabs = device->config->slabs;
    return strcmp(slabs, "auto") == 0 ? !device->info.unified_memory : strcmp(slabs, "staged") == 0;
}

int device_open(struct device **out, const struct config_device *config)
{
    *out = NULL;
    struct device *device = calloc(1, sizeof *device);
    if (device == NULL)
        return -ENOMEM;
    device->config = config;
    device_cache_open(config, device->cache_path);
    int result = device_choose(config, &device->info, &device->id);
    if (result != 0) {
        free(device);
        return result;
    }
    device->staged = stages_rows(device);
    /* PoCL's own cache also holds what it compiles at a kernel's first launch. */
    device->keeps_binaries = strstr(device->info.platform, "Portable Computing Language") == NULL;
    result = take_provider(device);
    if (result == 0)
        result = make_queue(device);
    if (result == 0 && device->staged)
        result = device_staging_open(device);
    if (result == 0)
        result = make_control(device);
    if (result == 0)
        result = open_some_provider(device);
    if (result != 0) {
        log_error("device %s (%s): %s", config->name, device->info.name, device->error);
        device_destroy(&device);
        return result;
    }
    log_info("device %s: %s, %s, %s, %u compute units, %.1f GiB, %s kernels, precision %s", config->name,
             device->info.name, device->info.vendor, device_class_name(device->info.class), device->info.compute_units,
             (double)device->info.memory_bytes / (1u << 30), device->provider->name, config->precision);
    *out = device;
    return 0;
}

void device_destroy(struct device **pointer)
{
    struct device *device = *pointer;
    if (device == NULL)
        return;
    *pointer = NULL;
    if (device->queue != NULL && !device->lost)
        (void)device_finish(device);
    device_staging_close(device);
    device_release(device, &device->workspace);
    device_release(device, &device->control);
    device_release(device, &device->partials);
    device_release(device, &device->shares);
    close_provider(device);
    if (device->queue != NULL)
        clReleaseCommandQueue(device->queue);
    if (device->context != NULL)
        clReleaseContext(device->context);
    free(device);
}

const struct device_info *device_info(const struct device *device)
{
    return &device->info;
}

const char *device_error(const struct device *device)
{
    return device->error;
}

bool device_is_lost(const struct device *device)
{
    return device->lost;
}

const char *device_linear_kernel(const struct device *device)
{
    return device->provider->name;
}

bool device_stages_rows(const struct device *device)
{
    return device->staged;
}

bool device_answers(struct device *device)
{
    cl_float value;
    const size_t length = strlen(device->error);
    if (device->lost)
        return false;
    const cl_int error =
        clEnqueueReadBuffer(device->queue, device->control, CL_TRUE, 0, sizeof value, &value, 0, NULL, NULL);
    if (error == CL_SUCCESS)
        return true;
    device->lost = true;
    snprintf(device->error + length, sizeof device->error - length, "; then nothing works any more: %s",
             opencl_error_name(error));
    return false;
}

int device_finish(struct device *device)
{
    cl_int error = clFinish(device->queue);
    if (error == CL_SUCCESS && device->upload_queue != NULL)
        error = clFinish(device->upload_queue);
    if (error == CL_SUCCESS && device->download_queue != NULL)
        error = clFinish(device->download_queue);
    return error == CL_SUCCESS ? 0 : device_fail(device, error, "clFinish");
}
