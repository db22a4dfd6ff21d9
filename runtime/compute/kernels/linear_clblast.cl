/* What surrounds a product that CLBlast made, for matrices as it takes them: row-major, PANEL 0. Needs VEC 1. */

/* Work-items of every kernel. */
#define GROUP 256

/* The epilogue of out[M][N], in place; second and save are M x N, too. Global size {columns, some rows}. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void linear(int M, int N, int flags, __global float *out, ulong out_offset, __global const float *bias,
            ulong bias_offset, __global const float *second, ulong second_offset, __global float *save,
            ulong save_offset, float4 gate)
{
    const int column = get_global_id(0);
    if (column >= (flags & LINEAR_GATED ? N / 2 : N))
        return;
    if (flags & LINEAR_GATED) {
        for (int row = get_global_id(1); row < M; row += get_global_size(1)) {
            __global float *pair = save + save_offset + (long)row * N + 2 * column; /* which is where the product is */
            if (flags & LINEAR_BIAS) {
                pair[0] += bias[bias_offset + 2 * column];
                pair[1] += bias[bias_offset + 2 * column + 1];
            }
            out[out_offset + (long)row * (N / 2) + column] = gated(flags, gate, pair[0], pair[1]);
        }
        return;
    }
    const float addend = flags & LINEAR_BIAS ? bias[bias_offset + column] : 0.0f;
    for (int row = get_global_id(1); row < M; row += get_global_size(1)) {
        const long at = (long)row * N + column;
        const float other = flags & LINEAR_TAKES_SECOND ? second[second_offset + at] : 0.0f;
        float value = out[out_offset + at] + addend;
        if (flags & LINEAR_SAVE)
            save[save_offset + at] = value;
        if (flags & LINEAR_ACTIVATION)
            value = activation(flags, value);
        if (flags & LINEAR_ACTIVATION_GRAD)
            value *= activation_grad(flags, other);
        if (flags & LINEAR_MULTIPLY)
            value *= other;
        if (flags & LINEAR_ADD)
            value += other;
        out[out_offset + at] = value;
    }
}
