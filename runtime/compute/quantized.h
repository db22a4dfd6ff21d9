/* Matrices of weights in a few bits (runtime/compute/weight_format.h), as they lie in device memory.
 *
 * A matrix is panels as everywhere (runtime/compute/kernels/common.cl), each of blocks of 32 rows of what a product
 * contracts: first the block's scales, then its codes, row by row; of 4 bits, row r and row r + 16 share a byte, the
 * lower half of which is row r's. Rows beyond the matrix and pad columns are 0.
 *   - For the forward product rows are inputs: a scale for each column of the panel.
 *   - In the transposed matrix rows are outputs, the codes and scales the same ones: a scale for each row, and each 32
 *     columns of the panel where it has more.
 *   - Where a format has a scale for each square, a block has two floats, of its even and its odd columns (transposed:
 *     rows), which are two tensors' in a gated product; and 8 bytes of nothing. */
#ifndef EXPERTD_RUNTIME_QUANTIZED_H
#define EXPERTD_RUNTIME_QUANTIZED_H

#include "runtime/compute/kernel.h"

/* A tensor (out, in) in a format: a code for each weight, of 4 bits too in a byte of its own, and a scale for each
 * group, ceil(in / 32) of them to an output. */
struct quantized_numbers {
    uint8_t *codes;
    float *scales;
};
int quantized_numbers_create(struct quantized_numbers *numbers, uint64_t out, uint64_t in); /* 0, or -ENOMEM */
void quantized_numbers_destroy(struct quantized_numbers *numbers);
/* Rounds floats to what a format has. */
void quantized_round(const struct weight_format *format, uint64_t out, uint64_t in, const float *values,
                     struct quantized_numbers *numbers);
/* Whether blocks of device memory can have the scales: of a format with squares they may change at each 64th weight in
 * both directions, and nowhere else. */
bool quantized_fits(const struct weight_format *format, uint64_t out, uint64_t in, const float *scales);

/* A tensor (out, in) in a matrix of device memory. Output c is the matrix's output number c * step + first, of
 * `columns`: of a gated product two tensors share one. */
struct quantized {
    const struct kernel_shape *shape;
    uint64_t out, in;
    uint64_t step, first, columns;
    bool transposed;
};
/* Into and out of kernel_weights() bytes, which are 0 before the first. What is another tensor's is not touched. */
void quantized_place(const struct quantized *matrix, void *memory, const struct quantized_numbers *numbers);
void quantized_unpack(const struct quantized *matrix, const void *memory, float *values);

#endif
