/* What LayerNorm and RMSNorm have in common: how their backward is launched, and the steps of both layers. */
#ifndef EXPERTD_RUNTIME_NORM_H
#define EXPERTD_RUNTIME_NORM_H

#include "runtime/compute/kernel.h"
#include "runtime/device/device.h"
#include "runtime/layers/layer.h"

/* Backward over the rows of a matrix; the formulas are beside layer_norm_sums and rms_norm_sums. Matrices are row-major
 * or in panels, vectors padded to whole panels. */
struct norm_backward_call {
    cl_int rows, columns;
    cl_float eps;
    cl_int accumulate; /* the sums are added to what is there */
    struct kernel_view x, dy;
    struct kernel_view dx;    /* written; may be dy where nothing reads that any more, as the sums do */
    struct device_rows stats; /* what the sums need of each row; written */
    cl_mem weights;
    cl_ulong gamma_offset;
    cl_mem gradients;
    cl_ulong dgamma_offset;
    cl_ulong dbeta_offset, dbias_offset; /* LayerNorm's */
};

/* dx and stats by `kernel`, which is KERNEL_LAYER_NORM_BACKWARD or KERNEL_RMS_NORM_BACKWARD. Enqueues and does not
 * wait. 0 or -errno, with device_error(). */
int norm_backward(struct device *device, enum kernel kernel, const struct norm_backward_call *call);
/* Of a kernel that writes `out`. */
cl_int norm_flags(const struct kernel_view *out);

/* The layers' parameters begin with gamma, and the buffers of their steps with these. */
enum { NORM_GAMMA };
enum { NORM_X, NORM_DY, NORM_DX, NORM_STATS, NORM_BUFFERS };

void norm_needs(struct plan *plan, struct plan_layer *layer);
/* A step with the layer's epsilon, parameters and buffers (PLAN_NONE: not used). */
struct plan_step *norm_step(struct plan *plan, const struct plan_layer *layer, plan_launch *launch,
                            const int buffers[NORM_BUFFERS]);
/* Buffers of the backward, whose stats are `stats` numbers a row. */
void norm_backward_buffers(struct plan *plan, struct plan_layer *layer, uint64_t stats, int buffers[NORM_BUFFERS]);
/* Of a backward's step, without what is LayerNorm's. */
struct norm_backward_call norm_call_of(const struct plan_run *run, const struct plan_step *step);

#endif
