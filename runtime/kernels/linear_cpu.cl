/* Products for CPU devices. One work-item is one thread's share; explicit vectors, no local memory, no barriers.
 *
 * The tile is TILE_ROWS rows by one panel of NV vectors: TILE_ROWS * NV accumulators fill the vector registers, and a step
 * of k costs NV loads and TILE_ROWS broadcasts for TILE_ROWS * NV multiply-adds. Every count of rows has its own body, so a
 * batch of one row does the work of one row, and nothing is written past the batch's rows.
 *
 * A work-item makes a block of rows by some panels and walks k in blocks: the block of a panel stays in the first-level
 * cache for all the tiles of the rows, the block of the rows in the second-level cache for all panels. Between blocks of k
 * the sums wait in the output. */
#define NV (PANEL / VEC)
#define EACH_VECTOR _Pragma("unroll") for (int j = 0; j < NV; j++)
#define EACH_ROW(R) _Pragma("unroll") for (int r = 0; r < R; r++)

/* Columns [0, columns) of a panel's row; the others are 0. Only a row-major matrix has fewer than PANEL. */
void load_columns(vec *v, __global const float *p, int columns)
{
    if (columns >= PANEL) {
        EACH_VECTOR v[j] = vec_load(p + j * VEC);
        return;
    }
    float row[PANEL];
    for (int c = 0; c < PANEL; c++)
        row[c] = c < columns ? p[c] : 0.0f;
    EACH_VECTOR v[j] = vec_load(row + j * VEC);
}

void store_columns(const vec *v, __global float *p, int columns)
{
    if (columns >= PANEL) {
        EACH_VECTOR vec_store(v[j], p + j * VEC);
        return;
    }
    float row[PANEL];
    EACH_VECTOR vec_store(v[j], row + j * VEC);
    for (int c = 0; c < columns; c++)
        p[c] = row[c];
}

/* acc += a[rows][k0, k1) * w[k0, k1)[panel], with acc taken from and put back to `tile`. */
#define LINEAR_BODY(R)                                                                                                 \
    case R: {                                                                                                          \
        vec acc[R][NV];                                                                                                \
        EACH_ROW(R) EACH_VECTOR acc[r][j] = tile[r][j];                                                                \
        for (int kp = k0; kp < k1; kp += PANEL) {                                                                      \
            __global const float *ap = a + (long)(kp / PANEL) * a_panel_stride;                                        \
            __global const float *wp = w + (long)kp * PANEL;                                                           \
            const int kn = min(PANEL, k1 - kp);                                                                        \
            for (int k = 0; k < kn; k++) {                                                                             \
                vec b[NV];                                                                                             \
                EACH_VECTOR b[j] = vec_load(wp + k * PANEL + j * VEC);                                                 \
                EACH_ROW(R)                                                                                            \
                {                                                                                                      \
                    const vec s = (vec)(ap[r * a_row_stride + k]);                                                     \
                    EACH_VECTOR acc[r][j] = fma(s, b[j], acc[r][j]);                                                   \
                }                                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
        EACH_ROW(R) EACH_VECTOR tile[r][j] = acc[r][j];                                                                \
        break;                                                                                                         \
    }

void linear_tile(vec (*tile)[NV], int rows, int k0, int k1, __global const float *a, long a_row_stride,
                 long a_panel_stride, __global const float *w)
{
    switch (rows) {
        LINEAR_BODY(1)
        LINEAR_BODY(2)
        LINEAR_BODY(3)
        LINEAR_BODY(4)
        LINEAR_BODY(5)
        LINEAR_BODY(6)
#if TILE_ROWS > 6
        LINEAR_BODY(7)
        LINEAR_BODY(8)
        LINEAR_BODY(9)
        LINEAR_BODY(10)
        LINEAR_BODY(11)
        LINEAR_BODY(12)
#endif
    }
}

/* out[M][N] = epilogue(a[M][K] * w), w in panels over N: [ceil(N / PANEL)][K][PANEL]. `second` and `save` are not `out`
 * (the sums wait there), and bias is padded to whole panels. block_k is a multiple of PANEL.
 * Global size {groups of rows, groups of panels}; a group's rows are those that an even division gives. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void linear(int M, int N, int K, int flags, int group_panels, int block_k,
            __global const float *a, ulong a_offset, long a_row_stride, long a_panel_stride,
            __global const float *weights, ulong w_offset,
            __global float *out, ulong out_offset, long out_row_stride, long out_panel_stride,
            __global const float *bias, ulong bias_offset,
            __global const float *second, ulong second_offset, long second_row_stride, long second_panel_stride,
            __global float *save, ulong save_offset)
{
    const int groups = get_global_size(0), group = get_global_id(0);
    const int first_row = (long)M * group / groups, end_row = (long)M * (group + 1) / groups;
    const int first_panel = get_global_id(1) * group_panels;
    const int end_panel = min(first_panel + group_panels, (N + PANEL - 1) / PANEL);
    const int tiles = (end_row - first_row + TILE_ROWS - 1) / TILE_ROWS;

    for (int k0 = 0; k0 < K; k0 += block_k) {
        const int k1 = min(k0 + block_k, K);
        for (int panel = first_panel; panel < end_panel; panel++) {
            const int columns = flags & LINEAR_OUT_ROWS ? N - panel * PANEL : PANEL;
            const int second_columns = flags & LINEAR_SECOND_ROWS ? N - panel * PANEL : PANEL;
            __global const float *w = weights + w_offset + (long)panel * K * PANEL;
            for (int t = 0; t < tiles; t++) {
                const int row = first_row + (end_row - first_row) * t / tiles;
                const int rows = first_row + (end_row - first_row) * (t + 1) / tiles - row;
                const long at = panel * out_panel_stride + row * out_row_stride;
                vec tile[TILE_ROWS][NV];
                for (int r = 0; r < rows; r++) {
                    if (k0 == 0) {
                        EACH_VECTOR tile[r][j] = 0.0f;
                    } else {
                        load_columns(tile[r], out + out_offset + at + r * out_row_stride, columns);
                    }
                }
                linear_tile(tile, rows, k0, k1, a + a_offset + row * a_row_stride, a_row_stride, a_panel_stride, w);
                for (int r = 0; r < rows; r++) {
                    if (k1 == K) {
                        vec other[NV];
                        if (flags & (LINEAR_ADD | LINEAR_GELU_GRAD))
                            load_columns(other,
                                         second + second_offset + panel * second_panel_stride +
                                             (row + r) * second_row_stride,
                                         second_columns);
                        if (flags & LINEAR_BIAS)
                            EACH_VECTOR tile[r][j] += vec_load(bias + bias_offset + panel * PANEL + j * VEC);
                        if (flags & LINEAR_SAVE)
                            store_columns(tile[r], save + save_offset + at + r * out_row_stride, columns);
                        if (flags & LINEAR_GELU)
                            EACH_VECTOR tile[r][j] = gelu(tile[r][j]);
                        if (flags & LINEAR_GELU_GRAD)
                            EACH_VECTOR tile[r][j] *= gelu_grad(other[j]);
                        if (flags & LINEAR_ADD)
                            EACH_VECTOR tile[r][j] += other[j];
                    }
                    store_columns(tile[r], out + out_offset + at + r * out_row_stride, columns);
                }
            }
        }
    }
}

/* acc[R][NV] += x[m0, m1)[R columns]^T * dy[m0, m1)[panel]. */
#define GRADIENT_BODY(R)                                                                                               \
    case R: {                                                                                                          \
        vec acc[R][NV];                                                                                                \
        EACH_ROW(R) EACH_VECTOR acc[r][j] = tile[r][j];                                                                \
        for (int m = 0; m < mn; m++) {                                                                                 \
            vec b[NV];                                                                                                 \
            EACH_VECTOR b[j] = vec_load(dy + m * PANEL + j * VEC);                                                     \
            EACH_ROW(R)                                                                                                \
            {                                                                                                          \
                const vec s = (vec)(x[m * PANEL + r]);                                                                 \
                EACH_VECTOR acc[r][j] = fma(s, b[j], acc[r][j]);                                                       \
            }                                                                                                          \
        }                                                                                                              \
        EACH_ROW(R) EACH_VECTOR tile[r][j] = acc[r][j];                                                                \
        break;                                                                                                         \
    }

void gradient_tile(vec (*tile)[NV], int rows, int mn, __global const float *x, __global const float *dy)
{
    switch (rows) {
        GRADIENT_BODY(1)
        GRADIENT_BODY(2)
        GRADIENT_BODY(3)
        GRADIENT_BODY(4)
        GRADIENT_BODY(5)
        GRADIENT_BODY(6)
#if TILE_ROWS > 6
        GRADIENT_BODY(7)
        GRADIENT_BODY(8)
        GRADIENT_BODY(9)
        GRADIENT_BODY(10)
        GRADIENT_BODY(11)
        GRADIENT_BODY(12)
#endif
    }
}

/* dw[ceil(N / PANEL)][K][PANEL] (+)= x^T dy, x[M][K] and dy[M][N] in panels. Global size {panels of K, panels of N}. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void weight_gradient(int M, int N, int K, int accumulate, int block_m, __global const float *x, ulong x_offset,
                     __global const float *dy, ulong dy_offset, __global float *dw, ulong dw_offset)
{
    const int k0 = get_global_id(0) * PANEL, panel = get_global_id(1);
    const int kn = min(PANEL, K - k0), tiles = (kn + TILE_ROWS - 1) / TILE_ROWS;
    __global const float *xp = x + x_offset + (long)get_global_id(0) * M * PANEL;
    __global const float *dyp = dy + dy_offset + (long)panel * M * PANEL;
    __global float *dwp = dw + dw_offset + ((long)panel * K + k0) * PANEL;
    for (int m0 = 0; m0 < M; m0 += block_m) {
        const int mn = min(block_m, M - m0);
        for (int t = 0; t < tiles; t++) {
            const int k = kn * t / tiles, rows = kn * (t + 1) / tiles - k;
            vec tile[TILE_ROWS][NV];
            for (int r = 0; r < rows; r++) {
                if (m0 == 0 && !accumulate) {
                    EACH_VECTOR tile[r][j] = 0.0f;
                } else {
                    load_columns(tile[r], dwp + (k + r) * PANEL, PANEL);
                }
            }
            gradient_tile(tile, rows, mn, xp + (long)m0 * PANEL + k, dyp + (long)m0 * PANEL);
            for (int r = 0; r < rows; r++)
                store_columns(tile[r], dwp + (k + r) * PANEL, PANEL);
        }
    }
}
