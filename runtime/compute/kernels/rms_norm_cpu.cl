/* RMSNorm for CPU devices, of any view (`at`: rows_cpu.cl): a work-item takes rows, or a panel. */

/* 1 / sqrt(mean of squares + eps) of one row. */
float row_rms(int C, float eps, __global const float *x, long4 at, int row)
{
    vec squares = 0.0f;
    for (int p = 0; p * PANEL < C; p++) {
        vec v[NV];
        load_columns(v, x + VIEW_ROW(at, row, p), C - p * PANEL);
        EACH_VECTOR squares += v[j] * v[j];
    }
    return 1.0f / sqrt(vec_sum(squares) / C + eps);
}

/* out = x * rstd * gamma, which is padded to whole panels. x and out may be the same. Grid {some of the rows}. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void rms_norm(int M, int C, int flags, float eps, __global const float *x, long4 x_at, __global const float *gamma,
              ulong gamma_offset, __global float *out, long4 out_at, SHARES)
{
    EACH_SHARE
    {
        for (int row = share; row < M; row += grid.x) {
            const float rstd = row_rms(C, eps, x, x_at, row);
            for (int p = 0; p * PANEL < C; p++) {
                vec v[NV];
                load_columns(v, x + VIEW_ROW(x_at, row, p), C - p * PANEL);
                EACH_VECTOR v[j] *= rstd * vec_load(gamma + gamma_offset + p * PANEL + j * VEC);
                clear_columns(v, C - p * PANEL);
                store_columns(v, out + VIEW_ROW(out_at, row, p), flags & LINEAR_OUT_ROWS ? C - p * PANEL : PANEL);
            }
        }
    }
}

/* With z = x * rstd and g = dy * gamma: dx = rstd * (g - z * mean(g * z)); stats[row] = rstd. Grid {some of the rows}. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void rms_norm_backward(int M, int C, int flags, float eps, __global const float *x, long4 x_at, __global const float *dy,
                       long4 dy_at, __global const float *gamma, ulong gamma_offset, __global float *dx, long4 dx_at,
                       __global float *stats, ulong stats_offset, SHARES)
{
    EACH_SHARE
    {
        for (int row = share; row < M; row += grid.x) {
            const float rstd = row_rms(C, eps, x, x_at, row);
            vec sum = 0.0f, v[NV], g[NV];
            for (int p = 0; p * PANEL < C; p++) {
                load_columns(v, x + VIEW_ROW(x_at, row, p), C - p * PANEL);
                load_columns(g, dy + VIEW_ROW(dy_at, row, p), C - p * PANEL);
                EACH_VECTOR sum += g[j] * vec_load(gamma + gamma_offset + p * PANEL + j * VEC) * v[j];
            }
            const float mean = vec_sum(sum) * rstd / C;
            for (int p = 0; p * PANEL < C; p++) {
                load_columns(v, x + VIEW_ROW(x_at, row, p), C - p * PANEL);
                load_columns(g, dy + VIEW_ROW(dy_at, row, p), C - p * PANEL);
                EACH_VECTOR g[j] *= vec_load(gamma + gamma_offset + p * PANEL + j * VEC);
                EACH_VECTOR v[j] = rstd * (g[j] - v[j] * rstd * mean);
                clear_columns(v, C - p * PANEL);
                store_columns(v, dx + VIEW_ROW(dx_at, row, p), flags & LINEAR_OUT_ROWS ? C - p * PANEL : PANEL);
            }
            stats[stats_offset + row] = rstd;
        }
    }
}

/* dgamma (+)= sum over rows of dy * x * rstd, padded to whole panels. Grid {panels}. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void rms_norm_sums(int M, int C, int accumulate, __global const float *x, long4 x_at, __global const float *dy, long4 dy_at,
                   __global const float *stats, ulong stats_offset, __global float *dgamma, ulong dgamma_offset, SHARES)
{
    EACH_SHARE
    {
        const int panel = share, columns = C - panel * PANEL;
        __global float *to = dgamma + dgamma_offset + panel * PANEL;
        vec sum[NV], v[NV], g[NV];
        EACH_VECTOR sum[j] = 0.0f;
        for (int row = 0; row < M; row++) {
            load_columns(v, x + VIEW_ROW(x_at, row, panel), columns);
            load_columns(g, dy + VIEW_ROW(dy_at, row, panel), columns);
            EACH_VECTOR sum[j] += g[j] * v[j] * stats[stats_offset + row];
        }
        clear_columns(sum, columns);
        for (int j = 0; j < NV; j++) {
            if (accumulate)
                sum[j] += vec_load(to + j * VEC);
            vec_store(sum[j], to + j * VEC);
        }
    }
}
