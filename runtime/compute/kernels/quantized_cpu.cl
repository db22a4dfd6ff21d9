/* Weights of few bits on CPUs (runtime/compute/quantized.h): a block of a panel's rows in floats, for tiles of any number of
 * rows; and tiles of one or two rows, which widen what they read in registers.
 *
 * A format is what a vector of codes stands for, times NUMBER_UNIT: numbers() of 8 bits; of bytes of two of 4 bits, in ints,
 * lower_numbers() and upper_numbers(); and the scales of a block: column_scales(), row_scale(). */
#ifdef QUANTIZED_BITS
typedef GLUE(char, VEC) vec_numbers;
typedef GLUE(uchar, VEC) vec_bytes;
typedef GLUE(short, VEC) vec_shorts;
typedef GLUE(int, VEC) vec_ints;
typedef vec_numbers vec_numbers_unaligned __attribute__((aligned(1)));
typedef vec_bytes vec_bytes_unaligned __attribute__((aligned(1)));
#define AS_FLOATS GLUE(as_float, VEC)
#define AS_INTS GLUE(as_int, VEC)
#if __has_builtin(__builtin_convertvector)
#define TO_FLOATS(v) __builtin_convertvector(v, vec)
#define TO_INTS(v) __builtin_convertvector(v, vec_ints)
#else
#define TO_FLOATS(v) GLUE(convert_float, VEC)(v)
#define TO_INTS(v) GLUE(convert_int, VEC)(v)
#endif
#define INLINE __attribute__((always_inline))

/* --- 8 bits ------------------------------------------------------------------------------------------------------- */

#if defined QUANTIZED_FP8 && __has_builtin(__builtin_convertvector) && (defined __F16C__ || defined __aarch64__)
/* The bits of E4M3 are those of a half that is 2^8 times smaller, subnormals too. */
#define NUMBER_UNIT 0x1p8f
INLINE vec numbers(__global const weight *p)
{
    const vec_shorts codes = __builtin_convertvector(*(__global const vec_numbers_unaligned *)p, vec_shorts);
    return TO_FLOATS(__builtin_astype(codes << (vec_shorts)7 & (vec_shorts)0xbfff, halves));
}
#elif defined QUANTIZED_FP8
#define NUMBER_UNIT 1.0f
INLINE vec numbers(__global const weight *p)
{
    const vec_ints codes = TO_INTS(*(__global const vec_bytes_unaligned *)p);
    return AS_FLOATS(AS_INTS(E4M3_MAGNITUDE(codes & 0x7f, TO_FLOATS, AS_FLOATS)) | (codes & 0x80) << 24);
}
#elif QUANTIZED_BITS == 8
#define NUMBER_UNIT 1.0f
INLINE vec numbers(__global const weight *p)
{
    return TO_FLOATS(*(__global const vec_numbers_unaligned *)p);
}
#endif

/* --- 4 bits ------------------------------------------------------------------------------------------------------- */

#if QUANTIZED_BITS == 4 && VEC == 16 && defined __AVX512F__ && __has_builtin(__builtin_ia32_permvarsf512)
/* One instruction finds what 16 codes stand for. It looks at the lowest 4 bits of each. */
#define NUMBER_UNIT 1.0f
typedef float table_floats __attribute__((vector_size(64)));
typedef int table_ints __attribute__((vector_size(64)));
INLINE vec lower_numbers(vec_ints both)
{
#ifdef QUANTIZED_MXFP4
    const vec table = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};
#else
    const vec table = {0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1};
#endif
    return __builtin_astype(__builtin_ia32_permvarsf512(__builtin_astype(table, table_floats), __builtin_astype(both, table_ints)), vec);
}
INLINE vec upper_numbers(vec_ints both)
{
    return lower_numbers(both >> 4);
}
#elif defined QUANTIZED_MXFP4
#define NUMBER_UNIT 1.0f
INLINE vec lower_numbers(vec_ints both)
{
    return AS_FLOATS(AS_INTS(E2M1_MAGNITUDE(both & 7, TO_FLOATS, AS_FLOATS)) | (both & 8) << 28);
}
INLINE vec upper_numbers(vec_ints both)
{
    return lower_numbers(both >> 4);
}
#elif QUANTIZED_BITS == 4
/* The numbers times 2^28: so they have their sign, and a scale that is as much smaller does the rest. */
#define NUMBER_UNIT 0x1p-28f
INLINE vec lower_numbers(vec_ints both)
{
    return TO_FLOATS(both << 28);
}
INLINE vec upper_numbers(vec_ints both)
{
    return TO_FLOATS(both << 24 & (int)0xf0000000);
}
#endif

/* --- scales ------------------------------------------------------------------------------------------------------- */

/* Of columns [column, column + VEC) of a panel; and, transposed, of a row and the columns from there on. */
#ifdef QUANTIZED_FP8
#if VEC == 16
typedef ulong8 vec_pairs;
#elif VEC == 8
typedef ulong4 vec_pairs;
#else
typedef ulong2 vec_pairs;
#endif
INLINE vec column_scales(__global const weight *scales, int column)
{
    return NUMBER_UNIT * AS_FLOATS((vec_pairs)(*(__global const ulong *)scales));
}
INLINE float row_scale(__global const weight *scales, int row, int column)
{
    return NUMBER_UNIT * ((__global const float *)scales)[row % 2];
}
#elif defined QUANTIZED_MXFP4
INLINE vec column_scales(__global const weight *scales, int column)
{
    return NUMBER_UNIT * AS_FLOATS(POWER_BITS(TO_INTS(*(__global const vec_bytes_unaligned *)(scales + column))));
}
INLINE float row_scale(__global const weight *scales, int row, int column)
{
    return NUMBER_UNIT * as_float(POWER_BITS((int)scales[row * SCALES_BESIDE + column / QUANTIZED_GROUP]));
}
#else
INLINE vec column_scales(__global const weight *scales, int column)
{
    return NUMBER_UNIT * half_load((__global const ushort *)scales + column);
}
INLINE float row_scale(__global const weight *scales, int row, int column)
{
    return NUMBER_UNIT * short_load_one((__global const ushort *)scales + row * SCALES_BESIDE + column / QUANTIZED_GROUP, 0);
}
#endif

/* --- blocks ------------------------------------------------------------------------------------------------------- */

#define SCALES_OF_ROW(row)                                                                                             \
    EACH_VECTOR scale[j] = transposed ? (vec)(row_scale(block, row, j * VEC)) : of_columns[j];

/* `transposed`, LINEAR_TRANSPOSED or 0, is a constant wherever this is inlined. */
INLINE void widen_block(__global const weight *block, int transposed, float *to)
{
    __global const weight *codes = block + SCALE_BYTES(transposed);
    vec of_columns[NV], scale[NV];
    if (!transposed)
        EACH_VECTOR of_columns[j] = column_scales(block, j * VEC);
#if QUANTIZED_BITS == 8
    for (int at = 0, r = 0; r < QUANTIZED_GROUP; r++, at += PANEL) {
        SCALES_OF_ROW(r)
        EACH_VECTOR vec_store_private(numbers(codes + at + j * VEC) * scale[j], to + at + j * VEC);
    }
#else
    for (int at = 0, r = 0; r < QUANTIZED_GROUP / 2; r++, at += PANEL) {
        vec_ints both[NV];
        EACH_VECTOR both[j] = TO_INTS(*(__global const vec_bytes_unaligned *)(codes + at + j * VEC));
        SCALES_OF_ROW(r)
        EACH_VECTOR vec_store_private(lower_numbers(both[j]) * scale[j], to + at + j * VEC);
        SCALES_OF_ROW(r + QUANTIZED_GROUP / 2)
        EACH_VECTOR vec_store_private(upper_numbers(both[j]) * scale[j], to + at + QUANTIZED_GROUP / 2 * PANEL + j * VEC);
    }
#endif
}

void widen_blocks(__global const weight *block, int blocks, int flags, float *to)
{
    for (int b = 0; b < blocks; b++, block += BLOCK_BYTES(flags), to += QUANTIZED_GROUP * PANEL) {
        if (flags & LINEAR_TRANSPOSED)
            widen_block(block, LINEAR_TRANSPOSED, to);
        else
            widen_block(block, 0, to);
    }
}

/* --- a row or two ------------------------------------------------------------------------------------------------- */

/* Each weight is used once or twice: it is multiplied where it is widened, and scales are multiplied with a block's sums, or,
 * transposed, with what the rows are multiplied with. Sums of odd and even steps, or of the upper and lower numbers, are apart: a
 * sum cannot go on before the last step's is there. */
#define FEW_ROWS 2
#define INPUTS_RUN (PANEL < QUANTIZED_GROUP ? PANEL : QUANTIZED_GROUP)

/* a[k, k + QUANTIZED_GROUP) of a row, of which those from k1 on count as 0. */
INLINE void few_inputs(__global const float *a, long a_panel_stride, int k, int k1, float *x)
{
    for (int i = 0; i < QUANTIZED_GROUP; i += INPUTS_RUN) {
        __global const float *from = a + (k + i) / PANEL * a_panel_stride + (k + i) % PANEL;
        const int left = k1 - k - i;
        if (left >= INPUTS_RUN)
            for (int c = 0; c < INPUTS_RUN; c += VEC)
                vec_store_private(vec_load(from + c), x + i + c);
        else
            for (int c = 0; c < INPUTS_RUN; c++)
                x[i + c] = c < left ? from[c] : 0.0f;
    }
}

#define FEW_STEP(R, w, i, which)                                                                                       \
    EACH_ROW(R)                                                                                                        \
    {                                                                                                                  \
        EACH_VECTOR sums[which][r][j] = fma((vec)(x[r][transposed ? j * VEC / QUANTIZED_GROUP : 0][i]), w[j], sums[which][r][j]);  \
    }
#if QUANTIZED_BITS == 8
#define FEW_STEPS(R)                                                                                                   \
    for (int f = 0; f < QUANTIZED_GROUP; f += FETCH_STEPS) {                                                           \
        FEW_FETCH                                                                                                      \
        _Pragma("unroll") for (int i = 0; i < FETCH_STEPS; i++)                                                        \
        {                                                                                                              \
            vec w[NV];                                                                                                 \
            EACH_VECTOR w[j] = numbers(codes + (f + i) * PANEL + j * VEC);                                             \
            FEW_STEP(R, w, f + i, i % 2)                                                                               \
        }                                                                                                              \
    }
#else
#define FEW_STEPS(R)                                                                                                   \
    for (int f = 0; f < QUANTIZED_GROUP / 2; f += FETCH_STEPS / 2) {                                                   \
        FEW_FETCH                                                                                                      \
        _Pragma("unroll") for (int i = 0; i < FETCH_STEPS / 2; i++)                                                    \
        {                                                                                                              \
            vec_ints both[NV];                                                                                         \
            vec w[NV];                                                                                                 \
            EACH_VECTOR both[j] = TO_INTS(*(__global const vec_bytes_unaligned *)(codes + (f + i) * PANEL + j * VEC)); \
            EACH_VECTOR w[j] = lower_numbers(both[j]);                                                                 \
            FEW_STEP(R, w, f + i, 0)                                                                                   \
            EACH_VECTOR w[j] = upper_numbers(both[j]);                                                                 \
            FEW_STEP(R, w, f + i + QUANTIZED_GROUP / 2, 1)                                                             \
        }                                                                                                              \
    }
#endif
#define FEW_FETCH                                                                                                      \
    for (int i = 0; i < fetch && next < next_end; i++, next += CACHE_LINE_WEIGHTS)                                     \
        PREFETCH(next);

#define FEW_BODY(R)                                                                                                    \
    case R: {                                                                                                          \
        TILE_BEGIN(R)                                                                                                  \
        for (int k = k0; k < k1; k += QUANTIZED_GROUP, block += BLOCK_BYTES(transposed)) {                             \
            __global const weight *codes = block + SCALE_BYTES(transposed);                                            \
            float x[R][SCALES_BESIDE][QUANTIZED_GROUP], plain[QUANTIZED_GROUP];                                        \
            vec sums[2][R][NV];                                                                                        \
            EACH_ROW(R)                                                                                                \
            {                                                                                                          \
                EACH_VECTOR sums[0][r][j] = sums[1][r][j] = 0.0f;                                                      \
                few_inputs(a + r * a_row_stride, a_panel_stride, k, k1, transposed ? plain : x[r][0]);                 \
                for (int i = 0; transposed && i < QUANTIZED_GROUP; i++)                                                \
                    for (int g = 0; g < SCALES_BESIDE; g++)                                                            \
                        x[r][g][i] = plain[i] * row_scale(block, i, g * QUANTIZED_GROUP);                              \
            }                                                                                                          \
            FEW_STEPS(R)                                                                                               \
            EACH_ROW(R)                                                                                                \
            {                                                                                                          \
                EACH_VECTOR acc[r][j] = fma(transposed ? (vec)(1.0f) : column_scales(block, j * VEC),                  \
                                            sums[0][r][j] + sums[1][r][j], acc[r][j]);                                 \
            }                                                                                                          \
        }                                                                                                              \
        TILE_END(R)                                                                                                    \
        break;                                                                                                         \
    }

INLINE void few_tile_of(int transposed, vec (*tile)[NV], int begin, int end, __global float *out, long out_row_stride, int rows,
                        int k0, int k1, __global const float *a, long a_row_stride, long a_panel_stride,
                        __global const weight *next, __global const weight *next_end, int fetch, __global const weight *block)
{
    switch (rows) {
        FEW_BODY(1)
        FEW_BODY(2)
    }
}

void linear_few_tile(vec (*tile)[NV], int begin, int end, __global float *out, long out_row_stride, int rows, int k0, int k1,
                     __global const float *a, long a_row_stride, long a_panel_stride, __global const weight *next,
                     __global const weight *next_end, int fetch, __global const weight *block, int flags)
{
    if (flags & LINEAR_TRANSPOSED)
        few_tile_of(LINEAR_TRANSPOSED, tile, begin, end, out, out_row_stride, rows, k0, k1, a, a_row_stride, a_panel_stride, next,
                    next_end, fetch, block);
    else
        few_tile_of(0, tile, begin, end, out, out_row_stride, rows, k0, k1, a, a_row_stride, a_panel_stride, next, next_end, fetch,
                    block);
}
#endif
