#include "runtime/state/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/half.h"
#include "runtime/state/checksum.h"
#include "runtime/state/json_text.h"

enum { LENGTH_BYTES = 8, MAX_DEPTH = 5, PIECE_BYTES = 1 << 16, BEGINNING = 4096 };

static const char metadata_name[] = "__metadata__";

/* What an expert's file is taken for at times: said by its first bytes, since its "length of the header" is nonsense.
 */
static const struct {
    const char *bytes;
    unsigned length;
    const char *what;
} others[] = {
    {"version https://git-lfs", 23, "it is a Git LFS pointer, whose file was never fetched (git lfs pull)"},
    {"PK\3\4", 4, "it is a zip archive, as PyTorch's .pt are: scripts/convert-state-dict converts it"},
    {"\x80\2", 2, "it is a pickle, as old .pt of PyTorch are: scripts/convert-state-dict converts it"},
    {"\x80\3", 2, "it is a pickle, as old .pt of PyTorch are: scripts/convert-state-dict converts it"},
    {"\x80\4", 2, "it is a pickle, as old .pt of PyTorch are: scripts/convert-state-dict converts it"},
    {"\x80\5", 2, "it is a pickle, as old .pt of PyTorch are: scripts/convert-state-dict converts it"},
    {"GGUF", 4, "it is a GGUF file"},
    {"\x89HDF", 4, "it is an HDF5 file"},
    {"\x93NUMPY", 6, "it is a NumPy array"},
    {"\x7f\x45LF", 4, "it is a program or a shared object (ELF)"},
    {"\x1f\x8b", 2, "it is compressed (gzip)"},
    {"\x28\xb5\x2f\xfd", 4, "it is compressed (zstd)"},
    {"\xfd\x37zXZ", 5, "it is compressed (xz)"},
    {"BZh", 3, "it is compressed (bzip2)"},
    {"7z\xbc\xaf", 4, "it is an archive (7-Zip)"},
};

struct safetensors {
    int fd;                      /* -1: the bytes are in memory */
    const unsigned char *memory; /* NULL: in the file */
    uint64_t data_offset, data_bytes;
    struct json_object *header; /* owns all names and strings */
    uint64_t header_checksum;   /* safetensors_header_checksum of it */
    struct safetensors_tensor *tensors;
    const struct safetensors_tensor **by_name; /* sorted */
    unsigned count;
};

/* The format grows: a dtype that is not here is one that cannot be used, and whose size is not known. */
static const struct {
    const char *name;
    uint32_t dtype;
    unsigned bytes;
} formats[] = {
    {"F32", DTYPE_FLOAT32, 4}, {"F64", DTYPE_FLOAT64, 8},  {"F16", DTYPE_FLOAT16, 2},  {"BF16", DTYPE_BFLOAT16, 2},
    {"I8", DTYPE_INT8, 1},     {"I16", DTYPE_INT16, 2},    {"I32", DTYPE_INT32, 4},    {"I64", DTYPE_INT64, 8},
    {"U8", DTYPE_UINT8, 1},    {"BOOL", DTYPE_BOOL, 1},    {"U16", DTYPE_NONE, 2},     {"U32", DTYPE_NONE, 4},
    {"U64", DTYPE_NONE, 8},    {"F8_E4M3", DTYPE_NONE, 1}, {"F8_E8M0", DTYPE_NONE, 1},
};

static int refuse(char *error, const char *format, ...) __attribute__((format(printf, 2, 3)));
static int refuse(char *error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(error, SAFETENSORS_ERROR_SIZE, format, args);
    va_end(args);
    return -EPROTO;
}

/* --- bytes -----------------------------------------------------------------------------------------------------------
 */

static int read_at(const struct safetensors *file, uint64_t offset, void *bytes, size_t length, char *error)
{
    if (file->memory) {
        memcpy(bytes, file->memory + offset, length);
        return 0;
    }
    char *at = bytes;
    while (length > 0) {
        const ssize_t n = pread(file->fd, at, length, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            const int rc = -errno;
            refuse(error, "it cannot be read: %s", strerror(-rc));
            return rc;
        }
        if (n == 0)
            return refuse(error, "it was shortened while it was read");
        at += n;
        offset += (uint64_t)n;
        length -= (size_t)n;
    }
    return 0;
}

static uint64_t little_endian(const unsigned char bytes[LENGTH_BYTES])
{
    uint64_t value = 0;
    for (int i = LENGTH_BYTES - 1; i >= 0; i--)
        value = value << 8 | bytes[i];
    return value;
}

/* --- the header ------------------------------------------------------------------------------------------------------
 */

uint64_t safetensors_header_checksum(const char *text, size_t length)
{
    static const char zeros[SAFETENSORS_CHECKSUM_SIZE] = "0000000000000000";
    const size_t at = strlen(SAFETENSORS_HEADER_START), digits = SAFETENSORS_CHECKSUM_SIZE - 1;
    struct checksum checksum = checksum_start();
    if (length < at + digits || memcmp(text, SAFETENSORS_HEADER_START, at) != 0) {
        checksum_add(&checksum, text, length);
        return checksum_end(checksum);
    }
    checksum_add(&checksum, text, at);
    checksum_add(&checksum, zeros, digits);
    checksum_add(&checksum, text + at + digits, length - at - digits);
    return checksum_end(checksum);
}

static bool get_size(struct json_object *number, uint64_t *value)
{
    /* json-c clamps what 64 bits do not hold; nothing that large passes the checks that follow. */
    if (!json_object_is_type(number, json_type_int) || json_object_get_int64(number) < 0)
        return false;
    *value = json_object_get_uint64(number);
    return true;
}

static int parse_shape(struct safetensors_tensor *tensor, struct json_object *shape, uint64_t *elements, char *error)
{
    if (!json_object_is_type(shape, json_type_array))
        return refuse(error, "tensor '%s' has no shape", tensor->name);
    const size_t ndim = json_object_array_length(shape);
    if (ndim > SAFETENSORS_MAX_DIMS)
        return refuse(error, "tensor '%s' has %zu dimensions, more than %d", tensor->name, ndim, SAFETENSORS_MAX_DIMS);
    tensor->ndim = (unsigned)ndim;
    *elements = 1;
    for (size_t i = 0; i < ndim; i++) {
        if (!get_size(json_object_array_get_idx(shape, i), &tensor->dims[i]))
            return refuse(error, "tensor '%s' has a shape that is not of whole numbers", tensor->name);
        if (__builtin_mul_overflow(*elements, tensor->dims[i], elements))
            return refuse(error, "tensor '%s' has a shape larger than 2^64", tensor->name);
    }
    return 0;
}

static int parse_range(struct safetensors_tensor *tensor, struct json_object *range, uint64_t data_bytes, char *error)
{
    uint64_t end;
    if (!json_object_is_type(range, json_type_array) || json_object_array_length(range) != 2 ||
        !get_size(json_object_array_get_idx(range, 0), &tensor->offset) ||
        !get_size(json_object_array_get_idx(range, 1), &end))
        return refuse(error, "tensor '%s' has no data_offsets", tensor->name);
    if (tensor->offset > end || end > data_bytes)
        return refuse(error, "tensor '%s' lies at bytes %" PRIu64 " to %" PRIu64 ", but there are %" PRIu64,
                      tensor->name, tensor->offset, end, data_bytes);
    tensor->bytes = end - tensor->offset;
    return 0;
}

static int parse_tensor(struct safetensors_tensor *tensor, struct json_object *entry, uint64_t data_bytes, char *error)
{
    struct json_object *dtype = NULL, *shape = NULL, *range = NULL;
    if (!json_object_is_type(entry, json_type_object) || json_object_object_length(entry) != 3 ||
        !json_object_object_get_ex(entry, "dtype", &dtype) || !json_object_object_get_ex(entry, "shape", &shape) ||
        !json_object_object_get_ex(entry, "data_offsets", &range) || !json_object_is_type(dtype, json_type_string))
        return refuse(error, "tensor '%s' is not described by dtype, shape and data_offsets", tensor->name);
    tensor->format = json_object_get_string(dtype);
    size_t format = 0;
    while (format < sizeof formats / sizeof *formats && strcmp(formats[format].name, tensor->format) != 0)
        format++;
    const bool known = format < sizeof formats / sizeof *formats;
    tensor->dtype = known ? formats[format].dtype : DTYPE_NONE;
    uint64_t elements = 0, bytes;
    int rc = parse_shape(tensor, shape, &elements, error);
    if (rc == 0)
        rc = parse_range(tensor, range, data_bytes, error);
    if (rc == 0 && known &&
        (__builtin_mul_overflow(elements, formats[format].bytes, &bytes) || bytes != tensor->bytes)) {
        char text[128];
        rc = refuse(error, "tensor '%s' is %s but has %" PRIu64 " bytes", tensor->name,
                    safetensors_shape_format(tensor->format, tensor->dims, tensor->ndim, text, sizeof text),
                    tensor->bytes);
    }
    return rc;
}

static int compare_offsets(const void *a, const void *b)
{
    const struct safetensors_tensor *x = a, *y = b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

/* Neither gaps nor overlaps, as the format asks; a file that lacks its end is noticed here too. */
static int check_cover(const struct safetensors *file, char *error)
{
    uint64_t covered = 0;
    for (unsigned i = 0; i < file->count; i++) {
        const struct safetensors_tensor *tensor = &file->tensors[i];
        if (tensor->offset != covered)
            return refuse(error,
                          "tensor '%s' begins at byte %" PRIu64 " of the data, but the one before ends at %" PRIu64,
                          tensor->name, tensor->offset, covered);
        covered += tensor->bytes;
    }
    if (covered != file->data_bytes)
        return refuse(error, "the tensors end at byte %" PRIu64 " of the data, but there are %" PRIu64, covered,
                      file->data_bytes);
    return 0;
}

static int check_metadata(struct json_object *metadata, char *error)
{
    if (!json_object_is_type(metadata, json_type_object))
        return refuse(error, "its %s are no strings", metadata_name);
    json_object_object_foreach(metadata, key, value)
    {
        if (!json_object_is_type(value, json_type_string))
            return refuse(error, "its metadata '%s' is no string", key);
    }
    return 0;
}

static int compare_names(const void *a, const void *b)
{
    const struct safetensors_tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

/* For safetensors_find: models have ten thousands of tensors. */
static int sort_names(struct safetensors *file)
{
    file->by_name = calloc(file->count + 1, sizeof(const struct safetensors_tensor *));
    if (!file->by_name)
        return -ENOMEM;
    for (unsigned i = 0; i < file->count; i++)
        file->by_name[i] = &file->tensors[i];
    qsort(file->by_name, file->count, sizeof *file->by_name, compare_names);
    return 0;
}

static int parse_members(struct safetensors *file, char *error)
{
    const size_t members = (size_t)json_object_object_length(file->header);
    file->tensors = calloc(members + 1, sizeof *file->tensors);
    if (!file->tensors)
        return -ENOMEM;
    json_object_object_foreach(file->header, name, entry)
    {
        int rc;
        if (strcmp(name, metadata_name) == 0) {
            rc = check_metadata(entry, error);
        } else {
            struct safetensors_tensor *tensor = &file->tensors[file->count++];
            tensor->name = name;
            rc = parse_tensor(tensor, entry, file->data_bytes, error);
        }
        if (rc < 0)
            return rc;
    }
    qsort(file->tensors, file->count, sizeof *file->tensors, compare_offsets);
    const int rc = check_cover(file, error);
    return rc < 0 ? rc : sort_names(file);
}

static int parse_header(struct safetensors *file, const char *text, size_t length, char *error)
{
    /* Writers fill the header up with spaces, so that the data is aligned. */
    while (length > 0 && text[length - 1] == ' ')
        length--;
    if (length == 0 || text[0] != '{' || memchr(text, 0, length))
        return refuse(error, "it is no safetensors file (its header is no JSON object)");
    const int rc = json_text_parse(&file->header, text, length, MAX_DEPTH, "its header", error, SAFETENSORS_ERROR_SIZE);
    return rc < 0 ? rc : parse_members(file, error);
}

static int check_header(const struct safetensors *file, char *error)
{
    char text[SAFETENSORS_CHECKSUM_SIZE];
    const char *expected = safetensors_metadata(file, SAFETENSORS_HEADER_CHECKSUM);
    if (!expected)
        return 0;
    snprintf(text, sizeof text, "%016" PRIx64, file->header_checksum);
    if (strcmp(text, expected) == 0)
        return 0;
    return refuse(error,
                  "its header is damaged, or was changed by a program that kept " SAFETENSORS_HEADER_CHECKSUM
                  " (%s, expected %s)",
                  text, expected);
}

static bool is_text(const char *start, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (!((start[i] >= ' ' && start[i] <= '~') || start[i] == '\n' || start[i] == '\r' || start[i] == '\t'))
            return false;
    return length > 0;
}

bool safetensors_other(const void *bytes, size_t length, char what[SAFETENSORS_ERROR_SIZE])
{
    static const char mark[] = "\xef\xbb\xbf"; /* of UTF-8 */
    enum { SHOWN = 60, ENTRY = 128 };          /* bytes: the first entry of an archive */
    char start[BEGINNING] = "";
    length = length < sizeof start ? length : sizeof start - 1;
    memcpy(start, bytes, length);
    if (strncmp(start, "PK\3\4", 4) == 0 && memmem(start, length < ENTRY ? length : ENTRY, ".npy", 4) != NULL)
        return refuse(what, "it is an archive of NumPy arrays (.npz)") < 0;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (length >= others[i].length && memcmp(start, others[i].bytes, others[i].length) == 0)
            return refuse(what, "%s", others[i].what) < 0;
    const char *text = start + (strncmp(start, mark, strlen(mark)) == 0 ? strlen(mark) : 0);
    text += strspn(text, " \t\r\n");
    const size_t left = length - (size_t)(text - start), line = strcspn(text, "\r\n");
    if (*text == '<')
        return refuse(what, "it is a web page, or other XML: what was downloaded is no file but an answer") < 0;
    if (*text == '{' && strstr(text, "\"weight_map\""))
        return refuse(what, "it is the index of a model in several files (shards): give the one that has the tensors") <
               0;
    if (*text == '{' || *text == '[')
        return refuse(what, "it is JSON text, no safetensors file") < 0;
    return is_text(text, left < SHOWN ? left : SHOWN) &&
           refuse(what, "it is text, which begins '%.*s'", line < SHOWN ? (int)line : SHOWN, text) < 0;
}

/* Why the length of a header makes no sense, if its first bytes tell. */
static int refuse_other(const struct safetensors *file, uint64_t file_bytes, char *error)
{
    char start[BEGINNING];
    const size_t length = file_bytes < sizeof start ? (size_t)file_bytes : sizeof start;
    const int rc = read_at(file, 0, start, length, error);
    return rc == 0 && safetensors_other(start, length, error) ? -EPROTO : rc;
}

static int read_header(struct safetensors *file, uint64_t file_bytes, char *error)
{
    unsigned char length_bytes[LENGTH_BYTES] = {0};
    int rc = file_bytes < LENGTH_BYTES ? refuse_other(file, file_bytes, error) : 0;
    if (rc == 0 && file_bytes < LENGTH_BYTES)
        return refuse(error, "it is no safetensors file, or lacks its end (%" PRIu64 " bytes)", file_bytes);
    if (rc == 0)
        rc = read_at(file, 0, length_bytes, sizeof length_bytes, error);
    if (rc < 0)
        return rc;
    const uint64_t length = little_endian(length_bytes);
    if (length > file_bytes - LENGTH_BYTES || length > SAFETENSORS_MAX_HEADER)
        rc = refuse_other(file, file_bytes, error);
    if (rc == 0 && (length > file_bytes - LENGTH_BYTES || length > SAFETENSORS_MAX_HEADER))
        return refuse(error,
                      "it is no safetensors file, or lacks its end (header of %" PRIu64 " bytes in a file of %" PRIu64
                      "; the longest that is read is %d)",
                      length, file_bytes, SAFETENSORS_MAX_HEADER);
    if (rc < 0)
        return rc;
    file->data_offset = LENGTH_BYTES + length;
    file->data_bytes = file_bytes - file->data_offset;
    char *text = malloc(length + 1);
    if (!text)
        return -ENOMEM;
    rc = read_at(file, LENGTH_BYTES, text, length, error);
    if (rc == 0) {
        file->header_checksum = safetensors_header_checksum(text, length);
        rc = parse_header(file, text, length, error);
    }
    if (rc == 0)
        rc = check_header(file, error);
    free(text);
    return rc;
}

static int open_file(struct safetensors *file, const char *path, uint64_t *bytes, char *error)
{
    struct stat info;
    /* O_NONBLOCK: opening a FIFO must not hang. */
    file->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file->fd < 0 || fstat(file->fd, &info) != 0) {
        const int rc = -errno;
        refuse(error, "it cannot be opened: %s", strerror(-rc));
        return rc;
    }
    if (!S_ISREG(info.st_mode))
        return refuse(error, "it is no regular file");
    *bytes = (uint64_t)info.st_size;
    return 0;
}

int safetensors_open(struct safetensors **file, const char *path, char error[SAFETENSORS_ERROR_SIZE])
{
    uint64_t bytes = 0;
    error[0] = 0;
    *file = calloc(1, sizeof **file);
    int rc = *file ? open_file(*file, path, &bytes, error) : -ENOMEM;
    if (rc == 0)
        rc = read_header(*file, bytes, error);
    if (rc == -ENOMEM)
        refuse(error, "there is not enough memory to read it");
    if (rc < 0)
        safetensors_close(file);
    return rc;
}

int safetensors_parse(struct safetensors **file, const void *bytes, size_t length, char error[SAFETENSORS_ERROR_SIZE])
{
    error[0] = 0;
    *file = calloc(1, sizeof **file);
    if (!*file)
        return -ENOMEM;
    (*file)->fd = -1;
    (*file)->memory = bytes;
    const int rc = read_header(*file, length, error);
    if (rc < 0)
        safetensors_close(file);
    return rc;
}

void safetensors_close(struct safetensors **file)
{
    if (!*file)
        return;
    if ((*file)->fd >= 0)
        close((*file)->fd);
    json_object_put((*file)->header);
    free((*file)->tensors);
    free((*file)->by_name);
    free(*file);
    *file = NULL;
}

/* --- what is in it ---------------------------------------------------------------------------------------------------
 */

unsigned safetensors_count(const struct safetensors *file)
{
    return file->count;
}

const struct safetensors_tensor *safetensors_tensor(const struct safetensors *file, unsigned index)
{
    return &file->tensors[index];
}

const struct safetensors_tensor *safetensors_find(const struct safetensors *file, const char *name)
{
    const struct safetensors_tensor wanted = {.name = name}, *const key = &wanted;
    const struct safetensors_tensor *const *found =
        bsearch(&key, file->by_name, file->count, sizeof *file->by_name, compare_names);
    return found ? *found : NULL;
}

const char *safetensors_metadata(const struct safetensors *file, const char *key)
{
    struct json_object *metadata = NULL, *value = NULL;
    if (!json_object_object_get_ex(file->header, metadata_name, &metadata) ||
        !json_object_object_get_ex(metadata, key, &value))
        return NULL;
    return json_object_get_string(value);
}

static void widen(uint32_t dtype, const void *from, size_t count, float *to)
{
    const uint16_t *halves = from;
    const double *doubles = from;
    for (size_t i = 0; i < count; i++)
        to[i] = dtype == DTYPE_FLOAT16    ? half_to_float(halves[i])
                : dtype == DTYPE_BFLOAT16 ? half_float_of_bits((uint32_t)halves[i] << 16)
                                          : (float)doubles[i];
}

int safetensors_read(const struct safetensors *file, const struct safetensors_tensor *tensor, void *bytes,
                     char error[SAFETENSORS_ERROR_SIZE])
{
    return read_at(file, file->data_offset + tensor->offset, bytes, tensor->bytes, error);
}

int safetensors_read_range(const struct safetensors *file, const struct safetensors_tensor *tensor, uint64_t offset,
                           size_t length, void *bytes, char error[SAFETENSORS_ERROR_SIZE])
{
    if (offset > tensor->bytes || length > tensor->bytes - offset)
        return refuse(error, "tensor '%s' has no bytes %" PRIu64 " to %" PRIu64, tensor->name, offset, offset + length);
    return read_at(file, file->data_offset + tensor->offset + offset, bytes, length, error);
}

int safetensors_read_floats(const struct safetensors *file, const struct safetensors_tensor *tensor, float *values,
                            char error[SAFETENSORS_ERROR_SIZE])
{
    _Alignas(8) unsigned char piece[PIECE_BYTES];
    const size_t size = dtype_size(tensor->dtype);
    if (tensor->dtype == DTYPE_FLOAT32)
        return safetensors_read(file, tensor, values, error);
    if (tensor->dtype != DTYPE_FLOAT64 && tensor->dtype != DTYPE_FLOAT16 && tensor->dtype != DTYPE_BFLOAT16)
        return refuse(error, "tensor '%s' is of dtype %s: F32, F64, F16 and BF16 can be used", tensor->name,
                      tensor->format);
    for (uint64_t done = 0; done < tensor->bytes;) {
        const uint64_t left = tensor->bytes - done;
        const size_t length = left < sizeof piece ? (size_t)left : sizeof piece;
        const int rc = read_at(file, file->data_offset + tensor->offset + done, piece, length, error);
        if (rc < 0)
            return rc;
        widen(tensor->dtype, piece, length / size, values + done / size);
        done += length;
    }
    return 0;
}

int safetensors_verify(const struct safetensors *file, char error[SAFETENSORS_ERROR_SIZE])
{
    unsigned char piece[PIECE_BYTES];
    const char *expected = safetensors_metadata(file, "data_checksum");
    if (!expected)
        return 0;
    struct checksum checksum = checksum_start();
    for (uint64_t done = 0; done < file->data_bytes;) {
        const uint64_t left = file->data_bytes - done;
        const size_t length = left < sizeof piece ? (size_t)left : sizeof piece;
        const int rc = read_at(file, file->data_offset + done, piece, length, error);
        if (rc < 0)
            return rc;
        checksum_add(&checksum, piece, length);
        done += length;
    }
    char text[17];
    snprintf(text, sizeof text, "%016" PRIx64, checksum_end(checksum));
    if (strcmp(text, expected) == 0)
        return 0;
    return refuse(error, "its data is damaged (checksum %s, expected %s)", text, expected);
}

const char *safetensors_shape_format(const char *format, const uint64_t *dims, unsigned ndim, char *text, size_t size)
{
    size_t used = (size_t)snprintf(text, size, "%s[", format);
    for (unsigned i = 0; i < ndim && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%" PRIu64, i ? ", " : "", dims[i]);
    if (used < size)
        snprintf(text + used, size - used, "]");
    return text;
}
