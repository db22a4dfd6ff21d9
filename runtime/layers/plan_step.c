/* Steps of a plan, the matrices that they name, and those steps that belong to no layer. */
#include <stdlib.h>

#include "runtime/compute/rows.h"
#include "runtime/device/device_private.h"
#include "runtime/layers/plan.h"

/* --- steps and buffers -------------------------------------------------------------------------------------------- */

/* Room for one more; false: there is no memory, and the plan has failed. */
static bool grow(struct plan *plan, void **items, unsigned count, unsigned *room, size_t size)
{
    if (count < *room)
        return true;
    const unsigned wanted = *room > 0 ? 2 * *room : 32;
    void *larger = realloc(*items, wanted * size);
    plan->failed = plan->failed || larger == NULL;
    if (larger == NULL)
        return false;
    *items = larger;
    *room = wanted;
    return true;
}

struct plan_step *plan_add(struct plan *plan, plan_launch *launch)
{
    static struct plan_step nowhere; /* for a plan that has failed */
    struct plan_step *step = &nowhere;
    if (grow(plan, (void **)&plan->steps, plan->steps_count, &plan->steps_room, sizeof *plan->steps))
        step = &plan->steps[plan->steps_count++];
    *step = (struct plan_step){.launch = launch, .wanted_for = UINT32_MAX};
    for (unsigned i = 0; i < PLAN_STEP_BUFFERS; i++)
        step->buffers[i] = PLAN_NONE;
    for (unsigned i = 0; i < PLAN_STEP_PARAMETERS; i++)
        step->parameters[i] = PLAN_NONE;
    return step;
}

void plan_use(struct plan *plan, unsigned role, int buffer)
{
    if (plan->failed || buffer == PLAN_NONE)
        return;
    const unsigned step = plan->steps_count - 1;
    struct plan_buffer *used = &plan->buffers[buffer];
    plan->steps[step].buffers[role] = buffer;
    if (used->first > step)
        used->first = step;
    if (used->last < step)
        used->last = step;
}

void plan_makes(struct plan *plan, unsigned roles)
{
    if (!plan->failed)
        plan->steps[plan->steps_count - 1].makes = roles;
}

static int add_buffer(struct plan *plan, const struct plan_buffer *buffer)
{
    if (!grow(plan, (void **)&plan->buffers, plan->buffers_count, &plan->buffers_room, sizeof *plan->buffers))
        return PLAN_NONE;
    plan->buffers[plan->buffers_count] = *buffer;
    plan->buffers[plan->buffers_count].first = ~0U;
    return (int)plan->buffers_count++;
}

int plan_matrix(struct plan *plan, uint64_t tokens, uint64_t columns, bool rows)
{
    return add_buffer(plan, &(struct plan_buffer){.tokens = tokens, .columns = columns, .rows = rows});
}

int plan_scratch(struct plan *plan, uint64_t floats)
{
    return add_buffer(plan, &(struct plan_buffer){.fixed_floats = floats});
}

int plan_slab(struct plan *plan, enum plan_place place, unsigned tensor, const struct plan_value *value)
{
    return add_buffer(
        plan, &(struct plan_buffer){
                  .place = place, .tensor = tensor, .rows = true, .tokens = value->tokens, .columns = value->columns});
}

static int launch_pack(const struct plan_run *run, const struct plan_step *step)
{
    const struct device_rows from = plan_rows_of(run, step, 0), to = plan_rows_of(run, step, 1);
    const struct plan_buffer *buffer = plan_buffer_of(run, step, 0);
    return rows_pack(run->device, plan_view_rows(run, step, 0), (cl_int)buffer->columns, &from, &to);
}

int plan_packed(struct plan *plan, int buffer)
{
    if (plan->failed || buffer == PLAN_NONE || !plan->buffers[buffer].rows)
        return buffer;
    const int packed = plan_matrix(plan, plan->buffers[buffer].tokens, plan->buffers[buffer].columns, false);
    plan_add(plan, launch_pack);
    plan_use(plan, 0, buffer);
    plan_use(plan, 1, packed);
    plan_makes(plan, 1U << 1);
    return packed;
}

void plan_note_product(struct plan *plan, uint64_t n, uint64_t k)
{
    for (unsigned i = 0; i < plan->sizes_count; i++) {
        if (plan->sizes[i].n == n && plan->sizes[i].k == k)
            return;
    }
    if (grow(plan, (void **)&plan->sizes, plan->sizes_count, &plan->sizes_room, sizeof *plan->sizes))
        plan->sizes[plan->sizes_count++] = (struct linear_size){.n = n, .k = k, .frozen = !plan->trains};
}

/* --- element by element ------------------------------------------------------------------------------------------- */

enum { A, SECOND, OUT }; /* buffers */

static int launch_apply(const struct plan_run *run, const struct plan_step *step)
{
    const struct kernel_view a = plan_view(run, step, A), second = plan_view(run, step, SECOND);
    const struct kernel_view out = plan_view(run, step, OUT);
    return rows_apply(run->device, plan_view_rows(run, step, OUT), (cl_int)plan_buffer_of(run, step, OUT)->columns,
                      step->flags, &a, second.buffer != NULL ? &second : NULL, &out);
}

void plan_apply(struct plan *plan, unsigned flags, int a, int second, int out)
{
    plan_add(plan, launch_apply)->flags = flags;
    plan_use(plan, A, a);
    plan_use(plan, SECOND, second);
    plan_use(plan, OUT, out);
    plan_makes(plan, 1U << OUT);
}

/* --- rows of 16 bits ------------------------------------------------------------------------------------------------
 */

bool plan_is_short(uint32_t dtype)
{
    return dtype == DTYPE_FLOAT16 || dtype == DTYPE_BFLOAT16;
}

static struct rows_short short_rows(const struct plan_run *run, const struct plan_step *step, unsigned role)
{
    const struct plan_buffer *buffer = plan_buffer_of(run, step, role);
    const struct plan_rows *rows = buffer->place == PLAN_INPUT ? run->inputs : run->results;
    return (struct rows_short){.buffer = rows[buffer->tensor].buffer,
                               .offset_bytes = rows[buffer->tensor].offset_bytes,
                               .brain = step->flags == DTYPE_BFLOAT16};
}

static int launch_widen(const struct plan_run *run, const struct plan_step *step)
{
    const struct rows_short from = short_rows(run, step, 0);
    const struct kernel_view to = plan_view(run, step, 1);
    return rows_widen(run->device, plan_view_rows(run, step, 1), (cl_int)plan_buffer_of(run, step, 1)->columns, &from,
                      &to);
}

static int launch_narrow(const struct plan_run *run, const struct plan_step *step)
{
    const struct kernel_view from = plan_view(run, step, 0);
    const struct rows_short to = short_rows(run, step, 1);
    return rows_narrow(run->device, plan_view_rows(run, step, 0), (cl_int)plan_buffer_of(run, step, 0)->columns, &from,
                       &to);
}

static void convert(struct plan *plan, plan_launch *launch, uint32_t dtype, int from, int to)
{
    plan_add(plan, launch)->flags = dtype;
    plan_use(plan, 0, from);
    plan_use(plan, 1, to);
    plan_makes(plan, 1U << 1);
}

void plan_widen(struct plan *plan, uint32_t dtype, int from, int to)
{
    convert(plan, launch_widen, dtype, from, to);
}

void plan_narrow(struct plan *plan, uint32_t dtype, int from, int to)
{
    convert(plan, launch_narrow, dtype, from, to);
}
