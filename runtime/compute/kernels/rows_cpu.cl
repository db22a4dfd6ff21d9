/* LayerNorm, column sums and repacking for CPU devices: memory-bound, a work-item takes rows or a panel. */

/* Where a panel of a row of a view (common.cl) lies: {offset, row_stride, panel_stride, 0}. */
#define VIEW_ROW(at, row, panel) ((at).s0 + (long)(row) * (at).s1 + (long)(panel) * (at).s2)

/* Sum over the lanes of a vector, always in the same order. */
float vec_sum(vec v)
{
    float lanes[VEC], sum = 0.0f;
    vec_store_private(v, lanes);
    for (int i = 0; i < VEC; i++)
        sum += lanes[i];
    return sum;
}

/* 0 into the columns of a panel's row from `columns` on. */
void clear_columns(vec *v, int columns)
{
    if (columns >= PANEL)
        return;
    float row[PANEL];
    EACH_VECTOR vec_store_private(v[j], row + j * VEC);
    for (int c = columns; c < PANEL; c++)
        row[c] = 0.0f;
    EACH_VECTOR v[j] = vec_load_private(row + j * VEC);
}

/* Mean and 1 / sqrt(variance + eps) of one row of a view with C columns. Two passes: the second meets the row in the cache. */
float2 row_statistics(int C, float eps, __global const float *row, long panel_stride)
{
    vec sum = 0.0f, squares = 0.0f;
    for (int p = 0; p * PANEL < C; p++) {
        vec v[NV];
        load_columns(v, row + p * panel_stride, C - p * PANEL);
        EACH_VECTOR sum += v[j];
    }
    const float mean = vec_sum(sum) / C;
    for (int p = 0; p * PANEL < C; p++) {
        vec v[NV];
        load_columns(v, row + p * panel_stride, C - p * PANEL);
        EACH_VECTOR v[j] -= mean;
        clear_columns(v, C - p * PANEL);
        EACH_VECTOR squares += v[j] * v[j];
    }
    return (float2)(mean, 1.0f / sqrt(vec_sum(squares) / C + eps));
}

/* out[M][C] = (x - mean) * rstd * gamma + beta; x and out may be the same. gamma and beta are padded to whole panels. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void layer_norm(int M, int C, int flags, float eps, __global const float *x, long4 x_at, __global const float *gamma,
                ulong gamma_offset, __global const float *beta, ulong beta_offset, __global float *out, long4 out_at, SHARES)
{
    EACH_SHARE
    {
        for (int row = share; row < M; row += grid.x) {
            const float2 stats = row_statistics(C, eps, x + VIEW_ROW(x_at, row, 0), x_at.s2);
            for (int p = 0; p * PANEL < C; p++) {
                const int c = p * PANEL;
                vec v[NV];
                load_columns(v, x + VIEW_ROW(x_at, row, p), C - c);
                EACH_VECTOR v[j] = (v[j] - stats.x) * stats.y * vec_load(gamma + gamma_offset + c + j * VEC) +
                                   vec_load(beta + beta_offset + c + j * VEC);
                clear_columns(v, C - c);
                store_columns(v, out + VIEW_ROW(out_at, row, p), flags & LINEAR_OUT_ROWS ? C - c : PANEL);
            }
        }
    }
}

/* dx of LayerNorm over x[M][C]: with z = (x - mean) * rstd and g = dy * gamma,
 *     dx = rstd * (g - mean(g) - z * mean(g * z)). stats[row] = {mean, rstd} for layer_norm_sums. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void layer_norm_backward(int M, int C, int flags, float eps, __global const float *x_buffer, long4 x_at,
                         __global const float *dy_buffer, long4 dy_at, __global const float *gamma, ulong gamma_offset,
                         __global float *dx_buffer, long4 dx_at, __global float *stats_buffer, ulong stats_offset, SHARES)
{
    EACH_SHARE
    {
        for (int row = share; row < M; row += grid.x) {
            const float2 stats = row_statistics(C, eps, x_buffer + VIEW_ROW(x_at, row, 0), x_at.s2);
            vec sum_g = 0.0f, sum_gz = 0.0f;
            for (int p = 0; p * PANEL < C; p++) {
                vec x[NV], g[NV];
                load_columns(x, x_buffer + VIEW_ROW(x_at, row, p), C - p * PANEL);
                load_columns(g, dy_buffer + VIEW_ROW(dy_at, row, p), C - p * PANEL);
                EACH_VECTOR g[j] *= vec_load(gamma + gamma_offset + p * PANEL + j * VEC);
                EACH_VECTOR sum_g += g[j];
                EACH_VECTOR sum_gz += g[j] * ((x[j] - stats.x) * stats.y);
            }
            const float mean_g = vec_sum(sum_g) / C, mean_gz = vec_sum(sum_gz) / C;
            for (int p = 0; p * PANEL < C; p++) {
                vec x[NV], g[NV];
                load_columns(x, x_buffer + VIEW_ROW(x_at, row, p), C - p * PANEL);
                load_columns(g, dy_buffer + VIEW_ROW(dy_at, row, p), C - p * PANEL);
                EACH_VECTOR g[j] *= vec_load(gamma + gamma_offset + p * PANEL + j * VEC);
                EACH_VECTOR x[j] = stats.y * (g[j] - mean_g - (x[j] - stats.x) * stats.y * mean_gz);
                clear_columns(x, C - p * PANEL);
                store_columns(x, dx_buffer + VIEW_ROW(dx_at, row, p), flags & LINEAR_OUT_ROWS ? C - p * PANEL : PANEL);
            }
            stats_buffer[stats_offset + 2 * row] = stats.x;
            stats_buffer[stats_offset + 2 * row + 1] = stats.y;
        }
    }
}

/* The gradients that are column sums after LayerNorm's backward: dgamma = sum dy * z, dbeta = sum dy, dbias = sum dx, each
 * padded to whole panels. Grid {panels}. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void layer_norm_sums(int M, int C, int accumulate, __global const float *x_buffer, long4 x_at,
                     __global const float *dy_buffer, long4 dy_at, __global const float *dx_buffer, long4 dx_at,
                     __global const float *stats, ulong stats_offset, __global float *dgamma, ulong dgamma_offset,
                     __global float *dbeta, ulong dbeta_offset, __global float *dbias, ulong dbias_offset, SHARES)
{
    EACH_SHARE
    {
        const int panel = share, columns = C - panel * PANEL;
        vec sums[3][NV];
        for (int j = 0; j < NV; j++)
            sums[0][j] = sums[1][j] = sums[2][j] = 0.0f;
        for (int row = 0; row < M; row++) {
            const float mean = stats[stats_offset + 2 * row], rstd = stats[stats_offset + 2 * row + 1];
            vec x[NV], g[NV], dx[NV];
            load_columns(x, x_buffer + VIEW_ROW(x_at, row, panel), columns);
            load_columns(g, dy_buffer + VIEW_ROW(dy_at, row, panel), columns);
            load_columns(dx, dx_buffer + VIEW_ROW(dx_at, row, panel), columns);
            EACH_VECTOR sums[0][j] += g[j] * ((x[j] - mean) * rstd);
            EACH_VECTOR sums[1][j] += g[j];
            EACH_VECTOR sums[2][j] += dx[j];
        }
        for (int s = 0; s < 3; s++) {
            __global float *to = s == 0 ? dgamma + dgamma_offset : s == 1 ? dbeta + dbeta_offset : dbias + dbias_offset;
            for (int j = 0; j < NV; j++) {
                vec sum = sums[s][j];
                if (accumulate)
                    sum += vec_load(to + panel * PANEL + j * VEC);
                vec_store(sum, to + panel * PANEL + j * VEC);
            }
        }
    }
}

/* sums[c] (+)= sum over rows of data[M][.] in panels. Grid {panels}. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void column_sums(int M, int unused_columns, int accumulate, __global const float *data_buffer, ulong data_offset, __global float *sums,
                 ulong sums_offset, SHARES)
{
    EACH_SHARE
    {
        const int panel = share;
        __global const float *data = data_buffer + data_offset + (long)panel * M * PANEL;
        __global float *to = sums + sums_offset + panel * PANEL;
        vec sum[NV];
        EACH_VECTOR sum[j] = 0.0f;
        for (int row = 0; row < M; row++)
            EACH_VECTOR sum[j] += vec_load(data + (long)row * PANEL + j * VEC);
        for (int j = 0; j < NV; j++) {
            if (accumulate)
                sum[j] += vec_load(to + j * VEC);
            vec_store(sum[j], to + j * VEC);
        }
    }
}

/* Row-major in[M][C] into panels, pad columns 0. Grid {some, panels}. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void pack_rows(int M, int C, __global const float *in, ulong in_offset, __global float *out, ulong out_offset, SHARES)
{
    EACH_SHARE
    {
        const int panel = share / grid.x;
        for (int row = share % grid.x; row < M; row += grid.x) {
            vec v[NV];
            load_columns(v, in + in_offset + (long)row * C + panel * PANEL, C - panel * PANEL);
            store_columns(v, out + out_offset + ((long)panel * M + row) * PANEL, PANEL);
        }
    }
}

/* out[M][C] = what a product's epilogue makes of a, in place of a sum; `second` as there. Views may be the same. Grid {some,
 * panels}. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void apply(int M, int C, int flags, __global const float *a, long4 a_at, __global const float *second, long4 second_at,
           __global float *out, long4 out_at, SHARES)
{
    EACH_SHARE
    {
        const int panel = share / grid.x, columns = C - panel * PANEL;
        for (int row = share % grid.x; row < M; row += grid.x) {
            vec v[NV];
            __global float *to = out + VIEW_ROW(out_at, row, panel);
            load_columns(v, a + VIEW_ROW(a_at, row, panel), columns);
            linear_epilogue(v, flags, 0, second + VIEW_ROW(second_at, row, panel), columns, 0, columns);
            clear_columns(v, columns);
            store_columns(v, to, flags & LINEAR_OUT_ROWS ? columns : PANEL);
        }
    }
}

/* out = x * mask * scale, mask[M][C] row-major, of bools or (wide) of whole numbers of 64 bits. Grid {some, panels}. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void mask_rows(int M, int C, int flags, int wide, float scale, __global const float *x, long4 x_at,
               __global const uchar *mask, ulong mask_bytes, __global float *out, long4 out_at, SHARES)
{
    EACH_SHARE
    {
        const int panel = share / grid.x, columns = min(PANEL, C - panel * PANEL);
        for (int row = share % grid.x; row < M; row += grid.x) {
            vec v[NV];
            float factors[PANEL];
            const long first = (long)row * C + panel * PANEL;
            __global const long *numbers = (__global const long *)(mask + mask_bytes) + first;
            __global const uchar *bools = mask + mask_bytes + first;
            load_columns(v, x + VIEW_ROW(x_at, row, panel), columns);
            for (int c = 0; c < columns; c++)
                factors[c] = wide ? (float)numbers[c] : (float)(bools[c] != 0);
            for (int c = columns; c < PANEL; c++)
                factors[c] = 0.0f;
            EACH_VECTOR v[j] *= vec_load_private(factors + j * VEC);
            EACH_VECTOR v[j] *= scale;
            clear_columns(v, columns);
            store_columns(v, out + VIEW_ROW(out_at, row, panel), flags & LINEAR_OUT_ROWS ? columns : PANEL);
        }
    }
}

/* out = x * scale * weight + bias + shift; weight and bias, each if the flags say LINEAR_MULTIPLY, LINEAR_BIAS, are [period][C],
 * row-major, and a row's are those of row % period. Views may be the same. Grid {some, panels}. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void affine_rows(int M, int C, int flags, int period, float scale, float shift, __global const float *x, long4 x_at,
                 __global const float *weight, ulong weight_offset, __global const float *bias, ulong bias_offset,
                 __global float *out, long4 out_at, SHARES)
{
    EACH_SHARE
    {
        const int panel = share / grid.x, columns = C - panel * PANEL;
        for (int row = share % grid.x; row < M; row += grid.x) {
            const long first = (long)(row % period) * C + panel * PANEL;
            vec v[NV], other[NV];
            load_columns(v, x + VIEW_ROW(x_at, row, panel), columns);
            EACH_VECTOR v[j] *= scale;
            if (flags & LINEAR_MULTIPLY) {
                load_columns(other, weight + weight_offset + first, columns);
                EACH_VECTOR v[j] *= other[j];
            }
            if (flags & LINEAR_BIAS) {
                load_columns(other, bias + bias_offset + first, columns);
                EACH_VECTOR v[j] += other[j];
            }
            EACH_VECTOR v[j] += shift;
            clear_columns(v, columns);
            store_columns(v, out + VIEW_ROW(out_at, row, panel), flags & LINEAR_OUT_ROWS ? columns : PANEL);
        }
    }
}

/* dweight[row % period] (+)= the sums of dy * x * scale, dbias (+)= those of dy; each if the flags say so, and zeros up to the
 * end of its last panel. Grid {some of the period, panels}. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void affine_sums(int M, int C, int accumulate, int flags, int period, float scale, __global const float *x, long4 x_at,
                 __global const float *dy, long4 dy_at, __global float *dweight, ulong dweight_offset, __global float *dbias,
                 ulong dbias_offset, SHARES)
{
    EACH_SHARE
    {
        const int panel = share / grid.x, columns = C - panel * PANEL;
        for (int of = share % grid.x; of < period; of += grid.x) {
            vec sums[2][NV];
            for (int j = 0; j < NV; j++)
                sums[0][j] = sums[1][j] = 0.0f;
            for (long row = of; row < M; row += period) {
                vec v[NV], g[NV];
                load_columns(g, dy + VIEW_ROW(dy_at, row, panel), columns);
                EACH_VECTOR sums[1][j] += g[j];
                if (flags & LINEAR_MULTIPLY) {
                    load_columns(v, x + VIEW_ROW(x_at, row, panel), columns);
                    EACH_VECTOR sums[0][j] += g[j] * v[j];
                }
            }
            for (int s = 0; s < 2; s++) {
                if (!(flags & (s == 0 ? LINEAR_MULTIPLY : LINEAR_BIAS)))
                    continue;
                __global float *all = s == 0 ? dweight + dweight_offset : dbias + dbias_offset;
                __global float *to = all + (long)of * C + panel * PANEL;
                vec before[NV];
                if (s == 0)
                    EACH_VECTOR sums[s][j] *= scale;
                if (accumulate) {
                    load_columns(before, to, columns);
                    EACH_VECTOR sums[s][j] += before[j];
                }
                store_columns(sums[s], to, columns);
                const long count = (long)period * C;
                for (long c = count; of == period - 1 && columns <= PANEL && c % PANEL != 0; c++)
                    all[c] = 0.0f;
            }
        }
    }
}

/* Back through a gated product: what dy[M][C] is for each gate, and for what it lets through, side by side as they were saved.
 * Grid {some, panels}. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void gate_backward(int M, int C, int flags, float4 gate, __global const float *dy, long4 dy_at, __global const float *pairs,
                   ulong pairs_offset, __global float *gradients, ulong gradients_offset, SHARES)
{
    EACH_SHARE
    {
        const int panel = share / grid.x;
        for (int row = share % grid.x; row < M; row += grid.x) {
            vec v[NV];
            load_columns(v, dy + VIEW_ROW(dy_at, row, panel), C - panel * PANEL);
            for (int half_panel = 0; half_panel < 2; half_panel++) {
                const long at = ((2 * (long)panel + half_panel) * M + row) * PANEL;
                vec pair[NV], result[NV];
                load_columns(pair, pairs + pairs_offset + at, PANEL);
                EACH_PAIR
                {
                    const vec d = v[half_panel * (NV / 2) + j], g = GATE_OF(pair), u = THROUGH_OF(pair);
                    const vec dg = gate_grad(flags, gate, g, u, d), du = let_through_grad(flags, gate, g, u, d);
                    result[2 * j].even = dg.lo;
                    result[2 * j].odd = du.lo;
                    result[2 * j + 1].even = dg.hi;
                    result[2 * j + 1].odd = du.hi;
                }
                store_columns(result, gradients + gradients_offset + at, PANEL);
            }
        }
    }
}

#if VEC > 1
typedef GLUE(ushort, VEC) shorts;
typedef shorts shorts_unaligned __attribute__((aligned(2)));
#define TO_UINTS GLUE(convert_uint, VEC)
#define TO_SHORTS GLUE(convert_ushort, VEC)
#define UINT_BITS GLUE(as_uint, VEC)
#define FLOAT_BITS GLUE(as_float, VEC)
vec brain_load(__global const ushort *p)
{
    return FLOAT_BITS(TO_UINTS(*(__global const shorts_unaligned *)p) << 16);
}
void brain_store(vec v, __global ushort *p)
{
    const GLUE(uint, VEC) bits = UINT_BITS(v), rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    *(__global shorts_unaligned *)p = TO_SHORTS(isnan(v) ? bits >> 16 | 0x40 : rounded);
}
#endif

/* Row-major numbers of 16 bits in[M][C] (common.cl), to a view of floats. Grid {some, panels}. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void widen_rows(int M, int C, int flags, int brain, __global const ushort *in, ulong in_offset, __global float *out, long4 out_at,
                SHARES)
{
    EACH_SHARE
    {
        const int panel = share / grid.x, columns = C - panel * PANEL;
        for (int row = share % grid.x; row < M; row += grid.x) {
            __global const ushort *from = in + in_offset + (long)row * C + panel * PANEL;
            vec v[NV];
            if (columns >= PANEL) {
                for (int j = 0; j < NV; j++)
                    v[j] = brain ? brain_load(from + j * VEC) : half_load(from + j * VEC);
            } else {
                float some[PANEL];
                for (int c = 0; c < PANEL; c++)
                    some[c] = c < columns ? short_load_one(from + c, brain) : 0.0f;
                EACH_VECTOR v[j] = vec_load_private(some + j * VEC);
            }
            store_columns(v, out + VIEW_ROW(out_at, row, panel), flags & LINEAR_OUT_ROWS ? columns : PANEL);
        }
    }
}

/* And back. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void narrow_rows(int M, int C, int brain, __global const float *in, long4 in_at, __global ushort *out, ulong out_offset, SHARES)
{
    EACH_SHARE
    {
        const int panel = share / grid.x, columns = C - panel * PANEL;
        for (int row = share % grid.x; row < M; row += grid.x) {
            __global ushort *to = out + out_offset + (long)row * C + panel * PANEL;
            __global const float *from = in + VIEW_ROW(in_at, row, panel);
            for (int j = 0; j < NV && columns >= PANEL; j++) {
                const vec v = vec_load(from + j * VEC);
                if (brain)
                    brain_store(v, to + j * VEC);
                else
                    half_store(v, to + j * VEC);
            }
            for (int c = 0; c < columns && columns < PANEL; c++)
                short_store_one(from[c], to + c, brain);
        }
    }
}
