/* Blocks without layers, `nop` and `nop_delay`: outputs are the inputs, grad_inputs are the grad_outputs. On the host,
 * without a kernel launch. A batch of nop_delay is ready after its argument `delay`, in seconds: nobody waits for it
 * meanwhile but its clients (runtime/serve/executor.h). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "runtime/blocks/blocks.h"
#include "runtime/blocks/declaration.h"
#include "runtime/device/device.h"

struct nop {
    struct expert base;
    uint64_t delay_ns;
};

static int nop_memory(const struct device *device, const struct config_expert *config, uint64_t *own,
                      uint64_t *workspace)
{
    (void)device;
    (void)config;
    *own = *workspace = 0;
    return 0;
}

static int nop_create(struct expert **out, struct device *device, const struct config_expert *config, uint64_t seed)
{
    struct nop *nop = calloc(1, sizeof *nop);
    (void)seed;
    *out = NULL;
    if (nop == NULL)
        return -ENOMEM;
    struct expert *expert = &nop->base;
    const int result = blocks_prepare(expert, &expert_nop, device, config);
    if (result != 0) {
        free(nop);
        return result;
    }
    for (unsigned i = 0; i < expert->arguments_count; i++) { /* nop_delay's only one */
        if (strcmp(expert->arguments[i].name, "delay") == 0)
            nop->delay_ns = (uint64_t)(expert->arguments[i].value * NS_PER_S);
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

static void delay(const struct expert *expert, struct expert_batch *batch)
{
    const uint64_t delay_ns = ((const struct nop *)expert)->delay_ns;
    batch->ready_ns = delay_ns > 0 ? clock_now_ns() + delay_ns : 0;
}

static void copy_rows(const struct expert *expert, struct expert_batch *batch, const struct device_slab *from)
{
    const size_t row = tensor_row_bytes(&expert->inputs.tensors[0]), offset = batch->first_row * row;
    memcpy((char *)batch->outputs[0].mapping + offset, (const char *)from->mapping + offset, batch->rows * row);
    delay(expert, batch);
}

static int nop_forward(struct expert *expert, struct expert_batch *batch)
{
    copy_rows(expert, batch, &batch->inputs[0]);
    return 0;
}

static int nop_backward(struct expert *expert, struct expert_batch *batch)
{
    if (batch->unwanted & 1)
        delay(expert, batch);
    else
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
    .schema = declaration_schema,
    .memory = nop_memory,
    .create = nop_create,
    .warm = nop_warm,
    .forward = nop_forward,
    .backward = nop_backward,
    .finish = nop_finish,
    .parameters = nop_parameters,
    .destroy = nop_destroy,
};
