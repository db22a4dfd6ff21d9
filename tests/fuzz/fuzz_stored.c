/* Any shapes, scales and bytes of a tensor in a model's file, and any part of it: either there is a sentence, or both
 * ways to read it agree, and its codes are those that stand in the file. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/small_float.h"
#include "common/tensor_part.h"
#include "runtime/state/stored.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { HEAD = 16 };

/* What the first bytes say; small numbers, and mostly such as fit each other. */
struct shapes {
    unsigned kind; /* 0: F8_E4M3, 1: MXFP4, 2: BF16 */
    uint64_t dims[3], scales[3];
    char template[64];
};

/* Mostly few, which are soon read; at times enough for a second block of FP8's scales: just over one, as what comes of
 * it does not depend on how much more. */
static uint64_t extent(uint8_t byte)
{
    return 1 + (byte < 240 ? byte % 20 : byte - 240 + 120);
}

static void read_shapes(struct shapes *shapes, const uint8_t *head)
{
    shapes->kind = head[0] % 3;
    shapes->dims[0] = 1 + head[1] % 3;
    shapes->dims[1] = extent(head[2]);
    shapes->dims[2] = shapes->kind == 1 ? 1 + head[3] % 4 : extent(head[3]);
    for (unsigned i = 0; i < 3; i++) {
        const uint64_t right = shapes->kind == 0 && i > 0 ? (shapes->dims[i] + 127) / 128 : shapes->dims[i];
        shapes->scales[i] = head[4 + i] % 8 == 0 ? head[4 + i] / 8 : right;
    }
    snprintf(shapes->template, sizeof shapes->template, "w[%d, %d:%d:%d, %d:]%s", head[7] % 4, head[8],
             head[9] + head[8], 1 + head[10] % 3, head[11] % 64, head[12] % 4 == 0 ? ".T" : "");
}

struct header {
    char text[512];
    size_t length;
    size_t end; /* of the data */
};

static void put_tensor(struct header *header, const char *name, const char *format, const uint64_t *dims, unsigned ndim,
                       size_t element)
{
    char shape[96] = "";
    size_t bytes = element, length = 0;
    for (unsigned i = 0; i < ndim; i++) {
        length += (size_t)snprintf(shape + length, sizeof shape - length, "%s%llu", i > 0 ? "," : "",
                                   (unsigned long long)dims[i]);
        bytes *= dims[i];
    }
    header->length +=
        (size_t)snprintf(header->text + header->length, sizeof header->text - header->length,
                         "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
                         header->length > 0 ? "," : "{", name, format, shape, header->end, header->end + bytes);
    header->end += bytes;
}

/* The input's bytes over and over. */
static void fill(uint8_t *to, size_t length, const uint8_t *data, size_t size)
{
    size_t done = size < length ? size : length;
    memcpy(to, data, done);
    if (size == 0 && length > 0)
        to[done++] = 0x35;
    for (size_t n; done < length; done += n) {
        n = done < length - done ? done : length - done;
        memcpy(to + done, to, n);
    }
}

static void write_file(int fd, const struct shapes *shapes, const uint8_t *data, size_t size)
{
    static const char *const names[][2] = {{"w", "w_scale_inv"}, {"w_blocks", "w_scales"}, {"w", "other"}};
    static const char *const formats[][2] = {{"F8_E4M3", "F32"}, {"U8", "U8"}, {"BF16", "U8"}};
    const uint64_t blocks[4] = {shapes->dims[0], shapes->dims[1], shapes->dims[2], 16};
    struct header header = {0};
    put_tensor(&header, names[shapes->kind][0], formats[shapes->kind][0], blocks, shapes->kind == 1 ? 4 : 3,
               shapes->kind == 2 ? 2 : 1);
    put_tensor(&header, names[shapes->kind][1], formats[shapes->kind][1], shapes->scales, 3, shapes->kind == 0 ? 4 : 1);
    header.text[header.length++] = '}';
    const uint64_t header_bytes = header.length;
    const size_t start = sizeof header_bytes + header.length, all = start + header.end;
    uint8_t *file = malloc(all);
    memcpy(file, &header_bytes, sizeof header_bytes);
    memcpy(file + sizeof header_bytes, header.text, header.length);
    fill(file + start, header.end, data, size);
    if (pwrite(fd, file, all, 0) != (ssize_t)all || ftruncate(fd, (off_t)all) != 0)
        abort();
    free(file);
}

/* Of each number: what branches here is no news to the fuzzer. */
__attribute__((no_sanitize("coverage"))) static void compare(bool is_fp8, const uint8_t *codes, const float *scales,
                                                             const float *values, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        const float value = (is_fp8 ? small_float_e4m3(codes[i]) : small_float_e2m1(codes[i])) * scales[i];
        if (half_float_bits(value) != half_float_bits(values[i]) && (value == value || values[i] == values[i]))
            abort();
    }
}

static void check(const struct stored *stored, const struct tensor_view *view)
{
    char error[SHARDS_ERROR_SIZE];
    const uint64_t count = view->dims[0] * (view->ndim == 2 ? view->dims[1] : 1);
    float *values = calloc(count + 1, sizeof *values), *scales = calloc(count + 1, sizeof *scales);
    uint8_t *codes = calloc(count + 1, 1);
    if (stored_read(stored, view, values, error) != 0 || values[count] != 0)
        abort();
    if (stored_precision(stored) != NULL) {
        if (stored_read_codes(stored, view, codes, scales, error) != 0 || codes[count] != 0 || scales[count] != 0)
            abort();
        compare(stored->format == STORED_FP8, codes, scales, values, count);
    }
    free(values);
    free(scales);
    free(codes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char path[32]; /* of the one file, which is written again and again */
    static int fd;
    char error[SHARDS_ERROR_SIZE] = "", problem[TENSOR_PART_ERROR_SIZE];
    struct shapes shapes;
    struct shards *shards;
    struct stored stored;
    struct tensor_part part;
    struct tensor_view view;
    if (size < HEAD)
        return 0;
    read_shapes(&shapes, data);
    if (!path[0]) {
        fd = memfd_create("stored", MFD_CLOEXEC);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    write_file(fd, &shapes, data + HEAD, size - HEAD);
    if (shards_open(&shards, path, error) < 0) {
        if (!error[0])
            abort();
    } else {
        if (tensor_part_parse(&part, shapes.template, "m.0.1", problem) == 0 && stored_has(shards, part.name)) {
            const int rc = stored_find(&stored, shards, part.name, error);
            if (rc < 0 && !error[0])
                abort();
            if (rc == 0 && tensor_part_view(&view, &part, stored.dims, stored.ndim, problem) == 0)
                check(&stored, &view);
        }
        shards_close(&shards);
    }
    return 0;
}
