#include "runtime/compute/rows.h"

#include "runtime/compute/kernel_launch.h"
#include "runtime/compute/linear.h"
#include "runtime/compute/provider.h"

int rows_pack(struct device *device, cl_int rows, cl_int columns, const struct device_rows *from,
              const struct device_rows *to)
{
    struct kernel_grid grid;
    provider_grid(device, KERNEL_PACK_ROWS, (uint64_t)rows, (uint64_t)columns, 0, &grid);
    const struct kernel_argument arguments[] = {
        KERNEL_ARGUMENT(rows),         KERNEL_ARGUMENT(columns),    KERNEL_ARGUMENT(from->buffer),
        KERNEL_ARGUMENT(from->offset), KERNEL_ARGUMENT(to->buffer), KERNEL_ARGUMENT(to->offset),
    };
    return kernel_launch(device, KERNEL_PACK_ROWS, &grid, arguments, sizeof arguments / sizeof arguments[0]);
}

int rows_apply(struct device *device, cl_int rows, cl_int columns, unsigned flags, const struct kernel_view *a,
               const struct kernel_view *second, const struct kernel_view *out)
{
    struct kernel_grid grid;
    const cl_int all_flags = (cl_int)(flags | (out->rows ? LINEAR_OUT_ROWS : 0));
    const struct kernel_view *other = second != NULL ? second : a;
    const cl_long4 a_at = kernel_view_place(a, (uint64_t)columns), out_at = kernel_view_place(out, (uint64_t)columns);
    const cl_long4 other_at = kernel_view_place(other, (uint64_t)columns);
    provider_grid(device, KERNEL_APPLY, (uint64_t)rows, (uint64_t)columns, 0, &grid);
    const struct kernel_argument arguments[] = {
        KERNEL_ARGUMENT(rows),      KERNEL_ARGUMENT(columns),     KERNEL_ARGUMENT(all_flags),
        KERNEL_ARGUMENT(a->buffer), KERNEL_ARGUMENT(a_at),        KERNEL_ARGUMENT(other->buffer),
        KERNEL_ARGUMENT(other_at),  KERNEL_ARGUMENT(out->buffer), KERNEL_ARGUMENT(out_at),
    };
    return kernel_launch(device, KERNEL_APPLY, &grid, arguments, sizeof arguments / sizeof arguments[0]);
}

int rows_mask(struct device *device, cl_int rows, cl_int columns, float scale, const struct kernel_view *x,
              const struct rows_mask *mask, const struct kernel_view *out)
{
    struct kernel_grid grid;
    const cl_int flags = out->rows ? LINEAR_OUT_ROWS : 0, wide = mask->wide;
    const cl_long4 x_at = kernel_view_place(x, (uint64_t)columns), out_at = kernel_view_place(out, (uint64_t)columns);
    provider_grid(device, KERNEL_MASK_ROWS, (uint64_t)rows, (uint64_t)columns, 0, &grid);
    const struct kernel_argument arguments[] = {
        KERNEL_ARGUMENT(rows),        KERNEL_ARGUMENT(columns),      KERNEL_ARGUMENT(flags),
        KERNEL_ARGUMENT(wide),        KERNEL_ARGUMENT(scale),        KERNEL_ARGUMENT(x->buffer),
        KERNEL_ARGUMENT(x_at),        KERNEL_ARGUMENT(mask->buffer), KERNEL_ARGUMENT(mask->offset_bytes),
        KERNEL_ARGUMENT(out->buffer), KERNEL_ARGUMENT(out_at),
    };
    return kernel_launch(device, KERNEL_MASK_ROWS, &grid, arguments, sizeof arguments / sizeof arguments[0]);
}

static cl_int affine_flags(const struct rows_affine *affine)
{
    return (affine->weight != ROWS_NONE ? LINEAR_MULTIPLY : 0) | (affine->bias != ROWS_NONE ? LINEAR_BIAS : 0);
}

int rows_affine(struct device *device, cl_int rows, cl_int columns, const struct rows_affine *affine,
                const struct kernel_view *x, const struct kernel_view *out)
{
    struct kernel_grid grid;
    const cl_int flags = affine_flags(affine) | (out->rows ? LINEAR_OUT_ROWS : 0);
    const cl_long4 x_at = kernel_view_place(x, (uint64_t)columns), out_at = kernel_view_place(out, (uint64_t)columns);
    /* An argument must be some buffer, also where the flags say that it is not looked at. */
    const cl_mem constants = affine->constants != NULL ? affine->constants : x->buffer;
    provider_grid(device, KERNEL_AFFINE_ROWS, (uint64_t)rows, (uint64_t)columns, 0, &grid);
    const struct kernel_argument arguments[] = {
        KERNEL_ARGUMENT(rows),           KERNEL_ARGUMENT(columns),       KERNEL_ARGUMENT(flags),
        KERNEL_ARGUMENT(affine->period), KERNEL_ARGUMENT(affine->scale), KERNEL_ARGUMENT(affine->shift),
        KERNEL_ARGUMENT(x->buffer),      KERNEL_ARGUMENT(x_at),          KERNEL_ARGUMENT(constants),
        KERNEL_ARGUMENT(affine->weight), KERNEL_ARGUMENT(constants),     KERNEL_ARGUMENT(affine->bias),
        KERNEL_ARGUMENT(out->buffer),    KERNEL_ARGUMENT(out_at),
    };
    return kernel_launch(device, KERNEL_AFFINE_ROWS, &grid, arguments, sizeof arguments / sizeof arguments[0]);
}

int rows_affine_sums(struct device *device, cl_int rows, cl_int columns, cl_int accumulate,
                     const struct rows_affine *gradients, const struct kernel_view *x, const struct kernel_view *dy)
{
    struct kernel_grid grid;
    const cl_int flags = affine_flags(gradients);
    const struct kernel_view *read = x->buffer != NULL ? x : dy;
    const cl_long4 x_at = kernel_view_place(read, (uint64_t)columns), dy_at = kernel_view_place(dy, (uint64_t)columns);
    provider_grid(device, KERNEL_AFFINE_SUMS, (uint64_t)gradients->period, (uint64_t)columns, 0, &grid);
    const struct kernel_argument arguments[] = {
        KERNEL_ARGUMENT(rows),
        KERNEL_ARGUMENT(columns),
        KERNEL_ARGUMENT(accumulate),
        KERNEL_ARGUMENT(flags),
        KERNEL_ARGUMENT(gradients->period),
        KERNEL_ARGUMENT(gradients->scale),
        KERNEL_ARGUMENT(read->buffer),
        KERNEL_ARGUMENT(x_at),
        KERNEL_ARGUMENT(dy->buffer),
        KERNEL_ARGUMENT(dy_at),
        KERNEL_ARGUMENT(gradients->constants),
        KERNEL_ARGUMENT(gradients->weight),
        KERNEL_ARGUMENT(gradients->constants),
        KERNEL_ARGUMENT(gradients->bias),
    };
    return kernel_launch(device, KERNEL_AFFINE_SUMS, &grid, arguments, sizeof arguments / sizeof arguments[0]);
}

int rows_column_sums(struct device *device, cl_int rows, cl_int columns, cl_int accumulate,
                     const struct device_rows *data, cl_mem sums, cl_ulong sums_offset)
{
    struct kernel_grid grid;
    provider_grid(device, KERNEL_COLUMN_SUMS, (uint64_t)rows, (uint64_t)columns, 0, &grid);
    const struct kernel_argument arguments[] = {
        KERNEL_ARGUMENT(rows),         KERNEL_ARGUMENT(columns),      KERNEL_ARGUMENT(accumulate),
        KERNEL_ARGUMENT(data->buffer), KERNEL_ARGUMENT(data->offset), KERNEL_ARGUMENT(sums),
        KERNEL_ARGUMENT(sums_offset),
    };
    return kernel_launch(device, KERNEL_COLUMN_SUMS, &grid, arguments, sizeof arguments / sizeof arguments[0]);
}

int rows_gate_backward(struct device *device, cl_int rows, cl_int columns, const struct rows_gate *gate,
                       const struct kernel_view *dy)
{
    struct kernel_grid grid;
    const cl_int flags = (cl_int)gate->flags;
    const cl_float4 how = {{gate->how.limit, gate->how.alpha, gate->how.shift, 0}};
    const cl_long4 dy_at = kernel_view_place(dy, (uint64_t)columns);
    provider_grid(device, KERNEL_GATE_BACKWARD, (uint64_t)rows, (uint64_t)columns, 0, &grid);
    const struct kernel_argument arguments[] = {
        KERNEL_ARGUMENT(rows),
        KERNEL_ARGUMENT(columns),
        KERNEL_ARGUMENT(flags),
        KERNEL_ARGUMENT(how),
        KERNEL_ARGUMENT(dy->buffer),
        KERNEL_ARGUMENT(dy_at),
        KERNEL_ARGUMENT(gate->pairs.buffer),
        KERNEL_ARGUMENT(gate->pairs.offset),
        KERNEL_ARGUMENT(gate->gradients.buffer),
        KERNEL_ARGUMENT(gate->gradients.offset),
    };
    return kernel_launch(device, KERNEL_GATE_BACKWARD, &grid, arguments, sizeof arguments / sizeof arguments[0]);
}

int rows_widen(struct device *device, cl_int rows, cl_int columns, const struct rows_short *from,
               const struct kernel_view *to)
{
    struct kernel_grid grid;
    const cl_int flags = to->rows ? LINEAR_OUT_ROWS : 0, brain = from->brain;
    const cl_ulong offset = from->offset_bytes / sizeof(cl_ushort);
    const cl_long4 to_at = kernel_view_place(to, (uint64_t)columns);
    provider_grid(device, KERNEL_WIDEN_ROWS, (uint64_t)rows, (uint64_t)columns, 0, &grid);
    const struct kernel_argument arguments[] = {
        KERNEL_ARGUMENT(rows),         KERNEL_ARGUMENT(columns), KERNEL_ARGUMENT(flags),      KERNEL_ARGUMENT(brain),
        KERNEL_ARGUMENT(from->buffer), KERNEL_ARGUMENT(offset),  KERNEL_ARGUMENT(to->buffer), KERNEL_ARGUMENT(to_at),
    };
    return kernel_launch(device, KERNEL_WIDEN_ROWS, &grid, arguments, sizeof arguments / sizeof arguments[0]);
}

int rows_narrow(struct device *device, cl_int rows, cl_int columns, const struct kernel_view *from,
                const struct rows_short *to)
{
    struct kernel_grid grid;
    const cl_int brain = to->brain;
    const cl_ulong offset = to->offset_bytes / sizeof(cl_ushort);
    const cl_long4 from_at = kernel_view_place(from, (uint64_t)columns);
    provider_grid(device, KERNEL_NARROW_ROWS, (uint64_t)rows, (uint64_t)columns, 0, &grid);
    const struct kernel_argument arguments[] = {
        KERNEL_ARGUMENT(rows),    KERNEL_ARGUMENT(columns),    KERNEL_ARGUMENT(brain),  KERNEL_ARGUMENT(from->buffer),
        KERNEL_ARGUMENT(from_at), KERNEL_ARGUMENT(to->buffer), KERNEL_ARGUMENT(offset),
    };
    return kernel_launch(device, KERNEL_NARROW_ROWS, &grid, arguments, sizeof arguments / sizeof arguments[0]);
}
