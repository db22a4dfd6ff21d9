#include "common/tensor.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    size_t size;
} dtypes[] = {
    [DTYPE_FLOAT32] = {"float32", 4},   [DTYPE_FLOAT64] = {"float64", 8}, [DTYPE_FLOAT16] = {"float16", 2},
    [DTYPE_BFLOAT16] = {"bfloat16", 2}, [DTYPE_INT8] = {"int8", 1},       [DTYPE_INT16] = {"int16", 2},
    [DTYPE_INT32] = {"int32", 4},       [DTYPE_INT64] = {"int64", 8},     [DTYPE_UINT8] = {"uint8", 1},
    [DTYPE_BOOL] = {"bool", 1},
};

enum { DTYPE_COUNT = sizeof dtypes / sizeof dtypes[0] };
static const uint64_t row_bytes_max = UINT64_C(1) << 40;

size_t dtype_size(uint32_t dtype)
{
    return dtype < DTYPE_COUNT ? dtypes[dtype].size : 0;
}

const char *dtype_name(uint32_t dtype)
{
    return dtype < DTYPE_COUNT && dtypes[dtype].name ? dtypes[dtype].name : "unknown";
}

enum dtype dtype_of_name(const char *name)
{
    for (uint32_t dtype = DTYPE_FLOAT32; dtype < DTYPE_COUNT; dtype++) {
        if (strcmp(dtypes[dtype].name, name) == 0)
            return (enum dtype)dtype;
    }
    return DTYPE_NONE;
}

size_t tensor_row_bytes(const struct tensor_desc *desc)
{
    uint64_t bytes = dtype_size(desc->dtype);
    if (bytes == 0 || desc->ndim > TENSOR_MAX_DIMS || !memchr(desc->name, 0, sizeof desc->name))
        return 0;
    for (uint32_t i = 0; i < desc->ndim; i++) {
        if (desc->dims[i] == 0 || desc->dims[i] > row_bytes_max / bytes)
            return 0;
        bytes *= desc->dims[i];
    }
    return bytes;
}

bool tensor_desc_equal(const struct tensor_desc *a, const struct tensor_desc *b)
{
    if (a->dtype != b->dtype || a->ndim != b->ndim || a->ndim > TENSOR_MAX_DIMS)
        return false;
    return memcmp(a->dims, b->dims, a->ndim * sizeof a->dims[0]) == 0;
}

bool schema_valid(const struct schema *schema)
{
    if (schema->count == 0 || schema->count > SCHEMA_MAX_TENSORS)
        return false;
    for (uint32_t i = 0; i < schema->count; i++)
        if (tensor_row_bytes(&schema->tensors[i]) == 0)
            return false;
    return true;
}

int schema_concat(struct schema *out, const struct schema *a, const struct schema *b)
{
    if (a->count > SCHEMA_MAX_TENSORS || b->count > SCHEMA_MAX_TENSORS - a->count)
        return -E2BIG;
    struct schema joined = *a;
    memcpy(joined.tensors + a->count, b->tensors, b->count * sizeof b->tensors[0]);
    joined.count += b->count;
    *out = joined;
    return 0;
}

void schema_without(struct schema *out, const struct schema *of, uint32_t left_out)
{
    out->count = out->reserved = 0;
    for (uint32_t i = 0; i < of->count; i++) {
        if (!(left_out >> i & 1))
            out->tensors[out->count++] = of->tensors[i];
    }
}

void schema_gradients(struct schema *out, const struct schema *of)
{
    static const char prefix[] = "grad_";
    enum { PREFIX = sizeof prefix - 1 };
    struct schema made = *of;
    for (uint32_t i = 0; i < made.count && i < SCHEMA_MAX_TENSORS; i++) {
        char *name = made.tensors[i].name;
        memmove(name + PREFIX, name, TENSOR_NAME_SIZE - PREFIX);
        memcpy(name, prefix, PREFIX);
        name[TENSOR_NAME_SIZE - 1] = 0;
    }
    *out = made;
}

const char *tensor_desc_format(const struct tensor_desc *desc, char *text, size_t size)
{
    int n = snprintf(text, size, "%s[", dtype_name(desc->dtype));
    for (uint32_t i = 0; i < desc->ndim && i < TENSOR_MAX_DIMS && n >= 0 && (size_t)n < size; i++)
        n += snprintf(text + n, size - (size_t)n, "%s%" PRIu64, i ? "," : "", desc->dims[i]);
    if (n >= 0 && (size_t)n < size)
        snprintf(text + n, size - (size_t)n, "]");
    return text;
}

bool dtype_is_float(uint32_t dtype)
{
    return dtype == DTYPE_FLOAT32 || dtype == DTYPE_FLOAT16 || dtype == DTYPE_BFLOAT16;
}

/* Several at a time, as lanes of 64 bits: a lane's exponent and mantissa are at most its greatest positive number, so
 * adding one to the exponent carries into the lane's own top bit, and only where all its bits were set. */
bool floats_are_finite(uint32_t dtype, const void *values, size_t count)
{
    const bool wide = dtype == DTYPE_FLOAT32;
    const uint64_t lanes = wide ? UINT64_C(0x0000000100000001) : UINT64_C(0x0001000100010001);
    const uint64_t top = lanes << (wide ? 31 : 15),
                   magnitude = top - lanes; /* each lane's by itself: nothing is borrowed */
    const uint64_t one = lanes << (wide ? 23 : dtype == DTYPE_BFLOAT16 ? 7 : 10);
    size_t bytes = count * dtype_size(dtype);
    const char *at = values;
    uint64_t seen = 0, some;
    for (; bytes >= sizeof some; at += sizeof some, bytes -= sizeof some) {
        memcpy(&some, at, sizeof some);
        seen |= (some & magnitude) + one;
    }
    some = 0;
    memcpy(&some, at, bytes);
    seen |= (some & magnitude) + one;
    return (seen & top) == 0;
}
