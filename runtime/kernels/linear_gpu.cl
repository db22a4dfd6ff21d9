/* The linear layer's products for GPUs. A work-group of 256 makes one tile of the output: slabs of SLAB columns of the contraction
 * go through local memory, each work-item keeps RM x RN sums in registers, and the next slab is read while the
 * last one is multiplied. Three tile sizes, so that small matrices still occupy the device. Needs VEC 1 and PANEL 32. */

#define GROUP 256
#define SLAB 16
#define MAX_TILE 128
/* One word more than a multiple of 4 would misalign float4; 4 more spread the banks when a slab is stored transposed. */
#define LEFT_STRIDE (MAX_TILE + 4)

#define UNROLL _Pragma("unroll")

/* Four columns of a panel's row, which lies on a multiple of 16 bytes. */
float4 load_four(__global const float *p)
{
    return *(__global const float4 *)p;
}

/* Rows [row, row + TM) and columns [k, k + SLAB) of a view into registers: TM * SLAB / 4 / GROUP groups of four along k. */
#define READ_ROWS(TM, to, k)                                                                                           \
    UNROLL for (int i = 0; i < (TM * SLAB / 4 + GROUP - 1) / GROUP; i++)                                               \
    {                                                                                                                  \
        const int item = get_local_id(0) + i * GROUP, r = item / (SLAB / 4), c = (k) + item % (SLAB / 4) * 4;          \
        __global const float *p = a + (c / PANEL) * a_panel_stride + (first_row + r) * a_row_stride + c % PANEL;       \
        to[i] = (float4)(0.0f);                                                                                        \
        if (r < TM && first_row + r < M) {                                                                             \
            if (a_aligned && c + 4 <= K) {                                                                             \
                to[i] = load_four(p);                                                                                  \
            } else {                                                                                                   \
                to[i].x = c < K ? p[0] : 0.0f;                                                                         \
                to[i].y = c + 1 < K ? p[1] : 0.0f;                                                                     \
                to[i].z = c + 2 < K ? p[2] : 0.0f;                                                                     \
                to[i].w = c + 3 < K ? p[3] : 0.0f;                                                                     \
            }                                                                                                          \
        }                                                                                                              \
    }
#define KEEP_ROWS(TM, from)                                                                                            \
    UNROLL for (int i = 0; i < (TM * SLAB / 4 + GROUP - 1) / GROUP; i++)                                               \
    {                                                                                                                  \
        const int item = get_local_id(0) + i * GROUP, r = item / (SLAB / 4), c = item % (SLAB / 4) * 4;                \
        if (r < TM) {                                                                                                  \
            left[c * LEFT_STRIDE + r] = from[i].x;                                                                     \
            left[(c + 1) * LEFT_STRIDE + r] = from[i].y;                                                               \
            left[(c + 2) * LEFT_STRIDE + r] = from[i].z;                                                               \
            left[(c + 3) * LEFT_STRIDE + r] = from[i].w;                                                               \
        }                                                                                                              \
    }

/* Rows [k, k + SLAB) of `length`, columns [first, first + T) of a matrix in panels: T * SLAB / 4 / GROUP groups of four. */
#define READ_PANELS(T, to, k, matrix, length, first, panels)                                                           \
    UNROLL for (int i = 0; i < (T * SLAB / 4 + GROUP - 1) / GROUP; i++)                                                \
    {                                                                                                                  \
        const int item = get_local_id(0) + i * GROUP, r = (k) + item / (T / 4), c = first + item % (T / 4) * 4;        \
        to[i] = (float4)(0.0f);                                                                                        \
        if (item < T * SLAB / 4 && r < length && c / PANEL < panels)                                                   \
            to[i] = load_four(matrix + ((long)(c / PANEL) * length + r) * PANEL + c % PANEL);                          \
    }
#define KEEP_PANELS(T, from, to, stride)                                                                               \
    UNROLL for (int i = 0; i < (T * SLAB / 4 + GROUP - 1) / GROUP; i++)                                                \
    {                                                                                                                  \
        const int item = get_local_id(0) + i * GROUP;                                                                  \
        if (item < T * SLAB / 4)                                                                                       \
            *(__local float4 *)(to + item / (T / 4) * stride + item % (T / 4) * 4) = from[i];                          \
    }

/* sums[RM][RN] += left^T right over a slab. Work-item (x, y) of 16 x 16 has rows y * RM ... and, of every sixteenth of the tile's
 * columns in fours, the x-th. */
#define MULTIPLY(RM, RN)                                                                                               \
    UNROLL for (int k = 0; k < SLAB; k++)                                                                              \
    {                                                                                                                  \
        float l[RM];                                                                                                   \
        float4 r[RN / 4];                                                                                              \
        UNROLL for (int i = 0; i < RM; i++) l[i] = left[k * LEFT_STRIDE + y * RM + i];                                 \
        UNROLL for (int j = 0; j < RN / 4; j++) r[j] = *(__local float4 *)(right + k * MAX_TILE + (j * 16 + x) * 4);   \
        UNROLL for (int i = 0; i < RM; i++)                                                                            \
        {                                                                                                              \
            UNROLL for (int j = 0; j < RN / 4; j++) sums[i][j] = fma((float4)(l[i]), r[j], sums[i][j]);                \
        }                                                                                                              \
    }

float part(float4 v, int i)
{
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

#define LINEAR_TILE(TM, TN, RM, RN)                                                                                    \
    {                                                                                                                  \
        const int first_row = get_group_id(0) * TM, first_column = get_group_id(1) * TN;                               \
        float4 sums[RM][RN / 4], a_next[(TM * SLAB / 4 + GROUP - 1) / GROUP],                                          \
            w_next[(TN * SLAB / 4 + GROUP - 1) / GROUP];                                                               \
        UNROLL for (int i = 0; i < RM; i++)                                                                            \
        {                                                                                                              \
            UNROLL for (int j = 0; j < RN / 4; j++) sums[i][j] = (float4)(0.0f);                                       \
        }                                                                                                              \
        READ_ROWS(TM, a_next, 0)                                                                                       \
        READ_PANELS(TN, w_next, 0, w, K, first_column, panels)                                                         \
        for (int k = 0; k < K; k += SLAB) {                                                                            \
            KEEP_ROWS(TM, a_next)                                                                                      \
            KEEP_PANELS(TN, w_next, right, MAX_TILE)                                                                   \
            barrier(CLK_LOCAL_MEM_FENCE);                                                                              \
            if (k + SLAB < K) {                                                                                        \
                READ_ROWS(TM, a_next, k + SLAB)                                                                        \
                READ_PANELS(TN, w_next, k + SLAB, w, K, first_column, panels)                                          \
            }                                                                                                          \
            MULTIPLY(RM, RN)                                                                                           \
            barrier(CLK_LOCAL_MEM_FENCE);                                                                              \
        }                                                                                                              \
        for (int i = 0; i < RM; i++) {                                                                                 \
            const int row = first_row + y * RM + i;                                                                    \
            for (int j = 0; j < RN; j++) {                                                                             \
                const int column = first_column + (j / 4 * 16 + x) * 4 + j % 4;                                        \
                if (row < M && column / PANEL < panels)                                                                \
                    finish_element(part(sums[i][j / 4], j % 4), row, column, N, flags, out + out_offset,               \
                                   (column / PANEL) * out_panel_stride + row * out_row_stride + column % PANEL,        \
                                   bias + bias_offset, second + second_offset, second_row_stride,                      \
                                   second_panel_stride, save + save_offset);                                           \
            }                                                                                                          \
        }                                                                                                              \
    }

/* out[M][N] = epilogue(a[M][K] w). tile: 0, 1, 2 for tiles of 16 x 64, 64 x 64, 128 x 128, which the global size counts. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void linear(int M, int N, int K, int flags, int tile, int unused,
            __global const float *a, ulong a_offset, long a_row_stride, long a_panel_stride,
            __global const float *weights, ulong w_offset,
            __global float *out, ulong out_offset, long out_row_stride, long out_panel_stride,
            __global const float *bias, ulong bias_offset,
            __global const float *second, ulong second_offset, long second_row_stride, long second_panel_stride,
            __global float *save, ulong save_offset)
{
    __local float left[SLAB * LEFT_STRIDE] __attribute__((aligned(16)));
    __local float right[SLAB * MAX_TILE] __attribute__((aligned(16)));
    const int x = get_local_id(0) % 16, y = get_local_id(0) / 16, panels = (N + PANEL - 1) / PANEL;
    const int a_aligned = ((a_offset | a_row_stride | a_panel_stride) & 3) == 0;
    __global const float *w = weights + w_offset;
    a += a_offset;
    if (tile == 2)
        LINEAR_TILE(128, 128, 8, 8)
    else if (tile == 1)
        LINEAR_TILE(64, 64, 4, 4)
    else
        LINEAR_TILE(16, 64, 1, 4)
}

#define GRADIENT_TILE(TK, TN, RM, RN)                                                                                  \
    {                                                                                                                  \
        const int first_row = get_group_id(0) * TK, first_column = get_group_id(1) * TN;                               \
        float4 sums[RM][RN / 4], x_next[(TK * SLAB / 4 + GROUP - 1) / GROUP],                                          \
            dy_next[(TN * SLAB / 4 + GROUP - 1) / GROUP];                                                              \
        UNROLL for (int i = 0; i < RM; i++)                                                                            \
        {                                                                                                              \
            UNROLL for (int j = 0; j < RN / 4; j++) sums[i][j] = (float4)(0.0f);                                       \
        }                                                                                                              \
        READ_PANELS(TK, x_next, 0, xs, M, first_row, k_panels)                                                         \
        READ_PANELS(TN, dy_next, 0, dys, M, first_column, panels)                                                      \
        for (int m = 0; m < M; m += SLAB) {                                                                            \
            KEEP_PANELS(TK, x_next, left, LEFT_STRIDE)                                                                 \
            KEEP_PANELS(TN, dy_next, right, MAX_TILE)                                                                  \
            barrier(CLK_LOCAL_MEM_FENCE);                                                                              \
            if (m + SLAB < M) {                                                                                        \
                READ_PANELS(TK, x_next, m + SLAB, xs, M, first_row, k_panels)                                          \
                READ_PANELS(TN, dy_next, m + SLAB, dys, M, first_column, panels)                                       \
            }                                                                                                          \
            MULTIPLY(RM, RN)                                                                                           \
            barrier(CLK_LOCAL_MEM_FENCE);                                                                              \
        }                                                                                                              \
        for (int i = 0; i < RM; i++) {                                                                                 \
            const int row = first_row + y * RM + i;                                                                    \
            for (int j = 0; j < RN / 4; j++) {                                                                         \
                const int column = first_column + (j * 16 + x) * 4;                                                    \
                if (row < K && column / PANEL < panels) {                                                              \
                    __global float4 *to = (__global float4 *)(dw + dw_offset +                                         \
                                                              ((long)(column / PANEL) * K + row) * PANEL +             \
                                                              column % PANEL);                                         \
                    *to = accumulate ? *to + sums[i][j] : sums[i][j];                                                  \
                }                                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
    }

/* dw (+)= x^T dy, all in panels. tile as above, of K x N. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void weight_gradient(int M, int N, int K, int accumulate, int tile, __global const float *x_buffer, ulong x_offset,
                     __global const float *dy_buffer, ulong dy_offset, __global float *dw, ulong dw_offset)
{
    __local float left[SLAB * LEFT_STRIDE] __attribute__((aligned(16)));
    __local float right[SLAB * MAX_TILE] __attribute__((aligned(16)));
    const int x = get_local_id(0) % 16, y = get_local_id(0) / 16;
    const int panels = (N + PANEL - 1) / PANEL, k_panels = (K + PANEL - 1) / PANEL;
    __global const float *xs = x_buffer + x_offset, *dys = dy_buffer + dy_offset;
    if (tile == 2)
        GRADIENT_TILE(128, 128, 8, 8)
    else
        GRADIENT_TILE(64, 64, 4, 4)
}
