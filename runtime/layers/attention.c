#include "runtime/layers/attention.h"

#include <math.h>

#include "runtime/compute/kernel_launch.h"
#include "runtime/compute/provider.h"

enum { MASKED = 1, KEEPS_STATS = 2 }; /* runtime/compute/kernels/attention_cpu.cl has the same numbers */

static cl_long4 place(const struct device *device, const struct attention_call *call,
                      const struct batched_operand *operand)
{
    return batched_place(device, operand, call->heads * call->width);
}

static cl_float scale_of(const struct attention_call *call)
{
    return (cl_float)(1 / sqrt((double)call->width));
}

int attention_forward(struct device *device, const struct attention_call *call)
{
    struct kernel_grid grid;
    const cl_int flags = (call->mask != NULL ? MASKED : 0) | (call->stats != NULL ? KEEPS_STATS : 0);
    const cl_float scale = scale_of(call);
    const cl_long4 q = place(device, call, &call->q), k = place(device, call, &call->k);
    const cl_long4 v = place(device, call, &call->v), out = place(device, call, &call->out);
    /* An argument must be some buffer, also where the flags say that it is not looked at. */
    const cl_mem mask = call->mask != NULL ? call->mask : call->q.view.buffer;
    const cl_mem stats = call->stats != NULL ? call->stats : call->out.view.buffer;
    provider_grid(device, KERNEL_ATTENTION, (uint64_t)call->rows * (uint64_t)call->heads, (uint64_t)call->tokens, 0,
                  &grid);
    const struct kernel_argument arguments[] = {
        KERNEL_ARGUMENT(call->tokens),
        KERNEL_ARGUMENT(call->heads),
        KERNEL_ARGUMENT(call->width),
        KERNEL_ARGUMENT(flags),
        KERNEL_ARGUMENT(scale),
        KERNEL_ARGUMENT(call->q.view.buffer),
        KERNEL_ARGUMENT(q),
        KERNEL_ARGUMENT(call->k.view.buffer),
        KERNEL_ARGUMENT(k),
        KERNEL_ARGUMENT(call->v.view.buffer),
        KERNEL_ARGUMENT(v),
        KERNEL_ARGUMENT(call->out.view.buffer),
        KERNEL_ARGUMENT(out),
        KERNEL_ARGUMENT(mask),
        KERNEL_ARGUMENT(call->mask_offset_bytes),
        KERNEL_ARGUMENT(stats),
        KERNEL_ARGUMENT(call->stats_offset),
    };
    return kernel_launch(device, KERNEL_ATTENTION, &grid, arguments, sizeof arguments / sizeof arguments[0]);
}

int attention_backward(struct device *device, const struct attention_call *call,
                       const struct attention_gradients *gradients)
{
    struct kernel_grid grid;
    const cl_int flags = call->mask != NULL ? MASKED : 0;
    const cl_float scale = scale_of(call);
    const cl_long4 q = place(device, call, &call->q), k = place(device, call, &call->k);
    const cl_long4 v = place(device, call, &call->v), out = place(device, call, &call->out);
    const cl_long4 grad = place(device, call, &gradients->out), grad_q = place(device, call, &gradients->q);
    const cl_long4 grad_k = place(device, call, &gradients->k), grad_v = place(device, call, &gradients->v);
    const cl_mem mask = call->mask != NULL ? call->mask : call->q.view.buffer;
    provider_grid(device, KERNEL_ATTENTION_BACKWARD, (uint64_t)call->rows * (uint64_t)call->heads,
                  (uint64_t)call->tokens, 0, &grid);
    const struct kernel_argument arguments[] = {
        KERNEL_ARGUMENT(call->tokens),
        KERNEL_ARGUMENT(call->heads),
        KERNEL_ARGUMENT(call->width),
        KERNEL_ARGUMENT(flags),
        KERNEL_ARGUMENT(scale),
        KERNEL_ARGUMENT(call->q.view.buffer),
        KERNEL_ARGUMENT(q),
        KERNEL_ARGUMENT(call->k.view.buffer),
        KERNEL_ARGUMENT(k),
        KERNEL_ARGUMENT(call->v.view.buffer),
        KERNEL_ARGUMENT(v),
        KERNEL_ARGUMENT(call->out.view.buffer),
        KERNEL_ARGUMENT(out),
        KERNEL_ARGUMENT(gradients->out.view.buffer),
        KERNEL_ARGUMENT(grad),
        KERNEL_ARGUMENT(gradients->q.view.buffer),
        KERNEL_ARGUMENT(grad_q),
        KERNEL_ARGUMENT(gradients->k.view.buffer),
        KERNEL_ARGUMENT(grad_k),
        KERNEL_ARGUMENT(gradients->v.view.buffer),
        KERNEL_ARGUMENT(grad_v),
        KERNEL_ARGUMENT(mask),
        KERNEL_ARGUMENT(call->mask_offset_bytes),
        KERNEL_ARGUMENT(call->stats),
        KERNEL_ARGUMENT(call->stats_offset),
    };
    return kernel_launch(device, KERNEL_ATTENTION_BACKWARD, &grid, arguments, sizeof arguments / sizeof arguments[0]);
}
