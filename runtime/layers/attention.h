/* Attention with several heads, on a device: for each row of a batch and each head
 *     out = softmax(q k^T / sqrt(width)) v,   q, k, v, out [tokens][width]
 * A matrix has rows * tokens rows, and the heads side by side in its columns, `width` each. Scores are never in memory
 * beyond a tile: the backward makes them again, and the weights with the statistics that the forward kept. All of it
 * is in fp32, whatever config_device.precision says of products with weights.
 *
 * mask[rows][tokens] has a byte for each key: not 0 for one that is left out. What a key is that is left out, and its
 * value, does not matter, not even if they are no numbers; their gradients are 0. Where all keys of a row are left out
 * its results are 0, and so are all of its gradients. No row depends on the others. All enqueue and do not wait. */
#ifndef EXPERTD_RUNTIME_ATTENTION_H
#define EXPERTD_RUNTIME_ATTENTION_H

#include "runtime/compute/batched.h"
#include "runtime/compute/kernel.h"
#include "runtime/device/device.h"

struct attention_call {
    cl_int rows, tokens, heads, width;
    struct batched_operand q, k, v, out; /* out: written, and read by the backward */
    cl_mem mask;                         /* NULL: no key is left out */
    cl_ulong mask_offset_bytes;
    /* attention_stats_floats: written by a forward, and both by a backward; NULL for a forward that none follows. */
    cl_mem stats;
    cl_ulong stats_offset; /* in floats */
};
static inline uint64_t attention_stats_floats(uint64_t rows, uint64_t tokens, uint64_t heads)
{
    return 2 * rows * tokens * heads;
}
int attention_forward(struct device *device, const struct attention_call *call);

struct attention_gradients {
    struct batched_operand out;     /* read */
    struct batched_operand q, k, v; /* written */
};
int attention_backward(struct device *device, const struct attention_call *call,
                       const struct attention_gradients *gradients);

#endif
