#include "runtime/compute/tuning.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/compute/tile.h"

static const char heading[] = "expertd-tuning 1";
static const char *const product_names[TUNING_PRODUCTS] = {"forward", "gradient"};
static const uint64_t class_rows[TUNING_CLASSES] = {16, 64, 256, 1024};

enum { MAX_LINE = 128 };
_Static_assert(TUNING_TEXT_BYTES > TUNING_SIZES * TUNING_PRODUCTS * TUNING_CLASSES * MAX_LINE / 2 + TUNING_KEY_BYTES,
               "a full table, at less than half of the longest line each");
_Static_assert(TILE_COUNT <= INT8_MAX, "a tile's number fits its place");

const char *tuning_product_name(enum tuning_product product)
{
    return product_names[product];
}

unsigned tuning_class(uint64_t rows)
{
    unsigned class = 0;
    while (class < TUNING_CLASSES - 1 && rows > class_rows[class])
        class ++;
    return class;
}

uint64_t tuning_class_rows(unsigned class)
{
    return class_rows[class];
}

static const struct tuning_size *find_size(const struct tuning *tuning, uint64_t n, uint64_t k)
{
    for (unsigned i = 0; i < tuning->count; i++) {
        if (tuning->sizes[i].n == n && tuning->sizes[i].k == k)
            return &tuning->sizes[i];
    }
    return NULL;
}

int tuning_find(const struct tuning *tuning, enum tuning_product product, unsigned class, uint64_t n, uint64_t k)
{
    const struct tuning_size *size = find_size(tuning, n, k);
    return size == NULL ? TUNING_NONE : size->tiles[product][class];
}

int tuning_note(struct tuning *tuning, enum tuning_product product, unsigned class, uint64_t n, uint64_t k,
                unsigned tile)
{
    struct tuning_size *size = (struct tuning_size *)find_size(tuning, n, k);
    if (size == NULL) {
        if (tuning->count == TUNING_SIZES)
            return -ENOSPC;
        size = &tuning->sizes[tuning->count++];
        size->n = n;
        size->k = k;
        memset(size->tiles, TUNING_NONE, sizeof size->tiles);
    }
    size->tiles[product][class] = (int8_t)tile;
    return 0;
}

/* --- text --------------------------------------------------------------------------------------------------------- */

void tuning_key(char key[TUNING_KEY_BYTES], uint64_t hash, const char *device, const char *driver)
{
    snprintf(key, TUNING_KEY_BYTES, "%016" PRIx64 " %.160s, driver %.160s", hash, device, driver);
    for (char *c = key; *c != '\0'; c++)
        *c = (char)(*c >= ' ' && *c <= '~' ? *c : '?');
}

size_t tuning_print(const struct tuning *tuning, const char *key, char *text, size_t size)
{
    size_t length = (size_t)snprintf(text, size, "%s\n%s\n", heading, key);
    for (unsigned i = 0; i < tuning->count; i++) {
        for (unsigned p = 0; p < TUNING_PRODUCTS; p++) {
            for (unsigned c = 0; c < TUNING_CLASSES && length < size; c++) {
                const struct tuning_size *at = &tuning->sizes[i];
                if (at->tiles[p][c] == TUNING_NONE)
                    continue;
                length +=
                    (size_t)snprintf(text + length, size - length, "%s %" PRIu64 " %" PRIu64 " %" PRIu64 " %s\n",
                                     product_names[p], at->n, at->k, class_rows[c], tile_list[at->tiles[p][c]].name);
            }
        }
    }
    return length < size ? length : size - 1;
}

struct reader {
    const char *next, *end;
    unsigned line;
};

/* The next line, without its end; NULL: there is no whole one. */
static const char *read_line(struct reader *reader, size_t *length)
{
    const char *line = reader->next, *end = memchr(line, '\n', (size_t)(reader->end - line));
    if (end == NULL)
        return NULL;
    *length = (size_t)(end - line);
    reader->next = end + 1;
    reader->line++;
    return line;
}

/* "product n k rows tile" of a line of at most MAX_LINE bytes, with no byte more. */
static int parse_entry(struct tuning *tuning, const char *line, size_t length)
{
    char copy[MAX_LINE + 1], product[16], tile_name[32], again[MAX_LINE + 1];
    uint64_t n, k, rows;
    int product_index = -1, class_index = -1;
    if (length > MAX_LINE)
        return -EINVAL;
    memcpy(copy, line, length);
    copy[length] = '\0';
    if (sscanf(copy, "%15s %9" SCNu64 " %9" SCNu64 " %9" SCNu64 " %31s", product, &n, &k, &rows, tile_name) != 5)
        return -EINVAL;
    snprintf(again, sizeof again, "%s %" PRIu64 " %" PRIu64 " %" PRIu64 " %s", product, n, k, rows, tile_name);
    if (strlen(again) != length || memcmp(again, line, length) != 0 || n == 0 || k == 0)
        return -EINVAL;
    for (int i = 0; i < TUNING_PRODUCTS; i++)
        product_index = strcmp(product, product_names[i]) == 0 ? i : product_index;
    for (int i = 0; i < TUNING_CLASSES; i++)
        class_index = rows == class_rows[i] ? i : class_index;
    const int tile = tile_find(tile_name, strlen(tile_name));
    if (product_index < 0 || class_index < 0 || tile < 0)
        return -EINVAL;
    const enum tuning_product p = (enum tuning_product)product_index;
    if (tuning_find(tuning, p, (unsigned)class_index, n, k) != TUNING_NONE)
        return -EEXIST;
    return tuning_note(tuning, p, (unsigned)class_index, n, k, (unsigned)tile);
}

static int complain(struct tuning *tuning, char *error, size_t size, unsigned line, const char *what)
{
    tuning->count = 0;
    snprintf(error, size, "line %u: %s", line, what);
    return -EINVAL;
}

int tuning_parse(struct tuning *tuning, const char *key, const char *text, size_t length, char *error, size_t size)
{
    struct reader reader = {.next = text, .end = text + length};
    const char *line;
    size_t line_length = 0;
    tuning->count = 0;
    line = read_line(&reader, &line_length);
    if (line == NULL || line_length != sizeof heading - 1 || memcmp(line, heading, line_length) != 0)
        return complain(tuning, error, size, 1, "not such a file");
    line = read_line(&reader, &line_length);
    if (line == NULL || line_length != strlen(key) || memcmp(line, key, line_length) != 0)
        return complain(tuning, error, size, 2, "of another device, driver or source");
    while (reader.next < reader.end) {
        line = read_line(&reader, &line_length);
        if (line == NULL)
            return complain(tuning, error, size, reader.line + 1, "it ends in the middle");
        const int result = parse_entry(tuning, line, line_length);
        if (result != 0)
            return complain(tuning, error, size, reader.line,
                            result == -EEXIST   ? "it says so a second time"
                            : result == -ENOSPC ? "more sizes than there may be"
                                                : "not \"product n k rows tile\" with a tile that is known");
    }
    return 0;
}

/* --- file --------------------------------------------------------------------------------------------------------- */

/* Anything but a plain file of a modest size is refused before it is read: a fifo would block the start. */
static int read_all(int fd, char *text, size_t size, size_t *length)
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        return -errno;
    if (!S_ISREG(status.st_mode) || status.st_size < 0 || (uint64_t)status.st_size > size)
        return -EFBIG;
    *length = 0;
    while (*length < size) {
        const ssize_t count = read(fd, text + *length, size - *length);
        if (count < 0 && errno != EINTR)
            return -errno;
        if (count == 0)
            break;
        *length += count > 0 ? (size_t)count : 0;
    }
    return 0;
}

int tuning_load(struct tuning *tuning, const char *key, const char *path, char *error, size_t size)
{
    size_t length = 0;
    tuning->count = 0;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) {
        const int result = -errno;
        snprintf(error, size, "%s", strerror(-result));
        return result;
    }
    char *text = malloc(TUNING_TEXT_BYTES);
    int result = text != NULL ? read_all(fd, text, TUNING_TEXT_BYTES, &length) : -ENOMEM;
    close(fd);
    if (result == 0)
        result = tuning_parse(tuning, key, text, length, error, size);
    else
        snprintf(error, size, "%s", result == -EFBIG ? "no plain file of a modest size" : strerror(-result));
    free(text);
    return result;
}

static int write_all(int fd, const char *text, size_t length)
{
    for (size_t done = 0; done < length;) {
        const ssize_t count = write(fd, text + done, length - done);
        if (count < 0 && errno != EINTR)
            return -errno;
        done += count > 0 ? (size_t)count : 0;
    }
    return 0;
}

int tuning_save(const struct tuning *tuning, const char *key, const char *path)
{
    char temporary[PATH_MAX];
    if (snprintf(temporary, sizeof temporary, "%s.%ld", path, (long)getpid()) >= (int)sizeof temporary)
        return -ENAMETOOLONG;
    char *text = malloc(TUNING_TEXT_BYTES);
    if (text == NULL)
        return -ENOMEM;
    const size_t length = tuning_print(tuning, key, text, TUNING_TEXT_BYTES);
    (void)unlink(temporary); /* of a process of the same number that died */
    const int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int result = fd < 0 ? -errno : write_all(fd, text, length);
    if (fd >= 0 && close(fd) != 0 && result == 0)
        result = -errno;
    if (result == 0 && rename(temporary, path) != 0)
        result = -errno;
    if (result != 0)
        (void)unlink(temporary);
    free(text);
    return result;
}
