/* Tensors as schemas describe them: the shape of ONE ROW (dimension 0 of a batch is left out) and its dtype. Data is
 * always dense, row-major and little-endian, the host's own order on every machine that this server builds for. */
#ifndef EXPERTD_COMMON_TENSOR_H
#define EXPERTD_COMMON_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Numbers of the wire (proto/expertd.proto has the same ones). */
enum dtype {
    DTYPE_NONE = 0,
    DTYPE_FLOAT32 = 1,
    DTYPE_FLOAT64 = 2,
    DTYPE_FLOAT16 = 3,
    DTYPE_BFLOAT16 = 4,
    DTYPE_INT8 = 5,
    DTYPE_INT16 = 6,
    DTYPE_INT32 = 7,
    DTYPE_INT64 = 8,
    DTYPE_UINT8 = 9,
    DTYPE_BOOL = 10, /* one byte, 0 or 1 */
};

enum {
    TENSOR_MAX_DIMS = 6,    /* of one row */
    SCHEMA_MAX_TENSORS = 8, /* of one direction: inputs, or outputs */
    TENSOR_NAME_SIZE = 32,
};

struct tensor_desc {
    uint32_t dtype; /* enum dtype */
    uint32_t ndim;  /* 0: one scalar a row */
    uint64_t dims[TENSOR_MAX_DIMS];
    char name[TENSOR_NAME_SIZE]; /* the keyword name; NUL-terminated */
};

struct schema {
    uint32_t count;
    uint32_t reserved;
    struct tensor_desc tensors[SCHEMA_MAX_TENSORS];
};

/* Bytes of one element; 0 for a number that is no dtype. */
size_t dtype_size(uint32_t dtype);
/* "float32", ...; "unknown". */
const char *dtype_name(uint32_t dtype);
/* And back; DTYPE_NONE of another word. */
enum dtype dtype_of_name(const char *name);

/* Bytes of one row. 0 if the description is not valid: a bad dtype, too many dimensions, a zero dimension, an
 * unterminated name, or more than 2^40 bytes. */
size_t tensor_row_bytes(const struct tensor_desc *desc);
bool tensor_desc_equal(const struct tensor_desc *a, const struct tensor_desc *b); /* dtype and dims; not the name */
bool schema_valid(const struct schema *schema);                                   /* 1..SCHEMA_MAX_TENSORS valid ones */
/* a's tensors, then b's, as a backward pool's inputs are; -E2BIG if they do not fit. */
int schema_concat(struct schema *out, const struct schema *a, const struct schema *b);
/* The gradients of these tensors: the same, with names that begin "grad_" (and end early where there is no room). */
void schema_gradients(struct schema *out, const struct schema *of);
/* Those tensors of a schema whose bit of `left_out` is not set, in order; none may be left. */
void schema_without(struct schema *out, const struct schema *of, uint32_t left_out);
/* "float32[1024]" into text; always terminated. Returns text. */
const char *tensor_desc_format(const struct tensor_desc *desc, char *text, size_t size);

/* Whether it is float32, float16 or bfloat16, with which layers compute. */
bool dtype_is_float(uint32_t dtype);
/* Whether none of `count` elements of such a type is NaN or infinite, at the speed of memory. */
bool floats_are_finite(uint32_t dtype, const void *values, size_t count);

#endif
