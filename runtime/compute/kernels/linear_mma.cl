/* The linear layer's products on NVIDIA's matrix units. Its OpenCL compiler takes PTX inline (-DMMA_PTX); elsewhere the instruction
 * is emulated with the same fragments in the same lanes, so that all around it can be tested on any device. Operands that are not
 * halves yet are rounded on their way into local memory; sums are fp32. -DMMA_FP16 goes with -DHALF_WEIGHTS, the reverse not always.
 *
 * A word is 32 bits along the contraction: one element rounded to tf32, or (-DMMA_FP16) a pair of halves, the first in the low bits.
 * Counted in words, both instructions have one shape, 16 x 8 sums of 8 words, and the same fragments; with g = lane / 4, t = lane % 4:
 *     A[row][word]     a.x (g, t)   a.y (g + 8, t)   a.z (g, t + 4)   a.w (g + 8, t + 4)
 *     B[word][column]  b.x (t, g)   b.y (t + 4, g)
 *     C[row][column]   c.x (g, 2t)  c.y (g, 2t + 1)  c.z (g + 8, 2t)  c.w (g + 8, 2t + 1)
 * (PTX ISA, "Matrix fragments for mma.m16n8k8" and "m16n8k16").
 *
 * A work-group makes one tile of the output: slabs of SLAB elements of the contraction go through local memory, and the next slab is
 * read while the last one is multiplied. Built once for each tile, with the parameters of linear_gpu.cl (runtime/compute/tile.h): a warp has as
 * many sums as its work-items would have there, though not the same ones. Every tile adds along the contraction in the same
 * order, so that a row's result does not depend on the tile. Needs VEC 1, PANEL 32 and warps of 32 neighbours in dimension 0. */

/* Work-items of every kernel that is no product. */
#define GROUP 256
#define WARP 32

#ifndef TILE_M /* the program that has all kernels; runtime/compute/tile.h's TILE_OF_PROGRAM */
#define TILE_M 64
#define TILE_N 64
#define SUMS_M 4
#define SUMS_N 4
#define SLAB 16
#define STAGES 1
#endif

#ifdef MMA_FP16
#define PAIR 2
#else
#define PAIR 1
#endif
#define WORDS (SLAB / PAIR) /* of a slab: a multiple of the 8 that the instruction takes */
#define TILE_GROUP (TILE_M / SUMS_M * (TILE_N / SUMS_N))

/* The instruction's sums, 4 to a work-item, that a warp makes: MMA_M below and MMA_N beside each other. */
#if SUMS_M * SUMS_N >= 64
#define MMA_M 4
#elif SUMS_M * SUMS_N >= 16
#define MMA_M 2
#else
#define MMA_M 1
#endif
#define MMA_N (SUMS_M * SUMS_N / 4 / MMA_M)
#define WARPS_BESIDE (TILE_N / (8 * MMA_N))

/* Strides, in words, with which the 32 lanes of a fragment fall on 32 banks: 8 rows of 4 words (an odd multiple of 4), 4 words of
 * 8 columns and 4 rows of 4 pairs of sums (8 or 24 modulo 32). All are multiples of 4, as they are stored in fours. */
#define ROWS_STRIDE (WORDS + 4)  /* [row][word] */
#define LEFT_STRIDE (TILE_M + 8) /* [word][row] */
#define RIGHT_STRIDE (TILE_N + 8) /* [word][column]; of the sums at the end, too */
#if TILE_M * ROWS_STRIDE > WORDS * LEFT_STRIDE /* of a product, of a weight gradient */
#define LEFT_WORDS (TILE_M * ROWS_STRIDE)
#else
#define LEFT_WORDS (WORDS * LEFT_STRIDE)
#endif
#define RIGHT_WORDS (WORDS * RIGHT_STRIDE)
#define STRIP_ROWS (TILE_M / MMA_M) /* at the end, 16 rows of sums of each warp */
#if STAGES * (LEFT_WORDS + RIGHT_WORDS) > STRIP_ROWS * RIGHT_STRIDE
#define LOCAL_WORDS (STAGES * (LEFT_WORDS + RIGHT_WORDS))
#else
#define LOCAL_WORDS (STRIP_ROWS * RIGHT_STRIDE)
#endif

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

uint2 fragment_b(__local const uint *from, int word_stride)
{
    const int lane = get_local_id(0) % WARP;
    __local const uint *p = from + lane % 4 * word_stride + lane / 4;
    return (uint2)(p[0], p[4 * word_stride]);
}

/* c[16][8] = a[16][8 * PAIR] b[8 * PAIR][8], for the host to see that the instruction is what is said above. One warp. */
__kernel __attribute__((reqd_work_group_size(WARP, 1, 1)))
void mma_probe(__global const float *a, __global const float *b, __global float *c)
{
    __local float exchange[EXCHANGE_FLOATS(WARP)];
    __local uint left[16 * 8], right[8 * 8];
    const int lane = get_local_id(0), g = lane / 4, t = lane % 4;
    for (int i = lane; i < 16 * 8; i += WARP)
        left[i] = word(a[i * PAIR], a[i * PAIR + PAIR - 1]);
    for (int i = lane; i < 8 * 8; i += WARP)
        right[i] = word(b[i / 8 * PAIR * 8 + i % 8], b[(i / 8 * PAIR + PAIR - 1) * 8 + i % 8]);
    barrier(CLK_LOCAL_MEM_FENCE);
    const float4 sums = mma((float4)(0.0f), fragment_a(left, 8, 1), fragment_b(right, 8), exchange);
    c[g * 8 + 2 * t] = sums.x;
    c[g * 8 + 2 * t + 1] = sums.y;
    c[(g + 8) * 8 + 2 * t] = sums.z;
    c[(g + 8) * 8 + 2 * t + 1] = sums.w;
}

/* --- between global and local memory ------------------------------------------------------------------------------------- */

/* Groups of four words that a work-item moves of a slab of T rows or columns. */
#define FOURS(T) ((T * WORDS / 4 + TILE_GROUP - 1) / TILE_GROUP)

/* Four elements of a panel's row, which lie on a multiple of 16 bytes. */
#define LOAD_FLOATS(p) (*(__global const float4 *)(p))
/* The same of weights: as halves, where the words are made of them, which lie on a multiple of 8 bytes. */
#ifdef MMA_FP16
typedef ushort4 four_weights;
#define LOAD_WEIGHTS(p) (*(__global const ushort4 *)(p))
#else
typedef float4 four_weights;
#define LOAD_WEIGHTS weight_load_four
#endif

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
#ifdef MMA_FP16
uint4 weights_across(ushort4 first, ushort4 last)
{
    return convert_uint4(first) | convert_uint4(last) << 16;
}
#else
#define weights_across words_across
#endif

/* TILE_M rows of the view from first_row on, elements [k, k + SLAB) of the contraction along them. */
#define READ_ROWS(to, k)                                                                                               \
    UNROLL for (int i = 0; i < FOURS(TILE_M) * PAIR; i++)                                                              \
    {                                                                                                                  \
        const int item = get_local_id(0) + i / PAIR * TILE_GROUP, r = item / (WORDS / 4);                              \
        const int c = (k) + (item % (WORDS / 4) * PAIR + i % PAIR) * 4;                                                \
        to[i] = read_view(a, a_row_stride, a_panel_stride, a_aligned, first_row + r, r < TILE_M ? c : K, M, K);        \
    }
#define KEEP_ROWS(from, to)                                                                                            \
    UNROLL for (int i = 0; i < FOURS(TILE_M); i++)                                                                     \
    {                                                                                                                  \
        const int item = get_local_id(0) + i * TILE_GROUP, r = item / (WORDS / 4);                                     \
        if (r < TILE_M)                                                                                                \
            *(__local uint4 *)((to) + r * ROWS_STRIDE + item % (WORDS / 4) * 4) =                                      \
                words_along(from[i * PAIR], from[i * PAIR + PAIR - 1]);                                                \
    }

/* T columns from `first` on of a matrix in panels, rows [row, row + SLAB) of `length`, which are the contraction; zeros beyond the
 * matrix. */
#define READ_PANELS(T, FOUR, LOAD, to, matrix, row, length, first, panels)                                             \
    UNROLL for (int i = 0; i < FOURS(T) * PAIR; i++)                                                                   \
    {                                                                                                                  \
        const int item = get_local_id(0) + i / PAIR * TILE_GROUP, r = item / (T / 4) * PAIR + i % PAIR;                \
        const int c = first + item % (T / 4) * 4;                                                                      \
        to[i] = (FOUR)(0);                                                                                             \
        if (r < SLAB && (row) + r < length && c / PANEL < panels)                                                      \
            to[i] = LOAD(matrix + ((long)(c / PANEL) * length + (row) + r) * PANEL + c % PANEL);                       \
    }
#define KEEP_PANELS(T, ACROSS, from, to, stride)                                                                       \
    UNROLL for (int i = 0; i < FOURS(T); i++)                                                                          \
    {                                                                                                                  \
        const int item = get_local_id(0) + i * TILE_GROUP;                                                             \
        if (item < T * WORDS / 4)                                                                                      \
            *(__local uint4 *)((to) + item / (T / 4) * stride + item % (T / 4) * 4) =                                  \
                ACROSS(from[i * PAIR], from[i * PAIR + PAIR - 1]);                                                     \
    }

/* What surrounds the product, for one element. `at` is where it goes in out and save. */
void finish_element(float value, int row, int column, int N, int flags, __global float *out, long at,
                    __global const float *bias, __global const float *second, long second_row_stride,
                    long second_panel_stride, __global float *save)
{
    float other = 0.0f;
    if (column >= N && flags & LINEAR_OUT_ROWS)
        return;
    if (flags & LINEAR_TAKES_SECOND && (column < N || !(flags & LINEAR_SECOND_ROWS)))
        other = second[(column / PANEL) * second_panel_stride + row * second_row_stride + column % PANEL];
    if (flags & LINEAR_BIAS)
        value += bias[column];
    if (flags & LINEAR_SAVE)
        save[at] = value;
    if (flags & LINEAR_ACTIVATION)
        value = activation(flags, value);
    if (flags & LINEAR_ACTIVATION_GRAD)
        value *= activation_grad(flags, other);
    if (flags & LINEAR_MULTIPLY)
        value *= other;
    if (flags & LINEAR_ADD)
        value += other;
    out[at] = value;
}

/* The same for a gate and, beside it, what it lets through, by whoever has the gate. */
void finish_pair(__local const float *sums, int row, int column, int M, int flags, float4 gate, __global float *out,
                 long out_row_stride, long out_panel_stride, __global const float *bias, __global float *save)
{
    const int to = column / 2;
    float g = sums[0], u = sums[1];
    if (column % 2 != 0)
        return;
    if (flags & LINEAR_BIAS) {
        g += bias[column];
        u += bias[column + 1];
    }
    if (flags & LINEAR_SAVE) {
        __global float *kept = save + ((long)(column / PANEL) * M + row) * PANEL + column % PANEL;
        kept[0] = g;
        kept[1] = u;
    }
    if (to < out_row_stride || !(flags & LINEAR_OUT_ROWS))
        out[to / PANEL * out_panel_stride + row * out_row_stride + to % PANEL] = gated(flags, gate, g, u);
}

/* --- a tile -------------------------------------------------------------------------------------------------------------- */

/* sums += left right over a slab, for this warp. `left` lies as the strides say. A call would put the sums into memory. */
__attribute__((always_inline)) void multiply(float4 sums[MMA_M][MMA_N], __local const uint *left, int row_stride, int word_stride,
              __local const uint *right, __local float *exchange)
{
    const int warp = get_local_id(0) / WARP;
    left += warp / WARPS_BESIDE * (16 * MMA_M) * row_stride;
    right += warp % WARPS_BESIDE * (8 * MMA_N);
    UNROLL for (int s = 0; s < WORDS; s += 8)
    {
        uint2 b[MMA_N];
        UNROLL for (int j = 0; j < MMA_N; j++) b[j] = fragment_b(right + s * RIGHT_STRIDE + j * 8, RIGHT_STRIDE);
        UNROLL for (int i = 0; i < MMA_M; i++)
        {
            const uint4 a = fragment_a(left + i * 16 * row_stride + s * word_stride, row_stride, word_stride);
            UNROLL for (int j = 0; j < MMA_N; j++) sums[i][j] = mma(sums[i][j], a, b[j], exchange);
        }
    }
}

/* Sums of the tile over all of the contraction, of `length`. READ_LEFT(to, k), KEEP_LEFT(from, to), READ_RIGHT(to, k) and
 * KEEP_PANELS with RIGHT_ACROSS move a slab; RIGHT_FOUR is what is on its way between the last two. */
#define SUM_UP(READ_LEFT, KEEP_LEFT, row_stride, word_stride, READ_RIGHT, RIGHT_FOUR, RIGHT_ACROSS, length)            \
    float4 sums[MMA_M][MMA_N], left_next[FOURS(TILE_M) * PAIR];                                                        \
    RIGHT_FOUR right_next[FOURS(TILE_N) * PAIR];                                                                       \
    int stage = 0;                                                                                                     \
    UNROLL for (int i = 0; i < MMA_M; i++)                                                                             \
    {                                                                                                                  \
        UNROLL for (int j = 0; j < MMA_N; j++) sums[i][j] = (float4)(0.0f);                                            \
    }                                                                                                                  \
    READ_LEFT(left_next, 0)                                                                                            \
    READ_RIGHT(right_next, 0)                                                                                          \
    for (int k = 0; k < length; k += SLAB) {                                                                           \
        __local uint *left = words + stage * LEFT_WORDS;                                                               \
        __local uint *right = words + STAGES * LEFT_WORDS + stage * RIGHT_WORDS;                                       \
        KEEP_LEFT(left_next, left)                                                                                     \
        KEEP_PANELS(TILE_N, RIGHT_ACROSS, right_next, right, RIGHT_STRIDE)                                             \
        barrier(CLK_LOCAL_MEM_FENCE);                                                                                  \
        if (k + SLAB < length) {                                                                                       \
            READ_LEFT(left_next, k + SLAB)                                                                             \
            READ_RIGHT(right_next, k + SLAB)                                                                           \
        }                                                                                                              \
        multiply(sums, left, row_stride, word_stride, right, exchange);                                                \
        END_OF_SLAB                                                                                                    \
    }                                                                                                                  \
    barrier(CLK_LOCAL_MEM_FENCE);
/* With two stages the one barrier is enough: who is past it has done with the slab before. */
#if STAGES == 1
#define END_OF_SLAB barrier(CLK_LOCAL_MEM_FENCE);
#else
#define END_OF_SLAB stage = 1 - stage;
#endif

/* FINISH(row, column, value) for each sum of the tile: through local memory, 16 rows of each warp at a time, so that neighbours in the
 * group store neighbours in a row. */
#define FINISH_ALL(FINISH)                                                                                             \
    __local float *strip = (__local float *)words;                                                                     \
    const int warp = get_local_id(0) / WARP, lane = get_local_id(0) % WARP;                                            \
    UNROLL for (int i = 0; i < MMA_M; i++)                                                                             \
    {                                                                                                                  \
        UNROLL for (int j = 0; j < MMA_N; j++)                                                                         \
        {                                                                                                              \
            __local float2 *to =                                                                                       \
                (__local float2 *)(strip + (warp / WARPS_BESIDE * 16 + lane / 4) * RIGHT_STRIDE +                      \
                                   (warp % WARPS_BESIDE * MMA_N + j) * 8 + lane % 4 * 2);                              \
            to[0] = sums[i][j].xy;                                                                                     \
            to[4 * RIGHT_STRIDE] = sums[i][j].zw;                                                                      \
        }                                                                                                              \
        barrier(CLK_LOCAL_MEM_FENCE);                                                                                  \
        for (int item = get_local_id(0); item < STRIP_ROWS * TILE_N; item += TILE_GROUP) {                             \
            const int r = item / TILE_N, column = first_column + item % TILE_N;                                        \
            const int row = first_row + (r / 16 * MMA_M + i) * 16 + r % 16;                                            \
            FINISH(row, column, (strip + r * RIGHT_STRIDE + item % TILE_N))                                            \
        }                                                                                                              \
        barrier(CLK_LOCAL_MEM_FENCE);                                                                                  \
    }

#define READ_W(to, k) READ_PANELS(TILE_N, four_weights, LOAD_WEIGHTS, to, w, k, K, first_column, panels)
#define FINISH_LINEAR(row, column, value)                                                                              \
    if (row >= M || column / PANEL >= panels)                                                                          \
        continue;                                                                                                      \
    if (flags & LINEAR_GATED)                                                                                          \
        finish_pair(value, row, column, M, flags, gate, out + out_offset, out_row_stride, out_panel_stride,            \
                    bias + bias_offset, save + save_offset);                                                           \
    else                                                                                                               \
        finish_element(*value, row, column, N, flags, out + out_offset,                                                 \
                       (column / PANEL) * out_panel_stride + row * out_row_stride + column % PANEL,                    \
                       bias + bias_offset, second + second_offset, second_row_stride, second_panel_stride,             \
                       save + save_offset);

/* See linear_gpu.cl. */
__kernel __attribute__((reqd_work_group_size(TILE_GROUP, 1, 1)))
void linear(int M, int N, int K, int flags, int unused_group, int unused_block,
            __global const float *a, ulong a_offset, long a_row_stride, long a_panel_stride,
            __global const weight *weights, ulong w_offset,
            __global float *out, ulong out_offset, long out_row_stride, long out_panel_stride,
            __global const float *bias, ulong bias_offset,
            __global const float *second, ulong second_offset, long second_row_stride, long second_panel_stride,
            __global float *save, ulong save_offset, float4 gate)
{
    __local uint words[LOCAL_WORDS] __attribute__((aligned(16)));
    __local float exchange[EXCHANGE_FLOATS(TILE_GROUP)];
    const int first_row = get_group_id(0) * TILE_M, first_column = get_group_id(1) * TILE_N;
    const int panels = (N + PANEL - 1) / PANEL;
    const int a_aligned = ((a_offset | a_row_stride | a_panel_stride) & 3) == 0;
    __global const weight *w = weights + w_offset;
    a += a_offset;
    SUM_UP(READ_ROWS, KEEP_ROWS, ROWS_STRIDE, 1, READ_W, four_weights, weights_across, K)
    FINISH_ALL(FINISH_LINEAR)
}

#define READ_X(to, k) READ_PANELS(TILE_M, float4, LOAD_FLOATS, to, xs, k, M, first_row, k_panels)
#define KEEP_X(from, to) KEEP_PANELS(TILE_M, words_across, from, to, LEFT_STRIDE)
#define READ_DY(to, k) READ_PANELS(TILE_N, float4, LOAD_FLOATS, to, dys, k, M, first_column, panels)
#define FINISH_GRADIENT(row, column, value)                                                                            \
    if (row < K && column / PANEL < panels) {                                                                          \
        __global float *to = dw + dw_offset + ((long)(column / PANEL) * K + row) * PANEL + column % PANEL;             \
        *to = accumulate ? *to + *value : *value;                                                                      \
    }

/* See linear_gpu.cl. */
__kernel __attribute__((reqd_work_group_size(TILE_GROUP, 1, 1)))
void weight_gradient(int M, int N, int K, int accumulate, int unused, __global const float *x_buffer, ulong x_offset,
                     __global const float *dy_buffer, ulong dy_offset, __global float *dw, ulong dw_offset)
{
    __local uint words[LOCAL_WORDS] __attribute__((aligned(16)));
    __local float exchange[EXCHANGE_FLOATS(TILE_GROUP)];
    const int first_row = get_group_id(0) * TILE_M, first_column = get_group_id(1) * TILE_N;
    const int panels = (N + PANEL - 1) / PANEL, k_panels = (K + PANEL - 1) / PANEL;
    __global const float *xs = x_buffer + x_offset, *dys = dy_buffer + dy_offset;
    SUM_UP(READ_X, KEEP_X, 1, LEFT_STRIDE, READ_DY, float4, words_across, M)
    FINISH_ALL(FINISH_GRADIENT)
}
