#include "runtime/compute/kernel_launch.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "runtime/compute/provider.h"
#include "runtime/device/device_private.h"

enum { MAX_ARGUMENTS = 32 };

int kernel_launch_object(struct device *device, cl_kernel object, const char *name, const struct kernel_grid *grid,
                         const struct kernel_argument *arguments, unsigned count)
{
    cl_int error = CL_SUCCESS;
    char what[64];
    cl_uint waits = 0;
    const cl_event *wait_for = NULL;
    cl_event *event = NULL;
    if (device->lost)
        return -ENODEV;
    const int result = device->current != NULL ? device_staging_launch(device, &waits, &wait_for, &event) : 0;
    if (result != 0)
        return result;
    for (unsigned i = 0; i < count && error == CL_SUCCESS; i++)
        error = clSetKernelArg(object, i, arguments[i].size, arguments[i].value);
    if (error == CL_SUCCESS)
        error = device_point(device);
    if (error == CL_SUCCESS)
        error = clEnqueueNDRangeKernel(device->queue, object, grid->dims, NULL, grid->global, grid->local, waits,
                                       wait_for, event);
    if (error == CL_SUCCESS)
        return 0;
    snprintf(what, sizeof what, "kernel %s", name);
    return device_fail(device, error, what);
}

int kernel_launch_shares(struct device *device, cl_kernel object, const char *name, const struct kernel_grid *grid,
                         const struct kernel_argument *arguments, unsigned count)
{
    const cl_int2 cells = {{(cl_int)grid->global[0], grid->dims > 1 ? (cl_int)grid->global[1] : 1}};
    const size_t shares = (size_t)cells.s[0] * (size_t)cells.s[1], cores = device->info.compute_units;
    const struct kernel_grid workers = {.dims = 1, .global = {shares < cores ? shares : cores}, .local = {1}};
    const struct kernel_argument last[] = {KERNEL_ARGUMENT(device->compute->shares), KERNEL_ARGUMENT(cells)};
    struct kernel_argument all[MAX_ARGUMENTS];
    assert(count + 2 <= MAX_ARGUMENTS);
    if (count > 0)
        memcpy(all, arguments, count * sizeof arguments[0]);
    memcpy(all + count, last, sizeof last);
    return kernel_launch_object(device, object, name, &workers, all, count + 2);
}

int kernel_launch(struct device *device, enum kernel kernel, const struct kernel_grid *grid,
                  const struct kernel_argument *arguments, unsigned count)
{
    const cl_kernel object = grid->object != NULL ? grid->object : device->compute->kernels[kernel];
    return device->compute->provider->shares
               ? kernel_launch_shares(device, object, kernel_name(kernel), grid, arguments, count)
               : kernel_launch_object(device, object, kernel_name(kernel), grid, arguments, count);
}
