#include "frontend/validate.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "proto/codec.h"

/* A text of bounded length that is built up piece by piece. */
struct text {
    char *at;
    size_t left;
};

__attribute__((format(printf, 2, 3))) static void add(struct text *text, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    const int n = vsnprintf(text->at, text->left, format, arguments);
    va_end(arguments);
    const size_t step = n < 0 ? 0 : (size_t)n < text->left ? (size_t)n : text->left - 1;
    text->at += step;
    text->left -= step;
}

static void add_expected(struct text *text, const struct tensor_desc *desc)
{
    add(text, "%s[rows", dtype_name(desc->dtype));
    for (uint32_t d = 0; d < desc->ndim; d++)
        add(text, ",%" PRIu64, desc->dims[d]);
    add(text, "]");
}

static void add_got(struct text *text, const Expertd__Tensor *tensor)
{
    add(text, "%s[", dtype_name((uint32_t)tensor->dtype));
    for (size_t d = 0; d < tensor->n_shape; d++)
        add(text, "%s%" PRIu64, d ? "," : "", tensor->shape[d]);
    add(text, "]");
}

static bool fits(const struct tensor_desc *desc, const Expertd__Tensor *tensor)
{
    if ((uint32_t)tensor->dtype != desc->dtype || tensor->n_shape != desc->ndim + 1)
        return false;
    for (uint32_t d = 0; d < desc->ndim; d++) {
        if (tensor->shape[d + 1] != desc->dims[d])
            return false;
    }
    return true;
}

static enum status check_counts(const struct schema *schema, const Expertd__RequestHeader *header, uint64_t frames,
                                struct text *why)
{
    if (header->n_tensors != schema->count) {
        add(why, "expected %" PRIu32 " tensor%s (", schema->count, schema->count == 1 ? "" : "s");
        for (uint32_t i = 0; i < schema->count; i++) {
            add(why, "%s%s ", i ? ", " : "", schema->tensors[i].name);
            add_expected(why, &schema->tensors[i]);
        }
        add(why, "), got %zu", header->n_tensors);
        return STATUS_INVALID_ARGUMENT;
    }
    if (frames != schema->count) {
        add(why, "the header names %zu tensor%s, but %" PRIu64 " frame%s came with it", header->n_tensors,
            header->n_tensors == 1 ? "" : "s", frames, frames == 1 ? "" : "s");
        return STATUS_INVALID_ARGUMENT;
    }
    return STATUS_OK;
}

static enum status check_tensor(const struct schema *schema, uint32_t i, const Expertd__Tensor *tensor, uint64_t rows,
                                uint32_t max_batch_size, struct text *why)
{
    const struct tensor_desc *desc = &schema->tensors[i];
    if ((uint32_t)tensor->codec >= CODEC_COUNT) {
        add(why, "input %" PRIu32 " (%s): codec %d is not known here; 0 is raw", i, desc->name, (int)tensor->codec);
        return STATUS_UNIMPLEMENTED;
    }
    if (!codec_takes((uint32_t)tensor->codec, desc->dtype)) {
        add(why, "input %" PRIu32 " (%s): codec %s is of float32, and this is %s", i, desc->name,
            codec_name((uint32_t)tensor->codec), dtype_name(desc->dtype));
        return STATUS_INVALID_ARGUMENT;
    }
    if (!fits(desc, tensor)) {
        add(why, "input %" PRIu32 " (%s): expected ", i, desc->name);
        add_expected(why, desc);
        add(why, ", got ");
        add_got(why, tensor);
        return STATUS_INVALID_ARGUMENT;
    }
    if (tensor->shape[0] != rows) {
        add(why, "input %" PRIu32 " (%s) has %" PRIu64 " rows, input 0 has %" PRIu64, i, desc->name, tensor->shape[0],
            rows);
        return STATUS_INVALID_ARGUMENT;
    }
    if (rows == 0) {
        add(why, "input %" PRIu32 " (%s) has 0 rows; a request has at least 1", i, desc->name);
        return STATUS_INVALID_ARGUMENT;
    }
    if (rows > max_batch_size) {
        add(why, "%" PRIu64 " rows are more than this expert's max_batch_size, %" PRIu32, rows, max_batch_size);
        return STATUS_INVALID_ARGUMENT;
    }
    return STATUS_OK;
}

static enum status check_reply_codecs(const Expertd__RequestHeader *header, struct text *why)
{
    for (size_t i = 0; i < header->n_reply_codecs; i++) {
        if ((uint32_t)header->reply_codecs[i] < CODEC_COUNT)
            continue;
        add(why, "reply_codecs: codec %d is not known here; 0 is raw", (int)header->reply_codecs[i]);
        return STATUS_UNIMPLEMENTED;
    }
    return STATUS_OK;
}

/* A schema's row is at most 2^40 bytes, and there are at most 2^32 of them: frames are as large as a codec can tell. */
static bool frame_size(const Expertd__Tensor *tensor, uint64_t *bytes)
{
    struct message_tensor_size size;
    if (!message_tensor_size(tensor, &size))
        return false;
    *bytes = size.frame_bytes;
    return true;
}

enum status validate_tensors(const struct schema *schema, uint32_t max_batch_size, const Expertd__RequestHeader *header,
                             const size_t *frame_bytes, uint64_t frames, uint32_t *rows, char why[VALIDATE_WHY_SIZE])
{
    struct text text = {why, VALIDATE_WHY_SIZE};
    why[0] = 0;
    enum status status = check_counts(schema, header, frames, &text);
    if (status == STATUS_OK)
        status = check_reply_codecs(header, &text);
    const uint64_t first_rows = status == STATUS_OK && header->tensors[0]->n_shape ? header->tensors[0]->shape[0] : 0;
    for (uint32_t i = 0; i < schema->count && status == STATUS_OK; i++)
        status = check_tensor(schema, i, header->tensors[i], first_rows, max_batch_size, &text);
    for (uint32_t i = 0; i < schema->count && status == STATUS_OK; i++) {
        uint64_t expected = 0;
        if (!frame_size(header->tensors[i], &expected) || expected != frame_bytes[i]) {
            const uint32_t codec = (uint32_t)header->tensors[i]->codec;
            add(&text, "input %" PRIu32 " (%s): ", i, schema->tensors[i].name);
            add_got(&text, header->tensors[i]);
            add(&text, "%s%s is %" PRIu64 " bytes, its frame has %zu", codec ? " as " : "",
                codec ? codec_name(codec) : "", expected, frame_bytes[i]);
            status = STATUS_INVALID_ARGUMENT;
        }
    }
    if (status == STATUS_OK)
        *rows = (uint32_t)first_rows;
    return status;
}

uint32_t validate_unwanted(const Expertd__RequestHeader *header)
{
    uint32_t unwanted = 0;
    for (size_t i = 0; i < header->n_requires_grad && i < SCHEMA_MAX_TENSORS; i++)
        unwanted |= header->requires_grad[i] ? 0 : UINT32_C(1) << i;
    return unwanted;
}

enum status validate_wishes(const struct schema *outputs, const Expertd__RequestHeader *header, uint32_t *unwanted,
                            char why[VALIDATE_WHY_SIZE])
{
    struct text text = {why, VALIDATE_WHY_SIZE};
    *unwanted = 0;
    if (header->n_requires_grad != 0 && header->n_requires_grad != outputs->count) {
        add(&text, "requires_grad has %zu values; this expert has %" PRIu32 " input%s", header->n_requires_grad,
            outputs->count, outputs->count == 1 ? "" : "s");
        return STATUS_INVALID_ARGUMENT;
    }
    *unwanted = validate_unwanted(header);
    return STATUS_OK;
}
