#include "frontend/task_inputs.h"

#include <string.h>

#include "proto/codec.h"

void task_inputs_copy(const struct task_inputs *inputs, struct pool *pool, const struct pool_claim *claim,
                      struct copier *copier)
{
    const struct schema *schema = &pool_header(pool)->inputs;
    for (uint32_t i = 0; i < schema->count; i++) {
        unsigned char *row = (unsigned char *)pool_input(pool, i) + claim->row * pool_input_row_bytes(pool, i);
        const unsigned char *data = inputs->tensors[i].data;
        const size_t bytes = inputs->tensors[i].bytes;
        if (inputs->tensors[i].codec != CODEC_NONE) {
            codec_decode_some(inputs->tensors[i].codec, data, inputs->tensors[i].elements, inputs->tensors[i].last,
                              inputs->tensors[i].first, inputs->tensors[i].count, (float *)(void *)row);
        } else if (schema->tensors[i].dtype == DTYPE_BOOL) {
            /* Kernels index and multiply with these: they are 0 or 1, whatever came. */
            for (size_t b = 0; b < bytes; b++)
                row[b] = data[b] != 0;
        } else {
            copier_copy(copier, row, data, bytes);
        }
    }
}

/* Encoded elements that are not the whole frame. */
static bool is_some(const struct task_inputs *inputs, uint32_t tensor)
{
    return inputs->tensors[tensor].codec != CODEC_NONE &&
           inputs->tensors[tensor].count != inputs->tensors[tensor].elements;
}

static uint64_t kept_bytes(const struct task_inputs *inputs, uint32_t tensor)
{
    return is_some(inputs, tensor) ? inputs->tensors[tensor].count * sizeof(float) : inputs->tensors[tensor].bytes;
}

uint64_t task_inputs_bytes(const struct task_inputs *inputs, uint32_t count)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < count; i++)
        bytes += kept_bytes(inputs, i);
    return bytes;
}

bool task_inputs_keep(struct task_inputs *inputs, uint32_t tensor, zmq_msg_t *kept)
{
    const uint64_t bytes = kept_bytes(inputs, tensor);
    if (zmq_msg_init_size(kept, bytes) != 0)
        return false;
    if (is_some(inputs, tensor)) {
        codec_decode_some(inputs->tensors[tensor].codec, inputs->tensors[tensor].data, inputs->tensors[tensor].elements,
                          inputs->tensors[tensor].last, inputs->tensors[tensor].first, inputs->tensors[tensor].count,
                          zmq_msg_data(kept));
        inputs->tensors[tensor].codec = CODEC_NONE;
    } else {
        memcpy(zmq_msg_data(kept), inputs->tensors[tensor].data, bytes);
    }
    inputs->tensors[tensor].bytes = bytes;
    return true;
}
