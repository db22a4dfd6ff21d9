/* What the products for CPU devices share: a panel's row in registers, to and from memory, and the epilogue. */
#define NV (PANEL / VEC)
#define EACH_VECTOR _Pragma("unroll") for (int j = 0; j < NV; j++)

/* Into the second-level cache; and what is going to be written. */
#if __has_builtin(__builtin_prefetch)
#define PREFETCH(p) __builtin_prefetch((const void *)(ulong)(p), 0, 2)
#define PREFETCH_TO_WRITE(p) __builtin_prefetch((const void *)(ulong)(p), 1, 2)
#else
#define PREFETCH(p)
#define PREFETCH_TO_WRITE(p)
#endif
#define CACHE_LINE_FLOATS 16
#define CACHE_LINE_WEIGHTS (64 / (int)sizeof(weight))

/* A tile's sums, acc[R][NV], are in registers, and for each count of rows there is a body of its own: BY_ROWS makes them all.
 * One step of k is acc[r] += a b[0, PANEL), with `a` an expression of the row r. */
#define EACH_ROW(R) _Pragma("unroll") for (int r = 0; r < R; r++)
#define BY_ROWS(rows, BODY, ...)                                                                                       \
    switch (rows) {                                                                                                    \
        BODY(1, __VA_ARGS__)                                                                                           \
        BODY(2, __VA_ARGS__)                                                                                           \
        BODY(3, __VA_ARGS__)                                                                                           \
        BODY(4, __VA_ARGS__)                                                                                           \
        BODY(5, __VA_ARGS__)                                                                                           \
        BODY(6, __VA_ARGS__)                                                                                           \
    }
#define MULTIPLY_ADD(R, a, b, LOAD)                                                                                    \
    {                                                                                                                  \
        vec row_of_b[NV];                                                                                              \
        EACH_VECTOR row_of_b[j] = LOAD(b + j * VEC);                                                                   \
        EACH_ROW(R)                                                                                                    \
        {                                                                                                              \
            const vec s = (vec)(a);                                                                                    \
            EACH_VECTOR acc[r][j] = fma(s, row_of_b[j], acc[r][j]);                                                    \
        }                                                                                                              \
    }

#define FETCH_STEPS 8 /* of k between two fetches */

/* Where a tile's sums come from and go to. */
#define TILE_ZERO 0  /* begin with 0 */
#define TILE_OUT 1   /* whole panel rows of the output: straight to the registers and back */
#define TILE_LOCAL 2 /* the array `tile`: what has an epilogue, or fewer columns than a panel */

#define TILE_BEGIN(R)                                                                                            \
    vec acc[R][NV];                                                                                                    \
    if (begin == TILE_ZERO) {                                                                                          \
        EACH_ROW(R) EACH_VECTOR acc[r][j] = 0.0f;                                                                      \
    } else if (begin == TILE_OUT) {                                                                                    \
        EACH_ROW(R) EACH_VECTOR acc[r][j] = vec_load(out + r * out_row_stride + j * VEC); \
    } else {                                                                                                           \
        EACH_ROW(R) EACH_VECTOR acc[r][j] = tile[r][j];                                                                \
    }
#define TILE_END(R)                                                                                                    \
    if (end == TILE_OUT) {                                                                                             \
        EACH_ROW(R) EACH_VECTOR vec_store(acc[r][j], out + r * out_row_stride + j * VEC); \
    } else {                                                                                                           \
        EACH_ROW(R) EACH_VECTOR tile[r][j] = acc[r][j];                                                                \
    }

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
    EACH_VECTOR v[j] = vec_load_private(row + j * VEC);
}

void store_columns(const vec *v, __global float *p, int columns)
{
    if (columns >= PANEL) {
        EACH_VECTOR vec_store(v[j], p + j * VEC);
        return;
    }
    float row[PANEL];
    EACH_VECTOR vec_store_private(v[j], row + j * VEC);
    for (int c = 0; c < columns; c++)
        p[c] = row[c];
}

/* What happens to a finished row of sums before it is stored. */
void linear_epilogue(vec *sums, int flags, __global const float *bias, __global const float *second, int second_columns,
                     __global float *save, int columns)
{
    vec other[NV];
    if (flags & LINEAR_TAKES_SECOND)
        load_columns(other, second, second_columns);
    if (flags & LINEAR_BIAS)
        EACH_VECTOR sums[j] += vec_load(bias + j * VEC);
    if (flags & LINEAR_SAVE)
        store_columns(sums, save, columns);
    if (flags & LINEAR_GELU)
        EACH_VECTOR sums[j] = gelu(sums[j]);
    else if (flags & LINEAR_ACTIVATION)
        EACH_VECTOR sums[j] = activation(flags, sums[j]);
    if (flags & LINEAR_GELU_GRAD)
        EACH_VECTOR sums[j] *= gelu_grad(other[j]);
    else if (flags & LINEAR_ACTIVATION_GRAD)
        EACH_VECTOR sums[j] *= activation_grad(flags, other[j]);
    if (flags & LINEAR_MULTIPLY)
        EACH_VECTOR sums[j] *= other[j];
    if (flags & LINEAR_ADD)
        EACH_VECTOR sums[j] += other[j];
}

/* The gates of a panel's row and what they let through, each half as wide; and back. */
#define HALF_PANEL (PANEL / 2)
#define EACH_PAIR _Pragma("unroll") for (int j = 0; j < NV / 2; j++)
#define GATE_OF(v) ((vec)((v)[2 * j].even, (v)[2 * j + 1].even))
#define THROUGH_OF(v) ((vec)((v)[2 * j].odd, (v)[2 * j + 1].odd))

/* What happens to a finished row of sums, `row` of M, of the weights' panel number `panel` of N columns; and where it goes. */
void finish_row(vec *sums, int flags, float4 gate, int M, int N, int panel, int row, __global float *out, long out_row_stride,
                long out_panel_stride, __global const float *bias, __global const float *second, long second_row_stride,
                long second_panel_stride, __global float *save)
{
    const long at = panel * out_panel_stride + row * out_row_stride;
    const int columns = flags & LINEAR_OUT_ROWS ? N - panel * PANEL : PANEL;
    if ((flags & LINEAR_GATED) == 0) {
        linear_epilogue(sums, flags, bias + panel * PANEL, second + panel * second_panel_stride + row * second_row_stride,
                        flags & LINEAR_SECOND_ROWS ? N - panel * PANEL : PANEL, save + at, columns);
        store_columns(sums, out + at, columns);
        return;
    }
    vec results[NV];
    linear_epilogue(sums, flags & (LINEAR_BIAS | LINEAR_SAVE), bias + panel * PANEL, 0, 0, save + ((long)panel * M + row) * PANEL,
                    PANEL);
    EACH_PAIR results[j] = gated(flags, gate, GATE_OF(sums), THROUGH_OF(sums));
    /* Every second panel is the other half of the output's. */
    __global float *to = out + panel / 2 * out_panel_stride + row * out_row_stride + panel % 2 * HALF_PANEL;
    const int left = flags & LINEAR_OUT_ROWS ? (int)out_row_stride - panel * HALF_PANEL : HALF_PANEL;
    if (left >= HALF_PANEL) {
        EACH_PAIR vec_store(results[j], to + j * VEC);
        return;
    }
    float some[HALF_PANEL];
    EACH_PAIR vec_store_private(results[j], some + j * VEC);
    for (int c = 0; c < left; c++)
        to[c] = some[c];
}
