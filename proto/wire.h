/* What protobuf-c does not look at in the bytes of a message from outside: that no string of a known field holds a NUL.
 * Its strings end at the first one, so that "a.0\0x" would read as the name of another expert. Pure; any thread. */
#ifndef EXPERTD_PROTO_WIRE_H
#define EXPERTD_PROTO_WIRE_H

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

enum wire_fault {
    WIRE_SOUND,
    WIRE_MALFORMED, /* no message, or nested too deep for one of ours */
    WIRE_FIELDS,    /* more fields than max_fields, known ones and others, those of nested messages too */
    WIRE_NUL,       /* a string with a NUL; else sound, so it can be decoded */
};

enum wire_fault wire_check(const ProtobufCMessageDescriptor *type, const void *data, size_t size, size_t max_fields);

/* protobuf_c_message_unpack for bytes from outside: NULL also for what is not WIRE_SOUND. */
void *wire_unpack(const ProtobufCMessageDescriptor *type, ProtobufCAllocator *allocator, size_t size, const void *data);

#endif
