#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/failpoint.h"
#include "runtime/state/checksum.h"
#include "runtime/state/safetensors.h"

struct safetensors_writer {
    int fd;
    char *path, *temporary;
    uint64_t expected, appended;
    struct checksum checksum; /* of the data */
    char *header;             /* with room for the two checksums, which are known when all data has passed */
    size_t header_bytes;
};

static const char no_checksum[SAFETENSORS_CHECKSUM_SIZE] = "0000000000000000";
static const char data_checksum[] = "data_checksum";
enum { DIGITS = SAFETENSORS_CHECKSUM_SIZE - 1, LENGTH_BYTES = 8 };

static const char *format_of(uint32_t dtype)
{
    static const char *const names[] = {
        [DTYPE_FLOAT32] = "F32", [DTYPE_FLOAT64] = "F64", [DTYPE_FLOAT16] = "F16", [DTYPE_BFLOAT16] = "BF16",
        [DTYPE_INT8] = "I8",     [DTYPE_INT16] = "I16",   [DTYPE_INT32] = "I32",   [DTYPE_INT64] = "I64",
        [DTYPE_UINT8] = "U8",    [DTYPE_BOOL] = "BOOL",
    };
    return dtype_size(dtype) ? names[dtype] : NULL;
}

static int add_tensor(struct json_object *header, const struct safetensors_tensor *tensor, uint64_t *offset)
{
    if (!format_of(tensor->dtype) || tensor->ndim > SAFETENSORS_MAX_DIMS)
        return -EINVAL;
    struct json_object *entry = json_object_new_object(), *shape = json_object_new_array(),
                       *range = json_object_new_array();
    uint64_t bytes = dtype_size(tensor->dtype);
    for (unsigned i = 0; i < tensor->ndim; i++) {
        json_object_array_add(shape, json_object_new_uint64(tensor->dims[i]));
        bytes *= tensor->dims[i];
    }
    json_object_array_add(range, json_object_new_uint64(*offset));
    json_object_array_add(range, json_object_new_uint64(*offset + bytes));
    json_object_object_add(entry, "dtype", json_object_new_string(format_of(tensor->dtype)));
    json_object_object_add(entry, "shape", shape);
    json_object_object_add(entry, "data_offsets", range);
    json_object_object_add(header, tensor->name, entry);
    *offset += bytes;
    return 0;
}

static int write_all(int fd, const void *bytes, size_t length)
{
    const char *at = bytes;
    while (length > 0) {
        if (FAILPOINT("checkpoint.write"))
            return -ENOSPC;
        const ssize_t n = write(fd, at, length);
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n > 0) {
            at += n;
            length -= (size_t)n;
        }
    }
    return 0;
}

/* The length, the header and spaces up to a multiple of 8, so that who maps the file finds the data aligned. */
static int write_header(struct safetensors_writer *writer, struct json_object *header)
{
    size_t length = 0;
    const char *text =
        json_object_to_json_string_length(header, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &length);
    if (!text)
        return -ENOMEM;
    const size_t padded = (length + 7) / 8 * 8;
    if (padded > SAFETENSORS_MAX_HEADER)
        return -E2BIG;
    writer->header = malloc(padded);
    if (!writer->header)
        return -ENOMEM;
    memcpy(writer->header, text, length);
    memset(writer->header + length, ' ', padded - length);
    writer->header_bytes = padded;
    unsigned char start[LENGTH_BYTES];
    for (int i = 0; i < LENGTH_BYTES; i++)
        start[i] = (unsigned char)(padded >> (8 * i));
    const int rc = write_all(writer->fd, start, sizeof start);
    return rc == 0 ? write_all(writer->fd, writer->header, padded) : rc;
}

static void put_digits(char *at, uint64_t checksum)
{
    char text[SAFETENSORS_CHECKSUM_SIZE];
    snprintf(text, sizeof text, "%016" PRIx64, checksum);
    memcpy(at, text, DIGITS);
}

/* Both stand at the header's begin, the one of the header itself first. */
static int write_checksums(struct safetensors_writer *writer)
{
    char *of_header = writer->header + strlen(SAFETENSORS_HEADER_START);
    char *of_data = of_header + strlen(no_checksum) + strlen("\",\"") + strlen(data_checksum) + strlen("\":\"");
    put_digits(of_data, checksum_end(writer->checksum));
    put_digits(of_header, safetensors_header_checksum(writer->header, writer->header_bytes));
    const size_t length = (size_t)(of_data + DIGITS - writer->header);
    errno = 0;
    if (pwrite(writer->fd, writer->header, length, LENGTH_BYTES) == (ssize_t)length)
        return 0;
    return errno ? -errno : -EIO;
}

static int start_file(struct safetensors_writer *writer, const struct safetensors_tensor *tensors, unsigned count,
                      const struct safetensors_pair *metadata, unsigned pairs)
{
    /* The checksums first of all, so that they are where write_checksums looks for them. */
    struct json_object *header = json_object_new_object(), *strings = json_object_new_object();
    json_object_object_add(strings, SAFETENSORS_HEADER_CHECKSUM, json_object_new_string(no_checksum));
    json_object_object_add(strings, data_checksum, json_object_new_string(no_checksum));
    for (unsigned i = 0; i < pairs; i++)
        json_object_object_add(strings, metadata[i].key, json_object_new_string(metadata[i].value));
    json_object_object_add(header, "__metadata__", strings);
    int rc = 0;
    for (unsigned i = 0; i < count && rc == 0; i++)
        rc = add_tensor(header, &tensors[i], &writer->expected);
    if (rc == 0 && (unsigned)json_object_object_length(header) != count + 1)
        rc = -EEXIST;
    if (rc == 0) {
        /* What a write that was cut short has left, or somebody has put there. */
        if (unlink(writer->temporary) != 0 && errno == EISDIR)
            (void)rmdir(writer->temporary);
        writer->fd = open(writer->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        rc = writer->fd < 0 ? -errno : write_header(writer, header);
    }
    json_object_put(header);
    return rc;
}

int safetensors_writer_open(struct safetensors_writer **writer, const char *path,
                            const struct safetensors_tensor *tensors, unsigned count,
                            const struct safetensors_pair *metadata, unsigned pairs)
{
    struct safetensors_writer *w = *writer = calloc(1, sizeof *w);
    if (!w)
        return -ENOMEM;
    w->fd = -1;
    w->checksum = checksum_start();
    w->path = strdup(path);
    if (!w->path || asprintf(&w->temporary, "%s" SAFETENSORS_TEMPORARY_SUFFIX, path) < 0) {
        w->temporary = NULL;
        safetensors_writer_abort(writer);
        return -ENOMEM;
    }
    const int rc = start_file(w, tensors, count, metadata, pairs);
    if (rc < 0)
        safetensors_writer_abort(writer);
    return rc;
}

int safetensors_writer_append(struct safetensors_writer *writer, const void *bytes, size_t length)
{
    if (length > writer->expected - writer->appended)
        return -EINVAL;
    writer->appended += length;
    checksum_add(&writer->checksum, bytes, length);
    return write_all(writer->fd, bytes, length);
}

int safetensors_sync_folder_of(const char *path)
{
    char *copy = strdup(path);
    if (!copy)
        return -ENOMEM;
    const int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(copy);
    if (fd < 0)
        return -errno;
    const int rc = fsync(fd) == 0 ? 0 : -errno;
    close(fd);
    return rc;
}

static int finish_file(struct safetensors_writer *writer)
{
    if (writer->appended != writer->expected)
        return -EINVAL;
    const int rc = write_checksums(writer);
    if (rc < 0)
        return rc;
    if (FAILPOINT("checkpoint.fsync"))
        return -EIO;
    if (fsync(writer->fd) != 0)
        return -errno;
    const int fd = writer->fd;
    writer->fd = -1;
    const bool closed = close(fd) == 0;
    if (closed && FAILPOINT("checkpoint.rename"))
        return -EIO;
    if (!closed || rename(writer->temporary, writer->path) != 0)
        return -errno;
    free(writer->temporary);
    writer->temporary = NULL; /* it is the file now: nothing to remove */
    return safetensors_sync_folder_of(writer->path);
}

int safetensors_writer_commit(struct safetensors_writer **writer)
{
    const int rc = finish_file(*writer);
    safetensors_writer_abort(writer);
    return rc;
}

void safetensors_writer_abort(struct safetensors_writer **writer)
{
    struct safetensors_writer *w = *writer;
    if (!w)
        return;
    if (w->fd >= 0)
        close(w->fd);
    if (w->temporary)
        unlink(w->temporary);
    free(w->temporary);
    free(w->path);
    free(w->header);
    free(w);
    *writer = NULL;
}
