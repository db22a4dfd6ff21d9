/* Weights of 8 or 4 bits (config_device.precision int8, int4), as they are in device memory, from floats and back.
 *
 * The weights of an output that meet 32 inputs one behind the other are a group; the last one of an output may be
 * shorter. A group has a scale, a half, and a weight is number * scale, exactly, in fp32. Of the values x of a group,
 * with the greatest of |x| being m:
 *   - int8: d = m / 127, number = x / d to nearest, halves away from 0: -127 to 127. This is GGUF's Q8_0.
 *   - int4: d = x_m / -8, x_m being the first x with |x| = m, number = x / d to nearest, at most 7: -8 to 7. Q4_0.
 *   - scale = d, to nearest. Where that is 0, as |d| is 2^-25 or less, all numbers are.
 * So a weight differs from what it was by at most
 *     int8: m (1/254 + 2^-11),      int4: m (1/8 + 2^-11), and half as much for all but those near -x_m,
 * and, where |d| is below 2^-14, by 127 * 2^-25 and 8 * 2^-25 more.
 *
 * In memory a matrix is panels as everywhere (runtime/compute/kernels/common.cl), each of blocks of 32 rows of what a
 * product contracts: first the block's scales, then its numbers, row by row; of 4 bits, row r and row r + 16 share a
 * byte, the lower half of which is row r's. Rows beyond the matrix and pad columns are 0.
 *   - For the forward product rows are inputs: a scale for each column of the panel.
 *   - In the transposed matrix rows are outputs, the numbers and scales the same ones: a scale for each row, and each
 * 32 columns of the panel where it has more. */
#ifndef EXPERTD_RUNTIME_QUANTIZED_H
#define EXPERTD_RUNTIME_QUANTIZED_H

#include "runtime/compute/kernel.h"

/* A tensor (out, in) in a matrix of device memory. Output c is the matrix's output number c * step + first, of
 * `columns`: of a gated product two tensors share one. */
struct quantized {
    const struct kernel_shape *shape;
    uint64_t out, in;
    uint64_t step, first, columns;
    bool transposed;
};

/* The greatest value that a weight may have: of what is beyond, the scale would be infinite. */
float quantized_greatest(unsigned bits);
/* Into and out of kernel_weights() bytes, which are 0 before the first. What is another tensor's is not touched. */
void quantized_pack(const struct quantized *matrix, void *memory, const float *values);
void quantized_unpack(const struct quantized *matrix, const void *memory, float *values);

#endif
