#include "runtime/compute/trial.h"

#include "runtime/compute/provider.h"
#include "runtime/device/device_private.h"

/* As a gradient is, or as weights are: of quantized ones a panel has whole groups, however few its rows are. */
static uint64_t weight_floats(const struct kernel_shape *shape, const struct linear_size *size)
{
    const uint64_t gradient = kernel_packed_floats(shape, size->k, size->n);
    const uint64_t weights = (kernel_weights(shape, size->k, size->n, false) + sizeof(float) - 1) / sizeof(float);
    return weights > gradient ? weights : gradient;
}

uint64_t trial_floats(const struct device *device, uint64_t rows, const struct linear_size *size)
{
    const struct kernel_shape *shape = provider_shape(device);
    return kernel_packed_floats(shape, rows, size->k) + weight_floats(shape, size) +
           kernel_packed_floats(shape, rows, size->n);
}

int trial_open(struct trial *trial, struct device *device, uint64_t rows, const struct linear_size *sizes,
               unsigned count)
{
    /* Floats between -1 and 1, of which each half is a number of 16 bits between -2 and 2. */
    static const cl_uint values[16] = {0x3de138a3, 0xbf38b951, 0x3f073a14, 0xbf70b5c7, 0x3eb3b4e9, 0x3f2839f2,
                                       0xbe2eb83d, 0xbec23b66, 0x3f63b796, 0xbe573542, 0x3ed7bac8, 0x3f3a3871,
                                       0xbf00b61f, 0x3d753b0d, 0xbf2bb9e4, 0x3f7a36b5};
    uint64_t floats = 0;
    *trial = (struct trial){.device = device};
    for (unsigned i = 0; i < count; i++) {
        const uint64_t needed = trial_floats(device, rows, &sizes[i]);
        floats = needed > floats ? needed : floats;
    }
    const size_t bytes = (floats * sizeof(float) + sizeof values - 1) / sizeof values * sizeof values;
    const int result = device_allocate(device, bytes, "operands of a trial", &trial->memory);
    if (result != 0)
        return result;
    const cl_int error =
        clEnqueueFillBuffer(device->queue, trial->memory, values, sizeof values, 0, bytes, 0, NULL, NULL);
    if (error == CL_SUCCESS)
        return 0;
    trial_close(trial);
    return device_fail(device, error, "filling operands");
}

void trial_borrow(struct trial *trial, struct device *device)
{
    *trial = (struct trial){.device = device, .memory = device->workspace, .borrowed = true};
}

void trial_close(struct trial *trial)
{
    if (trial->memory != NULL && !trial->borrowed)
        device_release(trial->device, &trial->memory);
    trial->memory = NULL;
}

int trial_launch(const struct trial *trial, bool gradient, uint64_t rows, const struct linear_size *size)
{
    struct device *device = trial->device;
    const struct kernel_shape *shape = provider_shape(device);
    const cl_mem memory = trial->memory;
    const uint64_t weights = kernel_packed_floats(shape, rows, size->k);
    const uint64_t out = weights + weight_floats(shape, size);
    const struct linear_call forward = {
        .rows = (cl_int)rows,
        .n = (cl_int)size->n,
        .k = (cl_int)size->k,
        .a = kernel_view_packed(shape, memory, 0, rows),
        .weights = memory,
        .weights_offset = weights * sizeof(float) / shape->weight_bytes,
        .out = kernel_view_packed(shape, memory, out, rows),
    };
    const struct linear_gradient_call backward = {
        .rows = (cl_int)rows,
        .n = (cl_int)size->n,
        .k = (cl_int)size->k,
        .x = memory,
        .dy = memory,
        .dw = memory,
        .dy_offset = out,
        .dw_offset = weights,
    };
    return gradient ? linear_layer_gradient(device, &backward) : linear_layer_forward(device, &forward);
}
