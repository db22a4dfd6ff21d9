/* Memory that a client shares with a server on the same host: blocks of one file without name (memfd), which cannot
 * shrink. What is known of the blocks lies elsewhere, where the server cannot write. Any thread. */
#ifndef EXPERTD_CLIENT_LOCAL_HEAP_H
#define EXPERTD_CLIENT_LOCAL_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <zmq.h>

struct local_heap;
struct local_block;

/* Pages cost memory when they are first used. One reference, the caller's. -errno. */
int local_heap_new(struct local_heap **heap, uint64_t bytes);
/* The last reference or block unmaps it. Nulls. */
void local_heap_release(struct local_heap **heap);
int local_heap_fd(const struct local_heap *heap);
uint64_t local_heap_bytes(const struct local_heap *heap);
/* Whether the bytes lie in it, and where. */
bool local_heap_has(const struct local_heap *heap, const void *data, uint64_t bytes, uint64_t *at);

/* A block of at least so many bytes, aligned to 64, with one reference. NULL: it is full. */
struct local_block *local_heap_take(struct local_heap *heap, uint64_t bytes);
void local_block_hold(struct local_block *block);
void local_block_release(struct local_block *block);
void *local_block_data(const struct local_block *block);
uint64_t local_block_at(const struct local_block *block);
uint64_t local_block_bytes(const struct local_block *block);
/* A message of `bytes` from `at` of the heap on, which lies in the block and holds it. False: no memory. */
bool local_block_message(struct local_block *block, uint64_t at, uint64_t bytes, zmq_msg_t *message);
/* A message whose data is a block of the heap, if there is one for it; of ZeroMQ's memory else (heap NULL, too). */
bool local_heap_message(struct local_heap *heap, uint64_t bytes, zmq_msg_t *message);

#endif
