#include "frontend/task_inputs.h"

#include <string.h>

#include "proto/codec.h"

void task_inputs_copy(const struct task_inputs *inputs, struct pool *pool, const struct pool_claim *claim)
{
    const struct schema *schema = &pool_header(pool)->inputs;
    for (uint32_t i = 0; i < schema->count; i++) {
        unsigned char *row = (unsigned char *)pool_input(pool, i) + claim->row * pool_input_row_bytes(pool, i);
        const unsigned char *data = inputs->tensors[i].data;
        const size_t bytes = inputs->tensors[i].bytes;
        if (inputs->tensors[i].codec != CODEC_NONE) {
            codec_decode(inputs->tensors[i].codec, data, inputs->tensors[i].elements, inputs->tensors[i].last,
                         (float *)(void *)row);
        } else if (schema->tensors[i].dtype == DTYPE_BOOL) {
            /* Kernels index and multiply with these: they are 0 or 1, whatever came. */
            for (size_t b = 0; b < bytes; b++)
                row[b] = data[b] != 0;
        } else {
            memcpy(row, data, bytes);
        }
    }
}
