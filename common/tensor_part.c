#include "common/tensor_part.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/uid.h"

enum { NAME_SHOWN = 200 };

static int refuse(char *error, const char *format, ...) __attribute__((format(printf, 2, 3)));
static int refuse(char *error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(error, TENSOR_PART_ERROR_SIZE, format, args);
    va_end(args);
    return -EINVAL;
}

/* --- the template ------------------------------------------------------------------------------------------------- */

struct reading {
    const char *template, *at;
    const char *uid;
    uint32_t coordinates[UID_MAX_DIMS];
    unsigned coordinates_count;
    char *error;
};

static bool skip(struct reading *reading, const char *text)
{
    const size_t length = strlen(text);
    if (strncmp(reading->at, text, length) != 0)
        return false;
    reading->at += length;
    return true;
}

static void skip_spaces(struct reading *reading)
{
    while (*reading->at == ' ')
        reading->at++;
}

/* 1: a word in braces stood there, and its coordinate is in *value; 0: there is none; -EINVAL. */
static int read_coordinate(struct reading *reading, uint64_t *value)
{
    if (*reading->at != '{')
        return 0;
    const char *start = reading->at;
    const unsigned which = skip(reading, "{layer}") ? 0 : skip(reading, "{expert}") ? 1 : UID_MAX_DIMS;
    if (which == UID_MAX_DIMS)
        return refuse(reading->error, "'%.*s' has '%.20s', where {layer} or {expert} may stand", NAME_SHOWN,
                      reading->template, start);
    if (which >= reading->coordinates_count)
        return refuse(reading->error, "'%.*s' asks for the %s, but uid '%s' has %u coordinate%s", NAME_SHOWN,
                      reading->template, which == 0 ? "layer" : "expert", reading->uid, reading->coordinates_count,
                      reading->coordinates_count == 1 ? "" : "s");
    *value = reading->coordinates[which];
    return 1;
}

static int read_name(struct reading *reading, char name[TENSOR_PART_NAME_SIZE])
{
    size_t used = 0;
    while (*reading->at && *reading->at != '[') {
        uint64_t coordinate = 0;
        const int rc = read_coordinate(reading, &coordinate);
        if (rc < 0)
            return rc;
        char piece[24] = {0};
        if (rc == 0)
            piece[0] = *reading->at++;
        else
            snprintf(piece, sizeof piece, "%" PRIu64, coordinate);
        if (used + strlen(piece) >= TENSOR_PART_NAME_SIZE)
            return refuse(reading->error, "'%.*s...' is longer than %d bytes", NAME_SHOWN, reading->template,
                          TENSOR_PART_NAME_SIZE - 1);
        memcpy(name + used, piece, strlen(piece) + 1);
        used += strlen(piece);
    }
    return used > 0 ? 0 : refuse(reading->error, "'%.*s' names no tensor", NAME_SHOWN, reading->template);
}

/* 1: a bound, 0: nothing that looks like one, -EINVAL. */
static int read_bound(struct reading *reading, uint64_t *value)
{
    skip_spaces(reading);
    if (skip(reading, "half")) {
        *value = TENSOR_SLICE_HALF;
        return 1;
    }
    if (*reading->at < '0' || *reading->at > '9')
        return read_coordinate(reading, value);
    for (*value = 0; *reading->at >= '0' && *reading->at <= '9'; reading->at++) {
        *value = *value * 10 + (uint64_t)(*reading->at - '0');
        if (*value > UINT32_MAX)
            return refuse(reading->error, "'%.*s' has a number that is too large", NAME_SHOWN, reading->template);
    }
    return 1;
}

static int read_slice(struct reading *reading, struct tensor_slice *slice)
{
    *slice = (struct tensor_slice){.end = TENSOR_SLICE_END, .step = 1};
    const int first = read_bound(reading, &slice->first);
    if (first < 0)
        return first;
    skip_spaces(reading);
    if (!skip(reading, ":")) {
        slice->single = true;
        return first == 1 && slice->first != TENSOR_SLICE_HALF
                   ? 0
                   : refuse(reading->error, "'%.*s' has a bracket with what is no index at '%.20s'", NAME_SHOWN,
                            reading->template, reading->at);
    }
    int rc = read_bound(reading, &slice->end);
    skip_spaces(reading);
    if (rc >= 0 && skip(reading, ":"))
        rc = read_bound(reading, &slice->step);
    if (rc >= 0 && (slice->step == 0 || slice->step == TENSOR_SLICE_HALF))
        return refuse(reading->error, "'%.*s' has a step that is none", NAME_SHOWN, reading->template);
    return rc < 0 ? rc : 0;
}

static int read_slices(struct reading *reading, struct tensor_part *part)
{
    int rc = 0;
    do {
        if (part->slices_count == TENSOR_PART_DIMS)
            return refuse(reading->error, "'%.*s' has more than %d dimensions", NAME_SHOWN, reading->template,
                          TENSOR_PART_DIMS);
        rc = read_slice(reading, &part->slices[part->slices_count++]);
        skip_spaces(reading);
    } while (rc == 0 && skip(reading, ","));
    if (rc < 0)
        return rc;
    if (!skip(reading, "]"))
        return refuse(reading->error, "'%.*s' has a bracket that is not closed at '%.20s'", NAME_SHOWN,
                      reading->template, reading->at);
    part->transposed = skip(reading, ".T");
    return *reading->at == 0 ? 0
                             : refuse(reading->error, "'%.*s' has '%.20s' behind the brackets, where only .T may stand",
                                      NAME_SHOWN, reading->template, reading->at);
}

int tensor_part_parse(struct tensor_part *part, const char *template, const char *uid,
                      char error[TENSOR_PART_ERROR_SIZE])
{
    size_t prefix;
    struct reading reading = {.template = template, .at = template, .uid = uid, .error = error};
    *part = (struct tensor_part){0};
    error[0] = 0;
    const int count = uid_split(uid, &prefix, reading.coordinates);
    if (count < 0)
        return refuse(error, "'%.*s' is no uid", NAME_SHOWN, uid);
    reading.coordinates_count = (unsigned)count;
    const int rc = read_name(&reading, part->name);
    return rc == 0 && skip(&reading, "[") ? read_slices(&reading, part) : rc;
}

/* --- of a tensor -------------------------------------------------------------------------------------------------- */

static int view_slice(struct tensor_view *view, const struct tensor_part *part, unsigned dim, uint64_t size,
                      uint64_t stride, char *error)
{
    const struct tensor_slice whole = {.end = TENSOR_SLICE_END, .step = 1};
    const struct tensor_slice *slice = dim < part->slices_count ? &part->slices[dim] : &whole;
    uint64_t first = slice->first, end = slice->end == TENSOR_SLICE_END ? size : slice->end;
    if (size % 2 != 0 && (first == TENSOR_SLICE_HALF || end == TENSOR_SLICE_HALF))
        return refuse(error, "dimension %u of '%s' is %" PRIu64 ", which has no half", dim, part->name, size);
    first = first == TENSOR_SLICE_HALF ? size / 2 : first;
    end = end == TENSOR_SLICE_HALF ? size / 2 : end;
    if (slice->single && first >= size)
        return refuse(error, "number %" PRIu64 " is beyond dimension %u of '%s', which is %" PRIu64, first, dim,
                      part->name, size);
    if (!slice->single && (first > end || end > size))
        return refuse(error, "%" PRIu64 ":%" PRIu64 " is no part of dimension %u of '%s', which is %" PRIu64, first,
                      end, dim, part->name, size);
    view->offset += first * stride;
    if (slice->single)
        return 0;
    view->dims[view->ndim] = end == first ? 0 : (end - first - 1) / slice->step + 1;
    view->strides[view->ndim++] = stride * slice->step;
    return 0;
}

int tensor_part_view(struct tensor_view *view, const struct tensor_part *part, const uint64_t *dims, unsigned ndim,
                     char error[TENSOR_PART_ERROR_SIZE])
{
    uint64_t stride = 1;
    *view = (struct tensor_view){0};
    error[0] = 0;
    if (part->slices_count > ndim)
        return refuse(error, "'%s' has %u dimensions, fewer than the %u in the brackets", part->name, ndim,
                      part->slices_count);
    for (unsigned dim = 0; dim < ndim; dim++)
        stride *= dims[dim];
    if (stride == 0)
        return refuse(error, "'%s' is empty", part->name);
    for (unsigned dim = 0; dim < ndim; dim++) {
        stride /= dims[dim];
        const int rc = view_slice(view, part, dim, dims[dim], stride, error);
        if (rc < 0)
            return rc;
    }
    if (!part->transposed)
        return 0;
    if (view->ndim != 2)
        return refuse(error, "'%s' is to be transposed, but has %u dimensions there, not 2", part->name, view->ndim);
    const uint64_t rows = view->dims[0], rows_stride = view->strides[0];
    view->dims[0] = view->dims[1];
    view->strides[0] = view->strides[1];
    view->dims[1] = rows;
    view->strides[1] = rows_stride;
    return 0;
}
