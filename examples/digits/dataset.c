#include "examples/digits/dataset.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_SIZE = 1024, FIRST_CAPACITY = 64, DARKEST = 16 };

static void take_image(float *to, uint8_t *label_to, const float *from, uint8_t label)
{
    memcpy(to, from, DATASET_PIXELS * sizeof *to);
    *label_to = label;
}

/* A plain decimal number of at most `most` at *text, which is moved behind it. strtol would take blanks and signs too.
 */
static int parse_number(const char **text, unsigned most, unsigned *number)
{
    const char *at = *text;
    unsigned value = 0;
    while (*at >= '0' && *at <= '9' && value <= most) {
        value = value * 10 + (unsigned)(*at++ - '0');
    }
    if (at == *text || value > most) {
        return -EINVAL;
    }
    *text = at;
    *number = value;
    return 0;
}

/* What is wrong with the line, or NULL. */
static const char *parse_line(const char *line, float *pixels, uint8_t *label)
{
    unsigned number;
    for (int i = 0; i < DATASET_PIXELS; i++) {
        if (parse_number(&line, DARKEST, &number) != 0) {
            return "each of the first 64 values must be a whole number from 0 to 16";
        }
        if (*line++ != ',') {
            return "there must be 65 values, separated by commas";
        }
        pixels[i] = (float)number / DARKEST;
    }
    if (parse_number(&line, DATASET_CLASSES - 1, &number) != 0) {
        return "the last value must be a digit from 0 to 9";
    }
    *label = (uint8_t)number;
    if (line[0] == '\r') {
        line++;
    }
    return line[0] == '\0' ? NULL : "there must be 65 values, and nothing behind them";
}

static int grow(struct dataset *dataset, size_t *capacity)
{
    size_t wanted = *capacity ? *capacity * 2 : FIRST_CAPACITY;
    float *pixels = realloc(dataset->pixels, wanted * DATASET_PIXELS * sizeof *pixels);
    if (pixels) {
        dataset->pixels = pixels;
    }
    uint8_t *labels = pixels ? realloc(dataset->labels, wanted) : NULL;
    if (!labels) {
        return -ENOMEM;
    }
    dataset->labels = labels;
    *capacity = wanted;
    return 0;
}

/* Reads all images in the order of the file. */
static int read_images(struct dataset *dataset, FILE *source, const char *origin, char *error, size_t error_size)
{
    char line[LINE_SIZE];
    size_t capacity = 0;
    while (fgets(line, sizeof line, source)) {
        /* A line without its end is the last one, or longer than any good line, or has a NUL in it. */
        char *end = strchr(line, '\n');
        const char *wrong = NULL;
        if (end) {
            *end = '\0';
        } else if (!feof(source)) {
            wrong = "the line is too long, or is no text";
        }
        if (!wrong && dataset->count == DATASET_MAX_IMAGES) {
            wrong = "there are too many lines";
        }
        if (!wrong && dataset->count == capacity && grow(dataset, &capacity) != 0) {
            snprintf(error, error_size, "%s: out of memory", origin);
            return -ENOMEM;
        }
        if (!wrong) {
            wrong =
                parse_line(line, dataset->pixels + dataset->count * DATASET_PIXELS, dataset->labels + dataset->count);
        }
        if (wrong) {
            snprintf(error, error_size, "%s:%zu: %s", origin, dataset->count + 1, wrong);
            return -EINVAL;
        }
        dataset->count++;
    }
    if (ferror(source)) {
        snprintf(error, error_size, "%s: cannot be read", origin);
        return -EIO;
    }
    if (dataset->count == 0) {
        snprintf(error, error_size, "%s: no images in it", origin);
        return -EINVAL;
    }
    return 0;
}

/* The images in the order of the file, to training images first. */
static int split(struct dataset *dataset)
{
    struct dataset parted = {.count = dataset->count};
    size_t seen[DATASET_CLASSES] = {0}, test_count = 0, train_at = 0, test_at;
    parted.pixels = malloc(dataset->count * DATASET_PIXELS * sizeof *parted.pixels);
    parted.labels = malloc(dataset->count);
    if (!parted.pixels || !parted.labels) {
        dataset_destroy(&parted);
        return -ENOMEM;
    }
    for (size_t i = 0; i < dataset->count; i++) {
        test_count += ++seen[dataset->labels[i]] % DATASET_TEST_EVERY == 0;
    }
    parted.train_count = test_at = dataset->count - test_count;
    memset(seen, 0, sizeof seen);
    for (size_t i = 0; i < dataset->count; i++) {
        uint8_t label = dataset->labels[i];
        size_t to = ++seen[label] % DATASET_TEST_EVERY == 0 ? test_at++ : train_at++;
        take_image(parted.pixels + to * DATASET_PIXELS, parted.labels + to, dataset->pixels + i * DATASET_PIXELS,
                   label);
    }
    free(dataset->pixels);
    free(dataset->labels);
    dataset->pixels = parted.pixels;
    dataset->labels = parted.labels;
    dataset->train_count = parted.train_count;
    return 0;
}

int dataset_read(struct dataset *dataset, FILE *source, const char *origin, char *error, size_t error_size)
{
    *dataset = (struct dataset){0};
    int rc = read_images(dataset, source, origin, error, error_size);
    if (rc == 0) {
        rc = split(dataset);
        if (rc != 0) {
            snprintf(error, error_size, "%s: out of memory", origin);
        }
    }
    if (rc != 0) {
        dataset_destroy(dataset);
    }
    return rc;
}

int dataset_load(struct dataset *dataset, const char *path, char *error, size_t error_size)
{
    *dataset = (struct dataset){0};
    FILE *source = fopen(path, "re");
    if (!source) {
        int rc = -errno;
        snprintf(error, error_size, "%s: %s", path, strerror(-rc));
        return rc;
    }
    int rc = dataset_read(dataset, source, path, error, error_size);
    fclose(source);
    return rc;
}

int dataset_load_parts(struct dataset *dataset, const char *path, char *error, size_t error_size)
{
    int rc = dataset_load(dataset, path, error, error_size);
    if (rc == 0 && dataset->train_count == dataset->count) {
        snprintf(error, error_size, "%s: too few images to keep some for testing", path);
        dataset_destroy(dataset);
        rc = -EINVAL;
    }
    return rc;
}

void dataset_destroy(struct dataset *dataset)
{
    free(dataset->pixels);
    free(dataset->labels);
    *dataset = (struct dataset){0};
}
