/* Products for CPU devices. One work-item is one thread's share; explicit vectors, no local memory, no barriers.
 *
 * The tile is TILE_ROWS rows by one panel of NV vectors: TILE_ROWS * NV accumulators fill the vector registers, and a step
 * of k costs NV loads and TILE_ROWS broadcasts for TILE_ROWS * NV multiply-adds. Every count of rows has its own body, so a
 * batch of one row does the work of one row, and nothing is written past the batch's rows.
 *
 * A share is a block of rows by one panel, and walks k in blocks: the block of the panel and that of the rows stay in the
 * second-level cache, from where a tile reads them as fast as it multiplies; between blocks of k the sums wait in the
 * output. Meanwhile the part of w that comes next is fetched from memory, some lines with every few steps of k: what is
 * asked for in one burst waits for its turn, and the tile with it. */
#define LINEAR_STEP(R, LOAD) MULTIPLY_ADD(R, ap[r * a_row_stride + k], wp + k * PANEL, LOAD)

/* acc += a[rows][k0, k1) * w[0, k1 - k0)[panel]; [next, next_end) is fetched, `fetch` lines at a time. */
#define LINEAR_BODY(R, WEIGHTS, LOAD)                                                                                  \
    case R: {                                                                                                          \
        TILE_BEGIN(R)                                                                                                  \
        for (int kp = k0; kp < k1; kp += PANEL) {                                                                      \
            __global const float *ap = a + (kp / PANEL) * a_panel_stride;                                              \
            WEIGHTS wp = w + (long)(kp - k0) * PANEL;                                                                  \
            const int kn = min(PANEL, k1 - kp);                                                                        \
            if (kn == PANEL) {                                                                                         \
                for (int kf = 0; kf < PANEL; kf += FETCH_STEPS) {                                                      \
                    for (int i = 0; i < fetch && next < next_end; i++, next += CACHE_LINE_WEIGHTS)                     \
                        PREFETCH(next);                                                                                \
                    _Pragma("unroll") for (int k = kf; k < kf + FETCH_STEPS; k++) LINEAR_STEP(R, LOAD)                 \
                }                                                                                                      \
            } else {                                                                                                   \
                for (int k = 0; k < kn; k++)                                                                           \
                    LINEAR_STEP(R, LOAD)                                                                               \
            }                                                                                                          \
        }                                                                                                              \
        TILE_END(R)                                                                                                    \
        break;                                                                                                         \
    }

#define LINEAR_TILE(NAME, WEIGHTS, LOAD)                                                                               \
    void NAME(vec (*tile)[NV], int begin, int end, __global float *out, long out_row_stride, int rows, int k0, int k1, \
              __global const float *a, long a_row_stride, long a_panel_stride, __global const weight *next,            \
              __global const weight *next_end, int fetch, WEIGHTS w)                                                   \
    {                                                                                                                  \
        BY_ROWS(rows, LINEAR_BODY, WEIGHTS, LOAD)                                                                      \
    }
#ifdef QUANTIZED_BITS
/* Tiles find w widened: as much of it as a first-level cache holds, or more of it for many of them, as with 16 bits. A tile that
 * is alone and has few rows widens it itself, in one go. */
LINEAR_TILE(linear_wide_tile, const float *, vec_load_private)
#define WIDE_K 512 /* multiples of PANEL and of QUANTIZED_GROUP */
#define WIDE_FEW_K (PANEL > QUANTIZED_GROUP ? PANEL : QUANTIZED_GROUP)
#define WIDE_TILES 4
#define WIDE_BEGIN(tiles, most_k)                                                                                      \
    float wide[WIDE_K * PANEL] __attribute__((aligned(64)));                                                           \
    const bool is_few = end_row - first_row <= FEW_ROWS;                                                               \
    const int block_k = is_few ? K : (tiles) >= WIDE_TILES ? min(most_k, WIDE_K) : WIDE_FEW_K;
#define WIDE_BLOCK(from, rows)                                                                                         \
    if (!is_few)                                                                                                       \
        widen_blocks(from, ((rows) + QUANTIZED_GROUP - 1) / QUANTIZED_GROUP, flags, wide);
#define ANY_TILE(w, ...)                                                                                               \
    if (is_few)                                                                                                        \
        linear_few_tile(__VA_ARGS__, w, flags);                                                                        \
    else                                                                                                               \
        linear_wide_tile(__VA_ARGS__, wide);
#else
LINEAR_TILE(linear_tile, __global const weight *, weight_load)
#endif
#ifdef HALF_WEIGHTS
/* Widening takes as long as a third of a step's multiply-adds. Many tiles find w widened for all of them, a part of the panel
 * at a time: a longer one would leave less of the second-level cache, a shorter one bring the sums to the output more often. */
LINEAR_TILE(linear_wide_tile, const float *, vec_load_private)
#define WIDE_K 512 /* a multiple of PANEL */
#define WIDE_TILES 4
#define TWICE_K (32768 / (PANEL * 2) / PANEL * PANEL) /* what two or three tiles read again is still in the first-level cache */
#define WIDE_BEGIN(tiles, most_k)                                                                                      \
    float wide[WIDE_K * PANEL] __attribute__((aligned(64)));                                                           \
    const bool is_wide = (tiles) >= WIDE_TILES;                                                                        \
    const int block_k = is_wide ? min(most_k, WIDE_K) : (tiles) > 1 ? min(most_k, TWICE_K) : most_k;
#define WIDE_BLOCK(from, rows)                                                                                         \
    if (is_wide)                                                                                                       \
        for (int i = 0; i < (rows) * PANEL; i += VEC)                                                                         \
            vec_store_private(weight_load((from) + i), wide + i);
#define ANY_TILE(w, ...)                                                                                               \
    if (is_wide)                                                                                                       \
        linear_wide_tile(__VA_ARGS__, wide);                                                                           \
    else                                                                                                               \
        linear_tile(__VA_ARGS__, w);
#elif !defined QUANTIZED_BITS
#define WIDE_BEGIN(tiles, most_k) const int block_k = most_k;
#define WIDE_BLOCK(from, rows)
#define ANY_TILE(w, ...) linear_tile(__VA_ARGS__, w);
#endif

/* How far a tile that is alone looks ahead, in weights: with half as much it waits for memory. */
#define AHEAD_WEIGHTS (32768 / (int)sizeof(weight))

/* One share of out[M][N] = epilogue(a[M][K] * w), w in panels over N: [ceil(N / PANEL)][K][PANEL]. `second` and `save` are not
 * `out` (the sums wait there, or in `save` of a gated product), and bias is padded to whole panels. most_k, the longest block of
 * k, is a multiple of PANEL. The cell is of a grid {groups of rows, panels}; a group's rows are those that an even division gives. */
void linear_share(int3 cell, int2 grid, int M, int N, int K, int flags, int most_k,
            __global const float *a, long a_row_stride, long a_panel_stride, __global const weight *weights,
            __global float *out, long out_row_stride, long out_panel_stride, __global const float *bias,
            __global const float *second, long second_row_stride, long second_panel_stride, __global float *save, float4 gate)
{
    const int groups = grid.x, panels = grid.y;
    const int group = cell.x, panel = cell.y, next_panel = cell.z;
    const int first_row = (long)M * group / groups, end_row = (long)M * (group + 1) / groups;
    /* As many rows in each tile, or one less. */
    const int tiles = (end_row - first_row + TILE_ROWS - 1) / TILE_ROWS;
    const int least_rows = (end_row - first_row) / tiles, larger_tiles = (end_row - first_row) % tiles;
    /* Where the sums wait: in the output, or where they are kept if that is narrower. */
    const bool is_gated = (flags & LINEAR_GATED) != 0;
    const int columns = flags & LINEAR_OUT_ROWS && !is_gated ? N - panel * PANEL : PANEL;
    const long wait_stride = is_gated ? PANEL : out_row_stride;
    __global float *wait =
        is_gated ? save + (long)panel * M * PANEL : out + panel * out_panel_stride;
    __global const weight *w = weights + panel * WEIGHTS_OF_ROWS(K, flags);
    WIDE_BEGIN(tiles, most_k)

    for (int k0 = 0; k0 < K; k0 += block_k) {
        const int k1 = min(k0 + block_k, K);
        const int begin = k0 == 0 ? TILE_ZERO : columns >= PANEL ? TILE_OUT : TILE_LOCAL;
        const int end = columns < PANEL || (k1 == K && (flags & LINEAR_EPILOGUE) != 0) ? TILE_LOCAL : TILE_OUT;
        /* One tile waits for w itself: it looks ahead, beyond the panel's end where that is what this core takes next. */
        __global const weight *next = w + WEIGHTS_OF_ROWS(k0, flags) + AHEAD_WEIGHTS;
        const long in_a_row = (next_panel == panel + 1 ? panels - panel : 1) * WEIGHTS_OF_ROWS(K, flags);
        int lines = max(0L, min(WEIGHTS_OF_ROWS(k1 - k0, flags), in_a_row - (next - w))) / CACHE_LINE_WEIGHTS;
        if (tiles > 1) {
            next = w + (k1 < K ? WEIGHTS_OF_ROWS(k1, flags) : (next_panel - panel) * WEIGHTS_OF_ROWS(K, flags));
            if (k1 < K)
                lines = WEIGHTS_OF_ROWS(min(k1 + block_k, K) - k1, flags) / CACHE_LINE_WEIGHTS;
            else if (next_panel >= panels)
                lines = 0;
            else
                lines = WEIGHTS_OF_ROWS(min(block_k, K), flags) / CACHE_LINE_WEIGHTS;
        }
        WIDE_BLOCK(w + WEIGHTS_OF_ROWS(k0, flags), k1 - k0)
        const int fetch = (lines * FETCH_STEPS + tiles * (k1 - k0) - 1) / (tiles * (k1 - k0));
        for (int t = 0, row = first_row, rows; t < tiles; t++, row += rows) {
            rows = least_rows + (t < larger_tiles);
            __global float *to = wait + row * wait_stride;
            vec tile[TILE_ROWS][NV];
            if (begin == TILE_LOCAL)
                for (int r = 0; r < rows; r++)
                    load_columns(tile[r], to + r * wait_stride, columns);
            ANY_TILE(w + WEIGHTS_OF_ROWS(k0, flags), tile, begin, end, to, wait_stride, rows, k0, k1,
                     a + row * a_row_stride, a_row_stride, a_panel_stride,
                     next + (long)lines * t / tiles * CACHE_LINE_WEIGHTS,
                     next + (long)lines * (t + 1) / tiles * CACHE_LINE_WEIGHTS, fetch)
            if (end == TILE_OUT)
                continue;
            for (int r = 0; r < rows; r++) {
                if (k1 == K)
                    finish_row(tile[r], flags, gate, M, N, panel, row + r, out, out_row_stride, out_panel_stride,
                               bias, second, second_row_stride, second_panel_stride, save);
                else
                    store_columns(tile[r], to + r * wait_stride, columns);
            }
        }
    }
}

/* The shares of `together` groups come one behind the other for the same panel, so that the cores meet w at the same time. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void linear(int M, int N, int K, int flags, int together, int most_k,
            __global const float *a, ulong a_offset, long a_row_stride, long a_panel_stride,
            __global const weight *weights, ulong w_offset,
            __global float *out, ulong out_offset, long out_row_stride, long out_panel_stride,
            __global const float *bias, ulong bias_offset,
            __global const float *second, ulong second_offset, long second_row_stride, long second_panel_stride,
            __global float *save, ulong save_offset, float4 gate, SHARES)
{
    EACH_SHARE
    linear_share(cell_together(share, grid, together), grid, M, N, K, flags, most_k, a + a_offset, a_row_stride, a_panel_stride,
                 weights + w_offset, out + out_offset, out_row_stride, out_panel_stride, bias + bias_offset,
                 second + second_offset, second_row_stride, second_panel_stride, save + save_offset, gate);
}

/* acc += x[m0, m0 + mn)[R columns]^T * dy[m0, m0 + mn)[panel]. */
#define GRADIENT_BODY(R, LOAD)                                                                                         \
    case R: {                                                                                                          \
        TILE_BEGIN(R)                                                                                                  \
        for (int m = 0; m < mn; m++)                                                                                   \
            MULTIPLY_ADD(R, x[m * PANEL + r], dy + m * PANEL, LOAD)                                                    \
        TILE_END(R)                                                                                                    \
        break;                                                                                                         \
    }

void gradient_tile(int begin, __global float *out, int rows, int mn, __global const float *x, __global const float *dy)
{
    const long out_row_stride = PANEL;
    const int end = TILE_OUT;
    vec tile[TILE_ROWS][NV]; /* not used: a gradient is in panels */
    BY_ROWS(rows, GRADIENT_BODY, vec_load)
}

/* dw[ceil(N / PANEL)][K][PANEL] (+)= x^T dy, x[M][K] and dy[M][N] in panels. Grid {panels of K, panels of N}. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void weight_gradient(int M, int N, int K, int accumulate, int block_m, __global const float *x, ulong x_offset,
                     __global const float *dy, ulong dy_offset, __global float *dw, ulong dw_offset, SHARES)
{
    EACH_SHARE
    {
        const int panel_k = share % grid.x, k0 = panel_k * PANEL, panel = share / grid.x;
        const int kn = min(PANEL, K - k0), tiles = (kn + TILE_ROWS - 1) / TILE_ROWS;
        __global const float *xp = x + x_offset + (long)panel_k * M * PANEL;
        __global const float *dyp = dy + dy_offset + (long)panel * M * PANEL;
        __global float *dwp = dw + dw_offset + ((long)panel * K + k0) * PANEL;
        for (int m0 = 0; m0 < M; m0 += block_m) {
            const int begin = m0 == 0 && !accumulate ? TILE_ZERO : TILE_OUT;
            /* The next rows of both are fetched a little with each tile. */
            const int next_m0 = m0 + block_m, lines = max(min(block_m, M - next_m0), 0) * PANEL / CACHE_LINE_FLOATS;
            for (int t = 0; t < tiles; t++) {
                const int k = kn * t / tiles, rows = kn * (t + 1) / tiles - k;
                for (int line = lines * t / tiles; line < lines * (t + 1) / tiles; line++) {
                    PREFETCH(xp + (long)next_m0 * PANEL + line * CACHE_LINE_FLOATS);
                    PREFETCH(dyp + (long)next_m0 * PANEL + line * CACHE_LINE_FLOATS);
                }
                gradient_tile(begin, dwp + k * PANEL, rows, min(block_m, M - m0), xp + (long)m0 * PANEL + k,
                              dyp + (long)m0 * PANEL);
            }
        }
    }
}
