/* The handwritten digits of examples/data/digits.csv (its README says whose they are), as rows for a model. */
#ifndef EXPERTD_EXAMPLES_DIGITS_DATASET_H
#define EXPERTD_EXAMPLES_DIGITS_DATASET_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum {
    DATASET_PIXELS = 64,
    DATASET_CLASSES = 10,
    DATASET_TEST_EVERY = 5, /* within each digit, in the order of the file, every fifth image is for testing */
    DATASET_MAX_IMAGES = 1000000,
};

/* The training images come first, then the test images; each part in the order of the file. */
struct dataset {
    size_t count, train_count;
    float *pixels;   /* count x DATASET_PIXELS, 0 to 1 */
    uint8_t *labels; /* count, 0 to 9 */
};

/* Reads `source` to its end. Each line is 64 numbers from 0 to 16, then a digit, separated by commas. 0, -EINVAL when a
 * line is something else, -ENOMEM; then error (of error_size bytes) says what, with origin and line, and the dataset
 * is empty. */
int dataset_read(struct dataset *dataset, FILE *source, const char *origin, char *error, size_t error_size);
/* The same from a file by name; also -errno of opening it. */
int dataset_load(struct dataset *dataset, const char *path, char *error, size_t error_size);
/* The same, and -EINVAL when no image is for testing. */
int dataset_load_parts(struct dataset *dataset, const char *path, char *error, size_t error_size);
/* Frees what it holds and empties it; an empty one is fine. */
void dataset_destroy(struct dataset *dataset);

#endif
