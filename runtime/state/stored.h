/* A tensor as a model's files store it, in whichever of these ways; read as floats, exactly what the formulas say:
 *
 *   - F32, F64 (rounded), F16, BF16;
 *   - F8_E4M3 with scales: the tensor <name>_scale_inv, F32 or BF16, has one number for each block of 128 rows and 128
 *     columns, ragged ones too; value (i, j) is code(i, j) * scale(i / 128, j / 128), rounded once to fp32;
 *   - MXFP4: <name>_blocks, U8 [..., n, 16], are n blocks of 32 numbers, and <name>_scales, U8 [..., n], their scales:
 * a tensor [..., 32 n].
 *
 * common/small_float.h has the numbers. Functions return 0 or -errno (-EPROTO: a file is not what it should be), with a
 * sentence in `error`. */
#ifndef EXPERTD_RUNTIME_STORED_H
#define EXPERTD_RUNTIME_STORED_H

#include "common/tensor_part.h"
#include "runtime/state/shards.h"

enum stored_format { STORED_PLAIN, STORED_FP8, STORED_MXFP4 };

enum { STORED_SCALE_BLOCK = 128 /* rows, and columns, of FP8 that share a scale */ };

struct stored {
    enum stored_format format;
    unsigned ndim;
    uint64_t dims[SAFETENSORS_MAX_DIMS]; /* of the numbers: of MXFP4 not those of its blocks */
    /* For stored.c. */
    const struct safetensors *file, *scales_file;
    const struct safetensors_tensor *tensor, *scales;
};

/* Finds the tensor and what belongs to it, and checks their shapes. -ENOENT: the model has none of that name. */
int stored_find(struct stored *stored, struct shards *shards, const char *name, char error[SHARDS_ERROR_SIZE]);
/* By the index alone: whether stored_find would find one. */
bool stored_has(const struct shards *shards, const char *name);
/* "BF16[64, 2048]" into text. */
const char *stored_shape(const struct stored *stored, char *text, size_t size);
/* Reads a part of one or two dimensions, row by row: of as many floats as its dimensions say. */
int stored_read(const struct stored *stored, const struct tensor_view *view, float *values,
                char error[SHARDS_ERROR_SIZE]);
/* The same of a format with codes, STORED_FP8 or STORED_MXFP4: each number's code, in a byte, and its scale. */
int stored_read_codes(const struct stored *stored, const struct tensor_view *view, uint8_t *codes, float *scales,
                      char error[SHARDS_ERROR_SIZE]);
/* "fp8", "mxfp4": the precision that keeps it as it is; NULL: of STORED_PLAIN. */
const char *stored_precision(const struct stored *stored);

#endif
