#include "client/expertctl/npy.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char magic[6] = {'\x93', 'N', 'U', 'M', 'P', 'Y'};
static const uint64_t bytes_max = UINT64_C(1) << 40;

/* What stands behind the mark of the byte order; the first of a dtype is written. */
static const struct {
    const char *type;
    uint32_t dtype;
} types[] = {
    {"f4", DTYPE_FLOAT32}, {"f8", DTYPE_FLOAT64}, {"f2", DTYPE_FLOAT16}, {"V2", DTYPE_BFLOAT16},
    {"i1", DTYPE_INT8},    {"i2", DTYPE_INT16},   {"i4", DTYPE_INT32},   {"i8", DTYPE_INT64},
    {"u1", DTYPE_UINT8},   {"b1", DTYPE_BOOL},    {"?", DTYPE_BOOL},
};
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "'=', the order of the machine, means '<' below");

/* The header's text, and the first thing that was wrong with it. */
struct cursor {
    const char *at, *end;
    const char *problem;
};

static __attribute__((format(printf, 4, 5))) int fail(int code, char *error, size_t error_size, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error, error_size, format, arguments);
    va_end(arguments);
    return code;
}

static void skip_space(struct cursor *c)
{
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\t' || *c->at == '\n'))
        c->at++;
}

/* Takes one punctuation character, with the space before it, if it is there. */
static bool take(struct cursor *c, char wanted)
{
    skip_space(c);
    if (c->at == c->end || *c->at != wanted)
        return false;
    c->at++;
    return true;
}

static bool take_word(struct cursor *c, const char *word)
{
    const size_t length = strlen(word);
    skip_space(c);
    if ((size_t)(c->end - c->at) < length || memcmp(c->at, word, length) != 0)
        return false;
    c->at += length;
    return true;
}

/* A quoted string without escapes, of less than size bytes, none of them 0; in Python 2 it may be of unicode. */
static bool take_string(struct cursor *c, char *text, size_t size)
{
    skip_space(c);
    if (c->end - c->at > 1 && *c->at == 'u')
        c->at++;
    if (c->at == c->end || (*c->at != '\'' && *c->at != '"'))
        return false;
    const char quote = *c->at++;
    const char *close = memchr(c->at, quote, (size_t)(c->end - c->at));
    const size_t length = close ? (size_t)(close - c->at) : size;
    if (length >= size || memchr(c->at, 0, length))
        return false;
    memcpy(text, c->at, length);
    text[length] = 0;
    c->at = close + 1;
    return true;
}

static bool take_number(struct cursor *c, uint64_t *number)
{
    skip_space(c);
    if (c->at == c->end || *c->at < '0' || *c->at > '9')
        return false;
    *number = 0;
    for (; c->at < c->end && *c->at >= '0' && *c->at <= '9'; c->at++) {
        if (*number > UINT64_MAX / 10 - 9)
            return false;
        *number = *number * 10 + (uint64_t)(*c->at - '0');
    }
    if (c->at < c->end && *c->at == 'L') /* Python 2's long */
        c->at++;
    return true;
}

/* '<' little-endian, '>' big-endian, '=' as the machine, '|' of one byte or raw; '=' where none stands. */
static const char *parse_descr(struct cursor *c, struct npy *array)
{
    char descr[16];
    if (!take_string(c, descr, sizeof descr))
        return "its dtype is not a simple one";
    const char *type = strchr("<>=|", descr[0]) && descr[0] ? descr + 1 : descr;
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (strcmp(type, types[i].type) == 0)
            array->dtype = types[i].dtype;
    if (!array->dtype)
        return "its dtype is none of float16, float32, float64, bfloat16, int8 to int64, uint8, bool";
    return descr[0] == '>' && dtype_size(array->dtype) > 1
               ? "it is big-endian: save array.astype(array.dtype.newbyteorder('<'))"
               : NULL;
}

static const char *parse_shape(struct cursor *c, struct npy *array)
{
    if (!take(c, '('))
        return "its shape is no tuple";
    array->ndim = 0;
    while (!take(c, ')')) {
        if (array->ndim == NPY_MAX_DIMS)
            return "it has more than 8 dimensions";
        if (!take_number(c, &array->shape[array->ndim]))
            return "a dimension of its shape is no number";
        array->ndim++;
        if (!take(c, ',') && (c->at == c->end || *c->at != ')'))
            return "its shape is no tuple";
    }
    return NULL;
}

/* {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), } with the keys in any order. */
static const char *parse_dictionary(struct cursor *c, struct npy *array, bool *fortran)
{
    enum { DESCR = 1, ORDER = 2, SHAPE = 4 };
    unsigned seen = 0;
    if (!take(c, '{'))
        return "its header is no dictionary";
    while (!take(c, '}')) {
        char key[16];
        unsigned which = 0;
        const char *problem = NULL;
        if (!take_string(c, key, sizeof key) || !take(c, ':'))
            return "its header is no dictionary";
        if (strcmp(key, "descr") == 0) {
            which = DESCR;
            problem = parse_descr(c, array);
        } else if (strcmp(key, "fortran_order") == 0) {
            which = ORDER;
            *fortran = take_word(c, "True");
            if (!*fortran && !take_word(c, "False"))
                problem = "fortran_order is neither True nor False";
        } else if (strcmp(key, "shape") == 0) {
            which = SHAPE;
            problem = parse_shape(c, array);
        }
        if (problem)
            return problem;
        if (!which || (seen & which))
            return "its header has an unknown or a repeated key";
        seen |= which;
        if (!take(c, ',') && (c->at == c->end || *c->at != '}'))
            return "its header is no dictionary";
    }
    skip_space(c);
    if (c->at != c->end)
        return "something follows the dictionary of its header";
    return seen == (DESCR | ORDER | SHAPE) ? NULL : "its header lacks descr, fortran_order or shape";
}

/* Where the header's text lies; its length by the file's version. */
static const char ends_in_header[] = "it ends inside its header", ends_in_array[] = "it ends before its array does";

static const char *find_header(const unsigned char *file, size_t size, struct cursor *c)
{
    if (size < 10 || memcmp(file, magic, sizeof magic) != 0)
        return "it does not begin as .npy files do";
    if (file[6] < 1 || file[6] > 3 || file[7] != 0)
        return "it is of an unknown version of the format";
    size_t start = 10;
    size_t length = file[8] | (size_t)file[9] << 8;
    if (file[6] > 1) {
        if (size < 12)
            return ends_in_header;
        start = 12;
        length |= (size_t)file[10] << 16 | (size_t)file[11] << 24;
    }
    if (length > size - start)
        return ends_in_header;
    c->at = (const char *)file + start;
    c->end = c->at + length;
    return NULL;
}

static const char *parse(const void *file, size_t size, struct npy *array, size_t *data_offset)
{
    struct cursor c = {0};
    bool fortran = false;
    const char *problem = find_header(file, size, &c);
    if (!problem)
        problem = parse_dictionary(&c, array, &fortran);
    if (problem)
        return problem;
    uint64_t bytes = dtype_size(array->dtype);
    unsigned long_dims = 0;
    for (uint32_t i = 0; i < array->ndim; i++) {
        if (array->shape[i] && bytes > bytes_max / array->shape[i])
            return "its shape is larger than 2^40 bytes";
        bytes *= array->shape[i];
        long_dims += array->shape[i] > 1;
    }
    if (fortran && long_dims > 1)
        return "it is in Fortran order: save numpy.ascontiguousarray(array)";
    *data_offset = (size_t)(c.end - (const char *)file);
    array->bytes = bytes;
    if (size - *data_offset < bytes)
        return ends_in_array;
    return size - *data_offset > bytes ? "something follows its array" : NULL;
}

int npy_parse(const void *file, size_t size, struct npy *array, size_t *data_offset, char *error, size_t error_size)
{
    *array = (struct npy){0};
    const char *problem = parse(file, size, array, data_offset);
    return problem ? fail(-EINVAL, error, error_size, "%s", problem) : 0;
}

/* Whether what has been read so far may still become a whole array: what cannot is not read to its end. */
static bool is_open(const unsigned char *bytes, size_t size)
{
    struct npy array = {0};
    size_t offset;
    const char *problem = parse(bytes, size, &array, &offset);
    return !problem || problem == ends_in_header || problem == ends_in_array;
}

/* Everything up to the end of the file, so that a pipe will do, too. */
static int read_all(int fd, unsigned char **bytes, size_t *size)
{
    size_t capacity = 0;
    *bytes = NULL;
    *size = 0;
    for (;;) {
        if (*size == capacity) {
            if (capacity > 0 && !is_open(*bytes, *size))
                return 0;
            capacity = capacity ? 2 * capacity : 65536;
            unsigned char *larger = capacity <= 2 * bytes_max ? realloc(*bytes, capacity) : NULL;
            if (!larger)
                return -ENOMEM;
            *bytes = larger;
        }
        const ssize_t n = read(fd, *bytes + *size, capacity - *size);
        if (n == 0)
            return 0;
        if (n > 0)
            *size += (size_t)n;
        else if (errno != EINTR)
            return -errno;
    }
}

int npy_read(const char *path, struct npy *array, char *error, size_t error_size)
{
    const bool standard = strcmp(path, "-") == 0;
    unsigned char *file = NULL;
    size_t size;
    size_t offset = 0;
    *array = (struct npy){0};
    const int fd = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        const int code = -errno;
        return fail(code, error, error_size, "%s: %s", path, strerror(-code));
    }
    int rc = read_all(fd, &file, &size);
    if (!standard)
        close(fd);
    if (rc < 0) {
        fail(rc, error, error_size, "%s: %s", path, strerror(-rc));
    } else {
        const char *problem = parse(file, size, array, &offset);
        if (problem)
            rc = fail(-EINVAL, error, error_size, "%s: %s", path, problem);
    }
    if (rc < 0) {
        free(file);
        *array = (struct npy){0};
        return rc;
    }
    memmove(file, file + offset, array->bytes); /* to where malloc aligned for any dtype */
    array->data = file;
    return 0;
}

/* A header for the array, padded so that the data begins at a multiple of 64; its length, 0 for a dtype without descr.
 */
static size_t format_header(const struct npy *array, char *text, size_t size)
{
    const char *type = NULL;
    char shape[NPY_MAX_DIMS * 24 + 4] = "";
    int used = 0;
    for (size_t i = 0; i < sizeof types / sizeof types[0] && !type; i++)
        if (types[i].dtype == array->dtype)
            type = types[i].type;
    if (!type || array->ndim > NPY_MAX_DIMS)
        return 0;
    for (uint32_t i = 0; i < array->ndim; i++)
        used += snprintf(shape + used, sizeof shape - (size_t)used, "%" PRIu64 ", ", array->shape[i]);
    if (array->ndim > 1)
        shape[used - 2] = 0; /* only a tuple of one keeps its comma */
    used = 10 + snprintf(text + 10, size - 10, "{'descr': '%c%s', 'fortran_order': False, 'shape': (%s), }",
                         dtype_size(array->dtype) > 1 ? '<' : '|', type, shape);
    while ((used + 1) % 64)
        text[used++] = ' ';
    text[used++] = '\n';
    memcpy(text, magic, sizeof magic);
    text[6] = 1;
    text[7] = 0;
    text[8] = (char)((used - 10) & 0xff);
    text[9] = (char)((used - 10) >> 8);
    return (size_t)used;
}

static int write_all(int fd, const char *bytes, size_t size)
{
    while (size > 0) {
        const ssize_t n = write(fd, bytes, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        bytes += n;
        size -= (size_t)n;
    }
    return 0;
}

int npy_write_to(int fd, const char *path, const struct npy *array, char *error, size_t error_size)
{
    char header[512];
    const size_t length = format_header(array, header, sizeof header);
    if (length == 0)
        return fail(-EINVAL, error, error_size, "%s: this dtype or rank has no .npy form", path);
    int rc = write_all(fd, header, length);
    if (rc == 0)
        rc = write_all(fd, array->data, array->bytes);
    return rc < 0 ? fail(rc, error, error_size, "%s: %s", path, strerror(-rc)) : 0;
}

int npy_write(const char *path, const struct npy *array, char *error, size_t error_size)
{
    if (strcmp(path, "-") == 0)
        return npy_write_to(STDOUT_FILENO, path, array, error, error_size);
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        const int code = -errno;
        return fail(code, error, error_size, "%s: %s", path, strerror(-code));
    }
    int rc = npy_write_to(fd, path, array, error, error_size);
    if (close(fd) < 0 && rc == 0) {
        rc = -errno;
        fail(rc, error, error_size, "%s: %s", path, strerror(-rc));
    }
    return rc;
}

void npy_clear(struct npy *array)
{
    free(array->data);
    *array = (struct npy){0};
}
