#include "examples/digits/head.h"

#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "examples/digits/dataset.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the file's floats are little-endian, as memory is here");

enum { LENGTH_BYTES = 8, MAX_HEADER_BYTES = 65536, MAX_DIMS = 2, ENTRIES = 4 };

/* Where a tensor of the file goes in a head. */
struct entry {
    const char *name;
    int dims;
    size_t shape[MAX_DIMS];
    float *values;
};

static void head_entries(const struct head *head, struct entry entries[ENTRIES])
{
    const struct linear *front = &head->front, *back = &head->back;
    entries[0] = (struct entry){"front.weight", 2, {front->out, front->in}, front->weight};
    entries[1] = (struct entry){"front.bias", 1, {front->out, 1}, front->bias};
    entries[2] = (struct entry){"back.weight", 2, {back->out, back->in}, back->weight};
    entries[3] = (struct entry){"back.bias", 1, {back->out, 1}, back->bias};
}

static size_t entry_bytes(const struct entry *entry)
{
    return entry->shape[0] * (entry->dims == 2 ? entry->shape[1] : 1) * sizeof(float);
}

__attribute__((format(printf, 4, 5))) static int fail(int rc, char *error, size_t error_size, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error, error_size, format, arguments);
    va_end(arguments);
    return rc;
}

int head_create(struct head *head, size_t hidden, uint64_t seed)
{
    *head = (struct head){.hidden = hidden};
    int rc = linear_create(&head->front, DATASET_PIXELS, hidden, seed);
    if (rc == 0) {
        rc = linear_create(&head->back, hidden, DATASET_CLASSES, ~seed);
    }
    if (rc != 0) {
        head_destroy(head);
    }
    return rc;
}

void head_destroy(struct head *head)
{
    linear_destroy(&head->front);
    linear_destroy(&head->back);
    *head = (struct head){0};
}

/* The index-th number of a JSON list, or UINT64_MAX if it is not there or no such number. */
static uint64_t list_number(json_object *list, size_t index)
{
    json_object *item = json_object_is_type(list, json_type_array) ? json_object_array_get_idx(list, index) : NULL;
    int64_t value = json_object_is_type(item, json_type_int) ? json_object_get_int64(item) : -1;
    return value < 0 ? UINT64_MAX : (uint64_t)value;
}

/* The header's JSON object (to be put), or NULL with error set; *body is where the tensors begin. */
static json_object *read_header(FILE *source, const char *origin, uint64_t *body, char *error, size_t error_size)
{
    uint64_t length = 0;
    char *text = NULL;
    json_object *header = NULL;
    json_tokener *parser = json_tokener_new();
    if (fread(&length, sizeof length, 1, source) != 1 || length == 0 || length > MAX_HEADER_BYTES) {
        fail(0, error, error_size, "%s: this is no safetensors file, or its header is too long", origin);
    } else if (!parser || !(text = malloc(length))) {
        fail(0, error, error_size, "%s: out of memory", origin);
    } else if (fread(text, 1, length, source) != length) {
        fail(0, error, error_size, "%s: the file ends in its header", origin);
    } else {
        header = json_tokener_parse_ex(parser, text, (int)length);
        if (!json_object_is_type(header, json_type_object)) {
            json_object_put(header);
            header = NULL;
            fail(0, error, error_size, "%s: the header is no JSON object", origin);
        }
    }
    *body = LENGTH_BYTES + length;
    free(text);
    if (parser) {
        json_tokener_free(parser);
    }
    return header;
}

static int read_entry(const struct entry *entry, json_object *header, FILE *source, const char *origin, uint64_t body,
                      char *error, size_t error_size)
{
    json_object *found = NULL, *dtype = NULL, *shape = NULL, *offsets = NULL;
    if (!json_object_object_get_ex(header, entry->name, &found) || !json_object_object_get_ex(found, "dtype", &dtype) ||
        !json_object_object_get_ex(found, "shape", &shape) ||
        !json_object_object_get_ex(found, "data_offsets", &offsets)) {
        return fail(-EINVAL, error, error_size, "%s: the tensor %s is missing, or incomplete", origin, entry->name);
    }
    bool fits = json_object_is_type(dtype, json_type_string) && strcmp(json_object_get_string(dtype), "F32") == 0 &&
                json_object_is_type(shape, json_type_array) && json_object_array_length(shape) == (size_t)entry->dims;
    for (int d = 0; fits && d < entry->dims; d++) {
        fits = list_number(shape, (size_t)d) == entry->shape[d];
    }
    if (!fits) {
        return fail(-EINVAL, error, error_size, "%s: the tensor %s must be F32 of shape %zu%s%.0zu", origin,
                    entry->name, entry->shape[0], entry->dims == 2 ? " x " : "",
                    entry->dims == 2 ? entry->shape[1] : 0);
    }
    uint64_t begin = list_number(offsets, 0), end = list_number(offsets, 1);
    if (begin > end || end - begin != entry_bytes(entry) || begin > (uint64_t)INT64_MAX - body ||
        fseeko(source, (off_t)(body + begin), SEEK_SET) != 0 ||
        fread(entry->values, 1, entry_bytes(entry), source) != entry_bytes(entry)) {
        return fail(-EINVAL, error, error_size, "%s: the data of %s are not in the file", origin, entry->name);
    }
    return 0;
}

int head_read(struct head *head, FILE *source, const char *origin, char *error, size_t error_size)
{
    struct entry entries[ENTRIES];
    uint64_t body;
    *head = (struct head){0};
    json_object *header = read_header(source, origin, &body, error, error_size);
    if (!header) {
        return -EINVAL;
    }
    /* The hidden size is what front.bias says; then all four must agree with it. */
    json_object *bias = NULL, *shape = NULL;
    uint64_t hidden = UINT64_MAX;
    if (json_object_object_get_ex(header, "front.bias", &bias) && json_object_object_get_ex(bias, "shape", &shape)) {
        hidden = list_number(shape, 0);
    }
    int rc = 0;
    if (hidden == 0 || hidden > HEAD_MAX_HIDDEN) {
        rc = -EINVAL;
        fail(rc, error, error_size, "%s: front.bias must have 1 to %d values", origin, HEAD_MAX_HIDDEN);
    } else if (head_create(head, hidden, 0) != 0) {
        rc = -ENOMEM;
        fail(rc, error, error_size, "%s: out of memory", origin);
    } else {
        head_entries(head, entries);
    }
    for (int i = 0; rc == 0 && i < ENTRIES; i++) {
        rc = read_entry(&entries[i], header, source, origin, body, error, error_size);
    }
    json_object_put(header);
    if (rc != 0) {
        head_destroy(head);
    }
    return rc;
}

int head_load(struct head *head, const char *path, char *error, size_t error_size)
{
    *head = (struct head){0};
    FILE *source = fopen(path, "re");
    if (!source) {
        int rc = -errno;
        return fail(rc, error, error_size, "%s: %s", path, strerror(-rc));
    }
    int rc = head_read(head, source, path, error, error_size);
    fclose(source);
    return rc;
}

/* The file's header for these entries into text; its length, a multiple of 8. */
static size_t format_header(const struct entry entries[ENTRIES], char *text, size_t size)
{
    size_t length = 0, offset = 0;
    for (int i = 0; i < ENTRIES; i++) {
        char second[24] = "";
        if (entries[i].dims == 2) {
            snprintf(second, sizeof second, ",%zu", entries[i].shape[1]);
        }
        length += (size_t)snprintf(
            text + length, size - length, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[%zu%s],\"data_offsets\":[%zu,%zu]}",
            i ? "," : "{", entries[i].name, entries[i].shape[0], second, offset, offset + entry_bytes(&entries[i]));
        offset += entry_bytes(&entries[i]);
    }
    text[length++] = '}';
    while (length % sizeof(uint64_t) != 0) {
        text[length++] = ' ';
    }
    return length;
}

int head_save(const struct head *head, const char *path, char *error, size_t error_size)
{
    struct entry entries[ENTRIES];
    char header[1024], *temporary = NULL;
    head_entries(head, entries);
    uint64_t length = format_header(entries, header, sizeof header);
    if (asprintf(&temporary, "%s.tmp.%ld", path, (long)getpid()) < 0) {
        return fail(-ENOMEM, error, error_size, "%s: out of memory", path);
    }
    FILE *out = fopen(temporary, "we");
    bool written = out && fwrite(&length, sizeof length, 1, out) == 1 && fwrite(header, 1, length, out) == length;
    for (int i = 0; written && i < ENTRIES; i++) {
        written = fwrite(entries[i].values, 1, entry_bytes(&entries[i]), out) == entry_bytes(&entries[i]);
    }
    written = written && fflush(out) == 0 && fsync(fileno(out)) == 0;
    int rc = written ? 0 : -(errno ? errno : EIO);
    if (out && fclose(out) != 0 && rc == 0) {
        rc = -errno;
    }
    if (rc == 0 && rename(temporary, path) != 0) {
        rc = -errno;
    }
    if (rc != 0) {
        fail(rc, error, error_size, "%s: %s", path, strerror(-rc));
        unlink(temporary);
    }
    free(temporary);
    return rc;
}
