/* Large buffers that are given away in parts: OpenCL's sub-buffers. A driver may keep thousands of allocations, but
 * each costs it time, and every launch looks at those that it uses. */
#include <errno.h>
#include <stdlib.h>

#include "runtime/device/device_private.h"

enum { PARTS_OF_EXPERT = 8 }; /* at most: weights, halves, vectors, transposed, three moments, accumulated gradients */

static size_t alignment(const struct device *device)
{
    cl_uint bits = 0;
    clGetDeviceInfo(device->id, CL_DEVICE_MEM_BASE_ADDR_ALIGN, sizeof bits, &bits, NULL);
    return bits >= 512 && bits % 8 == 0 ? bits / 8 : 64;
}

static size_t round_up(size_t bytes, size_t step)
{
    return (bytes + step - 1) / step * step;
}

void device_expect(struct device *device, uint64_t bytes, uint64_t experts)
{
    device->expected_bytes += bytes + experts * PARTS_OF_EXPERT * alignment(device);
}

static struct device_block *find_room(struct device *device, size_t bytes)
{
    for (unsigned i = 0; i < device->blocks_count; i++) {
        struct device_block *block = &device->blocks[i];
        if (bytes <= block->bytes - block->used)
            return block;
    }
    return NULL;
}

/* As large as what is expected, or half of it, or half of that: a driver may not have it in one piece. */
static int add_block(struct device *device, size_t least, const char *what)
{
    struct device_block *blocks = realloc(device->blocks, (device->blocks_count + 1) * sizeof *blocks);
    if (blocks == NULL)
        return device_complain(device, -ENOMEM, "%s: no memory for their list", what);
    device->blocks = blocks;
    struct device_block *block = &blocks[device->blocks_count];
    uint64_t bytes = device->expected_bytes;
    if (bytes > device->info.max_allocation_bytes)
        bytes = device->info.max_allocation_bytes;
    for (;; bytes /= 2) {
        *block = (struct device_block){.bytes = bytes > least ? bytes : least};
        const int result = device_allocate(device, block->bytes, what, &block->buffer);
        if (result == 0)
            break;
        if (result != -ENOMEM || block->bytes == least)
            return result;
    }
    device->blocks_count++;
    device->expected_bytes -= block->bytes < device->expected_bytes ? block->bytes : device->expected_bytes;
    return 0;
}

int device_allocate_part(struct device *device, size_t bytes, const char *what, cl_mem *buffer)
{
    const size_t taken = round_up(bytes, alignment(device));
    *buffer = NULL;
    if (device->info.class == DEVICE_CLASS_CPU)
        return device_allocate(device, bytes, what, buffer);
    struct device_block *block = find_room(device, taken);
    if (block == NULL) {
        const int result = add_block(device, taken, what);
        if (result != 0)
            return result;
        block = &device->blocks[device->blocks_count - 1];
    }
    const cl_buffer_region region = {block->used, bytes};
    cl_int error;
    *buffer = clCreateSubBuffer(block->buffer, CL_MEM_READ_WRITE, CL_BUFFER_CREATE_TYPE_REGION, &region, &error);
    if (*buffer == NULL)
        return device_fail(device, error, what);
    block->used += taken;
    block->parts++;
    /* Where another part was before there is something else than 0. */
    const int result = device_zero(device, bytes, what, *buffer);
    if (result != 0)
        device_release_part(device, buffer);
    return result;
}

/* Room comes back when it is the last of its block, or all of it is free: experts come at start and go at the end. */
void device_release_part(struct device *device, cl_mem *buffer)
{
    cl_mem parent = NULL;
    size_t offset = 0, bytes = 0;
    unsigned i = 0;
    if (*buffer == NULL)
        return;
    clGetMemObjectInfo(*buffer, CL_MEM_ASSOCIATED_MEMOBJECT, sizeof parent, &parent, NULL);
    if (parent == NULL) { /* a CPU's */
        device_release(device, buffer);
        return;
    }
    clGetMemObjectInfo(*buffer, CL_MEM_OFFSET, sizeof offset, &offset, NULL);
    clGetMemObjectInfo(*buffer, CL_MEM_SIZE, sizeof bytes, &bytes, NULL);
    clReleaseMemObject(*buffer);
    *buffer = NULL;
    while (i < device->blocks_count && device->blocks[i].buffer != parent)
        i++;
    if (i == device->blocks_count)
        return;
    struct device_block *block = &device->blocks[i];
    if (offset + round_up(bytes, alignment(device)) == block->used)
        block->used = offset;
    if (--block->parts > 0)
        return;
    device_release(device, &block->buffer);
    *block = device->blocks[--device->blocks_count];
    if (device->blocks_count == 0) {
        free(device->blocks);
        device->blocks = NULL;
    }
}
