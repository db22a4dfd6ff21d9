/* What a search for the fastest tiles found on a device: for products of a size (n, k) and a class of row counts, the
 * tile. It is kept in the device's cache folder as text, one file for each device, driver and kernel source:
 *
 *     expertd-tuning 1
 *     0123456789abcdef <the device and its driver>
 *     forward 4096 1024 64 32x64-4x4-16-2
 *
 * (product, n, k, the class's largest row count, the tile's name). What is in the file is not trusted: one that is
 * wrong anywhere is not used at all. */
#ifndef EXPERTD_RUNTIME_TUNING_H
#define EXPERTD_RUNTIME_TUNING_H

#include <stddef.h>
#include <stdint.h>

enum tuning_product { TUNING_FORWARD, TUNING_GRADIENT, TUNING_PRODUCTS };
const char *tuning_product_name(enum tuning_product product);

enum {
    TUNING_CLASSES = 4, /* of row counts: to 16, to 64, to 256, and more */
    TUNING_SIZES = 64,
    TUNING_NONE = -1,
    TUNING_KEY_BYTES = 384,
    TUNING_TEXT_BYTES = 64 * 1024, /* the largest file, with room to spare */
};

struct tuning {
    unsigned count;
    struct tuning_size {
        uint64_t n, k;
        int8_t tiles[TUNING_PRODUCTS][TUNING_CLASSES]; /* index into tile_list, or TUNING_NONE */
    } sizes[TUNING_SIZES];
};

unsigned tuning_class(uint64_t rows);
/* The row count that stands for a class, which is its largest; of the last, 1024. */
uint64_t tuning_class_rows(unsigned class);

/* The tile, or TUNING_NONE. */
int tuning_find(const struct tuning *tuning, enum tuning_product product, unsigned class, uint64_t n, uint64_t k);
/* -ENOSPC: there are TUNING_SIZES others. */
int tuning_note(struct tuning *tuning, enum tuning_product product, unsigned class, uint64_t n, uint64_t k,
                unsigned tile);

/* Of one line: the hash, and what people call the device, in which what is not printable becomes '?'. */
void tuning_key(char key[TUNING_KEY_BYTES], uint64_t hash, const char *device, const char *driver);
/* The file's text, of at most `size` bytes with its NUL; its length. */
size_t tuning_print(const struct tuning *tuning, const char *key, char *text, size_t size);
/* -EINVAL, with what is wrong in `error` and nothing in *tuning, if it is not such a text with that key. */
int tuning_parse(struct tuning *tuning, const char *key, const char *text, size_t length, char *error, size_t size);

/* The same from and to a file. -ENOENT: there is none; -EINVAL as above; else the system's error. */
int tuning_load(struct tuning *tuning, const char *key, const char *path, char *error, size_t size);
int tuning_save(const struct tuning *tuning, const char *key, const char *path);

#endif
