#include "proto/message.h"

#include <errno.h>

#include "proto/codec.h"
#include "proto/wire.h"

/* The arena as protobuf-c's allocator: it takes from the front, and is emptied as a whole. */
static void *arena_alloc(void *data, size_t size)
{
    struct message_arena *arena = data;
    enum { ALIGN = 16 };
    size_t start = (arena->used + ALIGN - 1) / ALIGN * ALIGN;
    if (start > arena->size || size > arena->size - start) {
        arena->exhausted = true;
        return NULL;
    }
    arena->used = start + size;
    return arena->memory + start;
}

static void arena_free(void *data, void *pointer)
{
    (void)data;
    (void)pointer;
}

void message_arena_init(struct message_arena *arena, void *memory, size_t size)
{
    *arena = (struct message_arena){.memory = memory, .size = size};
    arena->allocator = (ProtobufCAllocator){.alloc = arena_alloc, .free = arena_free, .allocator_data = arena};
}

static const char *tensors_wrong(Expertd__Tensor *const *tensors, size_t count)
{
    if (count > MESSAGE_MAX_TENSORS)
        return "the header has more than 16 tensors";
    for (size_t i = 0; i < count; i++) {
        if (tensors[i]->n_shape > MESSAGE_MAX_DIMS)
            return "a tensor has more than 7 dimensions";
    }
    return NULL;
}
_Static_assert(MESSAGE_MAX_TENSORS == 16 && MESSAGE_MAX_DIMS == 7 && MESSAGE_MAX_PARTS == 512, "sentences say so");

/* 0, or -EINVAL for a string with a NUL: decoded, as far as the bound. */
static int decode(struct message_arena *arena, const ProtobufCMessageDescriptor *type, const void *data, size_t size,
                  size_t bound, size_t max_fields, ProtobufCMessage **message, const char **why)
{
    *message = NULL;
    *why = "";
    if (size > bound) {
        *why = "the header is too long";
        return -EBADMSG;
    }
    const enum wire_fault fault = wire_check(type, data, size, max_fields);
    arena->used = 0;
    arena->exhausted = fault == WIRE_FIELDS;
    if (fault == WIRE_SOUND || fault == WIRE_NUL)
        *message = protobuf_c_message_unpack(type, &arena->allocator, size, data);
    if (*message && fault == WIRE_NUL)
        *why = "a text in the header has a zero byte";
    if (*message)
        return fault == WIRE_NUL ? -EINVAL : 0;
    *why = arena->exhausted ? "the header has too many fields" : "the first frame is not a header";
    return arena->exhausted && fault != WIRE_FIELDS ? -ENOBUFS : -EBADMSG;
}

int message_decode_request(struct message_arena *arena, const void *data, size_t size, Expertd__RequestHeader **header,
                           const char **why)
{
    ProtobufCMessage *message;
    int rc = decode(arena, &expertd__request_header__descriptor, data, size, MESSAGE_REQUEST_MAX,
                    MESSAGE_REQUEST_FIELDS, &message, why);
    *header = (Expertd__RequestHeader *)message;
    if (rc == 0) {
        const char *wrong = tensors_wrong((*header)->tensors, (*header)->n_tensors);
        if (!wrong && (*header)->n_reply_codecs > MESSAGE_MAX_TENSORS)
            wrong = "the header wishes for more than 16 codecs";
        if (!wrong && (*header)->n_parts > MESSAGE_MAX_PARTS)
            wrong = "the header has more than 512 parts";
        if (wrong) {
            *why = wrong;
            rc = -E2BIG;
        }
    }
    return rc;
}

int message_decode_reply(struct message_arena *arena, const void *data, size_t size, Expertd__ReplyHeader **header,
                         const char **why)
{
    ProtobufCMessage *message;
    int rc = decode(arena, &expertd__reply_header__descriptor, data, size, MESSAGE_REPLY_MAX, SIZE_MAX, &message, why);
    *header = (Expertd__ReplyHeader *)message;
    if (rc == 0) {
        const char *wrong = tensors_wrong((*header)->tensors, (*header)->n_tensors);
        if (!wrong && (*header)->n_parts > MESSAGE_MAX_PARTS)
            wrong = "the header has more than 512 parts";
        if (wrong) {
            *why = wrong;
            rc = -E2BIG;
        }
    }
    return rc;
}

static long encode(const ProtobufCMessage *message, void *buffer, size_t size)
{
    size_t needed = protobuf_c_message_get_packed_size(message);
    if (needed > size)
        return -ENOBUFS;
    return (long)protobuf_c_message_pack(message, buffer);
}

long message_encode_request(const Expertd__RequestHeader *header, void *buffer, size_t size)
{
    return encode(&header->base, buffer, size);
}

long message_encode_reply(const Expertd__ReplyHeader *header, void *buffer, size_t size)
{
    return encode(&header->base, buffer, size);
}

bool message_tensor_size(const Expertd__Tensor *tensor, struct message_tensor_size *size)
{
    const uint32_t dtype = (uint32_t)tensor->dtype;
    uint64_t elements = 1;
    if (tensor->n_shape == 0 || tensor->n_shape > MESSAGE_MAX_DIMS)
        return false;
    for (size_t i = 0; i < tensor->n_shape; i++) {
        if (__builtin_mul_overflow(elements, tensor->shape[i], &elements))
            return false;
    }
    size->elements = elements;
    size->last = tensor->shape[tensor->n_shape - 1];
    return codec_frame_bytes(CODEC_NONE, dtype, elements, size->last, &size->bytes) &&
           codec_frame_bytes((uint32_t)tensor->codec, dtype, elements, size->last, &size->frame_bytes);
}

uint32_t message_reply_codec(const Expertd__RequestHeader *header, size_t tensor)
{
    const size_t count = header->n_reply_codecs;
    return count == 0 ? CODEC_NONE : (uint32_t)header->reply_codecs[tensor < count ? tensor : count - 1];
}

char *message_clean(char *text)
{
    for (char *c = text; *c; c++) {
        if (*c < ' ' || *c > '~')
            *c = '?';
    }
    return text;
}
