/* Safetensors files: named tensors, as PyTorch users read and write them. 8 bytes length of the header (little-endian),
 * the header (JSON: name -> dtype, shape, data_offsets; "__metadata__" -> strings), then the tensors' bytes without
 * gaps.
 *
 * A file is hostile until it was checked: everything here checks before it trusts, with limits below, and data is read
 * with pread rather than mapped, so that a file that someone shortens meanwhile is an error and not a SIGBUS. Functions
 * return 0 or -errno (-EPROTO: the file is not what it should be) and put a sentence into `error`, which does not name
 * the file. No globals: any thread, one at a time per object. */
#ifndef EXPERTD_RUNTIME_SAFETENSORS_H
#define EXPERTD_RUNTIME_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/tensor.h"

enum {
    SAFETENSORS_MAX_DIMS = 8,
    SAFETENSORS_MAX_HEADER = 32 << 20, /* bytes; some 250,000 tensors: models have up to 100,000 in a file */
    SAFETENSORS_ERROR_SIZE = 256,
};

struct safetensors_tensor {
    const char *name;
    uint32_t dtype;     /* enum dtype; DTYPE_NONE: one of the format's that this server has no use for */
    const char *format; /* the dtype in the file's words: "F32", or any other; not needed for writing */
    unsigned ndim;
    uint64_t dims[SAFETENSORS_MAX_DIMS];
    uint64_t offset; /* in the data; not needed for writing */
    uint64_t bytes;  /* likewise */
};

/* --- reading ---------------------------------------------------------------------------------------------------------
 */

struct safetensors;

int safetensors_open(struct safetensors **file, const char *path, char error[SAFETENSORS_ERROR_SIZE]);
/* The same from memory, which must outlive *file. */
int safetensors_parse(struct safetensors **file, const void *bytes, size_t length, char error[SAFETENSORS_ERROR_SIZE]);
void safetensors_close(struct safetensors **file);
/* What a file that begins so is, if it is one of those that are given by mistake, as an error's sentence. */
bool safetensors_other(const void *bytes, size_t length, char what[SAFETENSORS_ERROR_SIZE]);

unsigned safetensors_count(const struct safetensors *file);
const struct safetensors_tensor *safetensors_tensor(const struct safetensors *file, unsigned index);
const struct safetensors_tensor *safetensors_find(const struct safetensors *file, const char *name); /* or NULL */
const char *safetensors_metadata(const struct safetensors *file, const char *key);                   /* or NULL */

/* Reads a tensor's bytes as they are. */
int safetensors_read(const struct safetensors *file, const struct safetensors_tensor *tensor, void *bytes,
                     char error[SAFETENSORS_ERROR_SIZE]);
/* Reads `length` of them, from the offset-th on. */
int safetensors_read_range(const struct safetensors *file, const struct safetensors_tensor *tensor, uint64_t offset,
                           size_t length, void *bytes, char error[SAFETENSORS_ERROR_SIZE]);
/* Reads a tensor of F32, F64, F16 or BF16 as floats: as many as its shape says. */
int safetensors_read_floats(const struct safetensors *file, const struct safetensors_tensor *tensor, float *values,
                            char error[SAFETENSORS_ERROR_SIZE]);
/* Reads all data and compares it with the metadata's "data_checksum" (runtime/state/checksum.h; every file that is
 * written here has it). 0 too when there is none: other programs write none. (That "header_checksum", where there is
 * one, is the header's was seen when the file was opened.) */
int safetensors_verify(const struct safetensors *file, char error[SAFETENSORS_ERROR_SIZE]);

/* "F32[4096, 1024]" into text; always terminated. Returns text. */
const char *safetensors_shape_format(const char *format, const uint64_t *dims, unsigned ndim, char *text, size_t size);

/* The header begins with its own checksum, which is of the header with these digits as zeros. */
#define SAFETENSORS_HEADER_CHECKSUM "header_checksum"
#define SAFETENSORS_HEADER_START "{\"__metadata__\":{\"" SAFETENSORS_HEADER_CHECKSUM "\":\""
enum { SAFETENSORS_CHECKSUM_SIZE = 17 };
/* Of a header's text, with the spaces behind it; one that does not begin so is taken as it is. */
uint64_t safetensors_header_checksum(const char *text, size_t length);

/* --- writing ---------------------------------------------------------------------------------------------------------
 */

struct safetensors_writer;

struct safetensors_pair {
    const char *key, *value;
};

#define SAFETENSORS_TEMPORARY_SUFFIX ".tmp"

/* Writes the header to <path>.tmp, which only this user may read. Then append the tensors' bytes in the order of
 * `tensors` (name, dtype and shape are used), in pieces of any size, and commit: both checksums, fsync, rename to path,
 * fsync of the folder. So path is the old file or the whole new one, whenever the machine stops. Until commit succeeds,
 * abort removes the temporary file; on failure commit has done so. */
int safetensors_writer_open(struct safetensors_writer **writer, const char *path,
                            const struct safetensors_tensor *tensors, unsigned count,
                            const struct safetensors_pair *metadata, unsigned pairs);
int safetensors_writer_append(struct safetensors_writer *writer, const void *bytes, size_t length);
int safetensors_writer_commit(struct safetensors_writer **writer); /* nulls; -EINVAL: not all bytes were appended */
void safetensors_writer_abort(struct safetensors_writer **writer); /* nulls */

/* fsync of the folder that the path lies in: a name is lasting only when that is on the disk too. 0 or -errno. */
int safetensors_sync_folder_of(const char *path);

#endif
