/* The kernels: their numbers, the shape of panels they are built for, and what one is launched with. Every provider's
 * sources (runtime/compute/kernels/) define all of them with the same names and arguments, so that only the grid
 * differs. */
#ifndef EXPERTD_RUNTIME_KERNEL_H
#define EXPERTD_RUNTIME_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/half.h"
#include "runtime/compute/weight_format.h"
#include "runtime/device/opencl.h"

enum kernel {
    KERNEL_LINEAR,
    KERNEL_LINEAR_GROUP, /* of providers that have it */
    KERNEL_WEIGHT_GRADIENT,
    KERNEL_LAYER_NORM,
    KERNEL_LAYER_NORM_BACKWARD,
    KERNEL_LAYER_NORM_SUMS,
    KERNEL_RMS_NORM,
    KERNEL_RMS_NORM_BACKWARD,
    KERNEL_RMS_NORM_SUMS,
    KERNEL_COLUMN_SUMS,
    KERNEL_PACK_ROWS,
    KERNEL_APPLY,
    KERNEL_MASK_ROWS,
    KERNEL_AFFINE_ROWS,
    KERNEL_AFFINE_SUMS,
    KERNEL_GATE_BACKWARD,
    KERNEL_WIDEN_ROWS,
    KERNEL_NARROW_ROWS,
    KERNEL_BATCHED_PRODUCT,
    KERNEL_ATTENTION,
    KERNEL_ATTENTION_BACKWARD,
    KERNEL_NORM_PARTIALS,
    KERNEL_NORM_FINISH,
    KERNEL_ACCUMULATE,
    KERNEL_STEP_ADAM,
    KERNEL_STEP_SGD,
    KERNEL_COUNT
};
const char *kernel_name(enum kernel kernel);

struct kernel_shape {
    unsigned vec;          /* floats of a vector */
    unsigned panel;        /* floats of a panel's row; a multiple of vec. 0: one panel, of the matrix's columns */
    unsigned tile_rows;    /* rows of the largest tile */
    unsigned weight_bytes; /* of an element of a matrix that products read as weights: 4, or 2, a half; or 1 */
    bool bfloat;           /* of 2: it is a bfloat16 instead */
    const struct weight_format *quantized; /* of 1: what its bytes are (runtime/compute/quantized.h); else NULL */
};

/* An element of 2 bytes: to nearest, ties to even; and back, exactly. */
static inline uint16_t kernel_weight_from_float(const struct kernel_shape *shape, float value)
{
    return shape->bfloat ? bfloat_from_float(value) : half_from_float(value);
}
static inline float kernel_weight_to_float(const struct kernel_shape *shape, uint16_t weight)
{
    return shape->bfloat ? bfloat_to_float(weight) : half_to_float(weight);
}

/* A matrix in device memory, as runtime/compute/kernels/common.cl says. Offsets and strides count floats. */
struct kernel_view {
    cl_mem buffer;
    cl_ulong offset;
    cl_long row_stride, panel_stride; /* 0 in panels of width 0 */
    bool rows;                        /* row-major: no pad columns */
};

/* The panels that `columns` take, the floats of a panel's row, and those of a matrix in panels. */
static inline uint64_t kernel_panels(const struct kernel_shape *shape, uint64_t columns)
{
    return shape->panel == 0 ? 1 : (columns + shape->panel - 1) / shape->panel;
}
static inline uint64_t kernel_panel_width(const struct kernel_shape *shape, uint64_t columns)
{
    return shape->panel == 0 ? columns : shape->panel;
}
static inline uint64_t kernel_packed_floats(const struct kernel_shape *shape, uint64_t rows, uint64_t columns)
{
    return kernel_panels(shape, columns) * rows * kernel_panel_width(shape, columns);
}
/* Elements of a matrix of weights of which products contract `k` rows, and make n columns. Quantized, it is blocks of
 * scales and codes, which differ where it is the transposed one. */
enum { KERNEL_SQUARE_SCALES = 16 /* bytes: two floats, and what keeps codes from crossing cache lines */ };
static inline uint64_t kernel_quantized_scales(const struct kernel_shape *shape, bool transposed)
{
    const uint64_t beside = shape->panel > WEIGHT_FORMAT_GROUP ? shape->panel / WEIGHT_FORMAT_GROUP : 1;
    return shape->quantized->square
               ? KERNEL_SQUARE_SCALES
               : (transposed ? WEIGHT_FORMAT_GROUP * beside : shape->panel) * shape->quantized->scale_bytes;
}
static inline uint64_t kernel_quantized_block(const struct kernel_shape *shape, bool transposed)
{
    return kernel_quantized_scales(shape, transposed) +
           (uint64_t)WEIGHT_FORMAT_GROUP * shape->panel * shape->quantized->bits / 8;
}
static inline uint64_t kernel_weights(const struct kernel_shape *shape, uint64_t k, uint64_t n, bool transposed)
{
    const uint64_t groups = (k + WEIGHT_FORMAT_GROUP - 1) / WEIGHT_FORMAT_GROUP;
    return shape->quantized != NULL ? kernel_panels(shape, n) * groups * kernel_quantized_block(shape, transposed)
                                    : kernel_packed_floats(shape, k, n);
}
/* Columns of the weights of a gated product with so many results, each of which has two of them: whole panels. */
static inline uint64_t kernel_paired_columns(const struct kernel_shape *shape, uint64_t columns)
{
    return 2 * kernel_panels(shape, columns) * kernel_panel_width(shape, columns);
}
/* Where a view of a matrix of so many columns lies, as kernels are told: {offset, row_stride, panel_stride, 0}. */
cl_long4 kernel_view_place(const struct kernel_view *view, uint64_t columns);
struct kernel_view kernel_view_rows(const struct kernel_shape *shape, cl_mem buffer, uint64_t offset, uint64_t columns);
struct kernel_view kernel_view_packed(const struct kernel_shape *shape, cl_mem buffer, uint64_t offset, uint64_t rows);

struct kernel_grid {
    unsigned dims;
    size_t global[2], local[2];
    cl_int group, block;   /* what the provider's `linear` and `weight_gradient` make of them */
    cl_kernel object;      /* one of the same arguments, for this size; NULL: the device's own */
    cl_kernel of_gradient; /* the same for a product whose left operand is a gradient; NULL: as any other */
};

struct kernel_argument {
    size_t size;
    const void *value;
};
#define KERNEL_ARGUMENT(x)                                                                                             \
    {                                                                                                                  \
        sizeof(x), &(x)                                                                                                \
    }

#endif
