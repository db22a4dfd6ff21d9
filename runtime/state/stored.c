#include "runtime/state/stored.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/half.h"
#include "common/small_float.h"

enum { PIECE_BYTES = 1 << 18, NAME_SIZE = TENSOR_PART_NAME_SIZE + 16 };

static const char scale_suffix[] = "_scale_inv", blocks_suffix[] = "_blocks", scales_suffix[] = "_scales";

static int refuse(char *error, const char *format, ...) __attribute__((format(printf, 2, 3)));
static int refuse(char *error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(error, SHARDS_ERROR_SIZE, format, args);
    va_end(args);
    return -EPROTO;
}

static const char *shape_of(const struct safetensors_tensor *tensor, char text[128])
{
    return safetensors_shape_format(tensor->format, tensor->dims, tensor->ndim, text, 128);
}

/* --- finding it --------------------------------------------------------------------------------------------------- */

static uint64_t divide_up(uint64_t a, uint64_t b)
{
    return a / b + (a % b != 0);
}

static bool is_float(const struct safetensors_tensor *tensor)
{
    return tensor->dtype == DTYPE_FLOAT32 || tensor->dtype == DTYPE_FLOAT64 || tensor->dtype == DTYPE_FLOAT16 ||
           tensor->dtype == DTYPE_BFLOAT16;
}

/* A scale for each 128 x 128 of the last two dimensions; the others are the same. */
static int check_fp8(const struct stored *stored, char *error)
{
    const struct safetensors_tensor *tensor = stored->tensor, *scales = stored->scales;
    char text[128], found[128];
    bool fits = is_float(scales) && tensor->ndim >= 2 && scales->ndim == tensor->ndim;
    for (unsigned i = 0; fits && i < tensor->ndim; i++)
        fits = scales->dims[i] ==
               (i + 2 < tensor->ndim ? tensor->dims[i] : divide_up(tensor->dims[i], STORED_SCALE_BLOCK));
    return fits
               ? 0
               : refuse(error, "tensor '%.200s' is %s, and its scales '%.200s' are %s: they must be one for each %dx%d",
                        tensor->name, shape_of(tensor, text), scales->name, shape_of(scales, found), STORED_SCALE_BLOCK,
                        STORED_SCALE_BLOCK);
}

static bool is_bytes(const struct safetensors_tensor *tensor)
{
    return tensor->dtype == DTYPE_UINT8 || strcmp(tensor->format, "F8_E8M0") == 0;
}

static int check_mxfp4(struct stored *stored, char *error)
{
    const struct safetensors_tensor *blocks = stored->tensor, *scales = stored->scales;
    char text[128], found[128];
    const bool fits = blocks->dtype == DTYPE_UINT8 && is_bytes(scales) && blocks->ndim >= 3 &&
                      blocks->dims[blocks->ndim - 1] == MXFP4_BLOCK_BYTES && scales->ndim == blocks->ndim - 1 &&
                      memcmp(scales->dims, blocks->dims, scales->ndim * sizeof *scales->dims) == 0;
    if (!fits)
        return refuse(error, "tensor '%.200s' is %s, and its scales '%.200s' are %s: that is no MXFP4", blocks->name,
                      shape_of(blocks, text), scales->name, shape_of(scales, found));
    stored->ndim = scales->ndim;
    memcpy(stored->dims, scales->dims, scales->ndim * sizeof *scales->dims);
    stored->dims[stored->ndim - 1] *= MXFP4_BLOCK; /* there are half as many bytes, so it does not overflow */
    return 0;
}

static int find_with(struct shards *shards, const char *name, const char *end, const struct safetensors **file,
                     const struct safetensors_tensor **tensor, char *error)
{
    char whole[NAME_SIZE];
    snprintf(whole, sizeof whole, "%s%s", name, end);
    return shards_find(shards, whole, file, tensor, error);
}

static bool has_with(const struct shards *shards, const char *name, const char *end)
{
    char whole[NAME_SIZE];
    snprintf(whole, sizeof whole, "%s%s", name, end);
    return shards_has(shards, whole);
}

bool stored_has(const struct shards *shards, const char *name)
{
    return shards_has(shards, name) || has_with(shards, name, blocks_suffix);
}

static int find_mxfp4(struct stored *stored, struct shards *shards, const char *name, char *error)
{
    stored->format = STORED_MXFP4;
    int rc = find_with(shards, name, blocks_suffix, &stored->file, &stored->tensor, error);
    if (rc == 0)
        rc = find_with(shards, name, scales_suffix, &stored->scales_file, &stored->scales, error);
    if (rc == -ENOENT)
        return refuse(error, "'%.200s%s' has no scales '%.200s%s'", name, blocks_suffix, name, scales_suffix);
    return rc < 0 ? rc : check_mxfp4(stored, error);
}

int stored_find(struct stored *stored, struct shards *shards, const char *name, char error[SHARDS_ERROR_SIZE])
{
    *stored = (struct stored){0};
    if (!shards_has(shards, name) && has_with(shards, name, blocks_suffix))
        return find_mxfp4(stored, shards, name, error);
    int rc = shards_find(shards, name, &stored->file, &stored->tensor, error);
    if (rc < 0)
        return rc;
    stored->ndim = stored->tensor->ndim;
    memcpy(stored->dims, stored->tensor->dims, sizeof stored->dims);
    if (is_float(stored->tensor))
        return 0;
    if (strcmp(stored->tensor->format, "F8_E4M3") != 0)
        return refuse(error,
                      "tensor '%.200s' is of dtype %s: F32, F64, F16, BF16, F8_E4M3 with scales and MXFP4 can be used",
                      name, stored->tensor->format);
    stored->format = STORED_FP8;
    rc = find_with(shards, name, scale_suffix, &stored->scales_file, &stored->scales, error);
    if (rc == -ENOENT)
        return refuse(error, "tensor '%.200s' is F8_E4M3, and there are no scales '%.200s%s'", name, name,
                      scale_suffix);
    return rc < 0 ? rc : check_fp8(stored, error);
}

const char *stored_shape(const struct stored *stored, char *text, size_t size)
{
    return safetensors_shape_format(stored->format == STORED_MXFP4 ? "MXFP4" : stored->tensor->format, stored->dims,
                                    stored->ndim, text, size);
}

const char *stored_precision(const struct stored *stored)
{
    return stored->format == STORED_FP8 ? "fp8" : stored->format == STORED_MXFP4 ? "mxfp4" : NULL;
}

/* --- reading it --------------------------------------------------------------------------------------------------- */

/* What comes out: values; or, where there are codes, these and a scale for each. */
struct numbers {
    float *values;
    uint8_t *codes;
};

static struct numbers behind(struct numbers numbers, uint64_t count)
{
    return (struct numbers){numbers.values + count, numbers.codes ? numbers.codes + count : NULL};
}

/* Numbers that share a scale. */
static void put_coded(struct numbers to, const uint8_t *codes, size_t count, const float number_of[256], float scale)
{
    for (size_t i = 0; i < count; i++)
        to.values[i] = to.codes ? scale : number_of[codes[i]] * scale;
    if (to.codes)
        memcpy(to.codes, codes, count);
}

struct reader {
    const struct stored *stored;
    uint64_t columns; /* of the last dimension */
    float *scales;    /* of FP8: all of them */
    float number_of[256];
    void *piece; /* PIECE_BYTES */
    char *error;
};

static int read_range(const struct reader *reader, const struct safetensors *file,
                      const struct safetensors_tensor *tensor, uint64_t offset, size_t bytes, void *to)
{
    char problem[SAFETENSORS_ERROR_SIZE];
    const int rc = safetensors_read_range(file, tensor, offset, bytes, to, problem);
    if (rc < 0)
        snprintf(reader->error, SHARDS_ERROR_SIZE, "tensor '%.200s': %s", tensor->name, problem);
    return rc;
}

static void widen_plain(uint32_t dtype, const void *from, size_t count, float *to)
{
    const uint16_t *halves = from;
    const double *doubles = from;
    if (dtype == DTYPE_BFLOAT16)
        for (size_t i = 0; i < count; i++)
            to[i] = half_float_of_bits((uint32_t)halves[i] << 16);
    else if (dtype == DTYPE_FLOAT16)
        for (size_t i = 0; i < count; i++)
            to[i] = half_to_float(halves[i]);
    else if (dtype == DTYPE_FLOAT64)
        for (size_t i = 0; i < count; i++)
            to[i] = (float)doubles[i];
    else
        memcpy(to, from, count * sizeof *to);
}

static int read_plain(const struct reader *reader, uint64_t first, size_t count, float *to)
{
    const struct safetensors_tensor *tensor = reader->stored->tensor;
    const size_t size = dtype_size(tensor->dtype), most = PIECE_BYTES / size;
    for (size_t done = 0; done < count; done += most) {
        const size_t n = count - done < most ? count - done : most;
        const int rc = read_range(reader, reader->stored->file, tensor, (first + done) * size, n * size, reader->piece);
        if (rc < 0)
            return rc;
        widen_plain(tensor->dtype, reader->piece, n, to + done);
    }
    return 0;
}

/* Of one row of the last dimension, at most PIECE_BYTES. */
static int read_fp8(const struct reader *reader, uint64_t first, size_t count, struct numbers to)
{
    const struct stored *stored = reader->stored;
    const uint64_t row = first / reader->columns, rows = stored->dims[stored->ndim - 2];
    const uint64_t blocks = divide_up(reader->columns, STORED_SCALE_BLOCK);
    const uint64_t block_row = row / rows * divide_up(rows, STORED_SCALE_BLOCK) + row % rows / STORED_SCALE_BLOCK;
    const float *scales = reader->scales + block_row * blocks;
    const uint8_t *codes = reader->piece;
    const int rc = read_range(reader, stored->file, stored->tensor, first, count, reader->piece);
    for (size_t i = 0, n; rc == 0 && i < count; i += n) {
        const uint64_t column = first % reader->columns + i, left = STORED_SCALE_BLOCK - column % STORED_SCALE_BLOCK;
        n = count - i < left ? count - i : (size_t)left;
        put_coded(behind(to, i), codes + i, n, reader->number_of, scales[column / STORED_SCALE_BLOCK]);
    }
    return rc;
}

/* The same. Numbers may begin inside a block, or a byte. */
static int read_mxfp4(const struct reader *reader, uint64_t first, size_t count, struct numbers to)
{
    const struct stored *stored = reader->stored;
    const uint64_t block = first / MXFP4_BLOCK, blocks = divide_up(first + count, MXFP4_BLOCK) - block;
    uint8_t *codes = reader->piece, *scales = codes + blocks * MXFP4_BLOCK_BYTES;
    int rc =
        read_range(reader, stored->file, stored->tensor, block * MXFP4_BLOCK_BYTES, blocks * MXFP4_BLOCK_BYTES, codes);
    if (rc == 0)
        rc = read_range(reader, stored->scales_file, stored->scales, block, blocks, scales);
    for (size_t i = 0, n; rc == 0 && i < count; i += n) {
        const size_t at = first % MXFP4_BLOCK + i, begin = at % MXFP4_BLOCK;
        uint8_t apart[MXFP4_BLOCK];
        for (size_t byte = 0; byte < MXFP4_BLOCK_BYTES; byte++) {
            apart[2 * byte] = codes[at / MXFP4_BLOCK * MXFP4_BLOCK_BYTES + byte] & 15;
            apart[2 * byte + 1] = codes[at / MXFP4_BLOCK * MXFP4_BLOCK_BYTES + byte] >> 4;
        }
        n = count - i < MXFP4_BLOCK - begin ? count - i : MXFP4_BLOCK - begin;
        put_coded(behind(to, i), apart + begin, n, reader->number_of, small_float_e8m0(scales[at / MXFP4_BLOCK]));
    }
    return rc;
}

/* `count` numbers from the first-th on. */
static int read_numbers(const struct reader *reader, uint64_t first, size_t count, struct numbers to)
{
    if (reader->stored->format == STORED_PLAIN)
        return read_plain(reader, first, count, to.values);
    int rc = 0;
    while (rc == 0 && count > 0) {
        const uint64_t left = reader->columns - first % reader->columns;
        size_t n = count < left ? count : (size_t)left;
        n = n < PIECE_BYTES / 2 ? n : PIECE_BYTES / 2;
        rc = reader->stored->format == STORED_FP8 ? read_fp8(reader, first, n, to) : read_mxfp4(reader, first, n, to);
        first += n;
        to = behind(to, n);
        count -= n;
    }
    return rc;
}

/* The part as `outer` runs of `inner` numbers. */
struct runs {
    uint64_t outer, outer_stride, inner, inner_stride;
    uint64_t to_outer, to_inner; /* strides of the floats */
};

static struct runs runs_of(const struct tensor_view *view)
{
    if (view->ndim == 1)
        return (struct runs){1, 0, view->dims[0], view->strides[0], 0, 1};
    const uint64_t rows = view->dims[0], columns = view->dims[1];
    const uint64_t down = view->strides[0], along = view->strides[1];
    if (along == 1 && down == columns)
        return (struct runs){1, 0, rows * columns, 1, 0, 1};
    return along <= down ? (struct runs){rows, down, columns, along, columns, 1}
                         : (struct runs){columns, along, rows, down, 1, columns};
}

static int make_line(struct numbers *line, size_t count, bool codes)
{
    *line = (struct numbers){calloc(count, sizeof *line->values), codes ? calloc(count, 1) : NULL};
    return line->values && (line->codes || !codes) ? 0 : -ENOMEM;
}

static int read_runs(const struct reader *reader, const struct tensor_view *view, struct numbers numbers)
{
    const struct runs runs = runs_of(view);
    const bool direct = runs.inner_stride == 1 && runs.to_inner == 1;
    const size_t span = (size_t)((runs.inner - 1) * runs.inner_stride + 1);
    struct numbers line = {0};
    int rc = direct ? 0 : make_line(&line, span, numbers.codes != NULL);
    for (uint64_t i = 0; rc == 0 && i < runs.outer; i++) {
        const struct numbers to = behind(numbers, i * runs.to_outer);
        rc = read_numbers(reader, view->offset + i * runs.outer_stride, span, direct ? to : line);
        for (uint64_t j = 0; rc == 0 && !direct && j < runs.inner; j++) {
            to.values[j * runs.to_inner] = line.values[j * runs.inner_stride];
            if (to.codes)
                to.codes[j * runs.to_inner] = line.codes[j * runs.inner_stride];
        }
    }
    free(line.values);
    free(line.codes);
    return rc;
}

static int read_scales(struct reader *reader)
{
    const struct stored *stored = reader->stored;
    if (stored->format != STORED_FP8)
        return 0;
    char problem[SAFETENSORS_ERROR_SIZE];
    reader->scales = malloc(stored->scales->bytes / dtype_size(stored->scales->dtype) * sizeof *reader->scales);
    if (!reader->scales)
        return -ENOMEM;
    const int rc = safetensors_read_floats(stored->scales_file, stored->scales, reader->scales, problem);
    if (rc < 0)
        snprintf(reader->error, SHARDS_ERROR_SIZE, "tensor '%.200s': %s", stored->scales->name, problem);
    return rc;
}

static int read_part(const struct stored *stored, const struct tensor_view *view, struct numbers numbers,
                     char error[SHARDS_ERROR_SIZE])
{
    error[0] = 0;
    if (view->ndim == 0 || view->ndim > 2)
        return refuse(error, "tensor '%.200s' has %u dimensions there, and not 1 or 2", stored->tensor->name,
                      view->ndim);
    if (view->dims[0] == 0 || (view->ndim == 2 && view->dims[1] == 0))
        return 0;
    struct reader reader = {
        .stored = stored, .columns = stored->dims[stored->ndim - 1], .piece = malloc(PIECE_BYTES), .error = error};
    for (unsigned code = 0; code < 256; code++)
        reader.number_of[code] =
            stored->format == STORED_FP8 ? small_float_e4m3((uint8_t)code) : small_float_e2m1((uint8_t)code);
    int rc = reader.piece ? read_scales(&reader) : -ENOMEM;
    if (rc == 0)
        rc = read_runs(&reader, view, numbers);
    if (rc == -ENOMEM)
        snprintf(error, SHARDS_ERROR_SIZE, "there is not enough memory to read it");
    free(reader.scales);
    free(reader.piece);
    return rc;
}

int stored_read(const struct stored *stored, const struct tensor_view *view, float *values,
                char error[SHARDS_ERROR_SIZE])
{
    return read_part(stored, view, (struct numbers){values, NULL}, error);
}

int stored_read_codes(const struct stored *stored, const struct tensor_view *view, uint8_t *codes, float *scales,
                      char error[SHARDS_ERROR_SIZE])
{
    return read_part(stored, view, (struct numbers){scales, codes}, error);
}
