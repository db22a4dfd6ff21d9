/* Batched strided products on a device: many small matrices that lie in larger ones, below each other and, as the heads
 * of an attention do, side by side. All of it is in fp32, whatever config_device.precision says of products with
 * weights; a sum of K products differs from the exact one by at most K 2^-23 sum |a_i b_i|. */
#ifndef EXPERTD_RUNTIME_BATCHED_H
#define EXPERTD_RUNTIME_BATCHED_H

#include <stdbool.h>

#include "runtime/compute/kernel.h"
#include "runtime/device/device.h"

/* Columns of a matrix of `columns`, from `first` on: several operands may lie in one. */
struct batched_operand {
    struct kernel_view view;
    cl_int columns, first;
};

/* The same as kernels are told, of which so many columns are used: {offset, row_stride, panel_stride, first column and
 * in the upper half the pad columns behind the last one}. A result that ends with the last column of a matrix in panels
 * has the pad columns cleared. */
cl_long4 batched_place(const struct device *device, const struct batched_operand *operand, cl_int used);

/* For each of `matrices` that lie below each other in a, b and out, and each of `heads` that lie side by side there:
 *     out[rows][columns] = scale a b
 * where a is [rows][count], or with a_across [count][rows], and b is [count][columns], or with b_across
 * [columns][count]. Not both across. out is neither a nor b. */
struct batched_call {
    cl_int matrices, heads, rows, columns, count;
    bool a_across, b_across;
    cl_float scale;
    struct batched_operand a, b, out;
};
/* Enqueues it. */
int batched_product(struct device *device, const struct batched_call *call);

#endif
