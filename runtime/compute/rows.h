/* Rows between the two layouts, and sums over them, on a device. They enqueue and do not wait. */
#ifndef EXPERTD_RUNTIME_ROWS_H
#define EXPERTD_RUNTIME_ROWS_H

#include "runtime/compute/kernel.h"
#include "runtime/compute/linear.h"
#include "runtime/device/device.h"

/* Row-major rows into panels, pad columns 0. */
int rows_pack(struct device *device, cl_int rows, cl_int columns, const struct device_rows *from,
              const struct device_rows *to);
/* out = what a product's epilogue (enum linear_flags: activations, back through them, LINEAR_MULTIPLY, LINEAR_ADD)
 * makes of a in place of its sum; no flags: a copy. `second` is read if the flags need it, else it may be NULL. Any of
 * the views may be row-major or in panels, whose pad columns are 0 and become 0; out may be one of the others. */
int rows_apply(struct device *device, cl_int rows, cl_int columns, unsigned flags, const struct kernel_view *a,
               const struct kernel_view *second, const struct kernel_view *out);
/* Where a tensor of masks lies, row-major: bools, or whole numbers of 64 bits. */
struct rows_mask {
    cl_mem buffer;
    cl_ulong offset_bytes;
    bool wide; /* of 64 bits; their values count, not only whether they are 0 */
};
/* out = x * mask * scale; the same of the views. */
int rows_mask(struct device *device, cl_int rows, cl_int columns, float scale, const struct kernel_view *x,
              const struct rows_mask *mask, const struct kernel_view *out);
/* A weight and a bias: for each column a number, row-major, of so many rows; those behind them have the same again. */
struct rows_affine {
    float scale, shift;
    cl_mem constants;
    cl_ulong weight, bias; /* where they lie there, in floats; ROWS_NONE: there is none */
    cl_int period;         /* rows */
};
#define ROWS_NONE (~(cl_ulong)0)
/* out = x * scale * weight + bias + shift; the same of the views. */
int rows_affine(struct device *device, cl_int rows, cl_int columns, const struct rows_affine *affine,
                const struct kernel_view *x, const struct kernel_view *out);
/* Its gradients, in the places of the constants: weight (+)= the sums over rows of dy * x * scale, bias (+)= those of
 * dy, both padded to whole panels. x is read if there is a weight, else its buffer may be NULL. */
int rows_affine_sums(struct device *device, cl_int rows, cl_int columns, cl_int accumulate,
                     const struct rows_affine *gradients, const struct kernel_view *x, const struct kernel_view *dy);
/* sums[column] (+)= the sum over rows of `data`, which is in panels; the sums are padded to whole panels. */
int rows_column_sums(struct device *device, cl_int rows, cl_int columns, cl_int accumulate,
                     const struct device_rows *data, cl_mem sums, cl_ulong sums_offset);

/* Back through a gated product (struct linear_gate): of dy[rows][columns], and of the pairs that the forward kept, the
 * gradients of the pairs. Both have kernel_paired_columns(columns) columns, in panels. */
struct rows_gate {
    unsigned flags; /* the activation and its derivative, of enum linear_flags */
    struct linear_gate how;
    struct device_rows pairs, gradients; /* read, written */
};
int rows_gate_backward(struct device *device, cl_int rows, cl_int columns, const struct rows_gate *gate,
                       const struct kernel_view *dy);

/* Row-major numbers of 16 bits: float16, or (brain) bfloat16. */
struct rows_short {
    cl_mem buffer;
    cl_ulong offset_bytes; /* even */
    bool brain;
};
/* To floats, exactly; and back, rounded to nearest, ties to even. */
int rows_widen(struct device *device, cl_int rows, cl_int columns, const struct rows_short *from,
               const struct kernel_view *to);
int rows_narrow(struct device *device, cl_int rows, cl_int columns, const struct kernel_view *from,
                const struct rows_short *to);

#endif
