/* The linear layer's products on NVIDIA's matrix units. Its OpenCL compiler takes PTX inline (-DMMA_PTX); elsewhere the instruction
 * is emulated with the same fragments in the same lanes, so that all around it can be tested on any device. Operands are rounded on
 * their way into local memory; sums, and all that is in global memory, are fp32.
 *
 * A word is 32 bits along the contraction: one element rounded to tf32, or (-DMMA_FP16) a pair of halves, the first in the low bits.
 * Counted in words, both instructions have one shape, 16 x 8 sums of 8 words, and the same fragments; with g = lane / 4, t = lane % 4:
 *     A[row][word]     a.x (g, t)   a.y (g + 8, t)   a.z (g, t + 4)   a.w (g + 8, t + 4)
 *     B[word][column]  b.x (t, g)   b.y (t + 4, g)
 *     C[row][column]   c.x (g, 2t)  c.y (g, 2t + 1)  c.z (g + 8, 2t)  c.w (g + 8, 2t + 1)
 * (PTX ISA, "Matrix fragments for mma.m16n8k8" and "m16n8k16").
 *
 * A group of 8 warps makes one tile. A slab of both operands lies in local memory twice: while one is multiplied, the
 * next is read into registers and then stored into the other. Needs VEC 1, PANEL 32 and warps of 32 neighbours in dimension 0. */

#define GROUP 256
#define WARP 32
#define MAX_TILE 128
/* Words of the contraction in local memory at a time: as many as one instruction takes. Twice as many would be twice the registers for
 * what is on its way, and then a multiprocessor has registers for one group, and nothing to do while that waits. */
#define SLAB 8
#ifdef MMA_FP16
#define PAIR 2
#else
#define PAIR 1
#endif
#define DEPTH (SLAB * PAIR) /* elements of a slab */

/* Strides, in words, with which the 32 lanes of a fragment fall on 32 banks: 8 rows of 4 words (12 modulo 32), 4 words
 * of 8 columns and 4 rows of 4 pairs of sums (8 modulo 32). All are multiples of 4, as they are stored in fours. */
#define ROWS_STRIDE (SLAB + 4)      /* [row][word] */
#define WORDS_STRIDE (MAX_TILE + 8) /* [word][row or column] */
#define LEFT_WORDS (MAX_TILE * ROWS_STRIDE)
#define RIGHT_WORDS (SLAB * WORDS_STRIDE)
#define LOCAL_WORDS (2 * (LEFT_WORDS + RIGHT_WORDS)) /* at least 32 * WORDS_STRIDE, for the sums at the end */

#ifdef MMA_PTX
#define UNROLL _Pragma("unroll") /* arrays are registers only where every index is known */
#define EXCHANGE_FLOATS(items) 1
#else
#define UNROLL
#define FRAGMENT_FLOATS (6 * PAIR)
#define EXCHANGE_FLOATS(items) ((items)*FRAGMENT_FLOATS)
#endif

/* --- the instruction ----------------------------------------------------------------------------------------------------- */

#if defined(MMA_PTX) && defined(MMA_FP16)
uint word(float first, float second)
{
    uint result;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(second), "f"(first));
    return result;
}
#elif defined(MMA_PTX)
uint word(float first, float second)
{
    uint result;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(result) : "f"(first));
    return result;
}
#elif defined(MMA_FP16)
uint word(float first, float second)
{
    uint result = 0;
    vstore_half_rte(first, 0, (half *)&result);
    vstore_half_rte(second, 1, (half *)&result);
    return result;
}
#else
/* To nearest, ties away from zero; 13 bits less of the mantissa. A NaN stays one. */
uint word(float first, float second)
{
    const uint bits = as_uint(first);
    return isfinite(first) ? (bits + 0x1000u) & 0xffffe000u : bits;
}
#endif

#ifdef MMA_PTX
#ifdef MMA_FP16
#define MMA_INSTRUCTION "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"
#else
#define MMA_INSTRUCTION "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32"
#endif
/* c + a b; by all lanes of a warp at once. */
float4 mma(float4 c, uint4 a, uint2 b, __local float *exchange)
{
    float x, y, z, w;
    asm volatile(MMA_INSTRUCTION " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"
                 : "=f"(x), "=f"(y), "=f"(z), "=f"(w)
                 : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b.x), "r"(b.y), "f"(c.x), "f"(c.y), "f"(c.z), "f"(c.w));
    return (float4)(x, y, z, w);
}
#else
/* PAIR floats of a word. */
void share_word(__local float *to, uint word)
{
#ifdef MMA_FP16
    to[0] = vload_half(0, (const half *)&word);
    to[1] = vload_half(1, (const half *)&word);
#else
    to[0] = as_float(word);
#endif
}

/* The same with fragments exchanged through EXCHANGE_FLOATS(work-items of the group); by all of the group at once. */
float4 mma(float4 c, uint4 a, uint2 b, __local float *exchange)
{
    const int lane = get_local_id(0) % WARP, g = lane / 4, t = lane % 4;
    __local float *warp = exchange + (get_local_id(0) - lane) * FRAGMENT_FLOATS, *mine = warp + lane * FRAGMENT_FLOATS;
    share_word(mine, a.x);
    share_word(mine + PAIR, a.y);
    share_word(mine + 2 * PAIR, a.z);
    share_word(mine + 3 * PAIR, a.w);
    share_word(mine + 4 * PAIR, b.x);
    share_word(mine + 5 * PAIR, b.y);
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int k = 0; k < 8; k++) {
        /* Which lane has word k of row g (and, PAIR further on, of row g + 8), and of columns 2t and 2t + 1. */
        __local const float *row = warp + (g * 4 + k % 4) * FRAGMENT_FLOATS + k / 4 * 2 * PAIR;
        __local const float *column = warp + (2 * t * 4 + k % 4) * FRAGMENT_FLOATS + (4 + k / 4) * PAIR;
        for (int p = 0; p < PAIR; p++) {
            c.x += row[p] * column[p];
            c.y += row[p] * column[4 * FRAGMENT_FLOATS + p];
            c.z += row[PAIR + p] * column[p];
            c.w += row[PAIR + p] * column[4 * FRAGMENT_FLOATS + p];
        }
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    return c;
}
#endif

/* Fragments from local memory, `from` being row (column) 0 of word 0. */
uint4 fragment_a(__local const uint *from, int row_stride, int word_stride)
{
    const int lane = get_local_id(0) % WARP;
    __local const uint *p = from + lane / 4 * row_stride + lane % 4 * word_stride;
    return (uint4)(p[0], p[8 * row_stride], p[4 * word_stride], p[8 * row_stride + 4 * word_stride]);
}

uint2 fragment_b(__local const uint *from)
{
    const int lane = get_local_id(0) % WARP;
    __local const uint *p = from + lane % 4 * WORDS_STRIDE + lane / 4;
    return (uint2)(p[0], p[4 * WORDS_STRIDE]);
}

/* c[16][8] = a[16][8 * PAIR] b[8 * PAIR][8], for the host to see that the instruction is what is said above. One warp. */
__kernel __attribute__((reqd_work_group_size(WARP, 1, 1)))
void mma_probe(__global const float *a, __global const float *b, __global float *c)
{
    __local float exchange[EXCHANGE_FLOATS(WARP)];
    __local uint left[16 * ROWS_STRIDE], right[8 * WORDS_STRIDE];
    const int lane = get_local_id(0), g = lane / 4, t = lane % 4;
    for (int i = lane; i < 16 * 8; i += WARP)
        left[i / 8 * ROWS_STRIDE + i % 8] = word(a[i * PAIR], a[i * PAIR + PAIR - 1]);
    for (int i = lane; i < 8 * 8; i += WARP)
        right[i / 8 * WORDS_STRIDE + i % 8] = word(b[i / 8 * PAIR * 8 + i % 8], b[(i / 8 * PAIR + PAIR - 1) * 8 + i % 8]);
    barrier(CLK_LOCAL_MEM_FENCE);
    const float4 sums = mma((float4)(0.0f), fragment_a(left, ROWS_STRIDE, 1), fragment_b(right), exchange);
    c[g * 8 + 2 * t] = sums.x;
    c[g * 8 + 2 * t + 1] = sums.y;
    c[(g + 8) * 8 + 2 * t] = sums.z;
    c[(g + 8) * 8 + 2 * t + 1] = sums.w;
}

/* --- between global and local memory ------------------------------------------------------------------------------------- */

/* What a work-item moves of a tile's slab, in groups of four words. */
#define ITEMS(T) ((T * SLAB / 4 + GROUP - 1) / GROUP)

/* Four columns from c on of a panel's row, zeros beyond the matrix; they lie on a multiple of 16 bytes. */
float4 read_panels(__global const float *matrix, int length, int row, int c, int panels)
{
    if (row >= length || c / PANEL >= panels)
        return (float4)(0.0f);
    return *(__global const float4 *)(matrix + ((long)(c / PANEL) * length + row) * PANEL + c % PANEL);
}

/* Four columns from c on of row `row` of a view with M rows and K columns, zeros beyond them. */
float4 read_view(__global const float *view, long row_stride, long panel_stride, int aligned, int row, int c, int M, int K)
{
    __global const float *p = view + (c / PANEL) * panel_stride + row * row_stride + c % PANEL;
    if (row >= M || c >= K)
        return (float4)(0.0f);
    if (aligned && c + 4 <= K)
        return *(__global const float4 *)p;
    return (float4)(p[0], c + 1 < K ? p[1] : 0.0f, c + 2 < K ? p[2] : 0.0f, c + 3 < K ? p[3] : 0.0f);
}

/* Four words: of 4 * PAIR elements in a row, or of four columns, whose PAIR rows are `first` and `last`. */
uint4 words_along(float4 first, float4 last)
{
#ifdef MMA_FP16
    return (uint4)(word(first.x, first.y), word(first.z, first.w), word(last.x, last.y), word(last.z, last.w));
#else
    return (uint4)(word(first.x, 0.0f), word(first.y, 0.0f), word(first.z, 0.0f), word(first.w, 0.0f));
#endif
}
uint4 words_across(float4 first, float4 last)
{
    return (uint4)(word(first.x, last.x), word(first.y, last.y), word(first.z, last.z), word(first.w, last.w));
}

/* T rows of the view, elements [k, k + DEPTH) of the contraction along them. */
#define READ_ROWS(T, to, k)                                                                                            \
    UNROLL for (int i = 0; i < ITEMS(T) * PAIR; i++)                                                                   \
    {                                                                                                                  \
        const int item = get_local_id(0) + i / PAIR * GROUP, r = item / (SLAB / 4);                                    \
        const int c = (k) + (item % (SLAB / 4) * PAIR + i % PAIR) * 4;                                                 \
        to[i] = read_view(view, view_row_stride, view_panel_stride, view_aligned, first_row + r, r < T ? c : K, M, K); \
    }
#define KEEP_ROWS(T, from, to)                                                                                         \
    UNROLL for (int i = 0; i < ITEMS(T); i++)                                                                          \
    {                                                                                                                  \
        const int item = get_local_id(0) + i * GROUP, r = item / (SLAB / 4);                                           \
        if (r < T)                                                                                                     \
            *(__local uint4 *)((to) + r * ROWS_STRIDE + item % (SLAB / 4) * 4) =                                       \
                words_along(from[i * PAIR], from[i * PAIR + PAIR - 1]);                                                \
    }

/* T columns from `first` on of a matrix in panels, of rows [k, k + DEPTH), which are the contraction. */
#define READ_PANELS(T, to, k, matrix, length, first, panels)                                                           \
    UNROLL for (int i = 0; i < ITEMS(T) * PAIR; i++)                                                                   \
    {                                                                                                                  \
        const int item = get_local_id(0) + i / PAIR * GROUP;                                                           \
        to[i] = read_panels(matrix, length, (k) + item / (T / 4) * PAIR + i % PAIR, first + item % (T / 4) * 4,        \
                            panels);                                                                                   \
    }
#define KEEP_PANELS(T, from, to)                                                                                       \
    UNROLL for (int i = 0; i < ITEMS(T); i++)                                                                          \
    {                                                                                                                  \
        const int item = get_local_id(0) + i * GROUP;                                                                  \
        if (item < T * SLAB / 4)                                                                                       \
            *(__local uint4 *)((to) + item / (T / 4) * WORDS_STRIDE + item % (T / 4) * 4) =                            \
                words_across(from[i * PAIR], from[i * PAIR + PAIR - 1]);                                               \
    }

/* What surrounds the product, for one element. `at` is where it goes in out and save. */
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

/* --- a tile -------------------------------------------------------------------------------------------------------------- */

/* TM x TN sums over `length`; a warp has RM x RN fragments of 16 x 8 of them. Each is then finished by FINISH(row, column, value):
 * through local memory, 16 rows of each warp at a time, so that neighbours in the group store neighbours in a row. */
#define TILE(TM, TN, RM, RN, READ_LEFT, KEEP_LEFT, READ_RIGHT, row_stride, word_stride, length, FINISH)                \
    {                                                                                                                  \
        const int first_row = get_group_id(0) * TM, first_column = get_group_id(1) * TN;                               \
        const int warp = get_local_id(0) / WARP, lane = get_local_id(0) % WARP;                                        \
        const int warp_rows = warp / (TN / (RN * 8)), warp_column = warp % (TN / (RN * 8)) * (RN * 8);                 \
        __local uint *left = words, *right = words + 2 * LEFT_WORDS;                                                   \
        __local float *strip = (__local float *)words;                                                                 \
        float4 sums[RM][RN], left_next[ITEMS(TM) * PAIR], right_next[ITEMS(TN) * PAIR];                                \
        UNROLL for (int i = 0; i < RM; i++)                                                                            \
        {                                                                                                              \
            UNROLL for (int j = 0; j < RN; j++) sums[i][j] = (float4)(0.0f);                                           \
        }                                                                                                              \
        READ_LEFT(TM, left_next, 0)                                                                                    \
        READ_RIGHT(TN, right_next, 0)                                                                                  \
        KEEP_LEFT(TM, left_next, left)                                                                                 \
        KEEP_PANELS(TN, right_next, right)                                                                             \
        barrier(CLK_LOCAL_MEM_FENCE);                                                                                  \
        int buffer = 0;                                                                                                \
        for (int k = 0; k < length; k += DEPTH) {                                                                      \
            __local const uint *from_left = left + buffer * LEFT_WORDS + warp_rows * (RM * 16) * row_stride;           \
            __local const uint *from_right = right + buffer * RIGHT_WORDS + warp_column;                               \
            if (k + DEPTH < length) {                                                                                  \
                READ_LEFT(TM, left_next, k + DEPTH)                                                                    \
                READ_RIGHT(TN, right_next, k + DEPTH)                                                                  \
            }                                                                                                          \
            uint2 b[RN];                                                                                               \
            UNROLL for (int j = 0; j < RN; j++) b[j] = fragment_b(from_right + j * 8);                                 \
            UNROLL for (int i = 0; i < RM; i++)                                                                        \
            {                                                                                                          \
                const uint4 a = fragment_a(from_left + i * 16 * row_stride, row_stride, word_stride);                  \
                UNROLL for (int j = 0; j < RN; j++) sums[i][j] = mma(sums[i][j], a, b[j], exchange);                   \
            }                                                                                                          \
            buffer ^= 1;                                                                                               \
            if (k + DEPTH < length) {                                                                                  \
                KEEP_LEFT(TM, left_next, left + buffer * LEFT_WORDS)                                                   \
                KEEP_PANELS(TN, right_next, right + buffer * RIGHT_WORDS)                                              \
            }                                                                                                          \
            barrier(CLK_LOCAL_MEM_FENCE);                                                                              \
        }                                                                                                              \
        UNROLL for (int i = 0; i < RM; i++)                                                                            \
        {                                                                                                              \
            UNROLL for (int j = 0; j < RN; j++)                                                                        \
            {                                                                                                          \
                __local float2 *to = (__local float2 *)(strip + (warp_rows * 16 + lane / 4) * WORDS_STRIDE +           \
                                                        warp_column + j * 8 + lane % 4 * 2);                           \
                to[0] = sums[i][j].xy;                                                                                 \
                to[4 * WORDS_STRIDE] = sums[i][j].zw;                                                                  \
            }                                                                                                          \
            barrier(CLK_LOCAL_MEM_FENCE);                                                                              \
            for (int item = get_local_id(0); item < TM / RM * TN; item += GROUP) {                                     \
                const int r = item / TN, column = first_column + item % TN;                                            \
                const int row = first_row + (r / 16 * RM + i) * 16 + r % 16;                                           \
                FINISH(row, column, strip[r * WORDS_STRIDE + item % TN])                                               \
            }                                                                                                          \
            barrier(CLK_LOCAL_MEM_FENCE);                                                                              \
        }                                                                                                              \
    }

#define READ_W(T, to, k) READ_PANELS(T, to, k, w, K, first_column, panels)
#define FINISH_LINEAR(row, column, value)                                                                              \
    if (row < M && column / PANEL < panels)                                                                            \
        finish_element(value, row, column, N, flags, out + out_offset,                                                 \
                       (column / PANEL) * out_panel_stride + row * out_row_stride + column % PANEL,                    \
                       bias + bias_offset, second + second_offset, second_row_stride, second_panel_stride,             \
                       save + save_offset);
#define LINEAR_TILE(TM, TN, RM, RN)                                                                                    \
    TILE(TM, TN, RM, RN, READ_ROWS, KEEP_ROWS, READ_W, ROWS_STRIDE, 1, K, FINISH_LINEAR)

/* See linear_gpu.cl. tile: 0, 1, 2 for tiles of 16 x 64, 64 x 64, 128 x 128, which the global size counts. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void linear(int M, int N, int K, int flags, int tile, int unused,
            __global const float *a, ulong a_offset, long a_row_stride, long a_panel_stride,
            __global const float *weights, ulong w_offset,
            __global float *out, ulong out_offset, long out_row_stride, long out_panel_stride,
            __global const float *bias, ulong bias_offset,
            __global const float *second, ulong second_offset, long second_row_stride, long second_panel_stride,
            __global float *save, ulong save_offset)
{
    __local uint words[LOCAL_WORDS] __attribute__((aligned(16)));
    __local float exchange[EXCHANGE_FLOATS(GROUP)];
    const int panels = (N + PANEL - 1) / PANEL;
    const long view_row_stride = a_row_stride, view_panel_stride = a_panel_stride;
    const int view_aligned = ((a_offset | a_row_stride | a_panel_stride) & 3) == 0;
    __global const float *view = a + a_offset, *w = weights + w_offset;
    if (tile == 2)
        LINEAR_TILE(128, 128, 4, 4)
    else if (tile == 1)
        LINEAR_TILE(64, 64, 2, 2)
    else
        LINEAR_TILE(16, 64, 1, 1)
}

#define READ_X(T, to, k) READ_PANELS(T, to, k, xs, M, first_row, k_panels)
#define READ_DY(T, to, k) READ_PANELS(T, to, k, dys, M, first_column, panels)
#define FINISH_GRADIENT(row, column, value)                                                                            \
    if (row < K && column / PANEL < panels) {                                                                          \
        __global float *to = dw + dw_offset + ((long)(column / PANEL) * K + row) * PANEL + column % PANEL;             \
        *to = accumulate ? *to + value : value;                                                                        \
    }
#define GRADIENT_TILE(TK, TN, RM, RN)                                                                                  \
    TILE(TK, TN, RM, RN, READ_X, KEEP_PANELS, READ_DY, 1, WORDS_STRIDE, M, FINISH_GRADIENT)

/* See linear_gpu.cl. tile: 1, 2 as above, of K x N. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void weight_gradient(int M, int N, int K, int accumulate, int tile, __global const float *x_buffer, ulong x_offset,
                     __global const float *dy_buffer, ulong dy_offset, __global float *dw, ulong dw_offset)
{
    __local uint words[LOCAL_WORDS] __attribute__((aligned(16)));
    __local float exchange[EXCHANGE_FLOATS(GROUP)];
    const int panels = (N + PANEL - 1) / PANEL, k_panels = (K + PANEL - 1) / PANEL;
    __global const float *xs = x_buffer + x_offset, *dys = dy_buffer + dy_offset;
    if (tile == 2)
        GRADIENT_TILE(128, 128, 4, 4)
    else
        GRADIENT_TILE(64, 64, 2, 2)
}
