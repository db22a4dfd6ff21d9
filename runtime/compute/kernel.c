#include "runtime/compute/kernel.h"

#include <assert.h>
static const char *const names[KERNEL_COUNT] = {
    [KERNEL_LINEAR] = "linear",
    [KERNEL_LINEAR_GROUP] = "linear_group",
    [KERNEL_WEIGHT_GRADIENT] = "weight_gradient",
    [KERNEL_LAYER_NORM] = "layer_norm",
    [KERNEL_LAYER_NORM_BACKWARD] = "layer_norm_backward",
    [KERNEL_LAYER_NORM_SUMS] = "layer_norm_sums",
    [KERNEL_RMS_NORM] = "rms_norm",
    [KERNEL_RMS_NORM_BACKWARD] = "rms_norm_backward",
    [KERNEL_RMS_NORM_SUMS] = "rms_norm_sums",
    [KERNEL_COLUMN_SUMS] = "column_sums",
    [KERNEL_PACK_ROWS] = "pack_rows",
    [KERNEL_APPLY] = "apply",
    [KERNEL_MASK_ROWS] = "mask_rows",
    [KERNEL_AFFINE_ROWS] = "affine_rows",
    [KERNEL_AFFINE_SUMS] = "affine_sums",
    [KERNEL_GATE_BACKWARD] = "gate_backward",
    [KERNEL_WIDEN_ROWS] = "widen_rows",
    [KERNEL_NARROW_ROWS] = "narrow_rows",
    [KERNEL_BATCHED_PRODUCT] = "batched_product",
    [KERNEL_ATTENTION] = "attention",
    [KERNEL_ATTENTION_BACKWARD] = "attention_backward",
    [KERNEL_NORM_PARTIALS] = "norm_partials",
    [KERNEL_NORM_FINISH] = "norm_finish",
    [KERNEL_ACCUMULATE] = "accumulate",
    [KERNEL_STEP_ADAM] = "step_adam",
    [KERNEL_STEP_SGD] = "step_sgd",
};

const char *kernel_name(enum kernel kernel)
{
    assert(kernel < KERNEL_COUNT);
    return names[kernel];
}

cl_long4 kernel_view_place(const struct kernel_view *view, uint64_t columns)
{
    const cl_long row_stride = view->row_stride != 0 ? view->row_stride : (cl_long)columns;
    return (cl_long4){{(cl_long)view->offset, row_stride, view->panel_stride, 0}};
}

struct kernel_view kernel_view_rows(const struct kernel_shape *shape, cl_mem buffer, uint64_t offset, uint64_t columns)
{
    return (struct kernel_view){buffer, offset, (cl_long)columns, shape->panel, true};
}

struct kernel_view kernel_view_packed(const struct kernel_shape *shape, cl_mem buffer, uint64_t offset, uint64_t rows)
{
    return (struct kernel_view){buffer, offset, shape->panel, (cl_long)(rows * shape->panel), false};
}
