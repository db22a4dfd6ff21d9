/* The block `ffn`, h = hidden_dim:
 *     out = LayerNorm(x + W2 gelu(W1 x + b1) + b2), eps 1e-12, W1 (4h, h), W2 (h, 4h)
 *     gelu(x) = x/2 (1 + tanh(0.7978845608 x (1 + 0.044715 x^2)))
 * Parameters: ffn.weight, ffn.bias, ffn_output.weight, ffn_output.bias, layer_norm.weight, layer_norm.bias.
 *
 * Batches are worked on in chunks of at most chunk_rows rows, so that the workspace is bounded. */
#ifndef EXPERTD_RUNTIME_FFN_H
#define EXPERTD_RUNTIME_FFN_H

#include "runtime/device/device_private.h"
#include "runtime/blocks/expert.h"
#include "runtime/train/parameters.h"

#define FFN_EPSILON 1e-12f /* of the LayerNorm */

enum ffn_parameter { /* PyTorch's order */
                     FFN_WEIGHT,
                     FFN_BIAS,
                     FFN_OUTPUT_WEIGHT,
                     FFN_OUTPUT_BIAS,
                     FFN_NORM_WEIGHT,
                     FFN_NORM_BIAS,
};

/* Offsets into the device's workspace, in floats, for `rows` rows. */
struct ffn_workspace {
    uint64_t gradient; /* primary floats: the batch's parameter gradients */
    uint64_t x;        /* the chunk's inputs, packed */
    uint64_t preact;   /* W1 x + b1, packed */
    uint64_t act;      /* gelu of it; later the gradient at the pre-activation, packed */
    uint64_t sum;      /* x + W2 act + b2, packed */
    uint64_t grad_sum; /* the gradient there, packed */
    uint64_t stats;    /* LayerNorm's mean and 1 / deviation of each row */
    uint64_t floats;   /* in all */
};

struct ffn {
    struct expert base;
    struct parameters parameters;
    cl_int hidden, inner;
    unsigned chunk_rows;
};

/* Enqueue the kernels for rows that are in reach of the device. A backward leaves the parameter gradients, summed over
 * all rows, in the workspace, unless the optimizer is none. */
int ffn_enqueue_forward(struct ffn *ffn, uint64_t rows, const struct device_rows *input,
                        const struct device_rows *output);

int ffn_enqueue_backward(struct ffn *ffn, uint64_t rows, const struct device_rows *input,
                         const struct device_rows *grad_output, const struct device_rows *grad_input);

void ffn_workspace_layout(const struct ffn *ffn, struct ffn_workspace *workspace);

#endif
