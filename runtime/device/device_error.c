/* What went wrong on a device, for people. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "runtime/device/device_private.h"

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

const char *device_error(const struct device *device)
{
    return device->error;
}

bool device_is_lost(const struct device *device)
{
    return device->lost;
}
