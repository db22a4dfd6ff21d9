#include "common/config_memory.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct config_memory {
    struct config_memory *next;
    _Alignas(max_align_t) unsigned char bytes[];
};

void *config_memory_alloc(struct config_memory **memory, size_t size)
{
    struct config_memory *block = calloc(1, sizeof *block + size);
    if (!block)
        return NULL;
    block->next = *memory;
    *memory = block;
    return block->bytes;
}

char *config_memory_copy(struct config_memory **memory, const char *text)
{
    const size_t size = strlen(text) + 1;
    char *copy = config_memory_alloc(memory, size);
    return copy ? memcpy(copy, text, size) : NULL;
}

char *config_memory_format(struct config_memory **memory, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = length < 0 ? NULL : config_memory_alloc(memory, (size_t)length + 1);
    if (!text)
        return NULL;
    va_start(args, format);
    vsnprintf(text, (size_t)length + 1, format, args);
    va_end(args);
    return text;
}

void config_memory_destroy(struct config_memory **memory)
{
    while (*memory) {
        struct config_memory *block = *memory;
        *memory = block->next;
        free(block);
    }
}
