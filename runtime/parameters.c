#include "runtime/parameters.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/device_private.h"

/* --- layout ------------------------------------------------------------------------------------------------------- */

void parameters_add(struct parameters *parameters, const struct parameter *parameter)
{
    assert(parameters->count < PARAMETERS_MAX);
    parameters->items[parameters->count++] = *parameter;
}

static uint64_t primary_floats(const struct parameters *parameters, const struct parameter *item)
{
    return kernel_packed_floats(&parameters->shape, item->in > 0 ? item->in : 1, item->out);
}

void parameters_layout(struct parameters *parameters, const struct kernel_shape *shape,
                       const struct optimizer_settings *optimizer)
{
    uint64_t at = 0;
    parameters->shape = *shape;
    for (unsigned vectors = 0; vectors < 2; vectors++) {
        if (vectors)
            parameters->vectors_offset = at;
        for (unsigned i = 0; i < parameters->count; i++) {
            struct parameter *item = &parameters->items[i];
            if ((item->in == 0) != (vectors == 1))
                continue;
            item->offset = at;
            at += primary_floats(parameters, item);
        }
    }
    parameters->vectors_floats = at - parameters->vectors_offset;
    parameters->primary_floats = at;
    at = 0;
    for (unsigned i = 0; i < parameters->count; i++) {
        struct parameter *item = &parameters->items[i];
        if (item->in == 0)
            continue;
        item->transposed = at;
        at += kernel_packed_floats(shape, item->out, item->in);
    }
    parameters->transposed_floats = at;
    parameters->moments = optimizer_moments(optimizer);
    parameters->moment_names[0] = optimizer->kind == OPTIMIZER_ADAM ? "exp_avg" : "momentum_buffer";
    parameters->moment_names[1] = "exp_avg_sq";
    parameters->trains = optimizer->kind != OPTIMIZER_NONE;
    parameters->accumulates = parameters->trains && optimizer->grad_accumulation > 1;
}

uint64_t parameters_bytes(const struct parameters *parameters)
{
    const unsigned copies = 1 + parameters->moments + (parameters->accumulates ? 1 : 0);
    return (parameters->transposed_floats + copies * parameters->primary_floats) * sizeof(float);
}

/* --- packing ------------------------------------------------------------------------------------------------------ */

/* Row-major (rows, columns) to and from [ceil(columns / panel)][rows][panel]; pads are not touched. With `transposed`
 * the row-major matrix is (columns, rows): a weight (out, in) is packed over out as the transposed of itself. */
static size_t row_major_index(uint64_t row, uint64_t column, uint64_t rows, uint64_t columns, bool transposed)
{
    return transposed ? column * rows + row : row * columns + column;
}

static void pack(float *packed, const float *plain, uint64_t rows, uint64_t columns, uint64_t panel, bool transposed)
{
    for (uint64_t first = 0; first < columns; first += panel) {
        const uint64_t width = columns - first < panel ? columns - first : panel;
        for (uint64_t row = 0; row < rows; row++) {
            for (uint64_t c = 0; c < width; c++)
                packed[c] = plain[row_major_index(row, first + c, rows, columns, transposed)];
            packed += panel;
        }
    }
}

static void unpack(float *plain, const float *packed, uint64_t rows, uint64_t columns, uint64_t panel, bool transposed)
{
    for (uint64_t first = 0; first < columns; first += panel) {
        const uint64_t width = columns - first < panel ? columns - first : panel;
        for (uint64_t row = 0; row < rows; row++) {
            for (uint64_t c = 0; c < width; c++)
                plain[row_major_index(row, first + c, rows, columns, transposed)] = packed[c];
            packed += panel;
        }
    }
}

static void unpack_primary(const struct parameters *parameters, const struct parameter *item, float *plain,
                           const float *packed)
{
    unpack(plain, packed, item->in > 0 ? item->in : 1, item->out, kernel_panel_width(&parameters->shape, item->out),
           true);
}

/* --- tensors by number: the parameters, then each moment of each parameter, then the accumulated gradients ----------
 */

static unsigned copies_of(const struct parameters *parameters)
{
    return 1 + parameters->moments + (parameters->accumulates ? 1 : 0);
}

static cl_mem buffer_of(const struct parameters *parameters, unsigned copy)
{
    if (copy == 0)
        return parameters->weights;
    return copy <= parameters->moments ? parameters->moment[copy - 1] : parameters->gradient;
}

unsigned parameters_tensors(const struct parameters *parameters)
{
    return parameters->count * copies_of(parameters);
}

void parameters_tensor(const struct parameters *parameters, unsigned index, struct expert_tensor *tensor)
{
    const unsigned copy = index / parameters->count;
    const struct parameter *item = &parameters->items[index % parameters->count];
    assert(copy < copies_of(parameters));
    memset(tensor, 0, sizeof *tensor);
    if (copy == 0)
        snprintf(tensor->name, sizeof tensor->name, "%s", item->name);
    else
        snprintf(tensor->name, sizeof tensor->name, "optimizer.%s.%s",
                 copy <= parameters->moments ? parameters->moment_names[copy - 1] : "gradient", item->name);
    tensor->ndim = item->in > 0 ? 2 : 1;
    tensor->dims[0] = item->out;
    tensor->dims[1] = item->in;
    tensor->count = item->out * (item->in > 0 ? item->in : 1);
    tensor->is_parameter = copy == 0;
}

int parameters_read(struct parameters *parameters, unsigned index, float *values)
{
    const struct parameter *item = &parameters->items[index % parameters->count];
    const size_t bytes = primary_floats(parameters, item) * sizeof(float);
    float *packed = malloc(bytes);
    if (packed == NULL)
        return -ENOMEM;
    const int result = device_read(parameters->device, buffer_of(parameters, index / parameters->count),
                                   item->offset * sizeof(float), packed, bytes);
    if (result == 0)
        unpack_primary(parameters, item, values, packed);
    free(packed);
    return result;
}

/* Pads are written as zeros, whatever was there. */
int parameters_write(struct parameters *parameters, unsigned index, const float *values)
{
    const struct parameter *item = &parameters->items[index % parameters->count];
    const unsigned copy = index / parameters->count;
    const struct kernel_shape *shape = &parameters->shape;
    const cl_mem buffer = buffer_of(parameters, copy);
    const uint64_t primary = primary_floats(parameters, item);
    const uint64_t transposed = item->in > 0 && copy == 0 ? kernel_packed_floats(shape, item->out, item->in) : 0;
    assert(primary > 0);
    float *packed = calloc(primary > transposed ? primary : transposed, sizeof(float));
    if (packed == NULL)
        return -ENOMEM;
    pack(packed, values, item->in > 0 ? item->in : 1, item->out, kernel_panel_width(shape, item->out), true);
    int result =
        device_write(parameters->device, buffer, item->offset * sizeof(float), packed, primary * sizeof(float));
    if (result == 0 && transposed > 0) {
        memset(packed, 0, transposed * sizeof(float));
        pack(packed, values, item->out, item->in, kernel_panel_width(shape, item->in), false);
        result = device_write(parameters->device, parameters->transposed, item->transposed * sizeof(float), packed,
                              transposed * sizeof(float));
    }
    free(packed);
    return result;
}

/* --- life --------------------------------------------------------------------------------------------------------- */

/* splitmix64, as a function of its position. */
float parameters_random(uint64_t seed, unsigned index, uint64_t i)
{
    const uint64_t step = 0x9e3779b97f4a7c15u;
    uint64_t x = (seed ^ ((index + 1) * 0xd1342543de82ef95u)) + (i + 1) * step;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    x ^= x >> 31;
    return (float)(x >> 40) * 0x1p-23f - 1.0f;
}

static int initialise(struct parameters *parameters, uint64_t seed)
{
    int result = 0;
    for (unsigned p = 0; p < parameters->count && result == 0; p++) {
        const struct parameter *item = &parameters->items[p];
        const uint64_t count = item->out * (item->in > 0 ? item->in : 1);
        const float bound = item->fan_in > 0 ? (float)(1.0 / sqrt((double)item->fan_in)) : 0.0f;
        if (item->init == PARAMETER_ZERO)
            continue; /* the buffers are */
        float *values = calloc(count, sizeof *values);
        if (values == NULL)
            return -ENOMEM;
        for (uint64_t i = 0; i < count; i++)
            values[i] = item->init == PARAMETER_ONE ? 1.0f : bound * parameters_random(seed, p, i);
        result = parameters_write(parameters, p, values);
        free(values);
    }
    return result;
}

int parameters_create(struct parameters *parameters, struct device *device, uint64_t seed)
{
    const size_t primary = parameters->primary_floats * sizeof(float);
    parameters->device = device;
    int result = device_allocate_part(device, primary, "weights", &parameters->weights);
    if (result == 0 && parameters->transposed_floats > 0)
        result = device_allocate_part(device, parameters->transposed_floats * sizeof(float), "transposed weights",
                                      &parameters->transposed);
    for (unsigned m = 0; m < parameters->moments && result == 0; m++)
        result = device_allocate_part(device, primary, "optimizer state", &parameters->moment[m]);
    if (result == 0 && parameters->accumulates)
        result = device_allocate_part(device, primary, "accumulated gradients", &parameters->gradient);
    if (result == 0)
        result = initialise(parameters, seed);
    if (result != 0)
        parameters_destroy(parameters);
    return result;
}

void parameters_destroy(struct parameters *parameters)
{
    if (parameters->device == NULL)
        return;
    device_release(parameters->device, &parameters->weights);
    device_release(parameters->device, &parameters->transposed);
    device_release(parameters->device, &parameters->moment[0]);
    device_release(parameters->device, &parameters->moment[1]);
    device_release(parameters->device, &parameters->gradient);
}

/* --- snapshots: the primary part of each copy, one behind the other
 * --------------------------------------------------- */

uint64_t parameters_snapshot_bytes(const struct parameters *parameters)
{
    return copies_of(parameters) * parameters->primary_floats * sizeof(float);
}

int parameters_snapshot(struct parameters *parameters, void *memory)
{
    const size_t bytes = parameters->primary_floats * sizeof(float);
    int result = 0;
    for (unsigned copy = 0; copy < copies_of(parameters) && result == 0; copy++)
        result = device_read(parameters->device, buffer_of(parameters, copy), 0, (char *)memory + copy * bytes, bytes);
    return result;
}

void parameters_snapshot_tensor(const struct parameters *parameters, const void *memory, unsigned index, float *values)
{
    const struct parameter *item = &parameters->items[index % parameters->count];
    const float *copy = (const float *)memory + index / parameters->count * parameters->primary_floats;
    unpack_primary(parameters, item, values, copy + item->offset);
}
