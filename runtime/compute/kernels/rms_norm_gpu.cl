/* RMSNorm for GPUs; see rms_norm_cpu.cl. A group a row, or WIDTH columns. */

float row_rms(int C, float eps, __global const float *x, long4 at, int row, __local float *shared)
{
    float squares = 0.0f;
    for (int c = get_local_id(0); c < C; c += GROUP) {
        const float v = x[VIEW_AT(at, row, c)];
        squares += v * v;
    }
    return 1.0f / sqrt(group_sum(squares, shared) / C + eps);
}

__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void rms_norm(int M, int C, int flags, float eps, __global const float *x, long4 x_at, __global const float *gamma,
              ulong gamma_offset, __global float *out, long4 out_at)
{
    __local float shared[GROUP];
    const int columns = flags & LINEAR_OUT_ROWS ? C : PADDED(C);
    for (int row = get_group_id(0); row < M; row += get_num_groups(0)) {
        const float rstd = row_rms(C, eps, x, x_at, row, shared);
        for (int c = get_local_id(0); c < columns; c += GROUP)
            out[VIEW_AT(out_at, row, c)] = c < C ? x[VIEW_AT(x_at, row, c)] * rstd * gamma[gamma_offset + c] : 0.0f;
    }
}

__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void rms_norm_backward(int M, int C, int flags, float eps, __global const float *x, long4 x_at, __global const float *dy,
                       long4 dy_at, __global const float *gamma, ulong gamma_offset, __global float *dx, long4 dx_at,
                       __global float *stats, ulong stats_offset)
{
    __local float shared[GROUP];
    const int columns = flags & LINEAR_OUT_ROWS ? C : PADDED(C);
    for (int row = get_group_id(0); row < M; row += get_num_groups(0)) {
        const float rstd = row_rms(C, eps, x, x_at, row, shared);
        float sum = 0.0f;
        for (int c = get_local_id(0); c < C; c += GROUP)
            sum += dy[VIEW_AT(dy_at, row, c)] * gamma[gamma_offset + c] * x[VIEW_AT(x_at, row, c)];
        const float mean = group_sum(sum, shared) * rstd / C;
        for (int c = get_local_id(0); c < columns; c += GROUP)
            dx[VIEW_AT(dx_at, row, c)] = c < C ? rstd * (dy[VIEW_AT(dy_at, row, c)] * gamma[gamma_offset + c] -
                                                         x[VIEW_AT(x_at, row, c)] * rstd * mean)
                                               : 0.0f;
        if (get_local_id(0) == 0)
            stats[stats_offset + row] = rstd;
    }
}

__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void rms_norm_sums(int M, int C, int accumulate, __global const float *x, long4 x_at, __global const float *dy, long4 dy_at,
                   __global const float *stats, ulong stats_offset, __global float *dgamma, ulong dgamma_offset)
{
    __local float shared[GROUP];
    const int column = get_group_id(0) * WIDTH + get_local_id(0) % WIDTH;
    __global float *to = dgamma + dgamma_offset + column;
    float sum = 0.0f;
    for (int row = get_local_id(0) / WIDTH; row < M && column < C; row += LANES)
        sum += dy[VIEW_AT(dy_at, row, column)] * x[VIEW_AT(x_at, row, column)] * stats[stats_offset + row];
    sum = lanes_sum(sum, shared);
    if (get_local_id(0) < WIDTH && column < PADDED(C))
        *to = sum + (accumulate ? *to : 0.0f);
}
