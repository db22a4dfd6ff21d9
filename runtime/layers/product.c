#include "runtime/layers/product.h"

#include "runtime/compute/linear.h"
#include "runtime/compute/rows.h"
#include "runtime/device/device_private.h"

enum { WEIGHT, BIAS };             /* parameters */
enum { X, OUT, SECOND, SAVE, DY }; /* buffers */
enum { COLUMNS_OUT, COLUMNS_IN };  /* sizes */

static struct plan_step *add(struct plan *plan, plan_launch *launch, const struct product *product)
{
    struct plan_step *step = plan_add(plan, launch);
    step->parameters[WEIGHT] = product->weight;
    step->parameters[BIAS] = product->bias;
    step->sizes[COLUMNS_OUT] = product->out;
    step->sizes[COLUMNS_IN] = product->in;
    return step;
}

static struct linear_call product_call(const struct plan_run *run, const struct plan_step *step)
{
    const struct parameters *p = run->parameters;
    const struct kernel_view save = plan_view(run, step, SAVE);
    struct linear_call call = {
        .rows = plan_view_rows(run, step, OUT),
        .n = (cl_int)step->sizes[COLUMNS_OUT],
        .k = (cl_int)step->sizes[COLUMNS_IN],
        .flags = step->flags,
        .a = plan_view(run, step, X),
        .weights = p->matrices,
        .weights_offset = plan_parameter(run, step, WEIGHT)->at,
        .out = plan_view(run, step, OUT),
        .bias = step->parameters[BIAS] != PLAN_NONE ? p->vectors : NULL,
        .bias_offset = step->parameters[BIAS] != PLAN_NONE ? plan_parameter(run, step, BIAS)->at : 0,
        .second = plan_view(run, step, SECOND),
        .save = save.buffer,
        .save_offset = save.offset,
    };
    if (step->gate != NULL)
        call.gate = *step->gate;
    return call;
}

static int launch_product(const struct plan_run *run, const struct plan_step *step)
{
    const struct linear_call call = product_call(run, step);
    return linear_layer_forward(run->device, &call);
}

static int launch_products(const struct plan_run *runs, unsigned count, const struct plan_step *step)
{
    struct linear_call calls[PLAN_GROUP];
    for (unsigned i = 0; i < count; i++)
        calls[i] = product_call(&runs[i], step);
    return linear_layer_group(runs[0].device, calls, count);
}

void product_forward(struct plan *plan, const struct product *product, const struct product_forward *forward)
{
    struct plan_step *step = add(plan, launch_product, product);
    step->launch_group = launch_products;
    step->flags = forward->flags | (product->bias != PLAN_NONE ? LINEAR_BIAS : 0);
    step->gate = forward->gate;
    plan_use(plan, X, forward->x);
    plan_use(plan, OUT, forward->out);
    plan_use(plan, SECOND, forward->second);
    plan_use(plan, SAVE, forward->save);
    plan_makes(plan, 1U << OUT | 1U << SAVE);
    plan_note_product(plan, product->out, product->in);
}

static int launch_input_gradient(const struct plan_run *run, const struct plan_step *step)
{
    const struct linear_call call = {
        .rows = plan_view_rows(run, step, OUT),
        .n = (cl_int)step->sizes[COLUMNS_IN],
        .k = (cl_int)step->sizes[COLUMNS_OUT],
        .flags = step->flags,
        .a = plan_view(run, step, DY),
        .of_gradient = true,
        .weights = run->parameters->transposed,
        .weights_offset = plan_parameter(run, step, WEIGHT)->transposed,
        .out = plan_view(run, step, OUT),
        .second = plan_view(run, step, SECOND),
    };
    return linear_layer_forward(run->device, &call);
}

void product_input_gradient(struct plan *plan, const struct product *product, unsigned value, int dy)
{
    struct plan_contribution contribution;
    if (!plan_wants(plan, value))
        return;
    plan_contribute_product(plan, value, &contribution);
    add(plan, launch_input_gradient, product)->flags = contribution.flags;
    plan_use(plan, DY, dy);
    plan_use(plan, SECOND, contribution.second);
    plan_use(plan, OUT, contribution.out);
    plan_makes(plan, 1U << OUT);
    plan_note_product(plan, product->in, product->out);
}

/* dw = x^T dy. */
static int launch_weight_gradient(const struct plan_run *run, const struct plan_step *step)
{
    const struct device_rows x = plan_rows_of(run, step, X), dy = plan_rows_of(run, step, DY);
    const struct linear_gradient_call call = {
        .rows = plan_view_rows(run, step, X),
        .n = (cl_int)step->sizes[COLUMNS_OUT],
        .k = (cl_int)step->sizes[COLUMNS_IN],
        .accumulate = run->accumulate,
        .x = x.buffer,
        .dy = dy.buffer,
        .dw = run->device->workspace,
        .x_offset = x.offset,
        .dy_offset = dy.offset,
        .dw_offset = plan_parameter_gradient(run, step, WEIGHT),
    };
    return linear_layer_gradient(run->device, &call);
}

void product_weight_gradient(struct plan *plan, const struct product *product, int x, int dy)
{
    add(plan, launch_weight_gradient, product);
    plan_use(plan, X, x);
    plan_use(plan, DY, dy);
}

static int launch_bias_gradient(const struct plan_run *run, const struct plan_step *step)
{
    const struct device_rows dy = plan_rows_of(run, step, DY);
    return rows_column_sums(run->device, plan_view_rows(run, step, DY), (cl_int)step->sizes[COLUMNS_OUT],
                            run->accumulate, &dy, run->device->workspace, plan_parameter_gradient(run, step, BIAS));
}

void product_bias_gradient(struct plan *plan, const struct product *product, int dy)
{
    add(plan, launch_bias_gradient, product);
    plan_use(plan, DY, dy);
}
