/* A device's memory: buffers within a budget, slabs in place, and staging for devices that do not see the slabs. */
#include <errno.h>

#include <sys/mman.h>

#include "common/config.h"
#include "common/shm.h"
#include "runtime/device_private.h"

uint64_t device_memory_used(const struct device *device)
{
    return device->memory_used;
}

/* Drivers keep a part of a card for themselves, and a host has other things to hold. */
uint64_t device_memory_budget(const struct device *device)
{
    return device->info.memory_bytes / 100 * 95;
}

enum { LARGE_PAGE = 2 << 20 };

static double mebibytes(uint64_t bytes)
{
    return (double)bytes / (1 << 20);
}

/* A CPU device computes in the host's memory, so that the host can choose the pages: large ones are worth up to a tenth
 * of the speed of a product, whose panels lie far apart. */
static void *map_large_pages(size_t bytes)
{
    const size_t length = shm_round_up(bytes, LARGE_PAGE);
    /* cppcheck-suppress invalidFunctionArg ; an anonymous mapping has no file */
    char *mapping = mmap(NULL, length + LARGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED)
        return NULL;
    char *start = (char *)shm_round_up((size_t)mapping, LARGE_PAGE);
    if (start > mapping)
        munmap(mapping, (size_t)(start - mapping));
    munmap(start + length, (size_t)(mapping + LARGE_PAGE - start));
    madvise(start, bytes / LARGE_PAGE * LARGE_PAGE, MADV_HUGEPAGE); /* a wish; and none for a page that is not full */
    return start;
}

static cl_mem create_buffer(struct device *device, size_t bytes, cl_int *error)
{
    if (device->info.class != DEVICE_CLASS_CPU || bytes < LARGE_PAGE)
        return clCreateBuffer(device->context, CL_MEM_READ_WRITE, bytes, NULL, error);
    void *memory = map_large_pages(bytes);
    *error = CL_OUT_OF_HOST_MEMORY;
    if (memory == NULL)
        return NULL;
    const cl_mem buffer =
        clCreateBuffer(device->context, CL_MEM_READ_WRITE | CL_MEM_USE_HOST_PTR, bytes, memory, error);
    if (buffer == NULL)
        munmap(memory, shm_round_up(bytes, LARGE_PAGE));
    return buffer;
}

int device_allocate(struct device *device, size_t bytes, const char *what, cl_mem *buffer)
{
    const cl_float zero = 0.0f;
    cl_int error;
    *buffer = NULL;
    if (bytes > device_memory_budget(device) - device->memory_used)
        return device_complain(device, -ENOMEM, "%s of %.0f MiB does not fit: %.0f of %.0f MiB are used", what,
                               mebibytes(bytes), mebibytes(device->memory_used),
                               mebibytes(device_memory_budget(device)));
    if (bytes > device->info.max_allocation_bytes)
        return device_complain(device, -ENOMEM, "%s of %.0f MiB does not fit: the device allocates at most %.0f MiB",
                               what, mebibytes(bytes), mebibytes(device->info.max_allocation_bytes));
    *buffer = create_buffer(device, bytes, &error);
    if (*buffer == NULL)
        return device_fail(device, error, what);
    device->memory_used += bytes;
    /* Pads must be 0, and a page that is touched now is not touched first in a batch. */
    error = clEnqueueFillBuffer(device->queue, *buffer, &zero, sizeof zero, 0, bytes, 0, NULL, NULL);
    if (error == CL_SUCCESS)
        error = clFinish(device->queue);
    if (error == CL_SUCCESS)
        return 0;
    device_release(device, buffer);
    return device_fail(device, error, what);
}

/* The host's memory may go only when nothing that was enqueued uses it. */
void device_release(struct device *device, cl_mem *buffer)
{
    size_t bytes = 0;
    void *memory = NULL;
    if (*buffer == NULL)
        return;
    clGetMemObjectInfo(*buffer, CL_MEM_SIZE, sizeof bytes, &bytes, NULL);
    clGetMemObjectInfo(*buffer, CL_MEM_HOST_PTR, sizeof memory, &memory, NULL);
    if (memory != NULL && !device->lost)
        clFinish(device->queue);
    clReleaseMemObject(*buffer);
    if (memory != NULL)
        munmap(memory, shm_round_up(bytes, LARGE_PAGE));
    device->memory_used -= bytes;
    *buffer = NULL;
}

int device_reserve_workspace(struct device *device, size_t bytes)
{
    if (bytes <= device->workspace_bytes)
        return 0;
    device_release(device, &device->workspace);
    device->workspace_bytes = 0;
    const int result = device_allocate(device, bytes, "workspace", &device->workspace);
    if (result == 0)
        device->workspace_bytes = bytes;
    return result;
}

int device_reserve_staging(struct device *device, size_t bytes)
{
    for (unsigned slot = 0; device->staged && slot < DEVICE_STAGING_SLOTS; slot++) {
        struct device_staging *staging = &device->staging[slot];
        if (bytes <= staging->bytes)
            continue;
        device_release(device, &staging->buffer);
        staging->bytes = 0;
        const int result = device_allocate(device, bytes, "staging buffer", &staging->buffer);
        if (result != 0)
            return result;
        staging->bytes = bytes;
    }
    return 0;
}

int device_read(struct device *device, cl_mem buffer, size_t offset_bytes, void *to, size_t bytes)
{
    if (device->lost)
        return -ENODEV;
    const cl_int error = clEnqueueReadBuffer(device->queue, buffer, CL_TRUE, offset_bytes, bytes, to, 0, NULL, NULL);
    return error == CL_SUCCESS ? 0 : device_fail(device, error, "clEnqueueReadBuffer");
}

int device_write(struct device *device, cl_mem buffer, size_t offset_bytes, const void *from, size_t bytes)
{
    if (device->lost)
        return -ENODEV;
    const cl_int error = clEnqueueWriteBuffer(device->queue, buffer, CL_TRUE, offset_bytes, bytes, from, 0, NULL, NULL);
    return error == CL_SUCCESS ? 0 : device_fail(device, error, "clEnqueueWriteBuffer");
}

/* --- slabs -------------------------------------------------------------------------------------------------------- */

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
    *rows = (struct device_rows){slab->buffer, offset_bytes / sizeof(float)};
    return 0;
}

int device_staging_begin(struct device *device, unsigned *slot)
{
    *slot = 0;
    if (!device->staged)
        return 0;
    struct device_staging *staging = &device->staging[device->next_slot];
    if (staging->in_flight)
        return device_complain(device, -EBUSY, "%d batches are in flight", DEVICE_STAGING_SLOTS);
    staging->in_flight = true;
    staging->used = 0;
    *slot = device->next_slot;
    device->next_slot = (device->next_slot + 1) % DEVICE_STAGING_SLOTS;
    return 0;
}

void device_staging_end(struct device *device, unsigned slot)
{
    device->staging[slot].in_flight = false;
}

void device_staging_abort(struct device *device, unsigned slot)
{
    clFinish(device->queue);
    device_staging_end(device, slot);
}

static int staging_take(struct device *device, unsigned slot, size_t bytes, struct device_rows *rows)
{
    struct device_staging *staging = &device->staging[slot];
    if (bytes > staging->bytes - staging->used)
        return device_complain(device, -ENOMEM, "batch exceeds the staging buffer");
    *rows = (struct device_rows){staging->buffer, staging->used / sizeof(float)};
    staging->used += (bytes + 255) / 256 * 256; /* rows of the next tensor begin aligned */
    if (staging->used > staging->bytes)
        staging->used = staging->bytes;
    return 0;
}

int device_rows_in(struct device *device, unsigned slot, struct device_slab *slab, size_t offset_bytes, size_t bytes,
                   struct device_rows *rows)
{
    if (!device->staged)
        return slab_rows(device, slab, offset_bytes, rows);
    const int result = staging_take(device, slot, bytes, rows);
    if (result != 0)
        return result;
    const cl_int error = clEnqueueWriteBuffer(device->queue, rows->buffer, CL_FALSE, rows->offset * sizeof(float),
                                              bytes, (char *)slab->mapping + offset_bytes, 0, NULL, NULL);
    return error == CL_SUCCESS ? 0 : device_fail(device, error, "upload of a batch");
}

int device_rows_out(struct device *device, unsigned slot, struct device_slab *slab, size_t offset_bytes, size_t bytes,
                    struct device_rows *rows)
{
    return device->staged ? staging_take(device, slot, bytes, rows) : slab_rows(device, slab, offset_bytes, rows);
}

int device_rows_done(struct device *device, struct device_slab *slab, size_t offset_bytes, size_t bytes,
                     const struct device_rows *rows)
{
    if (!device->staged)
        return 0;
    const cl_int error = clEnqueueReadBuffer(device->queue, rows->buffer, CL_FALSE, rows->offset * sizeof(float), bytes,
                                             (char *)slab->mapping + offset_bytes, 0, NULL, NULL);
    return error == CL_SUCCESS ? 0 : device_fail(device, error, "download of a batch");
}
