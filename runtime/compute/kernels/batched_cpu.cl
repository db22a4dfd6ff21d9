/* Batched strided products for CPU devices: many small matrices that lie side by side in larger ones, as the heads of an attention
 * do, `width` columns each from a first column on. Each is taken by tiles: gathered from any view (rows or panels, any stride) into
 * the thread's own memory, multiplied there by the register tile that linear_cpu.cl has too (TILE_ROWS rows by a panel, the sums in
 * registers over the whole of k), and scattered to any view. Between two products whoever calls does what he likes with a tile, so
 * that what is between them is never in memory.
 *
 * `batched_product` is nothing but that: attention_cpu.cl has more to do in between.
 *
 * `at` of a matrix: {offset, row_stride, panel_stride, first column + 2^32 * pad columns that the last of them clears}. */
#define TILE 64 /* the most columns, and rows that are multiplied by, at a time; the stride of a tile's rows */
#define FIRST_COLUMN(at) ((int)(at).s3)
#define PAD_COLUMNS(at) ((int)((at).s3 >> 32))

#define PRODUCT_STEP(R, A_ROW, A_STEP) MULTIPLY_ADD(R, a[r * A_ROW + k * A_STEP], b + k * TILE, vec_load_private)
#define PRODUCT_BODY(R, A_ROW, A_STEP)                                                                                 \
    case R: {                                                                                                          \
        vec acc[R][NV];                                                                                                \
        int k = 0;                                                                                                     \
        if (zero)                                                                                                      \
            EACH_ROW(R) EACH_VECTOR acc[r][j] = 0.0f;                                                                  \
        else                                                                                                           \
            EACH_ROW(R) EACH_VECTOR acc[r][j] = vec_load_private(c + r * TILE + j * VEC);                              \
        for (; k + FETCH_STEPS <= count; k += FETCH_STEPS, a += FETCH_STEPS * A_STEP, b += FETCH_STEPS * TILE) {       \
            const int end = k;                                                                                         \
            _Pragma("unroll") for (k = 0; k < FETCH_STEPS; k++) PRODUCT_STEP(R, A_ROW, A_STEP)                         \
            k = end;                                                                                                   \
        }                                                                                                              \
        const int rest = count - k;                                                                                    \
        for (k = 0; k < rest; k++)                                                                                     \
            PRODUCT_STEP(R, A_ROW, A_STEP)                                                                             \
        EACH_ROW(R) EACH_VECTOR vec_store_private(acc[r][j], c + r * TILE + j * VEC);                                  \
        break;                                                                                                         \
    }
#define PRODUCT_TILE(NAME, A_ROW, A_STEP)                                                                              \
    void NAME(float *c, int zero, const float *a, const float *b, int rows, int count)                                 \
    {                                                                                                                  \
        BY_ROWS(rows, PRODUCT_BODY, A_ROW, A_STEP)                                                                     \
    }
PRODUCT_TILE(product_tile, TILE, 1)
PRODUCT_TILE(product_tile_across, 1, TILE)

/* c[rows][columns] (+)= a b over `count`; all three have rows of TILE. */
void tile_product(float *c, int zero, const float *a, const float *b, int rows, int columns, int count)
{
    const int tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
    for (int column = 0; column < columns; column += PANEL) {
        for (int t = 0; t < tiles; t++) {
            const int first = rows * t / tiles, end = rows * (t + 1) / tiles;
            product_tile(c + first * TILE + column, zero, a + first * TILE, b + column, end - first, count);
        }
    }
}

/* The same with a transposed: a[count][rows]. */
void tile_product_across(float *c, int zero, const float *a, const float *b, int rows, int columns, int count)
{
    const int tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
    for (int column = 0; column < columns; column += PANEL) {
        for (int t = 0; t < tiles; t++) {
            const int first = rows * t / tiles, end = rows * (t + 1) / tiles;
            product_tile_across(c + first * TILE + column, zero, a + first, b + column, end - first, count);
        }
    }
}

/* Columns [column, column + columns) of a row that begins at `row`, zeros up to TILE. */
void gather_row(float *to, __global const float *row, long panel_stride, int column, int columns)
{
    if ((column | columns) % VEC == 0) {
        for (int c = 0; c < columns; c += VEC)
            vec_store_private(vec_load(row + (column + c) / PANEL * panel_stride + (column + c) % PANEL), to + c);
    } else {
        for (int c = 0; c < columns; c++)
            to[c] = row[(column + c) / PANEL * panel_stride + (column + c) % PANEL];
    }
    for (int c = columns; c < TILE; c++)
        to[c] = 0.0f;
}

/* `rows` rows from `first` on into to[rows][TILE]; those that `skip` (which may be NULL) names are zeros. */
void gather(float *to, __global const float *from, long4 at, long first, int rows, int column, int columns,
            __global const uchar *skip)
{
    for (int r = 0; r < rows; r++) {
        if (skip && skip[r])
            for (int c = 0; c < TILE; c++)
                to[r * TILE + c] = 0.0f;
        else
            gather_row(to + r * TILE, from + at.s0 + (first + r) * at.s1, at.s2, column, columns);
    }
}

/* The same transposed: to[columns][TILE], zeros from `rows` on. */
void gather_transposed(float *to, __global const float *from, long4 at, long first, int rows, int column, int columns,
                       __global const uchar *skip)
{
    for (int r = 0; r < TILE; r++) {
        float row[TILE] __attribute__((aligned(64)));
        if (r < rows && !(skip && skip[r]))
            gather_row(row, from + at.s0 + (first + r) * at.s1, at.s2, column, columns);
        else
            for (int c = 0; c < columns; c++)
                row[c] = 0.0f;
        for (int c = 0; c < columns; c++)
            to[c * TILE + r] = row[c];
    }
}

/* from[rows][TILE], times a factor for each row (NULL: none), added to what is there or in its place; `pads` columns behind them
 * become 0. */
void scatter(const float *from, const float *factors, int add, __global float *to, long4 at, long first, int rows, int column,
             int columns, int pads)
{
    for (int r = 0; r < rows; r++) {
        __global float *row = to + at.s0 + (first + r) * at.s1;
        const float factor = factors ? factors[r] : 1.0f;
        if ((column | columns) % VEC == 0) {
            for (int c = 0; c < columns; c += VEC) {
                __global float *p = row + (column + c) / PANEL * at.s2 + (column + c) % PANEL;
                vec v = vec_load_private(from + r * TILE + c) * factor;
                if (add)
                    v += vec_load(p);
                vec_store(v, p);
            }
        } else {
            for (int c = 0; c < columns; c++) {
                __global float *p = row + (column + c) / PANEL * at.s2 + (column + c) % PANEL;
                *p = from[r * TILE + c] * factor + (add ? *p : 0.0f);
            }
        }
        for (int c = column + columns; c < column + columns + pads; c++)
            row[c / PANEL * at.s2 + c % PANEL] = 0.0f;
    }
}

#define FIRST_ACROSS 1
#define SECOND_ACROSS 2

/* For each of the matrices that lie below each other, and each head, the columns side by side in them:
 *     out[rows][columns] = scale a b,   a[rows][count], or with FIRST_ACROSS a[count][rows]; b[count][columns], or with
 * SECOND_ACROSS b[columns][count]. Grid {tiles of rows, matrices * heads}. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void batched_product(int rows, int columns, int count, int heads, int flags, float scale, __global const float *a, long4 a_at,
                     __global const float *b, long4 b_at, __global float *out, long4 out_at, SHARES)
{
    float left[TILE * TILE] __attribute__((aligned(64))), right[TILE * TILE] __attribute__((aligned(64)));
    float sums[TILE * TILE] __attribute__((aligned(64))), factors[TILE];
    for (int r = 0; r < TILE; r++)
        factors[r] = scale;
    EACH_SHARE
    {
        const int row = share % grid.x * TILE, rn = min(TILE, rows - row), head = share / grid.x % heads;
        const long matrix = share / grid.x / heads;
        for (int column = 0; column < columns; column += TILE) {
            const int cn = min(TILE, columns - column), is_last = head == heads - 1 && column + TILE >= columns;
            for (int k = 0; k < count; k += TILE) {
                const int kn = min(TILE, count - k);
                if (column > 0 && count <= TILE) {
                    /* It is there still. */
                } else if (flags & FIRST_ACROSS) {
                    gather(left, a, a_at, matrix * count + k, kn, FIRST_COLUMN(a_at) + head * rows + row, rn, 0);
                } else {
                    gather(left, a, a_at, matrix * rows + row, rn, FIRST_COLUMN(a_at) + head * count + k, kn, 0);
                }
                if (flags & SECOND_ACROSS)
                    gather_transposed(right, b, b_at, matrix * columns + column, cn, FIRST_COLUMN(b_at) + head * count + k, kn, 0);
                else
                    gather(right, b, b_at, matrix * count + k, kn, FIRST_COLUMN(b_at) + head * columns + column, cn, 0);
                if (flags & FIRST_ACROSS)
                    tile_product_across(sums, k == 0, left, right, rn, cn, kn);
                else
                    tile_product(sums, k == 0, left, right, rn, cn, kn);
            }
            scatter(sums, factors, 0, out, out_at, matrix * rows + row, rn, FIRST_COLUMN(out_at) + head * columns + column, cn,
                    is_last ? PAD_COLUMNS(out_at) : 0);
        }
    }
}
