/* The linear layer's products for GPUs. A work-group makes one tile of the output: slabs of SLAB columns of the contraction go through
 * local memory, each work-item keeps SUMS_M x SUMS_N sums in registers, and the next slab is read while the last one is
 * multiplied. Built once for each tile (runtime/compute/tile.h), as a tile's registers and local memory are what decides how many groups a
 * compute unit holds. Every tile adds along the contraction in the same order, so that a row's result does not depend on
 * the tile. Needs VEC 1 and PANEL 32. */

/* Work-items of every kernel that is no product. */
#define GROUP 256

#ifndef TILE_M /* the program that has all kernels; runtime/compute/tile.h's TILE_OF_PROGRAM */
#define TILE_M 64
#define TILE_N 64
#define SUMS_M 4
#define SUMS_N 4
#define SLAB 16
#define STAGES 1
#endif

#define UNROLL _Pragma("unroll")
/* Of what has arrays: they are registers only where a function is part of its caller and every index is known. */
#define PART __attribute__((always_inline))

#define ACROSS (TILE_N / SUMS_N) /* work-items beside each other in a tile */
#define TILE_GROUP (TILE_M / SUMS_M * ACROSS)
/* Groups of four that a work-item moves of each operand. */
#define LEFT_FOURS ((TILE_M * SLAB / 4 + TILE_GROUP - 1) / TILE_GROUP)
#define RIGHT_FOURS ((TILE_N * SLAB / 4 + TILE_GROUP - 1) / TILE_GROUP)
/* One word more than a multiple of 4 would misalign float4; 4 more spread the banks when a slab is stored transposed. */
#define LEFT_STRIDE (TILE_M + 4)

/* Four columns of a panel's row, which lies on a multiple of 16 bytes. */
PART float4 load_four(__global const float *p)
{
    return *(__global const float4 *)p;
}

/* The same where only `count` may be there (the others are 0), and the place may not be aligned. */
PART float4 take_four(__global const float *p, int count, int aligned)
{
    if (aligned && count >= 4)
        return load_four(p);
    float4 v = (float4)(0.0f);
    if (count > 0)
        v.x = p[0];
    if (count > 1)
        v.y = p[1];
    if (count > 2)
        v.z = p[2];
    if (count > 3)
        v.w = p[3];
    return v;
}

PART void put_four(float4 v, __global float *p, int count, int aligned)
{
    if (aligned && count >= 4) {
        *(__global float4 *)p = v;
        return;
    }
    if (count > 0)
        p[0] = v.x;
    if (count > 1)
        p[1] = v.y;
    if (count > 2)
        p[2] = v.z;
    if (count > 3)
        p[3] = v.w;
}

/* Rows [first_row, first_row + TILE_M) and columns [k, k + SLAB) of a view of M rows and K columns, in fours along k. */
PART void read_rows(float4 *to, __global const float *a, int first_row, int M, int k, int K, long row_stride,
               long panel_stride, int aligned)
{
    UNROLL for (int i = 0; i < LEFT_FOURS; i++)
    {
        const int item = get_local_id(0) + i * TILE_GROUP, r = first_row + item / (SLAB / 4);
        const int c = k + item % (SLAB / 4) * 4;
        to[i] = (float4)(0.0f);
        if (item < TILE_M * SLAB / 4 && r < M)
            to[i] = take_four(a + (c / PANEL) * panel_stride + r * row_stride + c % PANEL, K - c, aligned);
    }
}

/* Into local memory, transposed. */
PART void keep_rows(const float4 *from, __local float *left)
{
    UNROLL for (int i = 0; i < LEFT_FOURS; i++)
    {
        const int item = get_local_id(0) + i * TILE_GROUP, r = item / (SLAB / 4), c = item % (SLAB / 4) * 4;
        if (item < TILE_M * SLAB / 4) {
            left[c * LEFT_STRIDE + r] = from[i].x;
            left[(c + 1) * LEFT_STRIDE + r] = from[i].y;
            left[(c + 2) * LEFT_STRIDE + r] = from[i].z;
            left[(c + 3) * LEFT_STRIDE + r] = from[i].w;
        }
    }
}

/* Rows [row, row + SLAB) of `length`, columns [first, first + T) of a matrix in panels. */
#define READ_PANELS(T, FOURS, LOAD, to, matrix, row, length, first, panels)                                            \
    UNROLL for (int i = 0; i < FOURS; i++)                                                                             \
    {                                                                                                                  \
        const int item = get_local_id(0) + i * TILE_GROUP, r = (row) + item / (T / 4);                                 \
        const int c = first + item % (T / 4) * 4;                                                                      \
        to[i] = (float4)(0.0f);                                                                                        \
        if (item < T * SLAB / 4 && r < length && c / PANEL < panels)                                                   \
            to[i] = LOAD(matrix + ((long)(c / PANEL) * length + r) * PANEL + c % PANEL);                               \
    }
/* The same of weights. */
#ifndef QUANTIZED_BITS
#define READ_WEIGHTS(to, row) READ_PANELS(TILE_N, RIGHT_FOURS, weight_load_four, to, w, row, K, first_column, panels)
#else
/* Four codes beside each other in a block's row, and their scales. */
#if QUANTIZED_BITS == 8
PART int4 codes_four(__global const weight *codes, int row)
{
    return convert_int4(*(__global const uchar4 *)(codes + row * PANEL));
}
#else
PART int4 codes_four(__global const weight *codes, int row)
{
    const int4 both = convert_int4(*(__global const uchar4 *)(codes + row % (QUANTIZED_GROUP / 2) * PANEL));
    return row < QUANTIZED_GROUP / 2 ? both & 15 : both >> 4;
}
#endif
#ifdef QUANTIZED_FP8
PART float4 numbers_four(int4 codes)
{
    return as_float4(as_int4(E4M3_MAGNITUDE(codes & 0x7f, convert_float4, as_float4)) | (codes & 0x80) << 24);
}
PART float4 scales_four(__global const weight *block, int row, int column, int flags)
{
    const float2 scales = *(__global const float2 *)block;
    return flags & LINEAR_TRANSPOSED ? (float4)(row % 2 ? scales.y : scales.x) : (float4)(scales, scales);
}
#elif defined QUANTIZED_MXFP4
PART float4 numbers_four(int4 codes)
{
    return as_float4(as_int4(E2M1_MAGNITUDE(codes & 7, convert_float4, as_float4)) | (codes & 8) << 28);
}
PART float4 scales_four(__global const weight *block, int row, int column, int flags)
{
    const int4 codes = flags & LINEAR_TRANSPOSED ? (int4)(block[row * SCALES_BESIDE + column / QUANTIZED_GROUP])
                                                 : convert_int4(*(__global const uchar4 *)(block + column));
    return as_float4(POWER_BITS(codes));
}
#else
PART float4 numbers_four(int4 codes)
{
    return convert_float4(codes << (32 - QUANTIZED_BITS) >> (32 - QUANTIZED_BITS));
}
PART float4 scales_four(__global const weight *block, int row, int column, int flags)
{
    __global const half *scales = (__global const half *)block;
    return flags & LINEAR_TRANSPOSED ? (float4)(vload_half(row * SCALES_BESIDE + column / QUANTIZED_GROUP, scales))
                                     : vload_half4(0, scales + column);
}
#endif
PART float4 quantized_four(__global const weight *w, int row, int column, int K, int flags)
{
    __global const weight *block =
        w + column / PANEL * WEIGHTS_OF_ROWS(K, flags) + row / QUANTIZED_GROUP * (long)BLOCK_BYTES(flags);
    const int r = row % QUANTIZED_GROUP, c = column % PANEL;
    return numbers_four(codes_four(block + SCALE_BYTES(flags) + c, r)) * scales_four(block, r, c, flags);
}
#define READ_WEIGHTS(to, row)                                                                                          \
    UNROLL for (int i = 0; i < RIGHT_FOURS; i++)                                                                       \
    {                                                                                                                  \
        const int item = get_local_id(0) + i * TILE_GROUP, r = (row) + item / (TILE_N / 4);                            \
        const int c = first_column + item % (TILE_N / 4) * 4;                                                          \
        to[i] = (float4)(0.0f);                                                                                        \
        if (item < TILE_N * SLAB / 4 && r < K && c / PANEL < panels)                                                   \
            to[i] = quantized_four(w, r, c, K, flags);                                                                 \
    }
#endif
#define KEEP_PANELS(T, FOURS, from, to, stride)                                                                        \
    UNROLL for (int i = 0; i < FOURS; i++)                                                                             \
    {                                                                                                                  \
        const int item = get_local_id(0) + i * TILE_GROUP;                                                             \
        if (item < T * SLAB / 4)                                                                                       \
            *(__local float4 *)(to + item / (T / 4) * stride + item % (T / 4) * 4) = from[i];                          \
    }

/* sums += left^T right over a slab. The work-item has the rows y * SUMS_M ... and, of each ACROSS-th part of the tile's
 * columns in fours, the x-th. */
PART void multiply(float4 sums[SUMS_M][SUMS_N / 4], __local const float *left, __local const float *right, int x, int y)
{
    UNROLL for (int k = 0; k < SLAB; k++)
    {
        float l[SUMS_M];
        float4 r[SUMS_N / 4];
#if SUMS_M % 4 == 0
        UNROLL for (int i = 0; i < SUMS_M; i += 4)
        {
            const float4 four = *(__local const float4 *)(left + k * LEFT_STRIDE + y * SUMS_M + i);
            l[i] = four.x;
            l[i + 1] = four.y;
            l[i + 2] = four.z;
            l[i + 3] = four.w;
        }
#else
        UNROLL for (int i = 0; i < SUMS_M; i++) l[i] = left[k * LEFT_STRIDE + y * SUMS_M + i];
#endif
        UNROLL for (int j = 0; j < SUMS_N / 4; j++) r[j] = *(__local const float4 *)(right + k * TILE_N + (j * ACROSS + x) * 4);
        UNROLL for (int i = 0; i < SUMS_M; i++)
        {
            UNROLL for (int j = 0; j < SUMS_N / 4; j++) sums[i][j] = fma((float4)(l[i]), r[j], sums[i][j]);
        }
    }
}

GELU_OF(float4, gelu_four, gelu_grad_four, exp)
ACTIVATIONS_OF(float4, activation_four, activation_grad_four, gelu_four, gelu_grad_four, exp, fabs)

/* Two gates, each beside what it lets through, from `column` of the weights on: what a gated product ends with, and where it goes. */
PART void finish_pairs(float4 sums, int flags, float4 gate, int row, int column, int M, __global float *out, long out_row_stride,
                       long out_panel_stride, __global float *save, int save_aligned)
{
    const int first = column / 2, left = flags & LINEAR_OUT_ROWS ? (int)out_row_stride - first : 2;
    __global float *to = out + first / PANEL * out_panel_stride + row * out_row_stride + first % PANEL;
    if (flags & LINEAR_SAVE)
        put_four(sums, save + ((long)(column / PANEL) * M + row) * PANEL + column % PANEL, 4, save_aligned);
    if (left > 0)
        to[0] = gated(flags, gate, sums.x, sums.y);
    if (left > 1)
        to[1] = gated(flags, gate, sums.z, sums.w);
}

#define ALIGNED(offset, row_stride, panel_stride) ((((offset) | (row_stride) | (panel_stride)) & 3) == 0)

/* out[M][N] = epilogue(a[M][K] w). Global size {groups of row tiles, column tiles}. */
__kernel __attribute__((reqd_work_group_size(TILE_GROUP, 1, 1)))
void linear(int M, int N, int K, int flags, int unused_group, int unused_block,
            __global const float *a, ulong a_offset, long a_row_stride, long a_panel_stride,
            __global const weight *weights, ulong w_offset,
            __global float *out, ulong out_offset, long out_row_stride, long out_panel_stride,
            __global const float *bias, ulong bias_offset,
            __global const float *second, ulong second_offset, long second_row_stride, long second_panel_stride,
            __global float *save, ulong save_offset, float4 gate)
{
    __local float left[STAGES * SLAB * LEFT_STRIDE] __attribute__((aligned(16)));
    __local float right[STAGES * SLAB * TILE_N] __attribute__((aligned(16)));
    const int x = get_local_id(0) % ACROSS, y = get_local_id(0) / ACROSS, panels = (N + PANEL - 1) / PANEL;
    const int first_row = get_group_id(0) * TILE_M, first_column = get_group_id(1) * TILE_N;
    const int a_aligned = ALIGNED(a_offset, a_row_stride, a_panel_stride);
    const int out_aligned = ALIGNED(out_offset | save_offset, out_row_stride, out_panel_stride);
    const int second_aligned = ALIGNED(second_offset, second_row_stride, second_panel_stride);
    __global const weight *w = weights + w_offset;
    float4 sums[SUMS_M][SUMS_N / 4], a_next[LEFT_FOURS], w_next[RIGHT_FOURS];
    int stage = 0;
    a += a_offset;
    UNROLL for (int i = 0; i < SUMS_M; i++)
    {
        UNROLL for (int j = 0; j < SUMS_N / 4; j++) sums[i][j] = (float4)(0.0f);
    }
    read_rows(a_next, a, first_row, M, 0, K, a_row_stride, a_panel_stride, a_aligned);
    READ_WEIGHTS(w_next, 0)
    for (int k = 0; k < K; k += SLAB) {
        __local float *l = left + stage * SLAB * LEFT_STRIDE, *r = right + stage * SLAB * TILE_N;
        keep_rows(a_next, l);
        KEEP_PANELS(TILE_N, RIGHT_FOURS, w_next, r, TILE_N)
        barrier(CLK_LOCAL_MEM_FENCE);
        if (k + SLAB < K) {
            read_rows(a_next, a, first_row, M, k + SLAB, K, a_row_stride, a_panel_stride, a_aligned);
            READ_WEIGHTS(w_next, k + SLAB)
        }
        multiply(sums, l, r, x, y);
        /* With two stages the barrier above is enough: who is past it has done with the slab before. */
#if STAGES == 1
        barrier(CLK_LOCAL_MEM_FENCE);
#else
        stage = 1 - stage;
#endif
    }
    UNROLL for (int j = 0; j < SUMS_N / 4; j++)
    {
        const int column = first_column + (j * ACROSS + x) * 4, panel = column / PANEL;
        const int out_count = flags & LINEAR_OUT_ROWS ? N - column : 4;
        const int second_count = flags & LINEAR_SECOND_ROWS ? N - column : 4;
        const bool there = panel < panels && out_count > 0;
        float4 four_bias = (float4)(0.0f);
        if (there && flags & LINEAR_BIAS)
            four_bias = take_four(bias + bias_offset + column, 4, (bias_offset & 3) == 0);
        UNROLL for (int i = 0; i < SUMS_M; i++)
        {
            const int row = first_row + y * SUMS_M + i;
            const long at = panel * out_panel_stride + row * out_row_stride + column % PANEL;
            float4 value = sums[i][j] + four_bias, other = (float4)(0.0f);
            if (!there || row >= M)
                continue;
            if (flags & LINEAR_GATED) {
                finish_pairs(value, flags, gate, row, column, M, out + out_offset, out_row_stride, out_panel_stride,
                             save + save_offset, (save_offset & 3) == 0);
                continue;
            }
            if (flags & LINEAR_TAKES_SECOND)
                other = take_four(second + second_offset + panel * second_panel_stride + row * second_row_stride +
                                      column % PANEL, second_count, second_aligned);
            if (flags & LINEAR_SAVE)
                put_four(value, save + save_offset + at, out_count, out_aligned);
            if (flags & LINEAR_ACTIVATION)
                value = activation_four(flags, value);
            if (flags & LINEAR_ACTIVATION_GRAD)
                value *= activation_grad_four(flags, other);
            if (flags & LINEAR_MULTIPLY)
                value *= other;
            if (flags & LINEAR_ADD)
                value += other;
            put_four(value, out + out_offset + at, out_count, out_aligned);
        }
    }
}

/* dw (+)= x^T dy, all in panels; the tiles are of K x N. Global size as above. */
__kernel __attribute__((reqd_work_group_size(TILE_GROUP, 1, 1)))
void weight_gradient(int M, int N, int K, int accumulate, int unused, __global const float *x_buffer, ulong x_offset,
                     __global const float *dy_buffer, ulong dy_offset, __global float *dw, ulong dw_offset)
{
    __local float left[STAGES * SLAB * LEFT_STRIDE] __attribute__((aligned(16)));
    __local float right[STAGES * SLAB * TILE_N] __attribute__((aligned(16)));
    const int x = get_local_id(0) % ACROSS, y = get_local_id(0) / ACROSS;
    const int panels = (N + PANEL - 1) / PANEL, k_panels = (K + PANEL - 1) / PANEL;
    const int first_row = get_group_id(0) * TILE_M, first_column = get_group_id(1) * TILE_N;
    __global const float *xs = x_buffer + x_offset, *dys = dy_buffer + dy_offset;
    float4 sums[SUMS_M][SUMS_N / 4], x_next[LEFT_FOURS], dy_next[RIGHT_FOURS];
    int stage = 0;
    UNROLL for (int i = 0; i < SUMS_M; i++)
    {
        UNROLL for (int j = 0; j < SUMS_N / 4; j++) sums[i][j] = (float4)(0.0f);
    }
    READ_PANELS(TILE_M, LEFT_FOURS, load_four, x_next, xs, 0, M, first_row, k_panels)
    READ_PANELS(TILE_N, RIGHT_FOURS, load_four, dy_next, dys, 0, M, first_column, panels)
    for (int m = 0; m < M; m += SLAB) {
        __local float *l = left + stage * SLAB * LEFT_STRIDE, *r = right + stage * SLAB * TILE_N;
        KEEP_PANELS(TILE_M, LEFT_FOURS, x_next, l, LEFT_STRIDE)
        KEEP_PANELS(TILE_N, RIGHT_FOURS, dy_next, r, TILE_N)
        barrier(CLK_LOCAL_MEM_FENCE);
        if (m + SLAB < M) {
            READ_PANELS(TILE_M, LEFT_FOURS, load_four, x_next, xs, m + SLAB, M, first_row, k_panels)
            READ_PANELS(TILE_N, RIGHT_FOURS, load_four, dy_next, dys, m + SLAB, M, first_column, panels)
        }
        multiply(sums, l, r, x, y);
#if STAGES == 1
        barrier(CLK_LOCAL_MEM_FENCE);
#else
        stage = 1 - stage;
#endif
    }
    UNROLL for (int i = 0; i < SUMS_M; i++)
    {
        const int row = first_row + y * SUMS_M + i;
        UNROLL for (int j = 0; j < SUMS_N / 4; j++)
        {
            const int column = first_column + (j * ACROSS + x) * 4;
            if (row < K && column / PANEL < panels) {
                __global float4 *to = (__global float4 *)(dw + dw_offset +
                                                          ((long)(column / PANEL) * K + row) * PANEL + column % PANEL);
                *to = accumulate ? *to + sums[i][j] : sums[i][j];
            }
        }
    }
}
