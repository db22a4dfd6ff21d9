/* A part of a tensor in a checkpoint, as a template names it for the expert of a uid:
 *
 *     model.layers.{layer}.mlp.experts.{expert}.up_proj.weight
 *     model.layers.{layer}.block_sparse_moe.input_linear.weight[{expert}, half:]
 *     model.layers.{layer}.mlp.experts.gate_up_proj[{expert}, :, 0::2].T
 *
 * {layer} stands for the first coordinate of the uid, {expert} for the second: olmoe.3.17 is layer 3, expert 17; a uid
 * with one coordinate has no {expert}. Brackets behind the name select as NumPy's do, one item for each dimension: a
 * number (or {layer}, {expert}) takes one, and the dimension is gone; first:end:step takes some, each of the three with
 * the usual default; `half` is half of the dimension, which must be even. Dimensions without an item are taken whole.
 * Unlike NumPy's, numbers are not negative, and one beyond the dimension is an error. ".T" behind the brackets
 * transposes what has two dimensions.
 *
 * Functions return 0 or -EINVAL with a sentence in `error`. All are pure. */
#ifndef EXPERTD_COMMON_TENSOR_PART_H
#define EXPERTD_COMMON_TENSOR_PART_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    TENSOR_PART_DIMS = 8,
    TENSOR_PART_NAME_SIZE = 256,
    TENSOR_PART_ERROR_SIZE = 512,
};

/* Of one dimension. */
struct tensor_slice {
    bool single; /* `first` alone */
    uint64_t first, end, step;
};
#define TENSOR_SLICE_HALF (UINT64_MAX - 1) /* first, end: half of the dimension */
#define TENSOR_SLICE_END UINT64_MAX        /* end: all that are left */

struct tensor_part {
    char name[TENSOR_PART_NAME_SIZE];
    struct tensor_slice slices[TENSOR_PART_DIMS];
    unsigned slices_count;
    bool transposed;
};

/* What a part is of a tensor whose shape is known: element (i, j) lies at offset + i * strides[0] + j * strides[1]. */
struct tensor_view {
    uint64_t offset;
    unsigned ndim;
    uint64_t dims[TENSOR_PART_DIMS], strides[TENSOR_PART_DIMS];
};

int tensor_part_parse(struct tensor_part *part, const char *template, const char *uid,
                      char error[TENSOR_PART_ERROR_SIZE]);
/* The part of a tensor with these dimensions, whose elements are fewer than 2^64; at most TENSOR_PART_DIMS of them. */
int tensor_part_view(struct tensor_view *view, const struct tensor_part *part, const uint64_t *dims, unsigned ndim,
                     char error[TENSOR_PART_ERROR_SIZE]);

#endif
