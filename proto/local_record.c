#include "proto/local_record.h"

#include <errno.h>
#include <string.h>

/* More than a client has in mind; beyond MESSAGE_MAX_TENSORS they are only counted. */
enum { TENSORS_MOST = 256 };

static bool inside(const struct local_span *span, uint64_t region_bytes)
{
    return span->at <= region_bytes && span->bytes <= region_bytes - span->at;
}

static size_t padded(size_t bytes)
{
    return (bytes + 7) / 8 * 8;
}

/* What stands behind a record's fixed part. */
static bool parse_rest(const unsigned char *data, size_t fixed, uint32_t bytes, uint64_t region_bytes,
                       struct local_record *record)
{
    if (record->tensors > TENSORS_MOST || record->header_bytes > LOCAL_HEADER_MAX)
        return false;
    const size_t spans = record->tensors * sizeof(struct local_span);
    if (bytes != padded(fixed + spans + record->header_bytes))
        return false;
    for (uint32_t i = 0; i < record->tensors; i++) {
        struct local_span span;
        memcpy(&span, data + fixed + i * sizeof span, sizeof span);
        if (!inside(&span, region_bytes))
            return false;
        if (i < MESSAGE_MAX_TENSORS)
            record->spans[i] = span;
    }
    record->header = data + fixed + spans;
    return true;
}

long local_request_parse(const void *data, size_t size, uint64_t region_bytes, struct local_record *record)
{
    struct local_request request;
    if (size < sizeof request)
        return -EBADMSG;
    memcpy(&request, data, sizeof request);
    record->slot = request.slot;
    record->header_bytes = request.header_bytes;
    record->tensors = request.tensors;
    record->room = request.room;
    record->wanted = 0;
    if (request.bytes > size || request.slot >= LOCAL_SLOTS || !inside(&request.room, region_bytes) ||
        !parse_rest(data, sizeof request, request.bytes, region_bytes, record))
        return -EBADMSG;
    return request.bytes;
}

long local_reply_parse(const void *data, size_t size, uint64_t region_bytes, struct local_record *record)
{
    struct local_reply reply;
    if (size < sizeof reply)
        return -EBADMSG;
    memcpy(&reply, data, sizeof reply);
    record->slot = reply.slot;
    record->header_bytes = reply.header_bytes;
    record->tensors = reply.tensors;
    record->room = (struct local_span){0};
    record->wanted = reply.wanted;
    if (reply.bytes > size || (reply.slot >= LOCAL_SLOTS && reply.slot != LOCAL_READY) ||
        !parse_rest(data, sizeof reply, reply.bytes, region_bytes, record))
        return -EBADMSG;
    return reply.bytes;
}

/* The fixed part is written by the caller, behind whose end this goes on. */
static long write_rest(const struct local_record *record, unsigned char *data, size_t fixed, size_t size)
{
    const size_t spans = record->tensors * sizeof(struct local_span);
    const size_t used = fixed + spans + record->header_bytes, bytes = padded(used);
    if (record->tensors > MESSAGE_MAX_TENSORS || record->header_bytes > LOCAL_HEADER_MAX || bytes > size)
        return -ENOBUFS;
    memcpy(data + fixed, record->spans, spans);
    if (record->header_bytes)
        memcpy(data + fixed + spans, record->header, record->header_bytes);
    memset(data + used, 0, bytes - used);
    return (long)bytes;
}

long local_request_write(const struct local_record *record, void *data, size_t size)
{
    const long bytes = write_rest(record, data, sizeof(struct local_request), size);
    if (bytes < 0)
        return bytes;
    const struct local_request request = {.bytes = (uint32_t)bytes,
                                          .header_bytes = record->header_bytes,
                                          .slot = record->slot,
                                          .tensors = record->tensors,
                                          .room = record->room};
    memcpy(data, &request, sizeof request);
    return bytes;
}

long local_reply_write(const struct local_record *record, void *data, size_t size)
{
    const long bytes = write_rest(record, data, sizeof(struct local_reply), size);
    if (bytes < 0)
        return bytes;
    const struct local_reply reply = {.bytes = (uint32_t)bytes,
                                      .header_bytes = record->header_bytes,
                                      .slot = record->slot,
                                      .tensors = record->tensors,
                                      .wanted = record->wanted};
    memcpy(data, &reply, sizeof reply);
    return bytes;
}
