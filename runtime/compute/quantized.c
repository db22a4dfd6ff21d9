#include "runtime/compute/quantized.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

enum { GROUP = WEIGHT_FORMAT_GROUP, HALF_GROUP = GROUP / 2, FITTING = 64 };

static uint64_t groups_of(uint64_t count)
{
    return (count + GROUP - 1) / GROUP;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* --- numbers ------------------------------------------------------------------------------------------------------ */

int quantized_numbers_create(struct quantized_numbers *numbers, uint64_t out, uint64_t in)
{
    numbers->codes = malloc(out * in);
    numbers->scales = malloc(out * groups_of(in) * sizeof *numbers->scales);
    if (numbers->codes != NULL && numbers->scales != NULL)
        return 0;
    quantized_numbers_destroy(numbers);
    return -ENOMEM;
}

void quantized_numbers_destroy(struct quantized_numbers *numbers)
{
    free(numbers->codes);
    free(numbers->scales);
    *numbers = (struct quantized_numbers){0};
}

/* Weights that share a scale: outputs [c, end_c), inputs [k, end_k). */
struct extent {
    uint64_t c, end_c, k, end_k;
};

/* Of the greatest magnitude. */
static float greatest_of(const struct extent *extent, uint64_t in, const float *values)
{
    float greatest = 0;
    for (uint64_t c = extent->c; c < extent->end_c; c++)
        for (uint64_t k = extent->k; k < extent->end_k; k++)
            greatest = fabsf(values[c * in + k]) > fabsf(greatest) ? values[c * in + k] : greatest;
    return greatest;
}

static void round_extent(const struct weight_format *format, const struct extent *extent, uint64_t in,
                         const float *values, struct quantized_numbers *numbers)
{
    float inverse;
    const float scale = weight_format_scale(format, greatest_of(extent, in, values), &inverse);
    for (uint64_t c = extent->c; c < extent->end_c; c++) {
        const uint64_t at = c * in + extent->k;
        format->codes(values + at, extent->end_k - extent->k, inverse, numbers->codes + at);
        for (uint64_t k = extent->k; k < extent->end_k; k += GROUP)
            numbers->scales[c * groups_of(in) + k / GROUP] = scale;
    }
}

void quantized_round(const struct weight_format *format, uint64_t out, uint64_t in, const float *values,
                     struct quantized_numbers *numbers)
{
    const uint64_t down = format->square ? WEIGHT_FORMAT_SQUARE : 1,
                   along = format->square ? WEIGHT_FORMAT_SQUARE : GROUP;
    for (uint64_t c = 0; c < out; c += down) {
        for (uint64_t k = 0; k < in; k += along) {
            const struct extent extent = {c, least(c + down, out), k, least(k + along, in)};
            round_extent(format, &extent, in, values, numbers);
        }
    }
}

bool quantized_fits(const struct weight_format *format, uint64_t out, uint64_t in, const float *scales)
{
    const uint64_t groups = groups_of(in), groups_fitting = FITTING / GROUP;
    for (uint64_t c = 0; format->square && c < out; c++) {
        const float *of_c = scales + c * groups, *first = scales + c / FITTING * FITTING * groups;
        for (uint64_t g = 0; g < groups; g++)
            if (of_c[g] != first[g / groups_fitting * groups_fitting])
                return false;
    }
    return true;
}

/* --- where a number lies ------------------------------------------------------------------------------------------ */

/* Number `row` (of what is contracted), `column`. */
static unsigned char *block_of(const struct quantized *matrix, void *memory, uint64_t row, uint64_t column)
{
    const uint64_t rows = matrix->transposed ? matrix->columns : matrix->in;
    const uint64_t panel = column / matrix->shape->panel;
    return (unsigned char *)memory +
           (panel * groups_of(rows) + row / GROUP) * kernel_quantized_block(matrix->shape, matrix->transposed);
}

static unsigned char *scale_of(const struct quantized *matrix, void *memory, uint64_t row, uint64_t column)
{
    const struct weight_format *format = matrix->shape->quantized;
    const uint64_t panel = matrix->shape->panel, lane = column % panel, beside = panel > GROUP ? panel / GROUP : 1;
    const uint64_t of_group = matrix->transposed ? row % GROUP * beside + lane / GROUP : lane;
    const uint64_t of_square = (matrix->transposed ? row : column) % 2;
    return block_of(matrix, memory, row, column) + (format->square ? of_square : of_group) * format->scale_bytes;
}

static unsigned char *code_of(const struct quantized *matrix, void *memory, uint64_t row, uint64_t column)
{
    const struct kernel_shape *shape = matrix->shape;
    unsigned char *codes = block_of(matrix, memory, row, column) + kernel_quantized_scales(shape, matrix->transposed);
    const uint64_t in_block = shape->quantized->bits == 8 ? row % GROUP : row % HALF_GROUP;
    return codes + in_block * shape->panel + column % shape->panel;
}

static float get(const struct quantized *matrix, void *memory, uint64_t row, uint64_t column)
{
    const struct weight_format *format = matrix->shape->quantized;
    const unsigned byte = *code_of(matrix, memory, row, column);
    const unsigned code = format->bits == 8 ? byte : row % GROUP < HALF_GROUP ? byte & 15 : byte >> 4;
    return format->number((uint8_t)code) * format->scale(scale_of(matrix, memory, row, column));
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
static void put_half(unsigned char *byte, bool upper, unsigned code)
{
    const unsigned shift = upper ? 4 : 0;
    *byte = (unsigned char)((*byte & ~(15U << shift)) | code << shift);
}

/* Of output c, from input `begin` on: down a panel's column, or along a row of the transposed one, which narrow panels
 * cut. */
static void place_group(const struct quantized *matrix, void *memory, uint64_t c, uint64_t begin, unsigned count,
                        const uint8_t *from, float scale)
{
    const struct weight_format *format = matrix->shape->quantized;
    const unsigned panel = matrix->shape->panel, run = matrix->transposed && panel < GROUP ? panel : GROUP;
    for (unsigned first = 0; first < count; first += run) {
        const uint64_t row = row_of(matrix, c, begin + first), column = column_of(matrix, c, begin + first);
        const unsigned end = count - first < run ? count : first + run;
        unsigned char *codes = code_of(matrix, memory, row, column);
        format->keep_scale(scale, scale_of(matrix, memory, row, column));
        for (unsigned i = first; i < end; i++) {
            const size_t eight = matrix->transposed ? i - first : (size_t)i * panel;
            const size_t four = matrix->transposed ? i - first : (size_t)(i % HALF_GROUP) * panel;
            if (format->bits == 8)
                codes[eight] = from[i];
            else
                put_half(codes + four, (matrix->transposed ? row % GROUP : i) >= HALF_GROUP, from[i]);
        }
    }
}

/* Of some outputs, group by group: a panel's block of them stays in the first-level cache. */
static void place_outputs(const struct quantized *matrix, void *memory, const struct quantized_numbers *numbers,
                          uint64_t first, uint64_t end)
{
    for (uint64_t begin = 0; begin < matrix->in; begin += GROUP) {
        const unsigned count = (unsigned)least(matrix->in - begin, GROUP);
        for (uint64_t c = first; c < end; c++)
            place_group(matrix, memory, c, begin, count, numbers->codes + c * matrix->in + begin,
                        numbers->scales[c * groups_of(matrix->in) + begin / GROUP]);
    }
}

void quantized_place(const struct quantized *matrix, void *memory, const struct quantized_numbers *numbers)
{
    for (uint64_t c = 0; c < matrix->out; c += FITTING)
        place_outputs(matrix, memory, numbers, c, least(c + FITTING, matrix->out));
}

void quantized_unpack(const struct quantized *matrix, const void *memory, float *values)
{
    void *readable = (void *)(uintptr_t)memory;
    for (uint64_t c = 0; c < matrix->out; c++)
        for (uint64_t k = 0; k < matrix->in; k++)
            values[c * matrix->in + k] = get(matrix, readable, row_of(matrix, c, k), column_of(matrix, c, k));
}
