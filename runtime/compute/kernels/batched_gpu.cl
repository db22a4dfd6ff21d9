/* Batched strided products for GPUs: many small matrices that lie side by side in larger ones (`at` as in batched_cpu.cl). A
 * work-group has tiles of TILE by TILE in local memory, gathered from any view; of their products each work-item has SUMS sums in
 * registers: those of row y, and of each of BESIDE columns from x on, where get_local_id(0) is y * BESIDE + x. Between gathering
 * and multiplying there is a barrier, which is the caller's. */
#define TILE 32
#define BESIDE (GROUP / TILE)  /* work-items of a row */
#define SUMS (TILE / BESIDE)   /* of a work-item */
#define STRIDE (TILE + 1)      /* of a tile in local memory: rows begin on different banks */
#define FIRST_COLUMN(at) ((int)(at).s3)
#define PAD_COLUMNS(at) ((int)((at).s3 >> 32))

/* to[TILE][STRIDE] = rows [first, first + rows) and columns [column, column + columns) of a view; zeros elsewhere, and where `skip`
 * says so. By the whole group, without a barrier. */
void gather(__local float *to, __global const float *from, long4 at, long first, int rows, int column, int columns,
            __global const uchar *skip)
{
    for (int i = get_local_id(0); i < TILE * TILE; i += GROUP) {
        const int r = i / TILE, c = i % TILE;
        float value = 0.0f;
        if (r < rows && c < columns && !(skip && skip[r]))
            value = from[at.s0 + (first + r) * at.s1 + COLUMN_AT(column + c, at.s2)];
        to[r * STRIDE + c] = value;
    }
}

void clear_pads(__global float *to, long4 at, long first, int rows, int column)
{
    const int pads = PAD_COLUMNS(at);
    for (int i = get_local_id(0); i < rows * pads; i += GROUP)
        to[at.s0 + (first + i / pads) * at.s1 + COLUMN_AT(column + i % pads, at.s2)] = 0.0f;
}

/* sums[u] += a[y][] . b[x + u * BESIDE][] */
#define ADD_PRODUCT_OF_ROWS(sums, a, b)                                                                                \
    for (int i = 0; i < TILE; i++)                                                                                     \
        for (int u = 0; u < SUMS; u++)                                                                                 \
            sums[u] += a[y * STRIDE + i] * b[(x + u * BESIDE) * STRIDE + i];

/* sum += a[y][] . b[][column], and with a transposed a[][y] . b[][column] */
#define ADD_PRODUCT(sum, a, b, column)                                                                                 \
    for (int i = 0; i < TILE; i++)                                                                                     \
        sum += a[y * STRIDE + i] * b[i * STRIDE + column];
#define ADD_PRODUCT_ACROSS(sum, a, b, column)                                                                          \
    for (int i = 0; i < TILE; i++)                                                                                     \
        sum += a[i * STRIDE + y] * b[i * STRIDE + column];
