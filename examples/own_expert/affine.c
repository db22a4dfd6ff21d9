/* An expert of one's own: y = x * weight + bias, element by element, trained by the server's optimizers. Compiled to
 * affine.so beside affine.cl; in the configuration it is the block of an expert:
 *
 *     experts:
 *       - {uid: "affine.[0:4]", block: /usr/local/lib/expertd/affine.so, hidden_dim: 64}
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/blocks/blocks.h"
#include "runtime/train/optimizer_step.h"
#include "runtime/blocks/own_expert.h"
#include "runtime/train/parameters.h"

enum { WEIGHT, BIAS };

struct affine {
    struct expert base; /* first, as runtime/blocks/expert.h asks */
    struct parameters parameters;
    struct own_program *program;
};

extern const struct expert_ops affine_ops;

static int affine_schema(const struct config_expert *config, struct schema *inputs, struct schema *outputs)
{
    memset(inputs, 0, sizeof *inputs);
    inputs->count = 1;
    inputs->tensors[0] = (struct tensor_desc){.dtype = DTYPE_FLOAT32, .ndim = 1, .dims = {config->hidden_dim}};
    *outputs = *inputs;
    snprintf(inputs->tensors[0].name, TENSOR_NAME_SIZE, "input");
    snprintf(outputs->tensors[0].name, TENSOR_NAME_SIZE, "output");
    return 0;
}

static void lay_out(struct parameters *parameters, const struct device *device, const struct config_expert *config,
                    const struct optimizer_settings *optimizer)
{
    const struct parameter items[] = {
        [WEIGHT] = {.name = "weight", .out = config->hidden_dim, .init = PARAMETER_ONE},
        [BIAS] = {.name = "bias", .out = config->hidden_dim, .init = PARAMETER_ZERO},
    };
    parameters_add(parameters, &items[WEIGHT]);
    parameters_add(parameters, &items[BIAS]);
    parameters_layout(parameters, provider_shape(device), optimizer);
}

/* A backward's rows: inputs, grad_outputs and grad_inputs. */
static size_t staging_bytes(const struct config_expert *config)
{
    return 3 * (config->max_batch_size * config->hidden_dim * sizeof(float) + 256);
}

static void affine_memory(const struct device *device, const struct config_expert *config, uint64_t *own,
                          uint64_t *workspace)
{
    struct parameters parameters = {0};
    struct optimizer_settings optimizer;
    *own = *workspace = 0;
    if (optimizer_settings_parse(&optimizer, config) != 0)
        return;
    lay_out(&parameters, device, config, &optimizer);
    *own = parameters_bytes(&parameters);
    *workspace = parameters.primary_floats * sizeof(float) + device_staging_memory(device, staging_bytes(config));
}

static void affine_destroy(struct expert **expert)
{
    struct affine *affine = (struct affine *)*expert;
    own_program_close(&affine->program);
    parameters_destroy(&affine->parameters);
    free(affine);
    *expert = NULL;
}

static int affine_create(struct expert **out, struct device *device, const struct config_expert *config, uint64_t seed)
{
    struct affine *affine = calloc(1, sizeof *affine);
    *out = NULL;
    if (!affine)
        return -ENOMEM;
    struct expert *expert = &affine->base;
    int rc = expert_prepare(expert, &affine_ops, device, config);
    if (rc == 0) {
        lay_out(&affine->parameters, device, config, &expert->optimizer);
        rc = device_reserve_workspace(device, affine->parameters.primary_floats * sizeof(float));
    }
    if (rc == 0)
        rc = device_reserve_staging(device, staging_bytes(config));
    if (rc == 0)
        rc = own_program_open(&affine->program, device, &affine_ops, "affine.cl");
    if (rc == 0)
        rc = parameters_create(&affine->parameters, device, seed);
    if (rc == 0)
        *out = expert;
    else
        affine_destroy(&expert);
    return rc;
}

static int launch_forward(struct affine *affine, uint64_t rows, const struct device_rows *x,
                          const struct device_rows *y)
{
    const struct parameters *p = &affine->parameters;
    const cl_int hidden = (cl_int)affine->base.config->hidden_dim;
    const cl_ulong weight = p->items[WEIGHT].at, bias = p->items[BIAS].at;
    const struct kernel_grid grid = {.dims = 2, .global = {(size_t)hidden, rows}, .local = {1, 1}};
    const struct kernel_argument arguments[] = {
        KERNEL_ARGUMENT(x->buffer),  KERNEL_ARGUMENT(x->offset), KERNEL_ARGUMENT(y->buffer), KERNEL_ARGUMENT(y->offset),
        KERNEL_ARGUMENT(p->vectors), KERNEL_ARGUMENT(weight),    KERNEL_ARGUMENT(bias),      KERNEL_ARGUMENT(hidden),
    };
    return own_program_launch(affine->program, "affine_forward", &grid, arguments,
                              sizeof arguments / sizeof *arguments);
}

static int launch_backward(struct affine *affine, uint64_t rows, const struct device_rows *x,
                           const struct device_rows *dy, const struct device_rows *dx)
{
    const struct parameters *p = &affine->parameters;
    const cl_int hidden = (cl_int)affine->base.config->hidden_dim, row_count = (cl_int)rows;
    const cl_ulong weight = p->items[WEIGHT].at;
    const cl_ulong grad_weight = p->items[WEIGHT].offset, grad_bias = p->items[BIAS].offset;
    const size_t padded = kernel_panels(&p->shape, (uint64_t)hidden) * p->shape.panel;
    const struct kernel_grid grid = {.dims = 1, .global = {padded}, .local = {1}};
    const struct kernel_argument arguments[] = {
        KERNEL_ARGUMENT(x->buffer),   KERNEL_ARGUMENT(x->offset),  KERNEL_ARGUMENT(dy->buffer),
        KERNEL_ARGUMENT(dy->offset),  KERNEL_ARGUMENT(dx->buffer), KERNEL_ARGUMENT(dx->offset),
        KERNEL_ARGUMENT(p->vectors),  KERNEL_ARGUMENT(weight),     KERNEL_ARGUMENT(affine->base.device->workspace),
        KERNEL_ARGUMENT(grad_weight), KERNEL_ARGUMENT(grad_bias),  KERNEL_ARGUMENT(hidden),
        KERNEL_ARGUMENT(row_count),
    };
    return own_program_launch(affine->program, "affine_backward", &grid, arguments,
                              sizeof arguments / sizeof *arguments);
}

/* What a batch of either kind enqueues. dry: the optimizer's step changes nothing. */
static int enqueue(struct affine *affine, struct expert_batch *batch, bool backward, bool dry)
{
    struct expert *expert = &affine->base;
    struct device *device = expert->device;
    const size_t row_bytes = expert->config->hidden_dim * sizeof(float);
    const size_t offset = batch->first_row * row_bytes, bytes = batch->rows * row_bytes;
    struct device_rows x, dy, out;
    int rc = device_rows_in(device, batch->staging, &batch->inputs[0], offset, bytes, &x);
    if (rc == 0 && backward)
        rc = device_rows_in(device, batch->staging, &batch->inputs[1], offset, bytes, &dy);
    if (rc == 0)
        rc = device_rows_out(device, batch->staging, &batch->outputs[0], offset, bytes, &out);
    if (rc == 0)
        rc = backward ? launch_backward(affine, batch->rows, &x, &dy, &out)
                      : launch_forward(affine, batch->rows, &x, &out);
    if (rc == 0)
        rc = device_rows_done(device, &batch->outputs[0], offset, bytes, &out);
    const struct trainee trainee = expert_trainee(expert);
    if (rc == 0 && backward && expert->optimizer.kind != OPTIMIZER_NONE)
        rc = optimizer_step_enqueue(&trainee, &affine->parameters, device->workspace, 0, dry);
    return rc == 0 ? device_mark(device, &batch->done) : rc;
}

static int begin(struct expert *expert, struct expert_batch *batch, bool backward, bool dry)
{
    int rc = device_staging_begin(expert->device, &batch->staging);
    if (rc != 0)
        return rc;
    rc = enqueue((struct affine *)expert, batch, backward, dry);
    if (rc != 0)
        device_staging_abort(expert->device, batch->staging);
    return rc;
}

static int affine_batch(struct expert *expert, struct expert_batch *batch)
{
    return begin(expert, batch, batch->backward, false);
}

static int affine_finish(struct expert *expert, struct expert_batch *batch)
{
    const int rc = device_wait(expert->device, &batch->done);
    device_staging_end(expert->device, batch->staging);
    if (rc != 0 || !batch->backward)
        return rc;
    const struct trainee trainee = expert_trainee(expert);
    if (expert->optimizer.kind != OPTIMIZER_NONE)
        batch->step =
            optimizer_step_finish(&trainee, &((struct affine *)expert)->parameters, batch->rows, &batch->grad_norm);
    else
        expert->counters.examples += batch->rows;
    return 0;
}

/* One row through all kernels, so that nothing is compiled when clients wait. batch.backward stays false: nothing is to
 * be counted. */
static int affine_warm(struct expert *expert)
{
    const size_t bytes = expert->config->hidden_dim * sizeof(float);
    struct device_slab slabs[3];
    char *memory = calloc(3, bytes);
    int rc = memory ? 0 : -ENOMEM;
    for (unsigned i = 0; i < 3; i++)
        device_slab_wrap(&slabs[i], memory ? memory + i * bytes : NULL, bytes);
    for (int backward = 0; backward <= 1 && rc == 0; backward++) {
        struct expert_batch batch = {.rows = 1, .inputs = slabs, .outputs = &slabs[2]};
        rc = begin(expert, &batch, backward, true);
        if (rc == 0)
            rc = affine_finish(expert, &batch);
    }
    for (unsigned i = 0; i < 3; i++)
        device_slab_unwrap(&slabs[i]);
    free(memory);
    return rc;
}

static struct parameters *affine_parameters(struct expert *expert)
{
    return &((struct affine *)expert)->parameters;
}

const struct expert_ops affine_ops = {
    .name = "affine",
    .schema = affine_schema,
    .memory = affine_memory,
    .create = affine_create,
    .warm = affine_warm,
    .forward = affine_batch,
    .backward = affine_batch,
    .finish = affine_finish,
    .parameters = affine_parameters,
    .destroy = affine_destroy,
};

__attribute__((visibility("default"))) const struct own_expert own_expert = OWN_EXPERT(&affine_ops);
