/* LayerNorm, column sums and repacking for GPUs: a work-group of 256 takes a row, or a panel of 32 columns, with neighbours in the group
 * at neighbouring addresses. */

#define LANES (GROUP / PANEL)

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
        sum += row[(c / PANEL) * panel_stride + c % PANEL];
    const float mean = group_sum(sum, shared) / C;
    for (int c = get_local_id(0); c < C; c += GROUP) {
        const float d = row[(c / PANEL) * panel_stride + c % PANEL] - mean;
        squares += d * d;
    }
    return (float2)(mean, 1.0f / sqrt(group_sum(squares, shared) / C + eps));
}

/* data[M][C], row-major, in place: (x - mean) * rstd * gamma + beta. A group a row. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void layer_norm(int M, int C, float eps, __global float *data, ulong offset, __global const float *gamma,
                ulong gamma_offset, __global const float *beta, ulong beta_offset)
{
    __local float shared[GROUP];
    for (int row = get_group_id(0); row < M; row += get_num_groups(0)) {
        __global float *x = data + offset + (long)row * C;
        const float2 stats = row_statistics(C, eps, x, PANEL, shared);
        for (int c = get_local_id(0); c < C; c += GROUP)
            x[c] = (x[c] - stats.x) * stats.y * gamma[gamma_offset + c] + beta[beta_offset + c];
    }
}

/* See rows_cpu.cl. A group a row. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void layer_norm_backward(int M, int C, float eps, __global const float *v_buffer, ulong v_offset,
                         __global const float *dy_buffer, ulong dy_offset, __global const float *gamma,
                         ulong gamma_offset, __global float *dx_buffer, ulong dx_offset, __global float *stats_buffer,
                         ulong stats_offset)
{
    __local float shared[GROUP];
    const long panel_stride = (long)M * PANEL;
    const int padded = (C + PANEL - 1) / PANEL * PANEL;
    for (int row = get_group_id(0); row < M; row += get_num_groups(0)) {
        __global const float *v = v_buffer + v_offset + (long)row * PANEL;
        __global const float *dy = dy_buffer + dy_offset + (long)row * C;
        __global float *dx = dx_buffer + dx_offset + (long)row * PANEL;
        const float2 stats = row_statistics(C, eps, v, panel_stride, shared);
        float sum_g = 0.0f, sum_gz = 0.0f;
        for (int c = get_local_id(0); c < C; c += GROUP) {
            const float g = dy[c] * gamma[gamma_offset + c];
            sum_g += g;
            sum_gz += g * ((v[(c / PANEL) * panel_stride + c % PANEL] - stats.x) * stats.y);
        }
        const float mean_g = group_sum(sum_g, shared) / C;
        const float mean_gz = group_sum(sum_gz, shared) / C;
        for (int c = get_local_id(0); c < padded; c += GROUP) {
            const long at = (c / PANEL) * panel_stride + c % PANEL;
            dx[at] = c < C ? stats.y * (dy[c] * gamma[gamma_offset + c] - mean_g - (v[at] - stats.x) * stats.y * mean_gz)
                           : 0.0f;
        }
        if (get_local_id(0) == 0) {
            stats_buffer[stats_offset + 2 * row] = stats.x;
            stats_buffer[stats_offset + 2 * row + 1] = stats.y;
        }
    }
}

/* The sums of the group's LANES row lanes, for each of its PANEL columns; in the first lane. */
float lanes_sum(float value, __local float *shared)
{
    const int i = get_local_id(0);
    barrier(CLK_LOCAL_MEM_FENCE);
    shared[i] = value;
    barrier(CLK_LOCAL_MEM_FENCE);
    float sum = 0.0f;
    for (int lane = 0; lane < LANES; lane++)
        sum += shared[lane * PANEL + i % PANEL];
    return sum;
}

/* See rows_cpu.cl. A group a panel. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void layer_norm_sums(int M, int C, int accumulate, __global const float *v_buffer, ulong v_offset,
                     __global const float *dy_buffer, ulong dy_offset, __global const float *dx_buffer, ulong dx_offset,
                     __global const float *stats, ulong stats_offset, __global float *dgamma, ulong dgamma_offset,
                     __global float *dbeta, ulong dbeta_offset, __global float *dbias, ulong dbias_offset)
{
    __local float shared[GROUP];
    const int panel = get_group_id(0), column = panel * PANEL + get_local_id(0) % PANEL;
    float sum_gamma = 0.0f, sum_beta = 0.0f, sum_bias = 0.0f;
    for (int row = get_local_id(0) / PANEL; row < M; row += LANES) {
        const long at = ((long)panel * M + row) * PANEL + column % PANEL;
        const float g = column < C ? dy_buffer[dy_offset + (long)row * C + column] : 0.0f;
        sum_gamma += g * ((v_buffer[v_offset + at] - stats[stats_offset + 2 * row]) * stats[stats_offset + 2 * row + 1]);
        sum_beta += g;
        sum_bias += dx_buffer[dx_offset + at];
    }
    sum_gamma = lanes_sum(sum_gamma, shared);
    sum_beta = lanes_sum(sum_beta, shared);
    sum_bias = lanes_sum(sum_bias, shared);
    if (get_local_id(0) < PANEL) {
        dgamma[dgamma_offset + column] = sum_gamma + (accumulate ? dgamma[dgamma_offset + column] : 0.0f);
        dbeta[dbeta_offset + column] = sum_beta + (accumulate ? dbeta[dbeta_offset + column] : 0.0f);
        dbias[dbias_offset + column] = sum_bias + (accumulate ? dbias[dbias_offset + column] : 0.0f);
    }
}

/* sums[c] (+)= sum over rows of data[M][.] in panels. A group a panel. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void column_sums(int M, int accumulate, __global const float *data_buffer, ulong data_offset, __global float *sums,
                 ulong sums_offset)
{
    __local float shared[GROUP];
    const int panel = get_group_id(0), c = get_local_id(0) % PANEL;
    __global const float *data = data_buffer + data_offset + (long)panel * M * PANEL;
    __global float *to = sums + sums_offset + panel * PANEL + c;
    float sum = 0.0f;
    for (int row = get_local_id(0) / PANEL; row < M; row += LANES)
        sum += data[(long)row * PANEL + c];
    sum = lanes_sum(sum, shared);
    if (get_local_id(0) < PANEL)
        *to = sum + (accumulate ? *to : 0.0f);
}

/* Row-major in[M][C] into panels, pad columns 0. Global size {elements of a panel, panels}. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void pack_rows(int M, int C, __global const float *in, ulong in_offset, __global float *out, ulong out_offset)
{
    const int panel = get_group_id(1);
    for (long i = get_global_id(0); i < (long)M * PANEL; i += get_global_size(0)) {
        const int column = panel * PANEL + i % PANEL;
        out[out_offset + (long)panel * M * PANEL + i] = column < C ? in[in_offset + i / PANEL * C + column] : 0.0f;
    }
}
