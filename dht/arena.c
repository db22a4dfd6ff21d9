#include "dht/arena.h"

#include <stdlib.h>
#include <string.h>

struct arena_block {
    struct arena_block *next;
    size_t used, size;
    _Alignas(16) unsigned char memory[];
};

enum { ARENA_BLOCK = 65536 - 64, ARENA_ALIGN = 16 };

void *arena_take(struct arena *arena, size_t size)
{
    if (size > (size_t)1 << 40)
        return NULL;
    size = (size + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    if (!arena->blocks || size > arena->blocks->size - arena->blocks->used) {
        const size_t wanted = size > ARENA_BLOCK ? size : ARENA_BLOCK;
        struct arena_block *block = calloc(1, sizeof *block + wanted);
        if (!block)
            return NULL;
        block->size = wanted;
        block->next = arena->blocks;
        arena->blocks = block;
    }
    void *memory = arena->blocks->memory + arena->blocks->used;
    arena->blocks->used += size;
    arena->bytes += size;
    return memory;
}

char *arena_text(struct arena *arena, const char *text)
{
    const size_t size = strlen(text) + 1;
    char *copy = arena_take(arena, size);
    if (copy)
        memcpy(copy, text, size);
    return copy;
}

void arena_clear(struct arena *arena)
{
    for (struct arena_block *block = arena->blocks, *next; block; block = next) {
        next = block->next;
        free(block);
    }
    *arena = (struct arena){0};
}
