/* Any bytes are a request's header, and a reply's, within the bounds, or are refused with a reason; what was decoded
 * encodes again. */
#include <stdlib.h>
#include <string.h>

#include "proto/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned char again[2 * (MESSAGE_REPLY_MAX > MESSAGE_REQUEST_MAX ? MESSAGE_REPLY_MAX : MESSAGE_REQUEST_MAX)];

static void check(int rc, const char *why)
{
    if ((rc != 0) != (why[0] != '\0'))
        abort();
}

static void measure(Expertd__Tensor *const *tensors, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct message_tensor_size size;
        (void)message_tensor_size(tensors[i], &size);
    }
}

/* `memory` is a block of its own, so that the sanitizer sees its end; made once, as it is large. */
static void as_request(const uint8_t *data, size_t size, void *memory)
{
    struct message_arena arena;
    Expertd__RequestHeader *header;
    const char *why;
    message_arena_init(&arena, memory, MESSAGE_REQUEST_ARENA);
    const int rc = message_decode_request(&arena, data, size, &header, &why);
    check(rc, why);
    if (rc != 0)
        return;
    measure(header->tensors, header->n_tensors);
    message_clean(header->uid);
    if (header->n_parts > MESSAGE_MAX_PARTS)
        abort();
    for (size_t p = 0; p < header->n_parts; p++)
        message_clean(header->parts[p]->uid);
    if (message_encode_request(header, again, sizeof again) < 0)
        abort();
}

static void as_reply(const uint8_t *data, size_t size, void *memory)
{
    struct message_arena arena;
    Expertd__ReplyHeader *header;
    const char *why;
    message_arena_init(&arena, memory, MESSAGE_REPLY_ARENA);
    const int rc = message_decode_reply(&arena, data, size, &header, &why);
    check(rc, why);
    if (rc != 0)
        return;
    measure(header->tensors, header->n_tensors);
    message_clean(header->message);
    if (message_encode_reply(header, again, sizeof again) < 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void *request, *reply;
    if (!request &&
        ((request = malloc(MESSAGE_REQUEST_ARENA)) == NULL || (reply = malloc(MESSAGE_REPLY_ARENA)) == NULL))
        abort();
    as_request(data, size, request);
    as_reply(data, size, reply);
    return 0;
}
