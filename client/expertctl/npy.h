/* NumPy's array files (.npy), versions 1.0 to 3.0, Python 2's as well, as far as they hold what tensors can hold:
 * little-endian, C order, one of our dtypes. bfloat16, which NumPy does not know, is '<V2', as ml_dtypes writes it.
 * Files are hostile until read. The format: numpy.lib.format's documentation. Any thread. */
#ifndef EXPERTD_CLIENT_NPY_H
#define EXPERTD_CLIENT_NPY_H

#include <stddef.h>
#include <stdint.h>

#include "common/tensor.h"

enum { NPY_MAX_DIMS = 8 };

struct npy {
    uint32_t dtype; /* enum dtype */
    uint32_t ndim;
    uint64_t shape[NPY_MAX_DIMS];
    void *data; /* malloc'ed; NULL if there is none */
    size_t bytes;
};

/* Reads the header at the start of a file's `size` bytes: all of *array but data, and where in the file the data
 * begins. The file must hold the array and nothing behind it. -EINVAL and a sentence in error. */
int npy_parse(const void *file, size_t size, struct npy *array, size_t *data_offset, char *error, size_t error_size);

/* Reads a file ("-": standard input). -errno and a sentence that names the path. */
int npy_read(const char *path, struct npy *array, char *error, size_t error_size);

/* Writes a file ("-": standard output) of version 1.0. -errno and a sentence that names the path. */
int npy_write(const char *path, const struct npy *array, char *error, size_t error_size);

/* The same to a descriptor, which stays open; path: what to call it. */
int npy_write_to(int fd, const char *path, const struct npy *array, char *error, size_t error_size);

/* Frees the data; safe on a zeroed one. */
void npy_clear(struct npy *array);

#endif
