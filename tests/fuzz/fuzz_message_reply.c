/* Any bytes are a reply header within the bounds, or are refused with a reason; what was decoded encodes again. */
#include <stdlib.h>
#include <string.h>

#include "proto/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static unsigned char again[2 * MESSAGE_REPLY_MAX];
    struct message_arena arena;
    /* A block of its own, so that the sanitizer sees its end. */
    void *memory = malloc(MESSAGE_REPLY_ARENA);
    message_arena_init(&arena, memory, MESSAGE_REPLY_ARENA);
    Expertd__ReplyHeader *header;
    const char *why;
    int rc = message_decode_reply(&arena, data, size, &header, &why);
    if ((rc != 0) != (why[0] != '\0'))
        abort();
    if (rc == 0) {
        for (size_t i = 0; i < header->n_tensors; i++) {
            uint64_t bytes;
            (void)message_tensor_bytes(header->tensors[i], &bytes);
        }
        message_clean(header->message);
        if (message_encode_reply(header, again, sizeof again) < 0)
            abort();
    }
    free(memory);
    return 0;
}
