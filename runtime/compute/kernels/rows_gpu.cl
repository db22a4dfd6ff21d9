/* LayerNorm, column sums and repacking for GPUs: a work-group of 256 takes a row, or 32 columns, with neighbours in the group at
 * neighbouring addresses. With PANEL 0 what is said to be in panels is row-major, as a BLAS wants it, and has no pads. */

#if PANEL == 0
#define WIDTH 32
#define MATRIX_AT(r, c, R, C) ((long)(r) * (C) + (c)) /* where an element of an R x C matrix lies */
#define ROW_AT(r, C) ((long)(r) * (C))                /* where a row begins */
#define COLUMN_AT(c, panel_stride) (c)                /* and an element in it */
#define PADDED(C) (C)                                 /* columns with the pads */
#else
#define WIDTH PANEL
#define MATRIX_AT(r, c, R, C) (((long)((c) / PANEL) * (R) + (r)) * PANEL + (c) % PANEL)
#define ROW_AT(r, C) ((long)(r) * PANEL)
#define COLUMN_AT(c, panel_stride) ((c) / PANEL * (panel_stride) + (c) % PANEL)
#define PADDED(C) (((C) + PANEL - 1) / PANEL * PANEL)
#endif
#define LANES (GROUP / WIDTH)

/* Where an element of a view (common.cl) lies: {offset, row_stride, panel_stride, 0}. */
#define VIEW_AT(at, row, column) ((at).s0 + (long)(row) * (at).s1 + COLUMN_AT(column, (at).s2))

/* Sum over the group, the same in every work-item; always in the same order. `shared` has GROUP floats. */
float group_sum(float value, __local float *shared)
{
    const int i = get_local_id(0);
    barrier(CLK_LOCAL_MEM_FENCE);
    shared[i] = value;
    for (int half_size = GROUP / 2; half_size > 0; half_size /= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        if (i < half_size)
            shared[i] += shared[i + half_size];
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    return shared[0];
}

/* Mean and 1 / sqrt(variance + eps) of one row of a view with C columns. */
float2 row_statistics(int C, float eps, __global const float *row, long panel_stride, __local float *shared)
{
    float sum = 0.0f, squares = 0.0f;
    for (int c = get_local_id(0); c < C; c += GROUP)
        sum += row[COLUMN_AT(c, panel_stride)];
    const float mean = group_sum(sum, shared) / C;
    for (int c = get_local_id(0); c < C; c += GROUP) {
        const float d = row[COLUMN_AT(c, panel_stride)] - mean;
        squares += d * d;
    }
    return (float2)(mean, 1.0f / sqrt(group_sum(squares, shared) / C + eps));
}

/* See rows_cpu.cl. A group a row. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void layer_norm(int M, int C, int flags, float eps, __global const float *x, long4 x_at, __global const float *gamma,
                ulong gamma_offset, __global const float *beta, ulong beta_offset, __global float *out, long4 out_at)
{
    __local float shared[GROUP];
    const int columns = flags & LINEAR_OUT_ROWS ? C : PADDED(C);
    for (int row = get_group_id(0); row < M; row += get_num_groups(0)) {
        const float2 stats = row_statistics(C, eps, x + VIEW_AT(x_at, row, 0), x_at.s2, shared);
        for (int c = get_local_id(0); c < columns; c += GROUP)
            out[VIEW_AT(out_at, row, c)] =
                c < C ? (x[VIEW_AT(x_at, row, c)] - stats.x) * stats.y * gamma[gamma_offset + c] + beta[beta_offset + c]
                      : 0.0f;
    }
}

/* See rows_cpu.cl. A group a row. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void layer_norm_backward(int M, int C, int flags, float eps, __global const float *x, long4 x_at, __global const float *dy,
                         long4 dy_at, __global const float *gamma, ulong gamma_offset, __global float *dx, long4 dx_at,
                         __global float *stats_buffer, ulong stats_offset)
{
    __local float shared[GROUP];
    const int columns = flags & LINEAR_OUT_ROWS ? C : PADDED(C);
    for (int row = get_group_id(0); row < M; row += get_num_groups(0)) {
        const float2 stats = row_statistics(C, eps, x + VIEW_AT(x_at, row, 0), x_at.s2, shared);
        float sum_g = 0.0f, sum_gz = 0.0f;
        for (int c = get_local_id(0); c < C; c += GROUP) {
            const float g = dy[VIEW_AT(dy_at, row, c)] * gamma[gamma_offset + c];
            sum_g += g;
            sum_gz += g * ((x[VIEW_AT(x_at, row, c)] - stats.x) * stats.y);
        }
        const float mean_g = group_sum(sum_g, shared) / C;
        const float mean_gz = group_sum(sum_gz, shared) / C;
        for (int c = get_local_id(0); c < columns; c += GROUP)
            dx[VIEW_AT(dx_at, row, c)] =
                c < C ? stats.y * (dy[VIEW_AT(dy_at, row, c)] * gamma[gamma_offset + c] - mean_g -
                                   (x[VIEW_AT(x_at, row, c)] - stats.x) * stats.y * mean_gz)
                      : 0.0f;
        if (get_local_id(0) == 0) {
            stats_buffer[stats_offset + 2 * row] = stats.x;
            stats_buffer[stats_offset + 2 * row + 1] = stats.y;
        }
    }
}

/* The sums of the group's LANES row lanes, for each of its WIDTH columns; in the first lane. */
float lanes_sum(float value, __local float *shared)
{
    const int i = get_local_id(0);
    barrier(CLK_LOCAL_MEM_FENCE);
    shared[i] = value;
    barrier(CLK_LOCAL_MEM_FENCE);
    float sum = 0.0f;
    for (int lane = 0; lane < LANES; lane++)
        sum += shared[lane * WIDTH + i % WIDTH];
    return sum;
}

/* See rows_cpu.cl. A group for WIDTH columns. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void layer_norm_sums(int M, int C, int accumulate, __global const float *x, long4 x_at, __global const float *dy, long4 dy_at,
                     __global const float *dx, long4 dx_at, __global const float *stats, ulong stats_offset,
                     __global float *dgamma, ulong dgamma_offset, __global float *dbeta, ulong dbeta_offset,
                     __global float *dbias, ulong dbias_offset)
{
    __local float shared[GROUP];
    const int column = get_group_id(0) * WIDTH + get_local_id(0) % WIDTH;
    float sum_gamma = 0.0f, sum_beta = 0.0f, sum_bias = 0.0f;
    for (int row = get_local_id(0) / WIDTH; row < M && column < C; row += LANES) {
        const float g = dy[VIEW_AT(dy_at, row, column)];
        sum_gamma += g * ((x[VIEW_AT(x_at, row, column)] - stats[stats_offset + 2 * row]) * stats[stats_offset + 2 * row + 1]);
        sum_beta += g;
        sum_bias += dx[VIEW_AT(dx_at, row, column)];
    }
    sum_gamma = lanes_sum(sum_gamma, shared);
    sum_beta = lanes_sum(sum_beta, shared);
    sum_bias = lanes_sum(sum_bias, shared);
    if (get_local_id(0) < WIDTH && column < PADDED(C)) {
        dgamma[dgamma_offset + column] = sum_gamma + (accumulate ? dgamma[dgamma_offset + column] : 0.0f);
        dbeta[dbeta_offset + column] = sum_beta + (accumulate ? dbeta[dbeta_offset + column] : 0.0f);
        dbias[dbias_offset + column] = sum_bias + (accumulate ? dbias[dbias_offset + column] : 0.0f);
    }
}

/* sums[c] (+)= sum over rows of data[M][C] in panels. A group for WIDTH columns. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void column_sums(int M, int C, int accumulate, __global const float *data_buffer, ulong data_offset, __global float *sums,
                 ulong sums_offset)
{
    __local float shared[GROUP];
    const int column = get_group_id(0) * WIDTH + get_local_id(0) % WIDTH;
    __global float *to = sums + sums_offset + column;
    float sum = 0.0f;
    for (int row = get_local_id(0) / WIDTH; row < M && column < PADDED(C); row += LANES)
        sum += data_buffer[data_offset + MATRIX_AT(row, column, M, C)];
    sum = lanes_sum(sum, shared);
    if (get_local_id(0) < WIDTH && column < PADDED(C))
        *to = sum + (accumulate ? *to : 0.0f);
}

/* Row-major in[M][C] into panels, pad columns 0. Global size {elements of WIDTH columns, WIDTHs of columns}. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void pack_rows(int M, int C, __global const float *in, ulong in_offset, __global float *out, ulong out_offset)
{
    for (long i = get_global_id(0); i < (long)M * WIDTH; i += get_global_size(0)) {
        const int column = get_group_id(1) * WIDTH + i % WIDTH, row = i / WIDTH;
        if (column < PADDED(C))
            out[out_offset + MATRIX_AT(row, column, M, C)] = column < C ? in[in_offset + (long)row * C + column] : 0.0f;
    }
}

/* See rows_cpu.cl. Global size {elements of WIDTH columns, WIDTHs of columns}. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void apply(int M, int C, int flags, __global const float *a, long4 a_at, __global const float *second, long4 second_at,
           __global float *out, long4 out_at)
{
    for (long i = get_global_id(0); i < (long)M * WIDTH; i += get_global_size(0)) {
        const int column = get_group_id(1) * WIDTH + i % WIDTH, row = i / WIDTH;
        if (column >= (flags & LINEAR_OUT_ROWS ? C : PADDED(C)))
            continue;
        float value = 0.0f;
        if (column < C) {
            value = a[VIEW_AT(a_at, row, column)];
            const float other = flags & LINEAR_TAKES_SECOND ? second[VIEW_AT(second_at, row, column)] : 0.0f;
            if (flags & LINEAR_ACTIVATION)
                value = activation(flags, value);
            if (flags & LINEAR_ACTIVATION_GRAD)
                value *= activation_grad(flags, other);
            if (flags & LINEAR_MULTIPLY)
                value *= other;
            if (flags & LINEAR_ADD)
                value += other;
        }
        out[VIEW_AT(out_at, row, column)] = value;
    }
}

/* See rows_cpu.cl. Global size as above. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void mask_rows(int M, int C, int flags, int wide, float scale, __global const float *x, long4 x_at,
               __global const uchar *mask, ulong mask_bytes, __global float *out, long4 out_at)
{
    for (long i = get_global_id(0); i < (long)M * WIDTH; i += get_global_size(0)) {
        const int column = get_group_id(1) * WIDTH + i % WIDTH, row = i / WIDTH;
        if (column >= (flags & LINEAR_OUT_ROWS ? C : PADDED(C)))
            continue;
        float value = 0.0f;
        if (column < C) {
            const long at = (long)row * C + column;
            const float factor = wide ? (float)((__global const long *)(mask + mask_bytes))[at] : (float)(mask[mask_bytes + at] != 0);
            value = x[VIEW_AT(x_at, row, column)] * factor * scale;
        }
        out[VIEW_AT(out_at, row, column)] = value;
    }
}

/* See rows_cpu.cl. Global size as above. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void affine_rows(int M, int C, int flags, int period, float scale, float shift, __global const float *x, long4 x_at,
                 __global const float *weight, ulong weight_offset, __global const float *bias, ulong bias_offset,
                 __global float *out, long4 out_at)
{
    for (long i = get_global_id(0); i < (long)M * WIDTH; i += get_global_size(0)) {
        const int column = get_group_id(1) * WIDTH + i % WIDTH, row = i / WIDTH;
        if (column >= (flags & LINEAR_OUT_ROWS ? C : PADDED(C)))
            continue;
        const long at = (long)(row % period) * C + column;
        float value = 0.0f;
        if (column < C) {
            value = x[VIEW_AT(x_at, row, column)] * scale;
            if (flags & LINEAR_MULTIPLY)
                value *= weight[weight_offset + at];
            if (flags & LINEAR_BIAS)
                value += bias[bias_offset + at];
            value += shift;
        }
        out[VIEW_AT(out_at, row, column)] = value;
    }
}

/* See rows_cpu.cl. Groups {some of the period, WIDTHs of columns}. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void affine_sums(int M, int C, int accumulate, int flags, int period, float scale, __global const float *x, long4 x_at,
                 __global const float *dy, long4 dy_at, __global float *dweight, ulong dweight_offset, __global float *dbias,
                 ulong dbias_offset)
{
    __local float shared[GROUP];
    const int column = get_group_id(1) * WIDTH + get_local_id(0) % WIDTH;
    const long count = (long)period * C, pad = count + get_local_id(0);
    for (int of = get_group_id(0); of < period; of += get_num_groups(0)) {
        const long at = (long)of * C + column;
        float sum_weight = 0.0f, sum_bias = 0.0f;
        for (long row = of + (long)period * (get_local_id(0) / WIDTH); row < M && column < C; row += (long)period * LANES) {
            const float g = dy[VIEW_AT(dy_at, row, column)];
            sum_bias += g;
            if (flags & LINEAR_MULTIPLY)
                sum_weight += g * x[VIEW_AT(x_at, row, column)];
        }
        sum_weight = lanes_sum(sum_weight, shared) * scale;
        sum_bias = lanes_sum(sum_bias, shared);
        const bool writes = get_local_id(0) < WIDTH && column < C;
        const bool ends = of == period - 1 && get_group_id(1) == 0 && pad < PADDED(count);
        if (flags & LINEAR_MULTIPLY) {
            if (writes)
                dweight[dweight_offset + at] = sum_weight + (accumulate ? dweight[dweight_offset + at] : 0.0f);
            if (ends)
                dweight[dweight_offset + pad] = 0.0f;
        }
        if (flags & LINEAR_BIAS) {
            if (writes)
                dbias[dbias_offset + at] = sum_bias + (accumulate ? dbias[dbias_offset + at] : 0.0f);
            if (ends)
                dbias[dbias_offset + pad] = 0.0f;
        }
    }
}

/* See rows_cpu.cl. Global size as above. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void gate_backward(int M, int C, int flags, float4 gate, __global const float *dy, long4 dy_at, __global const float *pairs,
                   ulong pairs_offset, __global float *gradients, ulong gradients_offset)
{
    for (long i = get_global_id(0); i < (long)M * WIDTH; i += get_global_size(0)) {
        const int column = get_group_id(1) * WIDTH + i % WIDTH, row = i / WIDTH;
        if (column >= PADDED(C))
            continue;
        const long at = MATRIX_AT(row, 2 * column, M, 2 * C);
        const float d = column < C ? dy[VIEW_AT(dy_at, row, column)] : 0.0f;
        const float g = pairs[pairs_offset + at], u = pairs[pairs_offset + at + 1];
        gradients[gradients_offset + at] = gate_grad(flags, gate, g, u, d);
        gradients[gradients_offset + at + 1] = let_through_grad(flags, gate, g, u, d);
    }
}

/* See rows_cpu.cl. Global size as above. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void widen_rows(int M, int C, int flags, int brain, __global const ushort *in, ulong in_offset, __global float *out, long4 out_at)
{
    for (long i = get_global_id(0); i < (long)M * WIDTH; i += get_global_size(0)) {
        const int column = get_group_id(1) * WIDTH + i % WIDTH, row = i / WIDTH;
        if (column < (flags & LINEAR_OUT_ROWS ? C : PADDED(C)))
            out[VIEW_AT(out_at, row, column)] =
                column < C ? short_load_one(in + in_offset + (long)row * C + column, brain) : 0.0f;
    }
}

/* See rows_cpu.cl. Global size as above. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void narrow_rows(int M, int C, int brain, __global const float *in, long4 in_at, __global ushort *out, ulong out_offset)
{
    for (long i = get_global_id(0); i < (long)M * WIDTH; i += get_global_size(0)) {
        const int column = get_group_id(1) * WIDTH + i % WIDTH, row = i / WIDTH;
        if (column < C)
            short_store_one(in[VIEW_AT(in_at, row, column)], out + out_offset + (long)row * C + column, brain);
    }
}
