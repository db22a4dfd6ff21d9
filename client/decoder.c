#include "client/decoder.h"

#include <stdlib.h>

bool decoder_grow(struct decoder *decoder, size_t limit)
{
    const size_t size = decoder->size ? 4 * decoder->size : MESSAGE_REPLY_ARENA;
    void *memory = size <= limit ? malloc(size) : NULL;
    if (!memory)
        return false;
    free(decoder->memory);
    decoder->memory = memory;
    decoder->size = size;
    message_arena_init(&decoder->arena, memory, size);
    return true;
}

bool decoder_ready(struct decoder *decoder)
{
    return decoder->memory || decoder_grow(decoder, MESSAGE_REPLY_ARENA);
}

void decoder_clear(struct decoder *decoder)
{
    free(decoder->memory);
    *decoder = (struct decoder){0};
}
