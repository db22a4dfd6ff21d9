/* Memory for one answer, given back all at once. No locks. Zero-initialised is empty. */
#ifndef EXPERTD_DHT_ARENA_H
#define EXPERTD_DHT_ARENA_H

#include <stddef.h>

struct arena_block;
struct arena {
    struct arena_block *blocks;
    size_t bytes; /* handed out */
};

/* Zeroed, aligned for any type; NULL: no memory. Lives until arena_clear. */
void *arena_take(struct arena *arena, size_t size);
char *arena_text(struct arena *arena, const char *text);
void arena_clear(struct arena *arena);

#endif
