/* The client's own part of the digits model: a linear layer in front of the remote experts (pixels to hidden) and one
 * behind them (hidden to classes), kept in a safetensors file with the tensors front.weight, front.bias, back.weight
 * and back.bias, so that PyTorch users can read it too. */
#ifndef EXPERTD_EXAMPLES_DIGITS_HEAD_H
#define EXPERTD_EXAMPLES_DIGITS_HEAD_H

#include <stddef.h>
#include <stdio.h>

#include "examples/digits/linear.h"

enum { HEAD_MAX_HIDDEN = 65536 };

struct head {
    size_t hidden;
    struct linear front, back;
};

/* A head with fresh weights. 0, or -ENOMEM; then it holds nothing. */
int head_create(struct head *head, size_t hidden, uint64_t seed);
void head_destroy(struct head *head);

/* Reads a file's weights into a new head; the hidden size is the file's. 0, or -errno (-EINVAL for a file that is not
 * what it should be) with a sentence in error, and then the head holds nothing. */
int head_load(struct head *head, const char *path, char *error, size_t error_size);
/* The same from an open file, whose name for errors is origin. */
int head_read(struct head *head, FILE *source, const char *origin, char *error, size_t error_size);
/* Writes path, whole or not at all. 0, or -errno with a sentence in error. */
int head_save(const struct head *head, const char *path, char *error, size_t error_size);

#endif
