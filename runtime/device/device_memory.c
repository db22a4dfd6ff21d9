/* A device's memory: buffers within a budget. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <sys/mman.h>

#include "common/config.h"
#include "common/shm.h"
#include "runtime/device/device_private.h"

uint64_t device_memory_used(const struct device *device)
{
    return device->memory_used;
}

/* Drivers keep a part of a card for themselves, and a host has other things to hold. */
uint64_t device_memory_budget(const struct device *device)
{
    const uint64_t most = device->info.memory_bytes / 100 * 95, wanted = device->config->memory << 20;
    return wanted > 0 && wanted < most ? wanted : most;
}

enum {
    LARGE_PAGE = 2 << 20,
    LEAST_ALIGNMENT = 128, /* the largest OpenCL type's: kernels may rely on it */
};

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

static void *take_host_memory(size_t bytes)
{
    return bytes < LARGE_PAGE ? aligned_alloc(LEAST_ALIGNMENT, shm_round_up(bytes, LEAST_ALIGNMENT))
                              : map_large_pages(bytes);
}

static void give_host_memory(void *memory, size_t bytes)
{
    if (bytes < LARGE_PAGE)
        free(memory);
    else
        munmap(memory, shm_round_up(bytes, LARGE_PAGE));
}

/* What was enqueued before a device was lost may still use its memory, and nothing says until when: it stays for the
 * rest of the process, which is to end (runtime/device/device.h). Known here, it is no leak. */
struct abandoned {
    void *memory;
    struct abandoned *next;
};
static _Atomic(struct abandoned *) abandoned;

static void abandon_host_memory(void *memory)
{
    struct abandoned *item = malloc(sizeof *item);
    if (item == NULL)
        return;
    *item = (struct abandoned){memory, atomic_load(&abandoned)};
    while (!atomic_compare_exchange_weak(&abandoned, &item->next, item))
        ;
}

static cl_mem create_buffer(struct device *device, size_t bytes, cl_int *error)
{
    if (device->info.class != DEVICE_CLASS_CPU)
        return clCreateBuffer(device->context, CL_MEM_READ_WRITE, bytes, NULL, error);
    void *memory = take_host_memory(bytes);
    *error = CL_OUT_OF_HOST_MEMORY;
    if (memory == NULL)
        return NULL;
    const cl_mem buffer =
        clCreateBuffer(device->context, CL_MEM_READ_WRITE | CL_MEM_USE_HOST_PTR, bytes, memory, error);
    if (buffer == NULL)
        give_host_memory(memory, bytes);
    return buffer;
}

void *device_address(const struct device *device, cl_mem buffer)
{
    void *memory = NULL;
    if (device->info.class == DEVICE_CLASS_CPU)
        clGetMemObjectInfo(buffer, CL_MEM_HOST_PTR, sizeof memory, &memory, NULL);
    return memory;
}

int device_zero(struct device *device, size_t bytes, const char *what, cl_mem buffer)
{
    const cl_float zero = 0.0f;
    cl_int error = clEnqueueFillBuffer(device->queue, buffer, &zero, sizeof zero, 0, bytes, 0, NULL, NULL);
    if (error == CL_SUCCESS)
        error = clFinish(device->queue);
    return error == CL_SUCCESS ? 0 : device_fail(device, error, what);
}

int device_allocate(struct device *device, size_t bytes, const char *what, cl_mem *buffer)
{
    cl_int error;
    *buffer = NULL;
    const uint64_t budget = device_memory_budget(device);
    if (device->memory_used > budget || bytes > budget - device->memory_used)
        return device_complain(device, -ENOMEM, "%s of %.0f MiB does not fit: %.0f of %.0f MiB are used", what,
                               mebibytes(bytes), mebibytes(device->memory_used), mebibytes(budget));
    if (bytes > device->info.max_allocation_bytes)
        return device_complain(device, -ENOMEM, "%s of %.0f MiB does not fit: the device allocates at most %.0f MiB",
                               what, mebibytes(bytes), mebibytes(device->info.max_allocation_bytes));
    *buffer = create_buffer(device, bytes, &error);
    if (*buffer == NULL)
        return device_fail(device, error, what);
    device->memory_used += bytes;
    /* Pads must be 0, and a page that is touched now is not touched first in a batch. */
    const int result = device_zero(device, bytes, what, *buffer);
    if (result != 0)
        device_release(device, buffer);
    return result;
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
    if (memory != NULL && device->lost)
        abandon_host_memory(memory);
    else if (memory != NULL)
        give_host_memory(memory, bytes);
    device->memory_used -= bytes;
    *buffer = NULL;
}

int device_reserve(struct device *device, size_t bytes, const char *what, cl_mem *buffer, size_t *buffer_bytes)
{
    const size_t had = *buffer_bytes;
    if (bytes <= had)
        return 0;
    device_release(device, buffer);
    *buffer_bytes = 0;
    const int result = device_allocate(device, bytes, what, buffer);
    if (result == 0)
        *buffer_bytes = bytes;
    else if (had > 0 && !device->lost && device_allocate(device, had, what, buffer) == 0)
        *buffer_bytes = had;
    return result;
}

int device_reserve_workspace(struct device *device, size_t bytes)
{
    return device_reserve(device, bytes, "workspace", &device->workspace, &device->workspace_bytes);
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
