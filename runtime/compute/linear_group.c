#include "runtime/compute/linear_group.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "runtime/compute/kernel_launch.h"
#include "runtime/compute/provider.h"
#include "runtime/device/device_private.h"

/* What all members have of one kind: the first one's buffer, and from there to the others, in elements. */
struct place {
    cl_mem buffer;
    const char *first;
    cl_ulong8 offsets;
};

/* Of a kind that is not looked at, any buffer will do. False: it has no address. */
static bool find(const struct device *device, struct place *place, unsigned member, cl_mem buffer, cl_ulong offset,
                 size_t element_bytes)
{
    if (member == 0) {
        place->buffer = buffer;
        place->first = device_address(device, buffer);
    }
    const char *address = buffer == place->buffer ? place->first : device_address(device, buffer);
    if (address == NULL)
        return false;
    /* Backwards it is a large number, of which the sum with an address is right all the same. */
    const uintptr_t distance = (uintptr_t)address - (uintptr_t)place->first;
    place->offsets.s[member] = (cl_ulong)((intptr_t)distance / (intptr_t)element_bytes) + offset;
    return distance % element_bytes == 0;
}

static bool is_small(const struct linear_call *call)
{
    const bool takes_second = (call->flags & LINEAR_TAKES_SECOND) != 0;
    return call->rows <= LINEAR_GROUP_ROWS && call->a.rows && call->out.rows && (call->second.rows || !takes_second) &&
           !call->of_gradient;
}

static int launch(struct device *device, cl_kernel object, const struct linear_call *calls, unsigned count)
{
    const struct linear_call *first = &calls[0];
    const cl_int flags = (cl_int)(first->flags | LINEAR_OUT_ROWS | (first->second.rows ? LINEAR_SECOND_ROWS : 0));
    const cl_float4 gate = {{first->gate.limit, first->gate.alpha, first->gate.shift, 0}};
    const size_t weight_bytes = provider_shape(device)->weight_bytes;
    struct place a = {0}, weights = {0}, out = {0}, bias = {0}, second = {0}, save = {0};
    cl_int8 rows = {0};
    struct kernel_grid grid;
    for (unsigned i = 0; i < count; i++) {
        const struct linear_call *call = &calls[i];
        rows.s[i] = call->rows;
        if (!find(device, &a, i, call->a.buffer, call->a.offset, sizeof(float)) ||
            !find(device, &weights, i, call->weights, call->weights_offset, weight_bytes) ||
            !find(device, &out, i, call->out.buffer, call->out.offset, sizeof(float)) ||
            !find(device, &bias, i, call->bias ? call->bias : call->out.buffer, call->bias_offset, sizeof(float)) ||
            !find(device, &second, i, call->second.buffer ? call->second.buffer : call->out.buffer, call->second.offset,
                  sizeof(float)) ||
            !find(device, &save, i, call->save ? call->save : call->out.buffer, call->save_offset, sizeof(float)))
            return -EXDEV;
    }
    provider_grid(device, KERNEL_LINEAR_GROUP, count, (uint64_t)first->n, (uint64_t)first->k, &grid);
    grid.object = object;
    const struct kernel_argument arguments[] = {
        KERNEL_ARGUMENT(rows),
        KERNEL_ARGUMENT(first->n),
        KERNEL_ARGUMENT(first->k),
        KERNEL_ARGUMENT(flags),
        KERNEL_ARGUMENT(grid.block),
        KERNEL_ARGUMENT(a.buffer),
        KERNEL_ARGUMENT(a.offsets),
        KERNEL_ARGUMENT(first->a.row_stride),
        KERNEL_ARGUMENT(first->a.panel_stride),
        KERNEL_ARGUMENT(weights.buffer),
        KERNEL_ARGUMENT(weights.offsets),
        KERNEL_ARGUMENT(out.buffer),
        KERNEL_ARGUMENT(out.offsets),
        KERNEL_ARGUMENT(first->out.row_stride),
        KERNEL_ARGUMENT(first->out.panel_stride),
        KERNEL_ARGUMENT(bias.buffer),
        KERNEL_ARGUMENT(bias.offsets),
        KERNEL_ARGUMENT(second.buffer),
        KERNEL_ARGUMENT(second.offsets),
        KERNEL_ARGUMENT(first->second.row_stride),
        KERNEL_ARGUMENT(first->second.panel_stride),
        KERNEL_ARGUMENT(save.buffer),
        KERNEL_ARGUMENT(save.offsets),
        KERNEL_ARGUMENT(gate),
    };
    return kernel_launch(device, KERNEL_LINEAR_GROUP, &grid, arguments, sizeof arguments / sizeof arguments[0]);
}

static int launch_each(struct device *device, const struct linear_call *calls, unsigned count)
{
    int result = 0;
    for (unsigned i = 0; i < count && result == 0; i++)
        result = linear_launch_forward(device, &calls[i]);
    return result;
}

int linear_group_launch(struct device *device, cl_kernel object, const struct linear_call *calls, unsigned count)
{
    struct linear_call small[LINEAR_GROUP];
    unsigned smalls = 0;
    int result = 0;
    assert(count <= LINEAR_GROUP);
    for (unsigned i = 0; i < count && result == 0; i++) {
        if (is_small(&calls[i]))
            small[smalls++] = calls[i];
        else
            result = linear_launch_forward(device, &calls[i]);
    }
    if (result == 0)
        result = smalls > 1 ? launch(device, object, small, smalls) : -EXDEV;
    return result == -EXDEV ? launch_each(device, small, smalls) : result;
}

/* --- the probe ---------------------------------------------------------------------------------------------------- */

/* A tile, and more than one; a panel and a part; a step of k and a part. */
enum { MEMBERS = 2, PROBE_ROWS = 7, PROBE_N = 70, PROBE_K = 100, PROBE_OUT = PROBE_ROWS * PROBE_N };

/* Of one member, in floats: what it multiplies, its results in a group, those by itself; then the weights. */
enum {
    AT_OUT = PROBE_ROWS * PROBE_K,
    AT_ALONE = AT_OUT + PROBE_OUT,
    AT_WEIGHTS = (AT_ALONE + PROBE_OUT + 63) / 64 * 64
};

static size_t probe_bytes(const struct kernel_shape *shape)
{
    return AT_WEIGHTS * sizeof(float) + kernel_weights(shape, PROBE_K, PROBE_N, false) * shape->weight_bytes;
}

static struct linear_call probe_call(const struct device *device, cl_mem memory, unsigned member, cl_ulong out)
{
    const struct kernel_shape *shape = provider_shape(device);
    return (struct linear_call){
        .rows = (cl_int)(PROBE_ROWS - 4 * member),
        .n = PROBE_N,
        .k = PROBE_K,
        .a = kernel_view_rows(shape, memory, 0, PROBE_K),
        .weights = memory,
        .weights_offset = AT_WEIGHTS * sizeof(float) / shape->weight_bytes,
        .out = kernel_view_rows(shape, memory, out, PROBE_N),
    };
}

/* Weights are bytes that are some number in any precision; each member has others. */
static int fill_probe(struct device *device, cl_mem memory, unsigned member, float *values, size_t bytes)
{
    memset(values, 0, bytes);
    for (unsigned i = 0; i < PROBE_ROWS * PROBE_K; i++)
        values[i] = (float)(i * 2654435761u >> 8) * 0x1p-23f - 1.0f;
    memset(values + AT_WEIGHTS, 0x2c + 2 * (int)member, bytes - AT_WEIGHTS * sizeof *values);
    return device_write(device, memory, 0, values, bytes);
}

static int run_probe(struct device *device, const cl_mem *memory, float *values, size_t bytes, bool *equal)
{
    struct linear_call calls[MEMBERS];
    int result = 0;
    for (unsigned i = 0; i < MEMBERS && result == 0; i++) {
        const struct linear_call alone = probe_call(device, memory[i], i, AT_ALONE);
        calls[i] = probe_call(device, memory[i], i, AT_OUT);
        result = fill_probe(device, memory[i], i, values, bytes);
        if (result == 0)
            result = linear_launch_forward(device, &alone);
    }
    if (result == 0)
        result = launch(device, NULL, calls, MEMBERS);
    *equal = result == 0;
    for (unsigned i = 0; i < MEMBERS && result == 0; i++) {
        const unsigned char *const out = (const unsigned char *)(values + AT_OUT);
        const unsigned char *const alone = (const unsigned char *)(values + AT_ALONE);
        result = device_read(device, memory[i], 0, values, bytes);
        *equal = *equal && values[AT_OUT] != 0.0f && memcmp(out, alone, PROBE_OUT * sizeof *values) == 0;
    }
    return result;
}

/* Whether kernels may use memory by its address: only a driver that says that it computes in the host's memory is asked
 * to try. One that calls a device a CPU may have it elsewhere, where another buffer's address is anything. */
static bool may_probe(const struct device *device)
{
    cl_bool unified = CL_FALSE;
    return !device_stages_rows(device) &&
           clGetDeviceInfo(device->id, CL_DEVICE_HOST_UNIFIED_MEMORY, sizeof unified, &unified, NULL) == CL_SUCCESS &&
           unified;
}

int linear_group_open(struct device *device)
{
    const size_t bytes = probe_bytes(provider_shape(device));
    cl_mem memory[MEMBERS] = {NULL};
    bool equal = false;
    device->compute->groups = false;
    if (!may_probe(device))
        return 0;
    float *values = malloc(bytes);
    int result = values != NULL ? 0 : -ENOMEM;
    for (unsigned i = 0; i < MEMBERS && result == 0; i++)
        result = device_allocate(device, bytes, "a probe", &memory[i]);
    if (result == 0)
        result = run_probe(device, memory, values, bytes, &equal);
    for (unsigned i = 0; i < MEMBERS; i++)
        device_release(device, &memory[i]);
    free(values);
    device->compute->groups = result == 0 && equal;
    if (!device->compute->groups && !device->lost)
        log_info("device %s: each batch is launched by itself, as its driver does not let kernels use memory by its "
                 "address",
                 device->config->name);
    return device->lost ? -ENODEV : 0;
}
