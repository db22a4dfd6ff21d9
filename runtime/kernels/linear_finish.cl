/* What surrounds the product of a linear layer, for one element: the epilogue of providers for GPUs that store their sums one by one
 * (linear_gpu.cl stores four). Needs VEC 1. `at` is where the element goes in out and save. */
void finish_element(float value, int row, int column, int N, int flags, __global float *out, long at,
                    __global const float *bias, __global const float *second, long second_row_stride,
                    long second_panel_stride, __global float *save)
{
    float other = 0.0f;
    if (column >= N && flags & LINEAR_OUT_ROWS)
        return;
    if (flags & (LINEAR_ADD | LINEAR_GELU_GRAD) && (column < N || !(flags & LINEAR_SECOND_ROWS)))
        other = second[(column / PANEL) * second_panel_stride + row * second_row_stride + column % PANEL];
    if (flags & LINEAR_BIAS)
        value += bias[column];
    if (flags & LINEAR_SAVE)
        save[at] = value;
    if (flags & LINEAR_GELU)
        value = gelu(value);
    if (flags & LINEAR_GELU_GRAD)
        value *= gelu_grad(other);
    if (flags & LINEAR_ADD)
        value += other;
    out[at] = value;
}
