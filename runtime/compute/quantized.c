#include "runtime/compute/quantized.h"

#include <math.h>

enum { GROUP = KERNEL_QUANTIZED_GROUP, HALF_GROUP = GROUP / 2 };

struct group {
    uint16_t scale;
    int numbers[GROUP];
};

float quantized_greatest(unsigned bits)
{
    const float scale = nextafterf(HALF_INFINITE, 0);
    return bits == 8 ? 127 * scale : 8 * scale;
}

static float greatest_of(const float *values, unsigned count)
{
    float greatest = 0;
    for (unsigned i = 0; i < count; i++)
        greatest = fabsf(values[i]) > fabsf(greatest) ? values[i] : greatest;
    return greatest;
}

/* To nearest, halves away from 0. */
static int round_to_int(float x)
{
    const int whole = (int)x;
    const float rest = x - (float)whole;
    return whole + (rest >= 0.5f) - (rest <= -0.5f);
}

static int round_to_four_bits(float x)
{
    const int number = (int)(x + 8.5f) - 8;
    return number < 7 ? number : 7;
}

static struct group round_group(unsigned bits, const float *values, unsigned count)
{
    struct group group = {0};
    const float greatest = greatest_of(values, count);
    const float d = bits == 8 ? fabsf(greatest) / 127 : greatest / -8, inverse = 1 / d;
    group.scale = half_from_float(d);
    if (half_to_float(group.scale) == 0)
        return (struct group){0};
    for (unsigned i = 0; i < count; i++)
        group.numbers[i] = bits == 8 ? round_to_int(values[i] * inverse) : round_to_four_bits(values[i] * inverse);
    return group;
}

/* --- where a number lies ------------------------------------------------------------------------------------------ */

/* Number `row` (of what is contracted), `column`. */
static unsigned char *block_of(const struct quantized *matrix, void *memory, uint64_t row, uint64_t column)
{
    const uint64_t rows = matrix->transposed ? matrix->columns : matrix->in;
    const uint64_t groups = (rows + GROUP - 1) / GROUP, panel = column / matrix->shape->panel;
    return (unsigned char *)memory +
           (panel * groups + row / GROUP) * kernel_quantized_block(matrix->shape, matrix->transposed);
}

static uint16_t *scale_of(const struct quantized *matrix, void *memory, uint64_t row, uint64_t column)
{
    const uint64_t panel = matrix->shape->panel, lane = column % panel, beside = panel > GROUP ? panel / GROUP : 1;
    uint16_t *scales = (uint16_t *)(void *)block_of(matrix, memory, row, column);
    return scales + (matrix->transposed ? row % GROUP * beside + lane / GROUP : lane);
}

static unsigned char *number_of(const struct quantized *matrix, void *memory, uint64_t row, uint64_t column)
{
    const struct kernel_shape *shape = matrix->shape;
    unsigned char *numbers =
        block_of(matrix, memory, row, column) + kernel_quantized_scales(shape, matrix->transposed) * sizeof(uint16_t);
    const uint64_t in_block = shape->quantized == 8 ? row % GROUP : row % HALF_GROUP;
    return numbers + in_block * shape->panel + column % shape->panel;
}

static int get(const struct quantized *matrix, void *memory, uint64_t row, uint64_t column)
{
    const unsigned char byte = *number_of(matrix, memory, row, column);
    const unsigned shift = row % GROUP < HALF_GROUP ? 0 : 4;
    return matrix->shape->quantized == 8 ? (signed char)byte : (int)((byte >> shift & 15U) ^ 8U) - 8;
}

/* --- tensors ------------------------------------------------------------------------------------------------------ */

/* Of output c, and input k: row and column in memory. */
static uint64_t row_of(const struct quantized *matrix, uint64_t c, uint64_t k)
{
    return matrix->transposed ? c * matrix->step + matrix->first : k;
}
static uint64_t column_of(const struct quantized *matrix, uint64_t c, uint64_t k)
{
    return matrix->transposed ? k : c * matrix->step + matrix->first;
}

/* Four bits of it. */
static void put_half(unsigned char *byte, bool upper, int number)
{
    const unsigned shift = upper ? 4 : 0;
    *byte = (unsigned char)((*byte & ~(15U << shift)) | ((unsigned)number & 15U) << shift);
}

/* Of output c, from input `begin` on: down a panel's column, or along a row of the transposed one, which narrow panels
 * cut. */
static void put_group(const struct quantized *matrix, void *memory, uint64_t c, uint64_t begin, unsigned count,
                      const struct group *group)
{
    const unsigned panel = matrix->shape->panel, run = matrix->transposed && panel < GROUP ? panel : GROUP;
    for (unsigned first = 0; first < count; first += run) {
        const uint64_t row = row_of(matrix, c, begin + first), column = column_of(matrix, c, begin + first);
        const unsigned end = count - first < run ? count : first + run;
        unsigned char *numbers = number_of(matrix, memory, row, column);
        *scale_of(matrix, memory, row, column) = group->scale;
        for (unsigned i = first; i < end; i++) {
            const size_t eight = matrix->transposed ? i - first : (size_t)i * panel;
            const size_t four = matrix->transposed ? i - first : (size_t)(i % HALF_GROUP) * panel;
            if (matrix->shape->quantized == 8)
                numbers[eight] = (unsigned char)group->numbers[i];
            else
                put_half(numbers + four, (matrix->transposed ? row % GROUP : i) >= HALF_GROUP, group->numbers[i]);
        }
    }
}

void quantized_pack(const struct quantized *matrix, void *memory, const float *values)
{
    for (uint64_t c = 0; c < matrix->out; c++) {
        for (uint64_t begin = 0; begin < matrix->in; begin += GROUP) {
            const unsigned count = (unsigned)(matrix->in - begin < GROUP ? matrix->in - begin : GROUP);
            const struct group group = round_group(matrix->shape->quantized, values + c * matrix->in + begin, count);
            put_group(matrix, memory, c, begin, count, &group);
        }
    }
}

void quantized_unpack(const struct quantized *matrix, const void *memory, float *values)
{
    void *readable = (void *)(uintptr_t)memory;
    for (uint64_t c = 0; c < matrix->out; c++) {
        for (uint64_t k = 0; k < matrix->in; k++) {
            const uint64_t row = row_of(matrix, c, k), column = column_of(matrix, c, k);
            values[c * matrix->in + k] =
                (float)get(matrix, readable, row, column) * half_to_float(*scale_of(matrix, readable, row, column));
        }
    }
}
