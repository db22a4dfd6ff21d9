#include "runtime/state/checkpoint_queue.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Slots are filled, written and emptied in turn, so three counters say all; slot i of any of them is i % SLOTS.
 * fetched <= written <= put <= fetched + SLOTS */
struct slot {
    struct expert_snapshot snapshot;
    struct checkpoint_window window;
    uint64_t memory_bytes;
    const struct expert *expert;
    const char *uid;
    struct checkpoint_result result;
};

struct checkpoint_queue {
    const char *dir;
    unsigned keep;
    void (*wake)(void *context);
    void *context;
    pthread_t thread;
    pthread_mutex_t mutex; /* guards all below; a slot between two counters belongs to the side that moves the next */
    pthread_cond_t changed;
    uint64_t put, fetched;
    _Atomic uint64_t written; /* atomic for the runtime's look at every batch, which takes no lock */
    bool ending;
    struct slot slots[CHECKPOINT_QUEUE_SLOTS];
};

static void *write_all(void *argument)
{
    struct checkpoint_queue *queue = argument;
    pthread_mutex_lock(&queue->mutex);
    for (;;) {
        while (queue->written == queue->put && !queue->ending)
            pthread_cond_wait(&queue->changed, &queue->mutex);
        if (queue->written == queue->put)
            break;
        struct slot *slot = &queue->slots[queue->written % CHECKPOINT_QUEUE_SLOTS];
        pthread_mutex_unlock(&queue->mutex);
        slot->result.error =
            checkpoint_write(slot->expert, &slot->snapshot, &slot->window, queue->dir, slot->uid, queue->keep);
        pthread_mutex_lock(&queue->mutex);
        queue->written++;
        pthread_cond_broadcast(&queue->changed);
        pthread_mutex_unlock(&queue->mutex);
        queue->wake(queue->context);
        pthread_mutex_lock(&queue->mutex);
    }
    pthread_mutex_unlock(&queue->mutex);
    return NULL;
}

int checkpoint_queue_create(struct checkpoint_queue **queue, const char *dir, unsigned keep,
                            void (*wake)(void *context), void *context)
{
    struct checkpoint_queue *q = calloc(1, sizeof *q);
    *queue = NULL;
    if (!q)
        return -ENOMEM;
    q->dir = dir;
    q->keep = keep;
    q->wake = wake;
    q->context = context;
    pthread_mutex_init(&q->mutex, NULL);
    pthread_cond_init(&q->changed, NULL);
    const int rc = -pthread_create(&q->thread, NULL, write_all, q);
    if (rc < 0) {
        pthread_cond_destroy(&q->changed);
        pthread_mutex_destroy(&q->mutex);
        free(q);
        return rc;
    }
    *queue = q;
    return 0;
}

void checkpoint_queue_destroy(struct checkpoint_queue **queue)
{
    struct checkpoint_queue *q = *queue;
    if (!q)
        return;
    pthread_mutex_lock(&q->mutex);
    q->ending = true;
    pthread_cond_broadcast(&q->changed);
    pthread_mutex_unlock(&q->mutex);
    pthread_join(q->thread, NULL);
    for (int i = 0; i < CHECKPOINT_QUEUE_SLOTS; i++)
        free(q->slots[i].snapshot.memory);
    pthread_cond_destroy(&q->changed);
    pthread_mutex_destroy(&q->mutex);
    free(q);
    *queue = NULL;
}

static int reserve(struct slot *slot, uint64_t bytes)
{
    if (slot->memory_bytes >= bytes)
        return 0;
    free(slot->snapshot.memory);
    slot->memory_bytes = 0;
    slot->snapshot.memory = malloc(bytes);
    if (!slot->snapshot.memory)
        return -ENOMEM;
    slot->memory_bytes = bytes;
    return 0;
}

static void copy_window(struct checkpoint_window *to, const struct checkpoint_window *from)
{
    to->count = from ? from->count : 0;
    if (to->count > 0)
        memcpy(to->keys, from->keys, to->count * sizeof *to->keys);
}

int checkpoint_queue_put(struct checkpoint_queue *queue, uint32_t index, struct expert *expert, const char *uid,
                         const struct checkpoint_window *window)
{
    if (!checkpoint_queue_has_room(queue))
        return -EAGAIN;
    struct slot *slot = &queue->slots[queue->put % CHECKPOINT_QUEUE_SLOTS];
    int rc = reserve(slot, expert_snapshot_bytes(expert));
    if (rc == 0)
        rc = expert_snapshot_take(expert, &slot->snapshot);
    if (rc < 0)
        return rc;
    copy_window(&slot->window, window);
    slot->expert = expert;
    slot->uid = uid;
    slot->result = (struct checkpoint_result){.index = index};
    pthread_mutex_lock(&queue->mutex);
    queue->put++;
    pthread_cond_broadcast(&queue->changed);
    pthread_mutex_unlock(&queue->mutex);
    return 0;
}

bool checkpoint_queue_has_room(struct checkpoint_queue *queue)
{
    /* Both are moved by this thread only. */
    return queue->put - queue->fetched < CHECKPOINT_QUEUE_SLOTS;
}

bool checkpoint_queue_has_result(struct checkpoint_queue *queue)
{
    return atomic_load_explicit(&queue->written, memory_order_relaxed) != queue->fetched;
}

int checkpoint_queue_fetch(struct checkpoint_queue *queue, struct checkpoint_result *result)
{
    if (!checkpoint_queue_has_result(queue))
        return 0;
    pthread_mutex_lock(&queue->mutex);
    *result = queue->slots[queue->fetched++ % CHECKPOINT_QUEUE_SLOTS].result;
    pthread_mutex_unlock(&queue->mutex);
    return 1;
}

bool checkpoint_queue_wait(struct checkpoint_queue *queue)
{
    pthread_mutex_lock(&queue->mutex);
    while (queue->written == queue->fetched && queue->put != queue->fetched)
        pthread_cond_wait(&queue->changed, &queue->mutex);
    const bool has = queue->written != queue->fetched;
    pthread_mutex_unlock(&queue->mutex);
    return has;
}
