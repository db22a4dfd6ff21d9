/* Products for CPUs with matrix units (Intel's AMX), as accurate as fp32's.
 *
 * The units multiply bfloat16, which is the upper half of a float: 8 significant bits, and the same range. A float is
 * exactly the sum of three of them, its "planes": its upper half, that of what is left, and the rest. Of the nine
 * products of planes the six large ones are summed, in fp32; what is left out is less than 2^-21 of |x w|. Weights that are
 * bfloat16 have one plane, and halves two: then it is three products, of which nothing is left out, and five.
 *
 * A tile is 16 rows of 64 bytes. tile C[16][16] += A[16 rows][32 of k] * B[16 pairs of k][16 columns][2]: so a step is 32
 * of k, and B holds the values of k and k + 1 side by side, which is what two rows of a panel become with two operations.
 * w is split as it is read, a block of k at a time, into a part of the second-level cache, and then multiplies all rows
 * of the share; `a` is split beforehand, as every panel needs it (split_rows, split_columns).
 *
 * An element's sum is made in the same order whatever the batch, so that a row's result does not depend on the others. */
#define STEP 32      /* of k */
#define UNIT_ROWS 16 /* of a tile */
#define TILE_WORDS 256
#define PLANES 3
#define COLUMN_TILES (PANEL / 16)
#define A_STEP (PLANES * TILE_WORDS)                /* words: [plane][row][pair of k] */
#define B_PLANE_WORDS (COLUMN_TILES * TILE_WORDS)   /* [16 columns][pair of k][column]; a step: [plane] of these */
#define BLOCK_STEPS 8                               /* of k, split at a time: 96 KiB of a panel */
#define PART_PANELS 4                               /* that a share has at most */
#define GROUP_TILES 16                              /* that a share has at most: their sums take 64 KiB */
enum plane { HIGH, MIDDLE, LOW };
/* Of an element of a matrix of weights; the planes beyond are 0. */
#if defined(BFLOAT_WEIGHTS)
#define WEIGHT_PLANES 1
#elif defined(HALF_WEIGHTS)
#define WEIGHT_PLANES 2
#else
#define WEIGHT_PLANES PLANES
#endif

/* --- the units ---------------------------------------------------------------------------------------------------- */

#ifndef AMX_EMULATED
#define TILES
#define TILES_PASS
#define TILE_CLEAR(t) __asm__ volatile("tilezero %%tmm" #t : :);
#define TILE_LOAD(t, p, stride) \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #t : : "r"(p), "r"((long)(stride) * 4) : "memory");
#define TILE_STORE(t, p, stride) \
    __asm__ volatile("tilestored %%tmm" #t ", (%0,%1,1)" : : "r"(p), "r"((long)(stride) * 4) : "memory");
#define TILE_PRODUCT(c, a, b) __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #c : :);

/* All eight tiles are 16 rows of 64 bytes. */
void tiles_begin(void)
{
    uint shape[16] __attribute__((aligned(64))) = {1, 0, 0, 0, 0x400040, 0x400040, 0x400040, 0x400040,
                                                   0, 0, 0, 0, 0x10101010, 0x10101010, 0, 0};
    __asm__ volatile("ldtilecfg (%0)" : : "r"(shape) : "memory");
}
#define TILES_BEGIN tiles_begin();
/* So that a thread that does other things has no tiles to keep. */
#define TILES_END __asm__ volatile("tilerelease" : :);
#else
#define TILES , uint(*tile)[TILE_WORDS]
#define TILES_PASS , tile
#define TILES_BEGIN uint tile[8][TILE_WORDS];
#define TILES_END
#define TILE_CLEAR(t) \
    for (int i_ = 0; i_ < TILE_WORDS; i_++) \
        tile[t][i_] = 0;
#define TILE_LOAD(t, p, stride) \
    for (int i_ = 0; i_ < TILE_WORDS; i_++) \
        tile[t][i_] = (p)[i_ / 16 * (stride) + i_ % 16];
#define TILE_STORE(t, p, stride) \
    for (int i_ = 0; i_ < TILE_WORDS; i_++) \
        (p)[i_ / 16 * (stride) + i_ % 16] = tile[t][i_];
#define TILE_PRODUCT(c, a, b) emulate_product(tile[c], tile[a], tile[b]);

void emulate_product(uint *c, const uint *a, const uint *b)
{
    for (int row = 0; row < 16; row++)
        for (int pair = 0; pair < 16; pair++) {
            const uint two = a[row * 16 + pair];
            for (int column = 0; column < 16; column++) {
                const uint other = b[pair * 16 + column];
                float sum = as_float(c[row * 16 + column]);
                sum = fma(as_float(two << 16), as_float(other << 16), sum);
                sum = fma(as_float(two & 0xffff0000u), as_float(other & 0xffff0000u), sum);
                c[row * 16 + column] = as_uint(sum);
            }
        }
}
#endif

/* --- planes ------------------------------------------------------------------------------------------------------- */

#define UPPER 0xffff0000u

vec upper(vec x)
{
    return as_float16(as_uint16(x) & UPPER);
}

/* The first `count` planes of two vectors, element by element: x in the lower half of each word, y in the upper one. */
void split_pairs(vec x, vec y, uint16 *planes, int count)
{
    _Pragma("unroll") for (int p = 0; p < PLANES; p++)
    {
        if (p < count) {
            planes[p] = as_uint16(x) >> 16 | (as_uint16(y) & UPPER);
            x -= upper(x);
            y -= upper(y);
        }
    }
}

typedef ushort ushort32 __attribute__((ext_vector_type(32)));

/* The upper half of each element of x, then of y: 32 of k, one behind the other. */
uint16 upper_halves(vec x, vec y)
{
    const ushort32 a = __builtin_astype(x, ushort32), b = __builtin_astype(y, ushort32);
    return __builtin_astype(__builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31, 33, 35,
                                                    37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59, 61, 63),
                            uint16);
}

/* `count` floats; the others of the 32 are 0. */
void load_step(vec v[2], __global const float *p, int count)
{
    if (count >= STEP) {
        v[0] = vec_load(p);
        v[1] = vec_load(p + VEC);
        return;
    }
    float some[STEP];
    for (int i = 0; i < STEP; i++)
        some[i] = i < count ? p[i] : 0.0f;
    v[0] = vec_load_private(some);
    v[1] = vec_load_private(some + VEC);
}

/* Where the planes of a row tile's step lie: blocks of k one behind the other, so that what is used together lies together
 * and does not meet in the same few lines of the cache. */
long a_at(int tile, int all_tiles, int step, int steps)
{
    const int first = step / BLOCK_STEPS * BLOCK_STEPS, count = min(BLOCK_STEPS, steps - first);
    return ((long)first * all_tiles + (long)tile * count + step - first) * A_STEP;
}

#define word_store(v, p) (*(__global uint16 *)(p) = (v))

/* The planes of a step of a row, one after the other. */
void split_step(vec v[2], uint16 words[PLANES])
{
    _Pragma("unroll") for (int p = 0; p < PLANES; p++)
    {
        words[p] = upper_halves(v[0], v[1]);
        v[0] -= upper(v[0]);
        v[1] -= upper(v[1]);
    }
}

/* The planes of a[M][K], each [16 rows][16 words] at a_at(); what is beyond M and K is 0. Grid {parts of k, row tiles}. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void split_rows(int M, int K, __global const float *a, ulong a_offset, long a_row_stride, long a_panel_stride,
                __global uint *planes, SHARES)
{
    EACH_SHARE
    {
        const int parts = grid.x, steps = (K + STEP - 1) / STEP, part = share % parts, tile = share / parts;
        for (int step = (long)steps * part / parts; step < (long)steps * (part + 1) / parts; step++) {
            const int k = step * STEP;
            __global const float *from = a + a_offset + k / PANEL * a_panel_stride + k % PANEL;
            __global uint *to = planes + a_at(tile, grid.y, step, steps);
            for (int r = 0; r < UNIT_ROWS; r++) {
                const int row = tile * UNIT_ROWS + r;
                uint16 words[PLANES];
                vec v[2] = {0.0f, 0.0f};
                if (row < M)
                    load_step(v, from + row * a_row_stride, K - k);
                split_step(v, words);
                _Pragma("unroll") for (int p = 0; p < PLANES; p++) word_store(words[p], to + p * TILE_WORDS + r * 16);
            }
        }
    }
}

/* Four perfect shuffles. */
void transpose(uint16 *v)
{
    _Pragma("unroll") for (int round = 0; round < 4; round++)
    {
        uint16 t[16];
        _Pragma("unroll") for (int i = 0; i < 8; i++)
        {
            t[2 * i] = __builtin_shufflevector(v[i], v[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            t[2 * i + 1] =
                __builtin_shufflevector(v[i], v[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        }
        _Pragma("unroll") for (int i = 0; i < 16; i++) v[i] = t[i];
    }
}

/* The same of x transposed, x[M][K] in panels: COLUMN_TILES row tiles of each. Grid {steps of M, panels}. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void split_columns(int M, int K, __global const float *x, ulong x_offset, __global uint *planes, SHARES)
{
    EACH_SHARE
    {
        const int steps = grid.x, step = share % steps, panel = share / steps;
        __global const float *from = x + x_offset + (long)panel * M * PANEL;
        for (int t = 0; t < COLUMN_TILES; t++) {
            uint16 words[PLANES][16];
            for (int pair = 0; pair < 16; pair++) {
                const int row = step * STEP + 2 * pair;
                uint16 both[PLANES];
                vec v = 0.0f, next = 0.0f;
                if (row < M)
                    v = vec_load(from + (long)row * PANEL + t * VEC);
                if (row + 1 < M)
                    next = vec_load(from + (long)(row + 1) * PANEL + t * VEC);
                split_pairs(v, next, both, PLANES);
                _Pragma("unroll") for (int p = 0; p < PLANES; p++) words[p][pair] = both[p];
            }
            __global uint *to = planes + a_at(panel * COLUMN_TILES + t, grid.y * COLUMN_TILES, step, steps);
            for (int p = 0; p < PLANES; p++) {
                transpose(words[p]);
                _Pragma("unroll") for (int k = 0; k < 16; k++) word_store(words[p][k], to + p * TILE_WORDS + k * 16);
            }
        }
    }
}

/* --- products ----------------------------------------------------------------------------------------------------- */

/* Right operands are weights, or the gradients at a layer's output, which are floats whatever the weights are: they are
 * known by where their bytes lie, and how many bytes and planes an element has. */
#define CACHE_LINE_BYTES 64

#ifdef BFLOAT_WEIGHTS
/* Two rows of 32 weights side by side, which is one instruction for 16 columns; but these are every second four of the 32: so a
 * panel's first tile of columns has 0 to 3, 8 to 11, 16 to 19 and 24 to 27, the second one the others, and the next two the same of
 * its other half. tile_columns() has sums in order again. */
typedef ushort32 ushort32_unaligned __attribute__((aligned(2)));
/* A tile's row must be written whole: what reads it at once would wait until halves of it are in the cache. */
#if __has_attribute(min_vector_width)
#define WHOLE_VECTORS __attribute__((min_vector_width(512)))
#else
#define WHOLE_VECTORS
#endif
#define FOUR_PAIRS(c) c, c + 32, c + 1, c + 33, c + 2, c + 34, c + 3, c + 35

WHOLE_VECTORS void pair_weights(uint *b, __global const weight *w, bool first, bool second)
{
    _Pragma("unroll") for (int c = 0; c < COLUMN_TILES; c += 2, b += 2 * TILE_WORDS)
    {
        ushort32 x = (ushort32)0, y = (ushort32)0;
        if (first)
            x = *(__global const ushort32_unaligned *)(w + c * VEC);
        if (second)
            y = *(__global const ushort32_unaligned *)(w + PANEL + c * VEC);
        *(uint16 *)b = __builtin_astype(
            __builtin_shufflevector(x, y, FOUR_PAIRS(0), FOUR_PAIRS(8), FOUR_PAIRS(16), FOUR_PAIRS(24)), uint16);
        *(uint16 *)(b + TILE_WORDS) = __builtin_astype(
            __builtin_shufflevector(x, y, FOUR_PAIRS(4), FOUR_PAIRS(12), FOUR_PAIRS(20), FOUR_PAIRS(28)), uint16);
    }
}

/* One step of a panel, as split_panel() below. */
WHOLE_VECTORS void pair_panel(uint *b, __global const weight *w, int count)
{
    if (count >= STEP) {
        _Pragma("unroll") for (int pair = 0; pair < 16; pair++)
            pair_weights(b + pair * 16, w + 2 * pair * PANEL, true, true);
        return;
    }
    for (int pair = 0; pair < 16; pair++)
        pair_weights(b + pair * 16, w + 2 * pair * PANEL, 2 * pair < count, 2 * pair + 1 < count);
}
#endif

/* A row of sums of products with weights, in the order of columns. */
void tile_columns(const uint *sums, vec row[NV])
{
    EACH_VECTOR row[j] = *(const vec *)(sums + j * VEC);
#ifdef BFLOAT_WEIGHTS
    _Pragma("unroll") for (int j = 0; j < NV; j += 2)
    {
        const vec even = row[j], odd = row[j + 1];
        row[j] = __builtin_shufflevector(even, odd, 0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
        row[j + 1] = __builtin_shufflevector(even, odd, 8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
    }
#endif
}

vec load_right(__global const char *p, int at, int bytes)
{
    return bytes == sizeof(float) ? vec_load((__global const float *)p + at) : weight_load((__global const weight *)p + at);
}

/* One step of a panel: `count` rows of w, the others of the 32 are 0. */
void split_panel(uint *b, __global const char *w, int bytes, int planes, int count)
{
#ifdef BFLOAT_WEIGHTS
    if (bytes == sizeof(weight)) {
        pair_panel(b, (__global const weight *)w, count);
        return;
    }
#endif
    for (int pair = 0; pair < 16; pair++) {
        _Pragma("unroll") for (int c = 0; c < COLUMN_TILES; c++)
        {
            uint16 words[PLANES];
            vec x = 0.0f, y = 0.0f;
            if (2 * pair < count)
                x = load_right(w, 2 * pair * PANEL + c * VEC, bytes);
            if (2 * pair + 1 < count)
                y = load_right(w, (2 * pair + 1) * PANEL + c * VEC, bytes);
            split_pairs(x, y, words, planes);
            _Pragma("unroll") for (int p = 0; p < PLANES; p++)
            {
                if (p < planes)
                    *(uint16 *)(b + p * B_PLANE_WORDS + c * TILE_WORDS + pair * 16) = words[p];
            }
        }
    }
}

#define A_PLANE(a, plane) ((a) + (plane)*TILE_WORDS)
#define B_PLANE(b, plane) ((b) + (plane)*B_PLANE_WORDS)

/* The pairs of planes, always in this order, of as many planes as b has: those of `a` are loaded where they change. */
#define EACH_PAIR_OF_PLANES(planes, LOAD_A, LOAD_B, MULTIPLY) \
    LOAD_B(HIGH) LOAD_A(LOW) MULTIPLY LOAD_A(MIDDLE) MULTIPLY LOAD_A(HIGH) MULTIPLY \
    if (planes > 2) { \
        LOAD_B(LOW) MULTIPLY \
    } \
    if (planes > 1) { \
        LOAD_B(MIDDLE) MULTIPLY LOAD_A(MIDDLE) MULTIPLY \
    }

/* Four tiles of sums: 0, or what waited in memory between two blocks of k; and back there. */
#define SUMS_BEGIN(begin, p0, p1, p2, p3) \
    if (begin) { \
        TILE_CLEAR(0) TILE_CLEAR(1) TILE_CLEAR(2) TILE_CLEAR(3) \
    } else { \
        TILE_LOAD(0, p0, PANEL) TILE_LOAD(1, p1, PANEL) TILE_LOAD(2, p2, PANEL) TILE_LOAD(3, p3, PANEL) \
    }
#define SUMS_END(p0, p1, p2, p3) \
    TILE_STORE(0, p0, PANEL) TILE_STORE(1, p1, PANEL) TILE_STORE(2, p2, PANEL) TILE_STORE(3, p3, PANEL)

/* Two row tiles, `row_tile` words apart, by two column tiles of b; sums[32][PANEL]. */
void multiply_four(__global const uint *a, long row_tile, const uint *b, int planes, uint *sums, int steps, bool begin,
                   __global const char *fetch_w, int w_lines, __global const uint *fetch_a, int a_lines TILES)
{
    uint *below = sums + UNIT_ROWS * PANEL;
    SUMS_BEGIN(begin, sums, sums + 16, below, below + 16)
    for (int s = 0; s < steps; s++, a += A_STEP, b += planes * B_PLANE_WORDS) {
        for (int line = w_lines * s / steps; line < w_lines * (s + 1) / steps; line++)
            PREFETCH(fetch_w + line * CACHE_LINE_BYTES);
        for (int line = a_lines * s / steps; line < a_lines * (s + 1) / steps; line++)
            PREFETCH(fetch_a + line * CACHE_LINE_FLOATS);
#define LOAD_A(plane) TILE_LOAD(4, A_PLANE(a, plane), 16) TILE_LOAD(5, A_PLANE(a + row_tile, plane), 16)
#define LOAD_B(plane) TILE_LOAD(6, B_PLANE(b, plane), 16) TILE_LOAD(7, B_PLANE(b, plane) + TILE_WORDS, 16)
#define MULTIPLY TILE_PRODUCT(0, 4, 6) TILE_PRODUCT(1, 4, 7) TILE_PRODUCT(2, 5, 6) TILE_PRODUCT(3, 5, 7)
        EACH_PAIR_OF_PLANES(planes, LOAD_A, LOAD_B, MULTIPLY)
#undef LOAD_A
#undef LOAD_B
#undef MULTIPLY
    }
    SUMS_END(sums, sums + 16, below, below + 16)
}

/* One row tile by all four of b; sums[16][PANEL]. */
void multiply_row(__global const uint *a, const uint *b, int planes, uint *sums, int steps, bool begin,
                  __global const char *fetch_w, int w_lines TILES)
{
    SUMS_BEGIN(begin, sums, sums + 16, sums + 32, sums + 48)
    for (int s = 0; s < steps; s++, a += A_STEP, b += planes * B_PLANE_WORDS) {
        for (int line = w_lines * s / steps; line < w_lines * (s + 1) / steps; line++)
            PREFETCH(fetch_w + line * CACHE_LINE_BYTES);
        const uint *plane_of_b = b;
#define LOAD_A(plane) TILE_LOAD(4, A_PLANE(a, plane), 16)
#define LOAD_B(plane) plane_of_b = B_PLANE(b, plane);
#define MULTIPLY \
    TILE_LOAD(5, plane_of_b, 16) TILE_PRODUCT(0, 4, 5) TILE_LOAD(6, plane_of_b + TILE_WORDS, 16) TILE_PRODUCT(1, 4, 6) \
    TILE_LOAD(7, plane_of_b + 2 * TILE_WORDS, 16) TILE_PRODUCT(2, 4, 7) \
    TILE_LOAD(5, plane_of_b + 3 * TILE_WORDS, 16) TILE_PRODUCT(3, 4, 5)
        EACH_PAIR_OF_PLANES(planes, LOAD_A, LOAD_B, MULTIPLY)
    }
    SUMS_END(sums, sums + 16, sums + 32, sums + 48)
}

/* What a core works on: `tiles` row tiles of a (of all_tiles, from first_tile on) by `panels` panels of w, K * PANEL apart. */
struct part {
    __global const uint *a;
    int first_tile, all_tiles;
    __global const char *w;
    __global const char *following; /* where the next part's panels begin, or 0 */
    int tiles, panels, K;
    int bytes, planes; /* of an element of w */
};

/* sums[panel][row][PANEL], block by block of k. */
void multiply_tiles(uint *sums, uint *b, const struct part *part TILES)
{
    const int K = part->K, steps = (K + STEP - 1) / STEP, tiles = part->tiles, panels = part->panels;
    const long panel_words = (long)tiles * UNIT_ROWS * PANEL, row_bytes = PANEL * part->bytes;
    const int planes = part->planes, b_step = planes * B_PLANE_WORDS;
    const int pairs = tiles / 2, visits = panels * (COLUMN_TILES / 2); /* of each pair of row tiles */
    for (int first = 0; first < steps; first += BLOCK_STEPS) {
        const int count = min(BLOCK_STEPS, steps - first), then = first + count;
        const bool last = then >= steps;
        const long row_tile = (long)count * A_STEP;
        __global const uint *a = part->a + a_at(part->first_tile, part->all_tiles, first, steps);
        __global const uint *next_a = part->a + a_at(part->first_tile, part->all_tiles, min(then, steps - 1), steps);
        __global const char *next_w = last ? part->following : part->w + then * STEP * row_bytes;
        const int next_rows = min(BLOCK_STEPS * STEP, last ? K : K - then * STEP);
        const int w_lines = next_w == 0 ? 0 : next_rows * row_bytes / CACHE_LINE_BYTES;
        const int a_lines = last ? 0 : min(BLOCK_STEPS, steps - then) * 2 * A_STEP / CACHE_LINE_FLOATS;
        for (int p = 0; p < panels; p++)
            for (int s = 0; s < count; s++)
                split_panel(b + (p * BLOCK_STEPS + s) * b_step, part->w + ((long)p * K + (first + s) * STEP) * row_bytes,
                            part->bytes, planes, K - (first + s) * STEP);
        for (int visit = 0; visit < visits; visit++) {
            const int p = visit / (COLUMN_TILES / 2), c = visit % (COLUMN_TILES / 2) * 2;
            for (int t = 0; t < pairs; t++) {
                const int call = c / 2 * pairs + t, calls = pairs * (COLUMN_TILES / 2); /* that fetch the panel's w */
                const int w_line = w_lines * call / calls, a_line = a_lines * visit / visits;
                multiply_four(a + 2 * t * row_tile, row_tile, b + p * BLOCK_STEPS * b_step + c * TILE_WORDS, planes,
                              sums + p * panel_words + 2 * t * UNIT_ROWS * PANEL + c * 16, count, first == 0,
                              next_w + p * K * row_bytes + w_line * CACHE_LINE_BYTES, w_lines * (call + 1) / calls - w_line,
                              next_a + (long)t * a_lines * CACHE_LINE_FLOATS + a_line * CACHE_LINE_FLOATS,
                              a_lines * (visit + 1) / visits - a_line TILES_PASS);
            }
        }
        for (int p = 0; tiles % 2 != 0 && p < panels; p++)
            multiply_row(a + (tiles - 1) * row_tile, b + p * BLOCK_STEPS * b_step, planes,
                         sums + p * panel_words + (tiles - 1) * UNIT_ROWS * PANEL, count, first == 0,
                         next_w + p * K * row_bytes, pairs == 0 ? w_lines : 0 TILES_PASS);
    }
}

/* As runtime/compute/kernels/linear_cpu.cl's, of which this has the arguments; but `a` is what split_rows made, and nothing is said
 * of where its elements lie. A group of rows is whole tiles of 16, GROUP_TILES at most. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void linear_tiles(int M, int N, int K, int flags, int together, int block_k,
            __global const uint *a, ulong a_offset, long a_row_stride, long a_panel_stride,
            __global const weight *weights, ulong w_offset,
            __global float *out, ulong out_offset, long out_row_stride, long out_panel_stride,
            __global const float *bias, ulong bias_offset,
            __global const float *second, ulong second_offset, long second_row_stride, long second_panel_stride,
            __global float *save, ulong save_offset, float4 gate, SHARES)
{
    uint b[PART_PANELS * BLOCK_STEPS * WEIGHT_PLANES * B_PLANE_WORDS] __attribute__((aligned(64)));
    uint sums[PART_PANELS * GROUP_TILES * UNIT_ROWS * PANEL] __attribute__((aligned(64)));
    TILES_BEGIN
    EACH_SHARE
    {
        const int groups = grid.x, parts = grid.y, panels = (N + PANEL - 1) / PANEL;
        const int3 cell = cell_together(share, grid, together);
        const int group = cell.x, part_index = cell.y, next_part = cell.z;
        const int first_panel = (long)panels * part_index / parts, end_panel = (long)panels * (part_index + 1) / parts;
        const int all_tiles = (M + UNIT_ROWS - 1) / UNIT_ROWS;
        const int first_tile = (long)all_tiles * group / groups, end_tile = (long)all_tiles * (group + 1) / groups;
        const int first_row = first_tile * UNIT_ROWS, rows = min(M, end_tile * UNIT_ROWS) - first_row;
        __global const weight *w = weights + w_offset;
        const struct part part = {
            .a = a,
            .first_tile = first_tile,
            .all_tiles = all_tiles,
            .w = (__global const char *)(w + (long)first_panel * K * PANEL),
            .following =
                next_part < parts ? (__global const char *)(w + (long)panels * next_part / parts * K * PANEL) : 0,
            .tiles = end_tile - first_tile,
            .panels = end_panel - first_panel,
            .K = K,
            .bytes = sizeof(weight),
            .planes = WEIGHT_PLANES,
        };
        multiply_tiles(sums, b, &part TILES_PASS);
        for (int panel = first_panel; panel < end_panel; panel++) {
            const uint *of_panel = sums + (panel - first_panel) * part.tiles * UNIT_ROWS * PANEL;
            for (int r = 0; r < rows; r++) {
                vec row[NV];
                tile_columns(of_panel + r * PANEL, row);
                finish_row(row, flags, gate, M, N, panel, first_row + r, out + out_offset, out_row_stride, out_panel_stride,
                           bias + bias_offset, second + second_offset, second_row_stride, second_panel_stride,
                           save + save_offset);
            }
        }
    }
    TILES_END
}

/* dw[ceil(N / PANEL)][K][PANEL] (+)= x^T dy, dy[M][N] in panels; x is what split_columns made of it. So it is a product of
 * K rows over M. Grid {groups of K's row tiles, parts of N's panels}. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void weight_gradient_tiles(int M, int N, int K, int accumulate, int block_m, __global const uint *x, ulong x_offset,
                     __global const float *dy, ulong dy_offset, __global float *dw, ulong dw_offset, SHARES)
{
    uint b[PART_PANELS * BLOCK_STEPS * PLANES * B_PLANE_WORDS] __attribute__((aligned(64)));
    uint sums[PART_PANELS * GROUP_TILES * UNIT_ROWS * PANEL] __attribute__((aligned(64)));
    TILES_BEGIN
    EACH_SHARE
    {
        const int groups = grid.x, parts = grid.y, group = share % groups, part_index = share / groups;
        const int panels = (N + PANEL - 1) / PANEL;
        const int first_panel = (long)panels * part_index / parts, end_panel = (long)panels * (part_index + 1) / parts;
        const int all_tiles = (K + UNIT_ROWS - 1) / UNIT_ROWS;
        const int first_tile = (long)all_tiles * group / groups, end_tile = (long)all_tiles * (group + 1) / groups;
        const int first_row = first_tile * UNIT_ROWS, rows = min(K, end_tile * UNIT_ROWS) - first_row;
        const struct part part = {
            .a = x,
            .first_tile = first_tile,
            .all_tiles = (K + PANEL - 1) / PANEL * COLUMN_TILES,
            .w = (__global const char *)(dy + dy_offset + (long)first_panel * M * PANEL),
            .following = 0,
            .tiles = end_tile - first_tile,
            .panels = end_panel - first_panel,
            .K = M,
            .bytes = sizeof(float),
            .planes = PLANES,
        };
        multiply_tiles(sums, b, &part TILES_PASS);
        for (int panel = first_panel; panel < end_panel; panel++) {
            const uint *of_panel = sums + (panel - first_panel) * part.tiles * UNIT_ROWS * PANEL;
            __global float *to = dw + dw_offset + ((long)panel * K + first_row) * PANEL;
            for (int i = 0; i < rows * PANEL; i += VEC) {
                vec v = *(const vec *)(of_panel + i);
                if (accumulate)
                    v += vec_load(to + i);
                vec_store(v, to + i);
            }
        }
    }
    TILES_END
}

/* --- a few rows by bfloat16 --------------------------------------------------------------------------------------- */

#ifdef BFLOAT_WEIGHTS
/* One row tile, or a part of one: each weight is used once, so that the time is that of reading them if nothing else waits for it.
 * A step's pairs are made while the one before is multiplied, all planes of `a` stay in their tiles, and what comes AHEAD_STEPS
 * later is fetched a little at a time: a burst would have to wait for itself. The rows are split by each core for itself, which
 * takes less than the launch in which they would share that. Sums are made in the order that multiply_tiles has. -DFEW_K=n is the
 * longest K. */
#define FEW_PLANES (FEW_K / STEP * A_STEP)
#define AHEAD_STEPS 8
#define STEP_BYTES (STEP * PANEL * (int)sizeof(weight))

void split_few(int M, int K, __global const float *a, long a_row_stride, long a_panel_stride, uint *planes)
{
    for (int k = 0; k < K; k += STEP, planes += A_STEP) {
        __global const float *from = a + k / PANEL * a_panel_stride + k % PANEL;
        for (int r = 0; r < UNIT_ROWS; r++) {
            uint16 words[PLANES] = {0, 0, 0};
            vec v[2];
            if (r < M) {
                load_step(v, from + r * a_row_stride, K - k);
                split_step(v, words);
            }
            _Pragma("unroll") for (int p = 0; p < PLANES; p++) *(uint16 *)(planes + p * TILE_WORDS + r * 16) = words[p];
        }
    }
}

/* sums[16][PANEL] of a panel w; what this core takes next lies behind it, unless it is the last one of a row of them. */
void multiply_panel(uint *sums, uint *b, const uint *a, __global const char *w, bool last, int K TILES)
{
    const int steps = (K + STEP - 1) / STEP;
    TILE_CLEAR(0) TILE_CLEAR(1) TILE_CLEAR(2) TILE_CLEAR(3)
    pair_panel(b, (__global const weight *)w, K);
    for (int s = 0; s < steps; s++, a += A_STEP) {
        const uint *right = b + s % 2 * B_PLANE_WORDS;
        __global const char *fetch = w + (s + AHEAD_STEPS) * STEP_BYTES;
        const int lines = last && s + AHEAD_STEPS >= steps ? 0 : STEP_BYTES / CACHE_LINE_BYTES / COLUMN_TILES;
        if (s + 1 < steps)
            pair_panel(b + (s + 1) % 2 * B_PLANE_WORDS, (__global const weight *)(w + (s + 1) * STEP_BYTES),
                       K - (s + 1) * STEP);
        TILE_LOAD(4, A_PLANE(a, LOW), 16) TILE_LOAD(5, A_PLANE(a, MIDDLE), 16) TILE_LOAD(6, A_PLANE(a, HIGH), 16)
#define COLUMN(c) \
    TILE_LOAD(7, right + c * TILE_WORDS, 16) TILE_PRODUCT(c, 4, 7) TILE_PRODUCT(c, 5, 7) TILE_PRODUCT(c, 6, 7) \
    for (int line = 0; line < lines; line++, fetch += CACHE_LINE_BYTES) \
        PREFETCH(fetch);
        COLUMN(0) COLUMN(1) COLUMN(2) COLUMN(3)
#undef COLUMN
    }
    SUMS_END(sums, sums + 16, sums + 32, sums + 48)
}

/* What a core works with, and one panel. */
#define FEW_BEGIN                                                                                                      \
    uint planes[FEW_PLANES] __attribute__((aligned(64)));                                                              \
    uint b[2 * B_PLANE_WORDS] __attribute__((aligned(64)));                                                            \
    uint sums[UNIT_ROWS * PANEL] __attribute__((aligned(64)));                                                         \
    int split = -1; /* the member whose rows are in `planes` */                                                        \
    TILES_BEGIN

void finish_few(const uint *sums, int flags, float4 gate, int M, int N, int panel, __global float *out, long out_row_stride,
                long out_panel_stride, __global const float *bias, __global const float *second, long second_row_stride,
                long second_panel_stride, __global float *save)
{
    for (int r = 0; r < M; r++) {
        vec row[NV];
        tile_columns(sums + r * PANEL, row);
        finish_row(row, flags, gate, M, N, panel, r, out, out_row_stride, out_panel_stride, bias, second, second_row_stride,
                   second_panel_stride, save);
    }
}

/* As linear_cpu.cl's, of which this has the arguments, for UNIT_ROWS rows at most. Grid {1, panels}. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void linear_few(int M, int N, int K, int flags, int together, int block_k,
            __global const float *a, ulong a_offset, long a_row_stride, long a_panel_stride,
            __global const weight *weights, ulong w_offset,
            __global float *out, ulong out_offset, long out_row_stride, long out_panel_stride,
            __global const float *bias, ulong bias_offset,
            __global const float *second, ulong second_offset, long second_row_stride, long second_panel_stride,
            __global float *save, ulong save_offset, float4 gate, SHARES)
{
    FEW_BEGIN
    EACH_SHARE
    {
        const int panel = panel_in_runs(share, grid.y);
        if (split < 0)
            split_few(M, K, a + a_offset, a_row_stride, a_panel_stride, planes);
        split = 0;
        multiply_panel(sums, b, planes, (__global const char *)(weights + w_offset + (long)panel * K * PANEL),
                       panel_after(share, grid.y) != panel + 1, K TILES_PASS);
        finish_few(sums, flags, gate, M, N, panel, out + out_offset, out_row_stride, out_panel_stride, bias + bias_offset,
                   second + second_offset, second_row_stride, second_panel_stride, save + save_offset);
    }
    TILES_END
}

/* As linear_group (linear_group_cpu.cl), whose members have UNIT_ROWS rows at most. Grid {members, panels}. */
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void linear_few_group(int8 rows, int N, int K, int flags, int most_k,
            __global const float *a, ulong8 a_offsets, long a_row_stride, long a_panel_stride,
            __global const weight *weights, ulong8 w_offsets,
            __global float *out, ulong8 out_offsets, long out_row_stride, long out_panel_stride,
            __global const float *bias, ulong8 bias_offsets,
            __global const float *second, ulong8 second_offsets, long second_row_stride, long second_panel_stride,
            __global float *save, ulong8 save_offsets, float4 gate, SHARES)
{
    GROUP_PLACES
    FEW_BEGIN
    EACH_SHARE
    {
        const int member = share / grid.y, part = share % grid.y, panel = panel_in_runs(part, grid.y), M = rows_of[member];
        if (split != member)
            split_few(M, K, a + at[A][member], a_row_stride, a_panel_stride, planes);
        split = member;
        multiply_panel(sums, b, planes, (__global const char *)(weights + at[W][member] + (long)panel * K * PANEL),
                       panel_after(part, grid.y) != panel + 1, K TILES_PASS);
        finish_few(sums, flags, gate, M, N, panel, out + at[OUT][member], out_row_stride, out_panel_stride,
                   bias + at[BIAS][member], second + at[SECOND][member], second_row_stride, second_panel_stride,
                   save + at[SAVE][member]);
    }
    TILES_END
}
#endif
