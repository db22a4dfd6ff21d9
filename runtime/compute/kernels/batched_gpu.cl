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

/* The products alone; batched_cpu.cl says of what. A work-group makes a tile of PRODUCT_TILE by PRODUCT_TILE of which each work-item
 * has PRODUCT_SUMS by PRODUCT_SUMS sums in registers, a tile's sixteenth apart; of both operands there are PRODUCT_DEPTH steps of the
 * inner dimension at a time in local memory. */
#define FIRST_ACROSS 1
#define SECOND_ACROSS 2
#define PRODUCT_TILE 64
#define PRODUCT_DEPTH 16
#define PRODUCT_SIDE 16 /* its square is GROUP */
#define PRODUCT_SUMS (PRODUCT_TILE / PRODUCT_SIDE)
#define PRODUCT_STRIDE (PRODUCT_TILE + 1)

/* to[k][i], k < count and i < many, of a matrix from (row, column) on that has k down and i across, or (`turned`) the reverse; zeros
 * beyond. Neighbours in the group read neighbouring columns. */
void gather_slab(__local float *to, __global const float *from, long4 at, int turned, long row, int column, int count, int many)
{
    for (int item = get_local_id(0); item < PRODUCT_TILE * PRODUCT_DEPTH; item += GROUP) {
        const int k = turned ? item % PRODUCT_DEPTH : item / PRODUCT_TILE, i = turned ? item / PRODUCT_DEPTH : item % PRODUCT_TILE;
        float value = 0.0f;
        if (k < count && i < many)
            value = from[at.s0 + (row + (turned ? i : k)) * at.s1 + COLUMN_AT(column + (turned ? k : i), at.s2)];
        to[k * PRODUCT_STRIDE + i] = value;
    }
}

/* Groups {matrices * heads * tiles of rows * tiles of columns}. */
__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void batched_product(int rows, int columns, int count, int heads, int flags, float scale, __global const float *a, long4 a_at,
                     __global const float *b, long4 b_at, __global float *out, long4 out_at)
{
    __local float left[PRODUCT_DEPTH * PRODUCT_STRIDE], right[PRODUCT_DEPTH * PRODUCT_STRIDE];
    const int y = get_local_id(0) / PRODUCT_SIDE, x = get_local_id(0) % PRODUCT_SIDE;
    const int down = (rows + PRODUCT_TILE - 1) / PRODUCT_TILE, beside = (columns + PRODUCT_TILE - 1) / PRODUCT_TILE;
    const int column = get_group_id(0) % beside * PRODUCT_TILE, row = get_group_id(0) / beside % down * PRODUCT_TILE;
    const int head = get_group_id(0) / beside / down % heads, rn = min(PRODUCT_TILE, rows - row), cn = min(PRODUCT_TILE, columns - column);
    const long matrix = get_group_id(0) / beside / down / heads;
    float sums[PRODUCT_SUMS][PRODUCT_SUMS];
    for (int i = 0; i < PRODUCT_SUMS; i++)
        for (int j = 0; j < PRODUCT_SUMS; j++)
            sums[i][j] = 0.0f;
    for (int k = 0; k < count; k += PRODUCT_DEPTH) {
        const int kn = min(PRODUCT_DEPTH, count - k);
        if (flags & FIRST_ACROSS)
            gather_slab(left, a, a_at, 0, matrix * count + k, FIRST_COLUMN(a_at) + head * rows + row, kn, rn);
        else
            gather_slab(left, a, a_at, 1, matrix * rows + row, FIRST_COLUMN(a_at) + head * count + k, kn, rn);
        if (flags & SECOND_ACROSS)
            gather_slab(right, b, b_at, 1, matrix * columns + column, FIRST_COLUMN(b_at) + head * count + k, kn, cn);
        else
            gather_slab(right, b, b_at, 0, matrix * count + k, FIRST_COLUMN(b_at) + head * columns + column, kn, cn);
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int step = 0; step < PRODUCT_DEPTH; step++) {
            float of_a[PRODUCT_SUMS], of_b[PRODUCT_SUMS];
            for (int i = 0; i < PRODUCT_SUMS; i++) {
                of_a[i] = left[step * PRODUCT_STRIDE + y + i * PRODUCT_SIDE];
                of_b[i] = right[step * PRODUCT_STRIDE + x + i * PRODUCT_SIDE];
            }
            for (int i = 0; i < PRODUCT_SUMS; i++)
                for (int j = 0; j < PRODUCT_SUMS; j++)
                    sums[i][j] = fma(of_a[i], of_b[j], sums[i][j]);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    for (int i = 0; i < PRODUCT_SUMS; i++) {
        for (int j = 0; j < PRODUCT_SUMS; j++) {
            const int r = y + i * PRODUCT_SIDE, c = x + j * PRODUCT_SIDE;
            if (r < rn && c < cn)
                out[out_at.s0 + (matrix * rows + row + r) * out_at.s1 +
                    COLUMN_AT(FIRST_COLUMN(out_at) + head * columns + column + c, out_at.s2)] = sums[i][j] * scale;
        }
    }
    if (head == heads - 1 && column + PRODUCT_TILE >= columns)
        clear_pads(out, out_at, matrix * rows + row, rn, FIRST_COLUMN(out_at) + heads * columns);
}
