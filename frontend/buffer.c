#include "frontend/buffer.h"

#include <errno.h>
#include <stdlib.h>

/* Size classes are powers of two of the whole block: 2 KiB, 4 KiB, ... */
enum { SMALLEST_BITS = 11, CLASSES = 40 };

struct buffers {
    struct buffer *free[CLASSES]; /* the frontend's thread only */
    size_t keep_bytes, free_bytes, total_bytes;
    /* What other threads let go of. They push; the frontend's thread takes the whole list at once, so that the
     * compare-and-swap of a push never meets a block that was popped and pushed again. Push releases, take acquires. */
    alignas(64) _Atomic(struct buffer *) returned;
};

static size_t class_bytes(uint32_t size_class)
{
    return (size_t)1 << (SMALLEST_BITS + size_class);
}

int buffers_create(struct buffers **buffers, size_t keep_bytes)
{
    *buffers = aligned_alloc(64, sizeof **buffers);
    if (!*buffers)
        return -ENOMEM;
    **buffers = (struct buffers){.keep_bytes = keep_bytes};
    return 0;
}

static void drop(struct buffers *buffers, struct buffer *buffer)
{
    buffers->total_bytes -= class_bytes(buffer->size_class);
    free(buffer);
}

/* Sorts what was returned into the free lists. */
static void collect(struct buffers *buffers)
{
    if (!atomic_load_explicit(&buffers->returned, memory_order_relaxed))
        return;
    struct buffer *buffer = atomic_exchange_explicit(&buffers->returned, NULL, memory_order_acquire);
    while (buffer) {
        struct buffer *next = buffer->next;
        const size_t bytes = class_bytes(buffer->size_class);
        if (buffers->free_bytes + bytes > buffers->keep_bytes) {
            drop(buffers, buffer);
        } else {
            buffer->next = buffers->free[buffer->size_class];
            buffers->free[buffer->size_class] = buffer;
            buffers->free_bytes += bytes;
        }
        buffer = next;
    }
}

void buffers_destroy(struct buffers **buffers)
{
    if (!*buffers)
        return;
    collect(*buffers);
    for (uint32_t c = 0; c < CLASSES; c++) {
        while ((*buffers)->free[c]) {
            struct buffer *buffer = (*buffers)->free[c];
            (*buffers)->free[c] = buffer->next;
            free(buffer);
        }
    }
    free(*buffers);
    *buffers = NULL;
}

struct buffer *buffers_take(struct buffers *buffers, size_t bytes)
{
    if (bytes > class_bytes(CLASSES - 1) - sizeof(struct buffer))
        return NULL;
    const size_t block = bytes + sizeof(struct buffer);
    uint32_t size_class = 0;
    if (block > class_bytes(0))
        size_class = (uint32_t)(64 - __builtin_clzll(block - 1)) - SMALLEST_BITS;
    collect(buffers);
    struct buffer *buffer = buffers->free[size_class];
    if (buffer) {
        buffers->free[size_class] = buffer->next;
        buffers->free_bytes -= class_bytes(size_class);
    } else {
        buffer = aligned_alloc(64, class_bytes(size_class));
        if (!buffer)
            return NULL;
        buffers->total_bytes += class_bytes(size_class);
    }
    buffer->home = buffers;
    buffer->size_class = size_class;
    buffer->peer = NULL;
    buffer->used = 0;
    atomic_store_explicit(&buffer->references, 1, memory_order_relaxed);
    atomic_store_explicit(&buffer->frames, 0, memory_order_relaxed);
    return buffer;
}

void buffers_trim(struct buffers *buffers, size_t keep_bytes)
{
    collect(buffers);
    for (uint32_t c = CLASSES; c-- > 0 && buffers->free_bytes > keep_bytes;) {
        while (buffers->free[c] && buffers->free_bytes > keep_bytes) {
            struct buffer *buffer = buffers->free[c];
            buffers->free[c] = buffer->next;
            buffers->free_bytes -= class_bytes(c);
            drop(buffers, buffer);
        }
    }
}

size_t buffers_bytes(const struct buffers *buffers)
{
    return buffers->total_bytes;
}

size_t buffer_capacity(const struct buffer *buffer)
{
    return class_bytes(buffer->size_class) - sizeof(struct buffer);
}

void buffer_hold(struct buffer *buffer)
{
    atomic_fetch_add_explicit(&buffer->references, 1, memory_order_relaxed);
}

void buffer_release(struct buffer *buffer)
{
    /* acq_rel: the last one to let go has seen what all others did with the data. */
    if (atomic_fetch_sub_explicit(&buffer->references, 1, memory_order_acq_rel) != 1)
        return;
    struct buffers *home = buffer->home;
    struct buffer *head = atomic_load_explicit(&home->returned, memory_order_relaxed);
    do
        buffer->next = head;
    while (!atomic_compare_exchange_weak_explicit(&home->returned, &head, buffer, memory_order_release,
                                                  memory_order_relaxed));
}
