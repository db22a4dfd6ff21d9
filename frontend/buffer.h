/* Reply buffers: memory that a reply's tensors lie in while ZeroMQ sends them, recycled, so that the steady state has
 * neither an allocation nor a page fault. Taken by the one thread of the frontend; let go of by it or by ZeroMQ's. */
#ifndef EXPERTD_FRONTEND_BUFFER_H
#define EXPERTD_FRONTEND_BUFFER_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct buffers;
struct client_peer;

struct buffer {
    struct buffers *home;
    struct buffer *next; /* in a list of free ones */
    uint32_t size_class;
    _Atomic uint32_t references;
    /* While it is sent (frontend/reply.c): frames that ZeroMQ has not let go of, and who is charged for them. */
    _Atomic uint32_t frames;
    struct client_peer *peer;
    size_t used; /* bytes of data that mean something */
    alignas(64) unsigned char data[];
};

/* Free buffers beyond keep_bytes are given back to the allocator. -ENOMEM. */
int buffers_create(struct buffers **buffers, size_t keep_bytes);
/* All buffers must have been released. */
void buffers_destroy(struct buffers **buffers);
/* A buffer of at least `bytes`, with one reference. NULL: no memory. */
struct buffer *buffers_take(struct buffers *buffers, size_t bytes);
/* Gives free buffers back to the allocator, until those that are left have at most so many bytes. */
void buffers_trim(struct buffers *buffers, size_t keep_bytes);
/* Bytes of all buffers, used and free. */
size_t buffers_bytes(const struct buffers *buffers);

size_t buffer_capacity(const struct buffer *buffer);
void buffer_hold(struct buffer *buffer);
/* Any thread. The last reference's release gives the buffer back. */
void buffer_release(struct buffer *buffer);

#endif
