/* Any bytes are a request header within the bounds, or are refused with a reason; what was decoded encodes again. */
#include <stdlib.h>
#include <string.h>

#include "proto/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static unsigned char again[2 * MESSAGE_REQUEST_MAX];
    struct message_arena arena;
    /* A block of its own, so that the sanitizer sees its end. */
    void *memory = malloc(MESSAGE_REQUEST_ARENA);
    message_arena_init(&arena, memory, MESSAGE_REQUEST_ARENA);
    Expertd__RequestHeader *header;
    const char *why;
    int rc = message_decode_request(&arena, data, size, &header, &why);
    if ((rc != 0) != (why[0] != '\0'))
        abort();
    if (rc == 0) {
        for (size_t i = 0; i < header->n_tensors; i++) {
            uint64_t bytes;
            (void)message_tensor_bytes(header->tensors[i], &bytes);
        }
        message_clean(header->uid);
        if (message_encode_request(header, again, sizeof again) < 0)
            abort();
    }
    free(memory);
    return 0;
}
