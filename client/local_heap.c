#include "client/local_heap.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* Four sizes of blocks to each power of two, from 64 bytes on: 64, 80, 96, 112, 128, 160, ... */
enum { ALIGN_BITS = 6, STEPS = 4, CLASSES = STEPS * 40 };

struct local_block {
    struct local_heap *heap;
    struct local_block *next; /* of the free ones of its size */
    uint64_t at, bytes;
    unsigned size_class;
    atomic_uint holders;
};

struct local_heap {
    pthread_mutex_t lock;
    unsigned char *base;
    uint64_t bytes, used; /* blocks were made of what is below `used` */
    uint64_t references;  /* blocks in use, and the owner */
    int fd;
    struct local_block *free[CLASSES];
};

static uint64_t class_bytes(unsigned size_class)
{
    const uint64_t power = UINT64_C(1) << (ALIGN_BITS + size_class / STEPS);
    const uint64_t bytes = power + power / STEPS * (size_class % STEPS);
    return (bytes + 63) / 64 * 64;
}

static unsigned class_of(uint64_t bytes)
{
    unsigned size_class = 0;
    if (bytes > 64)
        size_class = (63 - (unsigned)__builtin_clzll(bytes) - ALIGN_BITS) * STEPS;
    while (size_class < CLASSES && class_bytes(size_class) < bytes)
        size_class++;
    return size_class;
}

int local_heap_new(struct local_heap **heap, uint64_t bytes)
{
    struct local_heap *made = *heap = calloc(1, sizeof *made);
    if (!made)
        return -ENOMEM;
    int rc = 0;
    made->references = 1;
    made->bytes = bytes;
    made->base = MAP_FAILED;
    pthread_mutex_init(&made->lock, NULL);
    made->fd = memfd_create("expertd-client", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (made->fd < 0 || ftruncate(made->fd, (off_t)bytes) != 0 ||
        fcntl(made->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
        rc = -errno;
    if (rc == 0)
        made->base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, made->fd, 0);
    if (rc == 0 && made->base == MAP_FAILED)
        rc = -errno;
    if (rc < 0)
        local_heap_release(heap);
    return rc;
}

static void destroy(struct local_heap *heap)
{
    for (unsigned c = 0; c < CLASSES; c++) {
        for (struct local_block *block = heap->free[c], *next; block; block = next) {
            next = block->next;
            free(block);
        }
    }
    if (heap->base != MAP_FAILED)
        munmap(heap->base, heap->bytes);
    if (heap->fd >= 0)
        close(heap->fd);
    pthread_mutex_destroy(&heap->lock);
    free(heap);
}

static void let_go(struct local_heap *heap)
{
    pthread_mutex_lock(&heap->lock);
    const bool last = --heap->references == 0;
    pthread_mutex_unlock(&heap->lock);
    if (last)
        destroy(heap);
}

void local_heap_release(struct local_heap **heap)
{
    struct local_heap *old = *heap;
    *heap = NULL;
    if (old)
        let_go(old);
}

int local_heap_fd(const struct local_heap *heap)
{
    return heap->fd;
}

uint64_t local_heap_bytes(const struct local_heap *heap)
{
    return heap->bytes;
}

bool local_heap_has(const struct local_heap *heap, const void *data, uint64_t bytes, uint64_t *at)
{
    const uint64_t offset = (uintptr_t)data - (uintptr_t)heap->base;
    *at = offset;
    return offset < heap->bytes && bytes <= heap->bytes - offset;
}

/* Nothing is in use: blocks can be cut anew, so that one of sizes that are asked for no more does not stay so. */
static void start_anew(struct local_heap *heap)
{
    for (unsigned c = 0; c < CLASSES; c++) {
        while (heap->free[c]) {
            struct local_block *block = heap->free[c];
            heap->free[c] = block->next;
            free(block);
        }
    }
    heap->used = 0;
}

static struct local_block *cut(struct local_heap *heap, unsigned size_class)
{
    const uint64_t bytes = class_bytes(size_class);
    if (heap->references == 1 && bytes > heap->bytes - heap->used)
        start_anew(heap);
    if (bytes > heap->bytes - heap->used)
        return NULL;
    struct local_block *block = malloc(sizeof *block);
    if (!block)
        return NULL;
    *block = (struct local_block){.heap = heap, .at = heap->used, .bytes = bytes, .size_class = size_class};
    heap->used += bytes;
    return block;
}

struct local_block *local_heap_take(struct local_heap *heap, uint64_t bytes)
{
    const unsigned wanted = class_of(bytes);
    struct local_block *block = NULL;
    if (wanted >= CLASSES)
        return NULL;
    pthread_mutex_lock(&heap->lock);
    block = heap->free[wanted];
    if (block)
        heap->free[wanted] = block->next;
    else
        block = cut(heap, wanted);
    /* A larger one is better than none. */
    for (unsigned c = wanted + 1; !block && c < CLASSES; c++) {
        block = heap->free[c];
        if (block)
            heap->free[c] = block->next;
    }
    if (block) {
        heap->references++;
        atomic_store_explicit(&block->holders, 1, memory_order_relaxed);
    }
    pthread_mutex_unlock(&heap->lock);
    return block;
}

void local_block_hold(struct local_block *block)
{
    atomic_fetch_add_explicit(&block->holders, 1, memory_order_relaxed);
}

void local_block_release(struct local_block *block)
{
    struct local_heap *heap = block->heap;
    /* acq_rel: what any holder did to the data is over for the next one. */
    if (atomic_fetch_sub_explicit(&block->holders, 1, memory_order_acq_rel) != 1)
        return;
    pthread_mutex_lock(&heap->lock);
    block->next = heap->free[block->size_class];
    heap->free[block->size_class] = block;
    pthread_mutex_unlock(&heap->lock);
    let_go(heap);
}

void *local_block_data(const struct local_block *block)
{
    return block->heap->base + block->at;
}

uint64_t local_block_at(const struct local_block *block)
{
    return block->at;
}

uint64_t local_block_bytes(const struct local_block *block)
{
    return block->bytes;
}

static void message_done(void *data, void *block)
{
    (void)data;
    local_block_release(block);
}

bool local_block_message(struct local_block *block, uint64_t at, uint64_t bytes, zmq_msg_t *message)
{
    if (zmq_msg_init_data(message, block->heap->base + at, bytes, message_done, block) != 0)
        return false;
    local_block_hold(block);
    return true;
}

bool local_heap_message(struct local_heap *heap, uint64_t bytes, zmq_msg_t *message)
{
    struct local_block *block = heap && bytes ? local_heap_take(heap, bytes) : NULL;
    if (!block)
        return zmq_msg_init_size(message, bytes) == 0;
    const bool made = local_block_message(block, block->at, bytes, message);
    local_block_release(block);
    return made;
}
