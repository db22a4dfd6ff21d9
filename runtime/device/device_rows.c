/* Rows of batches where kernels reach them, and the batch's end: in place here, or through
 * runtime/device/device_staging.c. */
#include <string.h>

#include "runtime/device/device_staging.h"

void device_slab_wrap(struct device_slab *slab, void *mapping, size_t bytes)
{
    *slab = (struct device_slab){mapping, bytes, NULL};
}

void device_slab_unwrap(struct device_slab *slab)
{
    if (slab->buffer != NULL)
        clReleaseMemObject(slab->buffer);
    *slab = (struct device_slab){NULL, 0, NULL};
}

static int slab_rows(struct device *device, struct device_slab *slab, size_t offset_bytes, struct device_rows *rows)
{
    cl_int error;
    if (slab->buffer == NULL) {
        slab->buffer = clCreateBuffer(device->context, CL_MEM_READ_WRITE | CL_MEM_USE_HOST_PTR, slab->bytes,
                                      slab->mapping, &error);
        if (slab->buffer == NULL)
            return device_fail(device, error, "buffer over a pool's slab");
    }
    *rows = (struct device_rows){slab->buffer, offset_bytes / sizeof(float), offset_bytes};
    return 0;
}

/* A CPU sees its own memory. A GPU that shares it may have a cache that the host does not look into, and reverse:
 * mapping and unmapping rows is what tells the driver, and where both see the same it costs next to nothing. */
static int synchronise(struct device *device, const struct device_slab *slab, size_t offset_bytes, size_t bytes,
                       cl_map_flags flags)
{
    cl_int error = CL_SUCCESS;
    if (device->info.class == DEVICE_CLASS_CPU)
        return 0;
    void *mapped =
        clEnqueueMapBuffer(device->queue, slab->buffer, CL_FALSE, flags, offset_bytes, bytes, 0, NULL, NULL, &error);
    if (mapped != NULL)
        error = clEnqueueUnmapMemObject(device->queue, slab->buffer, mapped, 0, NULL, NULL);
    return error == CL_SUCCESS ? 0 : device_fail(device, error, "rows of a pool's slab");
}

int device_rows_in(struct device *device, unsigned slot, struct device_slab *slab, size_t offset_bytes, size_t bytes,
                   struct device_rows *rows)
{
    int result = device_rows_out(device, slot, slab, offset_bytes, bytes, rows);
    if (result != 0)
        return result;
    if (device->staged)
        return device_staging_upload(device, (const char *)slab->mapping + offset_bytes, bytes, rows);
    /* What the frontend wrote is what is there; nothing of the device's is to be put over it. */
    return synchronise(device, slab, offset_bytes, bytes, CL_MAP_WRITE_INVALIDATE_REGION);
}

int device_rows_out(struct device *device, unsigned slot, struct device_slab *slab, size_t offset_bytes, size_t bytes,
                    struct device_rows *rows)
{
    return device->staged ? device_staging_take(device, slot, bytes, rows)
                          : slab_rows(device, slab, offset_bytes, rows);
}

int device_rows_done(struct device *device, struct device_slab *slab, size_t offset_bytes, size_t bytes,
                     const struct device_rows *rows)
{
    if (device->staged)
        return device_staging_download(device, rows, (char *)slab->mapping + offset_bytes, bytes);
    return synchronise(device, slab, offset_bytes, bytes, CL_MAP_READ);
}

int device_fetch(struct device *device, cl_mem buffer, size_t offset_bytes, void *to, size_t bytes)
{
    if (device->current != NULL)
        return device_staging_fetch(device, buffer, offset_bytes, to, bytes);
    const cl_int error = clEnqueueReadBuffer(device->queue, buffer, CL_FALSE, offset_bytes, bytes, to, 0, NULL, NULL);
    return error == CL_SUCCESS ? 0 : device_fail(device, error, "what a batch's kernels report");
}

int device_mark(struct device *device, cl_event *done)
{
    if (device->current != NULL)
        return device_staging_mark(device, done);
    *done = NULL;
    cl_int error = clEnqueueMarkerWithWaitList(device->queue, 0, NULL, done);
    if (error == CL_SUCCESS)
        error = clFlush(device->queue);
    if (error == CL_SUCCESS)
        return 0;
    if (*done != NULL)
        clReleaseEvent(*done);
    *done = NULL;
    return device_fail(device, error, "the end of a batch");
}

/* "An event in the list failed" says less than the event itself. */
static int wait_in_place(struct device *device, cl_event done)
{
    cl_int status = CL_COMPLETE;
    cl_int error = clWaitForEvents(1, &done);
    if (clGetEventInfo(done, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof status, &status, NULL) == CL_SUCCESS &&
        status < 0)
        error = status;
    return error == CL_SUCCESS ? 0 : device_fail(device, error, "a batch");
}

int device_wait(struct device *device, cl_event *done)
{
    if (*done == NULL)
        return 0;
    struct device_staging *staging = device_staging_find(device, *done);
    int result = staging != NULL ? device_staging_wait(device, staging) : wait_in_place(device, *done);
    if (result == 0 && device_point(device) != CL_SUCCESS)
        result = device_fail(device, CL_DEVICE_NOT_AVAILABLE, "a batch");
    clReleaseEvent(*done);
    *done = NULL;
    return result;
}

bool device_is_done(cl_event done)
{
    cl_int status = CL_COMPLETE;
    return done == NULL ||
           clGetEventInfo(done, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof status, &status, NULL) != CL_SUCCESS ||
           status <= CL_COMPLETE;
}
