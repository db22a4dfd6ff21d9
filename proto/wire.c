#include "proto/wire.h"

#include <stdbool.h>
#include <string.h>

/* Messages of ours nest three deep. */
enum { DEPTH_MAX = 8 };

/* No copy: what is checked is read once more by protobuf-c, from memory that nobody else writes. */
struct walk {
    size_t fields_left;
    bool has_nul;
};

struct bytes {
    const unsigned char *at, *end;
};

/* Numbers of the wire have at most 10 bytes; tags and lengths, which protobuf-c keeps in 32 bits, 5. */
static bool take_number(struct bytes *bytes, unsigned most_bytes, uint64_t *number)
{
    *number = 0;
    for (unsigned i = 0; i < most_bytes && bytes->at < bytes->end; i++) {
        const unsigned char byte = *bytes->at++;
        *number |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (!(byte & 0x80))
            return true;
    }
    return false;
}

static bool skip(struct bytes *bytes, uint64_t size)
{
    if (size > (uint64_t)(bytes->end - bytes->at))
        return false;
    bytes->at += size;
    return true;
}

static enum wire_fault walk_message(struct walk *walk, const ProtobufCMessageDescriptor *type, struct bytes bytes,
                                    unsigned depth);

static enum wire_fault walk_content(struct walk *walk, const ProtobufCFieldDescriptor *field, struct bytes content,
                                    unsigned depth)
{
    if (!field)
        return WIRE_SOUND;
    if (field->type == PROTOBUF_C_TYPE_STRING && content.at < content.end &&
        memchr(content.at, 0, (size_t)(content.end - content.at)))
        walk->has_nul = true;
    return field->type == PROTOBUF_C_TYPE_MESSAGE ? walk_message(walk, field->descriptor, content, depth + 1)
                                                  : WIRE_SOUND;
}

static enum wire_fault walk_field(struct walk *walk, const ProtobufCMessageDescriptor *type, struct bytes *bytes,
                                  unsigned depth)
{
    uint64_t tag, number;
    if (!take_number(bytes, 5, &tag) || tag > UINT32_MAX || tag >> 3 == 0)
        return WIRE_MALFORMED;
    switch (tag & 7) {
    case PROTOBUF_C_WIRE_TYPE_VARINT:
        return take_number(bytes, 10, &number) ? WIRE_SOUND : WIRE_MALFORMED;
    case PROTOBUF_C_WIRE_TYPE_64BIT:
        return skip(bytes, 8) ? WIRE_SOUND : WIRE_MALFORMED;
    case PROTOBUF_C_WIRE_TYPE_32BIT:
        return skip(bytes, 4) ? WIRE_SOUND : WIRE_MALFORMED;
    case PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED: {
        if (!take_number(bytes, 5, &number))
            return WIRE_MALFORMED;
        const unsigned char *content = bytes->at;
        if (!skip(bytes, number))
            return WIRE_MALFORMED;
        return walk_content(walk, protobuf_c_message_descriptor_get_field(type, (unsigned)(tag >> 3)),
                            (struct bytes){content, bytes->at}, depth);
    }
    default:
        return WIRE_MALFORMED;
    }
}

static enum wire_fault walk_message(struct walk *walk, const ProtobufCMessageDescriptor *type, struct bytes bytes,
                                    unsigned depth)
{
    if (depth == DEPTH_MAX)
        return WIRE_MALFORMED;
    while (bytes.at < bytes.end) {
        if (walk->fields_left-- == 0)
            return WIRE_FIELDS;
        const enum wire_fault fault = walk_field(walk, type, &bytes, depth);
        if (fault != WIRE_SOUND)
            return fault;
    }
    return WIRE_SOUND;
}

enum wire_fault wire_check(const ProtobufCMessageDescriptor *type, const void *data, size_t size, size_t max_fields)
{
    struct walk walk = {.fields_left = max_fields};
    const struct bytes bytes = {data, (const unsigned char *)data + size};
    const enum wire_fault fault = size ? walk_message(&walk, type, bytes, 0) : WIRE_SOUND;
    return fault == WIRE_SOUND && walk.has_nul ? WIRE_NUL : fault;
}

void *wire_unpack(const ProtobufCMessageDescriptor *type, ProtobufCAllocator *allocator, size_t size, const void *data)
{
    if (wire_check(type, data, size, SIZE_MAX) != WIRE_SOUND)
        return NULL;
    return protobuf_c_message_unpack(type, allocator, size, data);
}
