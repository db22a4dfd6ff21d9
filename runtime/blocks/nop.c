/* The block `nop`: outputs are the inputs, grad_inputs are the grad_outputs. On the host, without a kernel launch. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "runtime/blocks/blocks.h"
#include "runtime/device/device.h"

static void one_tensor(struct schema *schema, const char *name, uint64_t hidden)
{
    memset(schema, 0, sizeof *schema);
    schema->count = 1;
    schema->tensors[0].dtype = DTYPE_FLOAT32;
    schema->tensors[0].ndim = 1;
    schema->tensors[0].dims[0] = hidden;
    snprintf(schema->tensors[0].name, sizeof schema->tensors[0].name, "%s", name);
}

static int nop_schema(const struct config_expert *config, struct schema *inputs, struct schema *outputs)
{
    one_tensor(inputs, "input", config->hidden_dim);
    one_tensor(outputs, "output", config->hidden_dim);
    return 0;
}

static void nop_memory(const struct device *device, const struct config_expert *config, uint64_t *own,
                       uint64_t *workspace)
{
    (void)device;
    (void)config;
    *own = *workspace = 0;
}

static int nop_create(struct expert **out, struct device *device, const struct config_expert *config, uint64_t seed)
{
    struct expert *expert = calloc(1, sizeof *expert);
    (void)seed;
    *out = NULL;
    if (expert == NULL)
        return -ENOMEM;
    const int result = expert_prepare(expert, &expert_nop, device, config);
    if (result != 0) {
        free(expert);
        return result;
    }
    expert->optimizer.kind = OPTIMIZER_NONE;
    *out = expert;
    return 0;
}

static int nop_warm(struct expert *expert)
{
    (void)expert;
    return 0;
}

static void copy_rows(const struct expert *expert, const struct expert_batch *batch, const struct device_slab *from)
{
    const size_t row = tensor_row_bytes(&expert->inputs.tensors[0]), offset = batch->first_row * row;
    memcpy((char *)batch->outputs[0].mapping + offset, (const char *)from->mapping + offset, batch->rows * row);
}

static int nop_forward(struct expert *expert, struct expert_batch *batch)
{
    copy_rows(expert, batch, &batch->inputs[0]);
    return 0;
}

static int nop_backward(struct expert *expert, struct expert_batch *batch)
{
    copy_rows(expert, batch, &batch->inputs[1]);
    return 0;
}

static int nop_finish(struct expert *expert, struct expert_batch *batch)
{
    if (batch->backward)
        expert->counters.examples += batch->rows;
    return 0;
}

static struct parameters *nop_parameters(struct expert *expert)
{
    (void)expert;
    return NULL;
}

static void nop_destroy(struct expert **expert)
{
    free(*expert);
    *expert = NULL;
}

const struct expert_ops expert_nop = {
    .name = "nop",
    .schema = nop_schema,
    .memory = nop_memory,
    .create = nop_create,
    .warm = nop_warm,
    .forward = nop_forward,
    .backward = nop_backward,
    .finish = nop_finish,
    .parameters = nop_parameters,
    .destroy = nop_destroy,
};
