#include "runtime/train/parameters.h"

#include <assert.h>
#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/compute/quantized.h"
#include "runtime/device/device_private.h"

/* --- layout ------------------------------------------------------------------------------------------------------- */

void parameters_add(struct parameters *parameters, const struct parameter *parameter)
{
    assert(parameters->count < PARAMETERS_MAX);
    parameters->items[parameters->count++] = *parameter;
}

unsigned parameters_trained(const struct parameters *parameters)
{
    unsigned count = 0;
    for (unsigned i = 0; i < parameters->count; i++)
        count += !parameters->items[i].fixed;
    return count;
}

uint64_t parameters_columns(const struct kernel_shape *shape, const struct parameter *item)
{
    return item->paired ? kernel_paired_columns(shape, item->out) : item->out;
}

static uint64_t primary_floats(const struct parameters *parameters, const struct parameter *item)
{
    return kernel_packed_floats(&parameters->shape, item->in > 0 ? item->in : 1,
                                parameters_columns(&parameters->shape, item));
}

static bool is_second(const struct parameter *item)
{
    return item->paired && item->lane == 1;
}

static bool is_narrow(const struct parameters *parameters)
{
    return parameters->shape.weight_bytes < sizeof(float);
}

static bool has_masters(const struct parameters *parameters)
{
    return parameters->trains || !is_narrow(parameters);
}

/* What products read of them; in the primary orientation as in the primary part, unless they are quantized. */
static void place_matrices(struct parameters *parameters)
{
    const struct kernel_shape *shape = &parameters->shape;
    uint64_t at = 0, transposed = 0;
    for (unsigned i = 0; i < parameters->count; i++) {
        struct parameter *item = &parameters->items[i];
        const uint64_t columns = parameters_columns(shape, item);
        if (item->in == 0)
            continue;
        item->at = is_second(item) ? parameters->items[item->partner].at : at;
        item->transposed = is_second(item) ? parameters->items[item->partner].transposed : transposed;
        if (is_second(item))
            continue;
        at += kernel_weights(shape, item->in, columns, false);
        transposed += parameters->forward_only ? 0 : kernel_weights(shape, columns, item->in, true);
    }
    parameters->matrices_weights = at;
    parameters->transposed_weights = transposed;
}

/* Of the primary part, in this order. */
enum section { MATRICES, VECTORS, FIXED_VECTORS };

static enum section section_of(const struct parameter *item)
{
    return item->in > 0 ? MATRICES : item->fixed ? FIXED_VECTORS : VECTORS;
}

void parameters_layout(struct parameters *parameters, const struct kernel_shape *shape,
                       const struct optimizer_settings *optimizer)
{
    uint64_t at = 0;
    parameters->shape = *shape;
    for (enum section section = MATRICES; section <= FIXED_VECTORS; section++) {
        if (section == VECTORS)
            parameters->vectors_offset = at;
        if (section == FIXED_VECTORS)
            parameters->trained_floats = at;
        for (unsigned i = 0; i < parameters->count; i++) {
            struct parameter *item = &parameters->items[i];
            if (section_of(item) != section)
                continue;
            item->offset = is_second(item) ? parameters->items[item->partner].offset : at;
            at += is_second(item) ? 0 : primary_floats(parameters, item);
        }
    }
    parameters->vectors_floats = at - parameters->vectors_offset;
    parameters->primary_floats = at;
    place_matrices(parameters);
    parameters->moments = optimizer_moments(optimizer);
    for (unsigned m = 0; m < parameters->moments; m++)
        parameters->moment_names[m] = optimizer_moment_name(optimizer, m);
    parameters->trains = optimizer->kind != OPTIMIZER_NONE;
    parameters->accumulates = parameters->trains && optimizer->grad_accumulation > 1;
    for (unsigned i = 0; i < parameters->count; i++) {
        struct parameter *item = &parameters->items[i];
        if (item->in == 0)
            item->at = item->offset - (has_masters(parameters) ? 0 : parameters->vectors_offset);
    }
}

static uint64_t matrices_bytes(const struct parameters *parameters)
{
    return parameters->matrices_weights * parameters->shape.weight_bytes;
}

/* Of the parameters themselves, without other copies, in the primary orientation: the masters; or else, one behind the
 * other, the matrices as halves and the vectors. */
static uint64_t weights_bytes(const struct parameters *parameters)
{
    return has_masters(parameters) ? parameters->primary_floats * sizeof(float)
                                   : matrices_bytes(parameters) + parameters->vectors_floats * sizeof(float);
}

uint64_t parameters_bytes(const struct parameters *parameters)
{
    const unsigned copies = parameters->moments + (parameters->accumulates ? 1 : 0);
    const uint64_t beside = is_narrow(parameters) && has_masters(parameters) ? parameters->matrices_weights : 0;
    return weights_bytes(parameters) + copies * parameters->trained_floats * sizeof(float) +
           (beside + parameters->transposed_weights) * parameters->shape.weight_bytes;
}

/* --- packing ------------------------------------------------------------------------------------------------------ */

/* A tensor of the state dict, (out, in) row-major, to and from panels: over its outputs, or over its inputs. Pads, and
 * what is a partner's, are not touched. `bytes` of a packed element: 4, 2 of a half or bfloat16, or 1 of what is
 * quantized. */
struct packing {
    uint64_t out, in;
    uint64_t step, first; /* output c is column c * step + first of the matrix in memory, */
    uint64_t columns;     /* which has so many of them */
    uint64_t panel;
    bool over_in;
    size_t bytes;
    const struct kernel_shape *shape; /* which 2 bytes, and one, are */
};

static struct packing packing_of(const struct parameters *parameters, const struct parameter *item, bool over_in,
                                 size_t bytes)
{
    struct packing packing = {
        .out = item->out,
        .in = item->in > 0 ? item->in : 1,
        .step = item->paired ? 2 : 1,
        .first = item->paired ? item->lane : 0,
        .columns = parameters_columns(&parameters->shape, item),
        .over_in = over_in,
        .bytes = bytes,
        .shape = &parameters->shape,
    };
    packing.panel = kernel_panel_width(&parameters->shape, over_in ? packing.in : packing.columns);
    return packing;
}

enum packed_kind { PACKED_FLOAT, PACKED_HALF, PACKED_BFLOAT };

/* One element. The kind and the direction are constants wherever this is inlined. */
static inline __attribute__((always_inline)) void move(enum packed_kind kind, bool pack, void *packed, uint64_t at,
                                                       float *plain)
{
    float *whole = (float *)packed + at;
    uint16_t *half = (uint16_t *)packed + at;
    if (kind == PACKED_FLOAT && pack)
        *whole = *plain;
    else if (kind == PACKED_FLOAT)
        *plain = *whole;
    else if (pack)
        *half = kind == PACKED_HALF ? half_from_float(*plain) : bfloat_from_float(*plain);
    else
        *plain = kind == PACKED_HALF ? half_to_float(*half) : bfloat_to_float(*half);
}

/* Panels over the inputs: a row of the tensor is in one piece in both. */
static inline __attribute__((always_inline)) void convert_over_in(const struct packing *packing, enum packed_kind kind,
                                                                  bool pack, void *packed, float *plain)
{
    const uint64_t panel = packing->panel, in = packing->in;
    for (uint64_t begin = 0; begin < in; begin += panel) {
        const uint64_t width = in - begin < panel ? in - begin : panel;
        for (uint64_t row = 0; row < packing->out; row++) {
            const uint64_t at = (begin / panel * packing->columns + row * packing->step + packing->first) * panel;
            for (uint64_t c = 0; c < width; c++)
                move(kind, pack, packed, at + c, plain + row * in + begin + c);
        }
    }
}

/* Panels over the outputs: a transposition, in blocks that the first-level cache holds. */
static inline __attribute__((always_inline)) void convert_over_out(const struct packing *packing, enum packed_kind kind,
                                                                   bool pack, void *packed, float *plain)
{
    enum { BLOCK = 32 };
    const uint64_t panel = packing->panel, in = packing->in, step = packing->step;
    for (uint64_t begin = 0, width; begin < packing->out; begin += width) {
        const uint64_t column = begin * step + packing->first, left = (panel - column % panel + step - 1) / step;
        width = packing->out - begin < left ? packing->out - begin : left;
        for (uint64_t row = 0; row < in; row += BLOCK) {
            const uint64_t rows = in - row < BLOCK ? in - row : BLOCK;
            for (uint64_t c = 0; c < width; c++) {
                const uint64_t at = (column / panel * in + row) * panel + column % panel + c * step;
                for (uint64_t r = 0; r < rows; r++)
                    move(kind, pack, packed, at + r * panel, plain + (begin + c) * in + row + r);
            }
        }
    }
}

static inline __attribute__((always_inline)) void convert_kind(const struct packing *packing, enum packed_kind kind,
                                                               bool pack, void *packed, float *plain)
{
    if (packing->over_in)
        convert_over_in(packing, kind, pack, packed, plain);
    else
        convert_over_out(packing, kind, pack, packed, plain);
}

static struct quantized quantized_of(const struct packing *packing)
{
    return (struct quantized){.shape = packing->shape,
                              .out = packing->out,
                              .in = packing->in,
                              .step = packing->step,
                              .first = packing->first,
                              .columns = packing->columns,
                              .transposed = packing->over_in};
}

/* Of what is not quantized. */
static void convert(const struct packing *packing, void *packed, float *plain, bool pack)
{
    if (packing->bytes == sizeof(float) && pack)
        convert_kind(packing, PACKED_FLOAT, true, packed, plain);
    else if (packing->bytes == sizeof(float))
        convert_kind(packing, PACKED_FLOAT, false, packed, plain);
    else if (packing->shape->bfloat && pack)
        convert_kind(packing, PACKED_BFLOAT, true, packed, plain);
    else if (packing->shape->bfloat)
        convert_kind(packing, PACKED_BFLOAT, false, packed, plain);
    else if (pack)
        convert_kind(packing, PACKED_HALF, true, packed, plain);
    else
        convert_kind(packing, PACKED_HALF, false, packed, plain);
}

static void unpack_primary(const struct parameters *parameters, const struct parameter *item, float *plain,
                           const void *packed, size_t bytes)
{
    const struct packing packing = packing_of(parameters, item, false, bytes);
    const struct quantized matrix = quantized_of(&packing);
    if (bytes == 1)
        quantized_unpack(&matrix, packed, plain);
    else
        convert(&packing, (void *)(uintptr_t)packed, plain, false);
}

/* --- tensors by number: the parameters, then each moment of each that trains, then their accumulated gradients
 * --------
 */

static unsigned copies_of(const struct parameters *parameters)
{
    return 1 + parameters->moments + (parameters->accumulates ? 1 : 0);
}

/* Where a tensor is kept. */
struct place {
    cl_mem buffer;
    uint64_t offset; /* elements */
    size_t bytes;    /* of one */
};

/* Which of the copies, and of which parameter, a tensor is. */
static const struct parameter *tensor_of(const struct parameters *parameters, unsigned index, unsigned *copy)
{
    *copy = 0;
    if (index < parameters->count)
        return &parameters->items[index];
    const unsigned trained = parameters_trained(parameters), beyond = index - parameters->count;
    assert(trained > 0); /* or there is no tensor of that number */
    const struct parameter *item = parameters->items;
    assert(trained > 0); /* or there are no copies */
    *copy = 1 + beyond / trained;
    for (unsigned left = beyond % trained; item->fixed || left > 0; item++)
        left -= !item->fixed;
    return item;
}

static struct place place_of(const struct parameters *parameters, const struct parameter *item, unsigned copy)
{
    if (copy == 0 && !has_masters(parameters))
        return item->in > 0 ? (struct place){parameters->matrices, item->at, parameters->shape.weight_bytes}
                            : (struct place){parameters->vectors, item->at, sizeof(float)};
    const cl_mem buffer = copy == 0                     ? parameters->masters
                          : copy <= parameters->moments ? parameters->moment[copy - 1]
                                                        : parameters->gradient;
    return (struct place){buffer, item->offset, sizeof(float)};
}

unsigned parameters_tensors(const struct parameters *parameters)
{
    return parameters->count + parameters_trained(parameters) * (copies_of(parameters) - 1);
}

void parameters_tensor(const struct parameters *parameters, unsigned index, struct expert_tensor *tensor)
{
    unsigned copy;
    const struct parameter *item = tensor_of(parameters, index, &copy);
    assert(copy < copies_of(parameters));
    memset(tensor, 0, sizeof *tensor);
    if (copy == 0)
        snprintf(tensor->name, sizeof tensor->name, "%s", item->name);
    else
        snprintf(tensor->name, sizeof tensor->name, "optimizer.%s.%s",
                 copy <= parameters->moments ? parameters->moment_names[copy - 1] : "gradient", item->name);
    const bool in_rows = item->in == 0 && item->rows > 1;
    tensor->ndim = item->in > 0 || in_rows ? 2 : 1;
    tensor->dims[0] = in_rows ? item->rows : item->out;
    tensor->dims[1] = in_rows ? item->out / item->rows : item->in;
    tensor->count = item->out * (item->in > 0 ? item->in : 1);
    tensor->is_parameter = copy == 0;
    tensor->greatest = copy > 0 || item->in == 0 || !is_narrow(parameters) ? FLT_MAX
                       : parameters->shape.quantized != NULL               ? parameters->shape.quantized->greatest
                       : parameters->shape.bfloat                          ? BFLOAT_GREATEST
                                                                           : nextafterf(HALF_INFINITE, 0);
    /* Adam takes a root of its second moments. */
    tensor->least = copy >= 2 && copy <= parameters->moments ? 0 : -tensor->greatest;
}

/* That a tensor takes, with its partner, in a place; over_in: in the transposed one. */
static uint64_t elements_of(const struct parameters *parameters, const struct parameter *item,
                            const struct place *place, bool over_in)
{
    const struct kernel_shape *shape = &parameters->shape;
    const uint64_t in = item->in > 0 ? item->in : 1, columns = parameters_columns(shape, item);
    const uint64_t k = over_in ? columns : in, n = over_in ? in : columns;
    return place->bytes == 1 ? kernel_weights(shape, k, n, over_in) : kernel_packed_floats(shape, k, n);
}

int parameters_read(struct parameters *parameters, unsigned index, float *values)
{
    unsigned copy;
    const struct parameter *item = tensor_of(parameters, index, &copy);
    const struct place place = place_of(parameters, item, copy);
    const size_t bytes = elements_of(parameters, item, &place, false) * place.bytes;
    void *packed = malloc(bytes);
    if (packed == NULL)
        return -ENOMEM;
    const int result = device_read(parameters->device, place.buffer, place.offset * place.bytes, packed, bytes);
    if (result == 0)
        unpack_primary(parameters, item, values, packed, place.bytes);
    free(packed);
    return result;
}

/* A row-major tensor into the panels of a place, over its `out` or, transposed, over its `in`: floats, or, where the
 * place is quantized, numbers. Pads are written as zeros, whatever was there; what is a partner's stays. */
static int write_place(struct parameters *parameters, const struct parameter *item, const struct place *place,
                       const float *values, const struct quantized_numbers *numbers, bool over_in)
{
    const struct packing packing = packing_of(parameters, item, over_in, place->bytes);
    const struct quantized matrix = quantized_of(&packing);
    const uint64_t count = elements_of(parameters, item, place, over_in);
    assert(count > 0);
    void *packed = calloc(count, place->bytes);
    if (packed == NULL)
        return -ENOMEM;
    const size_t at = place->offset * place->bytes, bytes = count * place->bytes;
    int result = item->paired ? device_read(parameters->device, place->buffer, at, packed, bytes) : 0;
    if (place->bytes == 1)
        quantized_place(&matrix, packed, numbers);
    else
        convert(&packing, packed, (float *)(uintptr_t)values, true);
    if (result == 0)
        result = device_write(parameters->device, place->buffer, at, packed, bytes);
    free(packed);
    return result;
}

bool parameters_is_quantized(const struct parameters *parameters, unsigned index)
{
    return parameters->shape.quantized != NULL && index < parameters->count && parameters->items[index].in > 0;
}

int parameters_write(struct parameters *parameters, unsigned index, const float *values)
{
    unsigned copy;
    const struct parameter *item = tensor_of(parameters, index, &copy);
    const struct place place = place_of(parameters, item, copy);
    const struct place halves = {parameters->matrices, item->at, parameters->shape.weight_bytes};
    const struct place transposed = {parameters->transposed, item->transposed, parameters->shape.weight_bytes};
    const bool is_matrix = item->in > 0 && copy == 0;
    if (parameters_is_quantized(parameters, index)) {
        struct quantized_numbers numbers;
        int result = quantized_numbers_create(&numbers, item->out, item->in);
        if (result != 0)
            return result;
        quantized_round(parameters->shape.quantized, item->out, item->in, values, &numbers);
        result = parameters_write_numbers(parameters, index, &numbers);
        quantized_numbers_destroy(&numbers);
        return result;
    }
    int result = write_place(parameters, item, &place, values, NULL, false);
    if (result == 0 && is_matrix && halves.buffer != place.buffer)
        result = write_place(parameters, item, &halves, values, NULL, false);
    if (result == 0 && is_matrix && !parameters->forward_only)
        result = write_place(parameters, item, &transposed, values, NULL, true);
    return result;
}

int parameters_write_numbers(struct parameters *parameters, unsigned index, const struct quantized_numbers *numbers)
{
    assert(parameters_is_quantized(parameters, index));
    const struct parameter *item = &parameters->items[index];
    const struct place place = place_of(parameters, item, 0);
    const struct place transposed = {parameters->transposed, item->transposed, parameters->shape.weight_bytes};
    int result = write_place(parameters, item, &place, NULL, numbers, false);
    if (result == 0 && !parameters->forward_only)
        result = write_place(parameters, item, &transposed, NULL, numbers, true);
    return result;
}

const char *parameters_held(const struct parameters *parameters)
{
    enum { HELD_OF_BATCH = 3, HELD_OF_SUM = 7 };
    uint32_t note;
    memcpy(&note, &parameters->results[parameters->accumulates ? HELD_OF_SUM : HELD_OF_BATCH], sizeof note);
    const uint64_t place = 4 * ((uint64_t)note - 1);
    for (unsigned i = 0; i < parameters->count && note != 0; i++) {
        const struct parameter *item = &parameters->items[i];
        if (place >= item->offset && place - item->offset < primary_floats(parameters, item))
            return item->name;
    }
    return NULL;
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

static float bound_of(const struct parameter *item)
{
    if (item->init == PARAMETER_XAVIER)
        return (float)sqrt(6.0 / (double)(item->in + item->out));
    return item->fan_in > 0 ? (float)(1.0 / sqrt((double)item->fan_in)) : 0.0f;
}

int parameters_initialise(struct parameters *parameters, uint64_t seed)
{
    int result = 0;
    for (unsigned p = 0; p < parameters->count && result == 0; p++) {
        const struct parameter *item = &parameters->items[p];
        const uint64_t count = item->out * (item->in > 0 ? item->in : 1);
        const float bound = bound_of(item);
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

static int allocate(struct parameters *parameters, uint64_t count, size_t bytes, const char *what, cl_mem *buffer)
{
    return count > 0 ? device_allocate_part(parameters->device, count * bytes, what, buffer) : 0;
}

static int allocate_weights(struct parameters *parameters)
{
    const size_t weight_bytes = parameters->shape.weight_bytes;
    int result;
    if (has_masters(parameters)) {
        result = allocate(parameters, parameters->primary_floats, sizeof(float), "weights", &parameters->masters);
        parameters->matrices = parameters->vectors = parameters->masters;
    } else {
        result = allocate(parameters, parameters->vectors_floats, sizeof(float), "vectors", &parameters->vectors);
    }
    if (result == 0 && is_narrow(parameters)) {
        parameters->matrices = NULL;
        result =
            allocate(parameters, parameters->matrices_weights, weight_bytes, "narrow weights", &parameters->matrices);
    }
    if (result == 0)
        result = allocate(parameters, parameters->transposed_weights, weight_bytes, "transposed weights",
                          &parameters->transposed);
    return result;
}

int parameters_create(struct parameters *parameters, struct device *device)
{
    const uint64_t trained = parameters->trained_floats;
    parameters->device = device;
    int result = allocate_weights(parameters);
    for (unsigned m = 0; m < parameters->moments && result == 0; m++)
        result = allocate(parameters, trained, sizeof(float), "optimizer state", &parameters->moment[m]);
    if (result == 0 && parameters->accumulates)
        result = allocate(parameters, trained, sizeof(float), "accumulated gradients", &parameters->gradient);
    if (result != 0)
        parameters_destroy(parameters);
    return result;
}

void parameters_destroy(struct parameters *parameters)
{
    if (parameters->device == NULL)
        return;
    if (parameters->matrices == parameters->masters)
        parameters->matrices = NULL;
    if (parameters->vectors == parameters->masters)
        parameters->vectors = NULL;
    device_release_part(parameters->device, &parameters->masters);
    device_release_part(parameters->device, &parameters->matrices);
    device_release_part(parameters->device, &parameters->vectors);
    device_release_part(parameters->device, &parameters->transposed);
    for (unsigned m = 0; m < OPTIMIZER_MOMENTS_MAX; m++)
        device_release_part(parameters->device, &parameters->moment[m]);
    device_release_part(parameters->device, &parameters->gradient);
}

/* --- snapshots: the parameters, then each other copy, of what trains, one behind the other ------------------------ */

static uint64_t copy_bytes(const struct parameters *parameters)
{
    return parameters->trained_floats * sizeof(float);
}

uint64_t parameters_snapshot_bytes(const struct parameters *parameters)
{
    return weights_bytes(parameters) + (copies_of(parameters) - 1) * copy_bytes(parameters);
}

int parameters_snapshot(struct parameters *parameters, void *memory)
{
    const size_t matrices = matrices_bytes(parameters);
    char *part = memory;
    int result = 0;
    if (has_masters(parameters)) {
        for (unsigned copy = 0; copy < copies_of(parameters) && result == 0; copy++) {
            const size_t bytes = copy == 0 ? weights_bytes(parameters) : copy_bytes(parameters);
            result =
                device_read(parameters->device, place_of(parameters, parameters->items, copy).buffer, 0, part, bytes);
            part += bytes;
        }
        return result;
    }
    if (matrices > 0)
        result = device_read(parameters->device, parameters->matrices, 0, memory, matrices);
    if (result == 0 && parameters->vectors_floats > 0)
        result = device_read(parameters->device, parameters->vectors, 0, (char *)memory + matrices,
                             parameters->vectors_floats * sizeof(float));
    return result;
}

void parameters_snapshot_tensor(const struct parameters *parameters, const void *memory, unsigned index, float *values)
{
    unsigned copy;
    const struct parameter *item = tensor_of(parameters, index, &copy);
    const struct place place = place_of(parameters, item, copy);
    const char *part = memory;
    if (copy > 0)
        part += weights_bytes(parameters) + (copy - 1) * copy_bytes(parameters);
    if (!has_masters(parameters) && item->in == 0)
        part += matrices_bytes(parameters);
    unpack_primary(parameters, item, values, part + place.offset * place.bytes, place.bytes);
}
