/* A plan's steps in a chunk of rows: where their matrices lie, and one behind the other. */
#include "runtime/device/device_private.h"
#include "runtime/layers/plan.h"

const struct plan_buffer *plan_buffer_of(const struct plan_run *run, const struct plan_step *step, unsigned role)
{
    return step->buffers[role] == PLAN_NONE ? NULL : &run->plan->buffers[step->buffers[role]];
}

cl_int plan_view_rows(const struct plan_run *run, const struct plan_step *step, unsigned role)
{
    return run->rows * (cl_int)plan_buffer_of(run, step, role)->tokens;
}

/* Floats of a matrix in the workspace that are other runs'. */
static uint64_t before(const struct plan_run *run, const struct plan_buffer *buffer)
{
    const uint64_t rows = run->first_row * buffer->tokens;
    if (rows == 0)
        return 0;
    return buffer->rows ? rows * buffer->columns : kernel_packed_floats(run->plan->shape, rows, buffer->columns);
}

struct device_rows plan_rows_of(const struct plan_run *run, const struct plan_step *step, unsigned role)
{
    const struct plan_buffer *buffer = plan_buffer_of(run, step, role);
    if (buffer->place == PLAN_WORKSPACE)
        return (struct device_rows){.buffer = run->device->workspace, .offset = buffer->offset + before(run, buffer)};
    const struct plan_rows *rows = buffer->place == PLAN_INPUT ? run->inputs : run->results;
    return (struct device_rows){.buffer = rows[buffer->tensor].buffer,
                                .offset = rows[buffer->tensor].offset_bytes / sizeof(float)};
}

struct kernel_view plan_view(const struct plan_run *run, const struct plan_step *step, unsigned role)
{
    const struct plan_buffer *buffer = plan_buffer_of(run, step, role);
    if (buffer == NULL)
        return (struct kernel_view){0};
    const struct device_rows at = plan_rows_of(run, step, role);
    return buffer->rows
               ? kernel_view_rows(run->plan->shape, at.buffer, at.offset, buffer->columns)
               : kernel_view_packed(run->plan->shape, at.buffer, at.offset, (uint64_t)run->rows * buffer->tokens);
}

cl_mem plan_workspace(const struct plan_run *run)
{
    return run->device->workspace;
}

uint64_t plan_padded(const struct plan_run *run, uint64_t columns)
{
    return kernel_packed_floats(run->plan->shape, 1, columns);
}

cl_ulong plan_parameter_gradient(const struct plan_run *run, const struct plan_step *step, unsigned which)
{
    return run->parameters->items[step->parameters[which]].offset;
}

const struct parameter *plan_parameter(const struct plan_run *run, const struct plan_step *step, unsigned which)
{
    return &run->parameters->items[step->parameters[which]];
}

int plan_enqueue(const struct plan_run *run)
{
    int result = 0;
    for (unsigned i = 0; i < run->plan->steps_count && result == 0; i++) {
        const struct plan_step *step = &run->plan->steps[i];
        if (step->wanted_for & ~run->unwanted)
            result = step->launch(run, step);
    }
    return result;
}

int plan_enqueue_group(const struct plan_run *runs, unsigned count)
{
    const struct plan *plan = runs[0].plan;
    int result = 0;
    for (unsigned i = 0; i < plan->steps_count && result == 0; i++) {
        const struct plan_step *step = &plan->steps[i];
        if (step->launch_group != NULL) {
            result = step->launch_group(runs, count, step);
            continue;
        }
        for (unsigned r = 0; r < count && result == 0; r++)
            result = step->launch(&runs[r], step);
    }
    return result;
}

bool plan_groups(const struct plan *plan)
{
    bool any = false;
    for (unsigned i = 0; i < plan->steps_count; i++)
        any = any || plan->steps[i].launch_group != NULL;
    /* What is there once whatever the rows are is one run's. */
    for (unsigned i = 0; i < plan->buffers_count; i++)
        any = any && plan->buffers[i].fixed_floats == 0;
    return any && !plan->backward;
}
