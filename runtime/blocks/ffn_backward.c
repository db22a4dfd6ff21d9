#include "runtime/blocks/ffn.h"
#include "runtime/layers/layer_norm.h"
#include "runtime/compute/linear.h"
#include "runtime/compute/provider.h"
#include "runtime/compute/rows.h"

/* One chunk's rows, and where its parts lie in the workspace. */
struct chunk {
    struct ffn *ffn;
    struct device *device;
    struct ffn_workspace at;
    cl_int rows;
    cl_int accumulate; /* chunks after the first add their parameter gradients */
    bool train;        /* parameter gradients are wanted */
    struct device_rows input, grad_output, grad_input;
    struct kernel_view x;
};

static struct kernel_view packed(const struct chunk *chunk, uint64_t offset)
{
    return kernel_view_packed(provider_shape(chunk->device), chunk->device->workspace, offset, (uint64_t)chunk->rows);
}

static uint64_t gradient_of(const struct chunk *chunk, enum ffn_parameter parameter)
{
    return chunk->at.gradient + chunk->ffn->parameters.items[parameter].offset;
}

/* preact = W1 x + b1, act = gelu(preact), sum = x + W2 act + b2. */
static int recompute(struct chunk *chunk)
{
    struct ffn *ffn = chunk->ffn;
    struct device *device = chunk->device;
    const struct parameter *p = ffn->parameters.items;
    const struct linear_call first = {
        .rows = chunk->rows,
        .n = ffn->inner,
        .k = ffn->hidden,
        .flags = LINEAR_BIAS | LINEAR_SAVE | LINEAR_GELU,
        .a = chunk->x,
        .weights = ffn->parameters.matrices,
        .weights_offset = p[FFN_WEIGHT].at,
        .out = packed(chunk, chunk->at.act),
        .bias = ffn->parameters.vectors,
        .bias_offset = p[FFN_BIAS].at,
        .save = device->workspace,
        .save_offset = chunk->at.preact,
    };
    const struct linear_call second = {
        .rows = chunk->rows,
        .n = ffn->hidden,
        .k = ffn->inner,
        .flags = LINEAR_BIAS | LINEAR_ADD,
        .a = first.out,
        .weights = ffn->parameters.matrices,
        .weights_offset = p[FFN_OUTPUT_WEIGHT].at,
        .out = packed(chunk, chunk->at.sum),
        .bias = ffn->parameters.vectors,
        .bias_offset = p[FFN_OUTPUT_BIAS].at,
        .second = chunk->x,
    };
    const int result = linear_layer_forward(device, &first);
    return result == 0 ? linear_layer_forward(device, &second) : result;
}

/* grad_sum, and the gradients of gamma, beta and b2, which are column sums. */
static int through_layer_norm(struct chunk *chunk)
{
    struct ffn *ffn = chunk->ffn;
    const struct layer_norm_backward_call call = {
        .rows = chunk->rows,
        .columns = ffn->hidden,
        .eps = FFN_EPSILON,
        .accumulate = chunk->accumulate,
        .x = {chunk->device->workspace, chunk->at.sum},
        .dy = chunk->grad_output,
        .dx = {chunk->device->workspace, chunk->at.grad_sum},
        .stats = {chunk->device->workspace, chunk->at.stats},
        .weights = ffn->parameters.vectors,
        .gamma_offset = ffn->parameters.items[FFN_NORM_WEIGHT].at,
        .gradients = chunk->device->workspace,
        .dgamma_offset = gradient_of(chunk, FFN_NORM_WEIGHT),
        .dbeta_offset = gradient_of(chunk, FFN_NORM_BIAS),
        .dbias_offset = gradient_of(chunk, FFN_OUTPUT_BIAS),
    };
    const int result = layer_norm_backward(chunk->device, &call);
    return result == 0 && chunk->train ? layer_norm_sums(chunk->device, &call) : result;
}

/* dw = x^T dy. */
static int weight_gradient(struct chunk *chunk, enum ffn_parameter parameter, uint64_t x, uint64_t dy)
{
    const cl_mem workspace = chunk->device->workspace;
    const struct parameter *item = &chunk->ffn->parameters.items[parameter];
    const struct linear_gradient_call call = {
        .rows = chunk->rows,
        .n = (cl_int)item->out,
        .k = (cl_int)item->in,
        .accumulate = chunk->accumulate,
        .x = workspace,
        .dy = workspace,
        .dw = workspace,
        .x_offset = x,
        .dy_offset = dy,
        .dw_offset = gradient_of(chunk, parameter),
    };
    return linear_layer_gradient(chunk->device, &call);
}

/* The gradient at the pre-activation, in act's place: act is needed no longer once W2's gradient is made. */
static int through_gelu(struct chunk *chunk)
{
    struct ffn *ffn = chunk->ffn;
    const struct linear_call call = {
        .rows = chunk->rows,
        .n = ffn->inner,
        .k = ffn->hidden,
        .flags = LINEAR_GELU_GRAD,
        .a = packed(chunk, chunk->at.grad_sum),
        .of_gradient = true,
        .weights = ffn->parameters.transposed,
        .weights_offset = ffn->parameters.items[FFN_OUTPUT_WEIGHT].transposed,
        .out = packed(chunk, chunk->at.act),
        .second = packed(chunk, chunk->at.preact),
    };
    return linear_layer_forward(chunk->device, &call);
}

static int to_inputs(struct chunk *chunk)
{
    struct ffn *ffn = chunk->ffn;
    const struct device_rows *out = &chunk->grad_input;
    const struct linear_call call = {
        .rows = chunk->rows,
        .n = ffn->hidden,
        .k = ffn->inner,
        .flags = LINEAR_ADD,
        .a = packed(chunk, chunk->at.act),
        .of_gradient = true,
        .weights = ffn->parameters.transposed,
        .weights_offset = ffn->parameters.items[FFN_WEIGHT].transposed,
        .out = kernel_view_rows(provider_shape(chunk->device), out->buffer, out->offset, (uint64_t)ffn->hidden),
        .second = packed(chunk, chunk->at.grad_sum),
    };
    return linear_layer_forward(chunk->device, &call);
}

static int backward_chunk(struct chunk *chunk)
{
    struct device *device = chunk->device;
    const struct device_rows packed_x = {device->workspace, chunk->at.x}, act = {device->workspace, chunk->at.act};
    int result = 0;
    chunk->x = kernel_view_rows(provider_shape(device), chunk->input.buffer, chunk->input.offset,
                                (uint64_t)chunk->ffn->hidden);
    if (chunk->train) { /* W1's gradient walks over x column by column */
        result = rows_pack(device, chunk->rows, chunk->ffn->hidden, &chunk->input, &packed_x);
        chunk->x = packed(chunk, chunk->at.x);
    }
    if (result == 0)
        result = recompute(chunk);
    if (result == 0)
        result = through_layer_norm(chunk);
    if (result == 0 && chunk->train)
        result = weight_gradient(chunk, FFN_OUTPUT_WEIGHT, chunk->at.act, chunk->at.grad_sum);
    if (result == 0)
        result = through_gelu(chunk);
    if (result == 0 && chunk->train)
        result = rows_column_sums(device, chunk->rows, chunk->ffn->inner, chunk->accumulate, &act, device->workspace,
                                  gradient_of(chunk, FFN_BIAS));
    if (result == 0 && chunk->train)
        result = weight_gradient(chunk, FFN_WEIGHT, chunk->at.x, chunk->at.act);
    return result == 0 ? to_inputs(chunk) : result;
}

int ffn_enqueue_backward(struct ffn *ffn, uint64_t rows, const struct device_rows *input,
                         const struct device_rows *grad_output, const struct device_rows *grad_input)
{
    int result = 0;
    struct chunk chunk = {
        .ffn = ffn,
        .device = ffn->base.device,
        .train = ffn->parameters.trains,
    };
    ffn_workspace_layout(ffn, &chunk.at);
    for (uint64_t row = 0; row < rows && result == 0; row += ffn->chunk_rows) {
        const uint64_t skip = row * (uint64_t)ffn->hidden;
        chunk.rows = (cl_int)(rows - row < ffn->chunk_rows ? rows - row : ffn->chunk_rows);
        chunk.accumulate = row > 0;
        chunk.input = (struct device_rows){input->buffer, input->offset + skip};
        chunk.grad_output = (struct device_rows){grad_output->buffer, grad_output->offset + skip};
        chunk.grad_input = (struct device_rows){grad_input->buffer, grad_input->offset + skip};
        result = backward_chunk(&chunk);
    }
    return result;
}
