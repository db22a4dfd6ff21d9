#include "runtime/blocks/ffn.h"
#include "runtime/layers/layer_norm.h"
#include "runtime/compute/linear.h"
#include "runtime/compute/provider.h"

static int forward_chunk(struct ffn *ffn, cl_int rows, const struct device_rows *input,
                         const struct device_rows *output)
{
    struct device *device = ffn->base.device;
    const struct kernel_shape *shape = provider_shape(device);
    const struct parameter *p = ffn->parameters.items;
    const cl_mem matrices = ffn->parameters.matrices, vectors = ffn->parameters.vectors;
    /* A forward needs one intermediate: it may use the whole workspace, as the queue is in order. */
    const struct kernel_view x = kernel_view_rows(shape, input->buffer, input->offset, (uint64_t)ffn->hidden);
    const struct kernel_view act = kernel_view_rows(shape, device->workspace, 0, (uint64_t)ffn->inner);
    const struct kernel_view out = kernel_view_rows(shape, output->buffer, output->offset, (uint64_t)ffn->hidden);
    const struct linear_call first = {
        .rows = rows,
        .n = ffn->inner,
        .k = ffn->hidden,
        .flags = LINEAR_BIAS | LINEAR_GELU,
        .a = x,
        .weights = matrices,
        .weights_offset = p[FFN_WEIGHT].at,
        .out = act,
        .bias = vectors,
        .bias_offset = p[FFN_BIAS].at,
    };
    const struct linear_call second = {
        .rows = rows,
        .n = ffn->hidden,
        .k = ffn->inner,
        .flags = LINEAR_BIAS | LINEAR_ADD,
        .a = act,
        .weights = matrices,
        .weights_offset = p[FFN_OUTPUT_WEIGHT].at,
        .out = out,
        .bias = vectors,
        .bias_offset = p[FFN_OUTPUT_BIAS].at,
        .second = x,
    };
    int result = linear_layer_forward(device, &first);
    if (result == 0)
        result = linear_layer_forward(device, &second);
    if (result == 0)
        result = layer_norm_forward(device, rows, ffn->hidden, FFN_EPSILON, output, vectors, p[FFN_NORM_WEIGHT].at,
                                    p[FFN_NORM_BIAS].at);
    return result;
}

int ffn_enqueue_forward(struct ffn *ffn, uint64_t rows, const struct device_rows *input,
                        const struct device_rows *output)
{
    int result = 0;
    for (uint64_t row = 0; row < rows && result == 0; row += ffn->chunk_rows) {
        const uint64_t chunk = rows - row < ffn->chunk_rows ? rows - row : ffn->chunk_rows;
        const struct device_rows in = {input->buffer, input->offset + row * (uint64_t)ffn->hidden};
        const struct device_rows out = {output->buffer, output->offset + row * (uint64_t)ffn->hidden};
        result = forward_chunk(ffn, (cl_int)chunk, &in, &out);
    }
    return result;
}
