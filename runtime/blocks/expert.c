#include "runtime/blocks/expert.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "runtime/blocks/blocks.h"
#include "runtime/blocks/declaration.h"
#include "runtime/device/device_private.h"
#include "runtime/train/parameters.h"

const struct expert_ops *expert_find(const struct config_expert *config)
{
    const struct block *block = declaration_find(config);
    if (block == NULL)
        return NULL;
    return block->layers_count > 0 ? &expert_engine : &expert_nop;
}

static const struct expert_ops *find_or_say(const struct config_expert *config)
{
    const struct expert_ops *ops = expert_find(config);
    if (ops == NULL)
        log_error("experts: uid %s: there is no block \"%s\"", config->uid, config->block);
    return ops;
}

int expert_schema(const struct config_expert *config, struct schema *inputs, struct schema *outputs)
{
    const struct expert_ops *ops = find_or_say(config);
    return ops == NULL ? -EINVAL : ops->schema(config, inputs, outputs);
}

int expert_memory(const struct device *device, const struct config_expert *config, uint64_t *own, uint64_t *workspace)
{
    const struct expert_ops *ops = find_or_say(config);
    if (ops == NULL)
        return -EINVAL;
    return ops->memory(device, config, own, workspace);
}

int expert_create(struct expert **expert, struct device *device, const struct config_expert *config, uint64_t seed)
{
    const struct expert_ops *ops = find_or_say(config);
    *expert = NULL;
    if (ops == NULL)
        return device_complain(device, -EINVAL, "there is no block \"%s\"", config->block);
    int result = ops->create(expert, device, config, seed);
    if (result != 0)
        return result;
    result = ops->warm(*expert);
    if (result != 0)
        expert_destroy(expert);
    return result;
}

void expert_destroy(struct expert **expert)
{
    if (*expert != NULL)
        (*expert)->ops->destroy(expert);
}

static void begin(struct expert_batch *batch, bool backward)
{
    batch->step = EXPERT_STEP_NONE;
    batch->grad_norm = 0;
    batch->done = NULL;
    batch->ready_ns = 0;
    batch->backward = backward;
}

int expert_forward(struct expert *expert, struct expert_batch *batch)
{
    begin(batch, false);
    return expert->ops->forward(expert, batch);
}

struct expert_group expert_group_of(const struct expert *expert)
{
    return expert->ops->group_of != NULL ? expert->ops->group_of(expert) : (struct expert_group){0};
}

int expert_forward_group(struct expert *const *experts, struct expert_batch *const *batches, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        begin(batches[i], false);
    return experts[0]->ops->forward_group(experts, batches, count);
}

int expert_backward(struct expert *expert, struct expert_batch *batch)
{
    begin(batch, true);
    if (expert->backward_in_flight)
        return device_complain(expert->device, -EBUSY, "a backward batch of this expert is in flight");
    const int result = expert->ops->backward(expert, batch);
    expert->backward_in_flight = result == 0;
    return result;
}

int expert_finish(struct expert *expert, struct expert_batch *batch)
{
    const int result = expert->ops->finish(expert, batch);
    if (batch->backward)
        expert->backward_in_flight = false;
    return result;
}

bool expert_batch_is_done(const struct expert_batch *batch)
{
    return device_is_done(batch->done);
}

void expert_uncount_skipped(struct expert *expert)
{
    expert->counters.skipped--;
}

void expert_set_counters(struct expert *expert, const struct expert_counters *counters, unsigned accumulated)
{
    expert->counters = *counters;
    expert->accumulated = accumulated;
}

/* --- state -------------------------------------------------------------------------------------------------------- */

static struct parameters *parameters_of(const struct expert *expert)
{
    /* Which table an expert has never changes, so asking for it does not change the expert. */
    return expert->ops->parameters((struct expert *)expert);
}

const char *expert_held(const struct expert *expert)
{
    const struct parameters *parameters = parameters_of(expert);
    return parameters == NULL ? NULL : parameters_held(parameters);
}

unsigned expert_tensors(const struct expert *expert)
{
    const struct parameters *parameters = parameters_of(expert);
    return parameters == NULL ? 0 : parameters_tensors(parameters);
}

void expert_tensor(const struct expert *expert, unsigned index, struct expert_tensor *tensor)
{
    parameters_tensor(parameters_of(expert), index, tensor);
}

int expert_tensor_find(const struct expert *expert, const char *name)
{
    const unsigned count = expert_tensors(expert);
    for (unsigned i = 0; i < count; i++) {
        struct expert_tensor tensor;
        expert_tensor(expert, i, &tensor);
        if (strcmp(tensor.name, name) == 0)
            return (int)i;
    }
    return -ENOENT;
}

int expert_tensor_read(struct expert *expert, unsigned index, float *values)
{
    return parameters_read(parameters_of(expert), index, values);
}

const struct weight_format *expert_tensor_format(const struct expert *expert, unsigned index)
{
    const struct parameters *parameters = parameters_of(expert);
    const struct weight_format *format = parameters->shape.quantized;
    return format != NULL && format->of_files && parameters_is_quantized(parameters, index) ? format : NULL;
}

int expert_tensor_write(struct expert *expert, unsigned index, const float *values)
{
    const struct weight_format *format = expert_tensor_format(expert, index);
    if (format != NULL)
        return device_complain(expert->device, -EINVAL,
                               "this device keeps weights in %s as a file has them, and these are floats: set another "
                               "precision",
                               format->precision);
    return parameters_write(parameters_of(expert), index, values);
}

int expert_tensor_write_numbers(struct expert *expert, unsigned index, const struct quantized_numbers *numbers)
{
    return parameters_write_numbers(parameters_of(expert), index, numbers);
}

uint64_t expert_snapshot_bytes(const struct expert *expert)
{
    const struct parameters *parameters = parameters_of(expert);
    return parameters == NULL ? 0 : parameters_snapshot_bytes(parameters);
}

int expert_snapshot_take(struct expert *expert, struct expert_snapshot *snapshot)
{
    struct parameters *parameters = parameters_of(expert);
    snapshot->counters = expert->counters;
    snapshot->accumulated = expert->accumulated;
    return parameters == NULL ? 0 : parameters_snapshot(parameters, snapshot->memory);
}

void expert_snapshot_tensor(const struct expert *expert, const struct expert_snapshot *snapshot, unsigned index,
                            float *values)
{
    parameters_snapshot_tensor(parameters_of(expert), snapshot->memory, index, values);
}
