#include "runtime/compute/batched.h"

#include <assert.h>

#include "runtime/compute/kernel_launch.h"
#include "runtime/compute/provider.h"

enum { A_ACROSS = 1, B_ACROSS = 2 }; /* runtime/compute/kernels/batched_cpu.cl has the same numbers */

cl_long4 batched_place(const struct device *device, const struct batched_operand *operand, cl_int used)
{
    const struct kernel_shape *shape = provider_shape(device);
    const uint64_t columns = (uint64_t)operand->columns;
    cl_long4 at = kernel_view_place(&operand->view, columns);
    cl_long pads = 0;
    if (!operand->view.rows && operand->first + used == operand->columns)
        pads = (cl_long)(kernel_panels(shape, columns) * kernel_panel_width(shape, columns) - columns);
    at.s[3] = operand->first + (pads << 32);
    return at;
}

int batched_product(struct device *device, const struct batched_call *call)
{
    struct kernel_grid grid;
    const cl_int flags = (call->a_across ? A_ACROSS : 0) | (call->b_across ? B_ACROSS : 0);
    const cl_long4 a = batched_place(device, &call->a, call->heads * (call->a_across ? call->rows : call->count));
    const cl_long4 b = batched_place(device, &call->b, call->heads * (call->b_across ? call->count : call->columns));
    const cl_long4 out = batched_place(device, &call->out, call->heads * call->columns);
    assert(!(call->a_across && call->b_across));
    provider_grid(device, KERNEL_BATCHED_PRODUCT, (uint64_t)call->matrices * (uint64_t)call->heads,
                  (uint64_t)call->columns, (uint64_t)call->rows, &grid);
    const struct kernel_argument arguments[] = {
        KERNEL_ARGUMENT(call->rows),
        KERNEL_ARGUMENT(call->columns),
        KERNEL_ARGUMENT(call->count),
        KERNEL_ARGUMENT(call->heads),
        KERNEL_ARGUMENT(flags),
        KERNEL_ARGUMENT(call->scale),
        KERNEL_ARGUMENT(call->a.view.buffer),
        KERNEL_ARGUMENT(a),
        KERNEL_ARGUMENT(call->b.view.buffer),
        KERNEL_ARGUMENT(b),
        KERNEL_ARGUMENT(call->out.view.buffer),
        KERNEL_ARGUMENT(out),
    };
    return kernel_launch(device, KERNEL_BATCHED_PRODUCT, &grid, arguments, sizeof arguments / sizeof arguments[0]);
}
