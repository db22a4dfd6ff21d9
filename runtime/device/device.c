#include "runtime/device/device.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "runtime/device/device_private.h"

static int make_queue(struct device *device)
{
    cl_int error;
    if (device_point(device) != CL_SUCCESS)
        return device_fail(device, CL_DEVICE_NOT_AVAILABLE, "clCreateContext");
    device->context = clCreateContext(NULL, 1, &device->id, NULL, NULL, &error);
    if (device->context == NULL)
        return device_fail(device, error, "clCreateContext");
    device->queue = clCreateCommandQueue(device->context, device->id, 0, &error);
    if (device->queue == NULL)
        return device_fail(device, error, "clCreateCommandQueue");
    return 0;
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
    result = make_queue(device);
    if (result == 0 && device->staged)
        result = device_staging_open(device);
    if (result == 0)
        result = device_allocate(device, sizeof(float), "pulse", &device->pulse);
    if (result != 0) {
        log_error("device %s (%s): %s", config->name, device->info.name, device->error);
        device_destroy(&device);
        return result;
    }
    *out = device;
    return 0;
}

void device_destroy(struct device **pointer)
{
    struct device *device = *pointer;
    if (device == NULL)
        return;
    *pointer = NULL;
    assert(device->compute == NULL);
    if (device->queue != NULL && !device->lost)
        (void)device_finish(device);
    device_staging_close(device);
    device_release(device, &device->workspace);
    device_release(device, &device->pulse);
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
        clEnqueueReadBuffer(device->queue, device->pulse, CL_TRUE, 0, sizeof value, &value, 0, NULL, NULL);
    if (error == CL_SUCCESS)
        return true;
    device->lost = true;
    snprintf(device->error + length, sizeof device->error - length, "; then nothing works any more: %s",
             opencl_error_name(error));
    return false;
}

int device_finish(struct device *device)
{
    cl_int error = device_point(device);
    if (error == CL_SUCCESS)
        error = clFinish(device->queue);
    if (error == CL_SUCCESS && device->upload_queue != NULL)
        error = clFinish(device->upload_queue);
    if (error == CL_SUCCESS && device->download_queue != NULL)
        error = clFinish(device->download_queue);
    return error == CL_SUCCESS ? 0 : device_fail(device, error, "clFinish");
}
