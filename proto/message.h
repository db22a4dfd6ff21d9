/* Headers of the wire (expertd.proto), decoded and encoded within bounds: for the frontend and the client library.
 *
 * Decoding takes its memory from an arena that the caller owns, so that it costs no allocation and a hostile header
 * costs no more than the arena, of which only what is used is touched. What is decoded lives until the arena is used
 * again; its strings are NUL-terminated but may be anything else. All functions are pure; any thread, each with its own
 * arena. */
#ifndef EXPERTD_PROTO_MESSAGE_H
#define EXPERTD_PROTO_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/tensor.h"
#include "proto/expertd.pb-c.h"

enum {
    MESSAGE_VERSION = 1,
    MESSAGE_REQUEST_MAX = 64 << 10, /* bytes of a RequestHeader */
    MESSAGE_REPLY_MAX = 1 << 20,    /* bytes of a ReplyHeader */
    MESSAGE_MAX_TENSORS = 2 * SCHEMA_MAX_TENSORS,
    MESSAGE_MAX_DIMS = TENSOR_MAX_DIMS + 1, /* with rows */
    MESSAGE_MAX_LIST = 4096,                /* experts in one answer to LIST */
    MESSAGE_CLIENT_ID_SIZE = 16,
    MESSAGE_METADATA_MAX = 1024,   /* bytes */
    MESSAGE_MAX_PARTS = 512,       /* experts of one request */
    MESSAGE_REQUEST_FIELDS = 8192, /* of a RequestHeader and what is nested in it, unknown ones too */
    /* For any request header within these bounds: protobuf-c takes 2 * 32 bytes for each field as it scans; then 80 for
     * one that is a tensor or a part, or 40 for an unknown one; 8 for each byte of packed dimensions; and copies the
     * texts. */
    MESSAGE_REQUEST_ARENA = 2 << 20,
    MESSAGE_OWN_ARENA = 32 << 10,   /* for a request header of one's own */
    MESSAGE_REPLY_ARENA = 32 << 10, /* the same for any reply header but those of LIST and STATS */
};

struct message_arena {
    unsigned char *memory; /* the caller's, aligned for any type */
    size_t size, used;
    bool exhausted;
    ProtobufCAllocator allocator;
};
/* The arena must stay where it is. */
void message_arena_init(struct message_arena *arena, void *memory, size_t size);

/* Decodes one header; forgets what was decoded into the arena before.
 * 0 and *header.
 * -EBADMSG: not a header, or longer than its bound; *header is NULL. -ENOBUFS: the arena is too small for it; *header
 * is NULL. -E2BIG: decoded, but with more tensors or dimensions than the bounds, -EINVAL: with a NUL in a string;
 * *header is good for its request_id.
 * With an error *why is a sentence about it. Version, method and status are not looked at. */
int message_decode_request(struct message_arena *arena, const void *data, size_t size, Expertd__RequestHeader **header,
                           const char **why);
int message_decode_reply(struct message_arena *arena, const void *data, size_t size, Expertd__ReplyHeader **header,
                         const char **why);

/* Encodes into buffer. The number of bytes, or -ENOBUFS. */
long message_encode_request(const Expertd__RequestHeader *header, void *buffer, size_t size);
long message_encode_reply(const Expertd__ReplyHeader *header, void *buffer, size_t size);

/* Bytes of the elements that a Tensor describes, and of its frame, in which they may be encoded; and how many they are,
 * all and in the last dimension. */
struct message_tensor_size {
    uint64_t bytes, frame_bytes;
    uint64_t elements, last;
};
/* False if that is not known: a bad dtype, a codec that is none or not of that dtype, no dimension, more than
 * MESSAGE_MAX_DIMS of them, or 2^63 bytes and more. */
bool message_tensor_size(const Expertd__Tensor *tensor, struct message_tensor_size *size);

/* The codec that a request wishes for the reply's tensor of that number; RAW if it names none. */
uint32_t message_reply_codec(const Expertd__RequestHeader *header, size_t tensor);

/* Replaces all bytes that are not printable ASCII by '?': a string field has to be UTF-8, and its reader's terminal is
 * not ours to write to. Returns text. */
char *message_clean(char *text);

#endif
