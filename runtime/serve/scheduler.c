#include "runtime/serve/scheduler.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"

enum place { PLACE_NONE, PLACE_IDLE, PLACE_RUNNABLE, PLACE_WAITING, PLACE_HELD, PLACE_BROKEN };

struct entry {
    struct pool *pool;
    struct pool_limits limits;
    uint64_t key;      /* runnable: queued_ns of the oldest task; waiting: when to look again */
    uint32_t position; /* in its heap */
    enum place place;
};

struct heap {
    uint32_t *items; /* indexes of entries; the least key first */
    uint32_t count;
};

struct scheduler {
    struct entry *entries;
    struct heap runnable, waiting;
    scheduler_skipped *skipped;
    void *context;
    bool broken; /* one of the pools */
};

/* --- heaps -----------------------------------------------------------------------------------------------------------
 */

static void set_item(struct scheduler *scheduler, struct heap *heap, uint32_t position, uint32_t index)
{
    heap->items[position] = index;
    scheduler->entries[index].position = position;
}

static uint64_t key_at(const struct scheduler *scheduler, const struct heap *heap, uint32_t position)
{
    return scheduler->entries[heap->items[position]].key;
}

static void sift_up(struct scheduler *scheduler, struct heap *heap, uint32_t position)
{
    const uint32_t index = heap->items[position];
    const uint64_t key = scheduler->entries[index].key;
    while (position > 0 && key_at(scheduler, heap, (position - 1) / 2) > key) {
        set_item(scheduler, heap, position, heap->items[(position - 1) / 2]);
        position = (position - 1) / 2;
    }
    set_item(scheduler, heap, position, index);
}

static void sift_down(struct scheduler *scheduler, struct heap *heap, uint32_t position)
{
    const uint32_t index = heap->items[position];
    const uint64_t key = scheduler->entries[index].key;
    for (;;) {
        uint32_t child = 2 * position + 1;
        if (child >= heap->count)
            break;
        if (child + 1 < heap->count && key_at(scheduler, heap, child + 1) < key_at(scheduler, heap, child))
            child++;
        if (key_at(scheduler, heap, child) >= key)
            break;
        set_item(scheduler, heap, position, heap->items[child]);
        position = child;
    }
    set_item(scheduler, heap, position, index);
}

static struct heap *heap_of(struct scheduler *scheduler, enum place place)
{
    return place == PLACE_RUNNABLE ? &scheduler->runnable : place == PLACE_WAITING ? &scheduler->waiting : NULL;
}

/* The one place where an entry changes its heap or its key. */
static void move(struct scheduler *scheduler, uint32_t index, enum place place, uint64_t key)
{
    struct entry *entry = &scheduler->entries[index];
    struct heap *from = heap_of(scheduler, entry->place), *to = heap_of(scheduler, place);
    if (from && from == to) {
        entry->key = key;
        sift_up(scheduler, to, entry->position);
        sift_down(scheduler, to, entry->position);
        return;
    }
    if (from) {
        const uint32_t position = entry->position, last = from->items[--from->count];
        if (last != index) {
            set_item(scheduler, from, position, last);
            sift_up(scheduler, from, position);
            sift_down(scheduler, from, scheduler->entries[last].position);
        }
    }
    entry->place = place;
    entry->key = key;
    if (to) {
        set_item(scheduler, to, to->count++, index);
        sift_up(scheduler, to, to->count - 1);
    }
}

/* --- pools -----------------------------------------------------------------------------------------------------------
 */

/* No memory for the pool's tables may come back; a damaged queue does not. */
static void set_aside(struct scheduler *scheduler, uint32_t index, int error, uint64_t now_ns)
{
    const struct pool_shared *header = pool_header(scheduler->entries[index].pool);
    const char *kind = header->kind == POOL_FORWARD ? "forward" : "backward";
    if (error != -EPROTO) {
        static struct log_burst burst;
        unsigned left_out = 0;
        if (log_burst_allows(&burst, &left_out, strerror(-error)))
            log_error("the tasks of '%s' (%s) have to wait: %s (%u more like it)", header->uid, kind, strerror(-error),
                      left_out);
        move(scheduler, index, PLACE_WAITING, now_ns + NS_PER_S);
        return;
    }
    log_error("the queue of '%s' (%s) is damaged", header->uid, kind);
    move(scheduler, index, PLACE_BROKEN, 0);
    scheduler->broken = true;
}

static void report_skipped(struct scheduler *scheduler, uint32_t index, uint32_t tasks)
{
    if (tasks > 0)
        scheduler->skipped(scheduler->context, index, tasks);
}

/* Puts the pool where its oldest task says. */
static void place_by_age(struct scheduler *scheduler, uint32_t index, uint64_t now_ns)
{
    uint64_t queued_ns = 0;
    uint32_t completed = 0;
    const int rc = pool_oldest(scheduler->entries[index].pool, now_ns, &queued_ns, &completed);
    report_skipped(scheduler, index, completed);
    if (rc < 0)
        set_aside(scheduler, index, rc, now_ns);
    else
        move(scheduler, index, rc ? PLACE_RUNNABLE : PLACE_IDLE, queued_ns);
}

int scheduler_create(struct scheduler **scheduler, uint32_t pools_count, scheduler_skipped *skipped, void *context)
{
    struct scheduler *s = *scheduler = calloc(1, sizeof *s);
    if (!s)
        return -ENOMEM;
    s->skipped = skipped;
    s->context = context;
    s->entries = calloc(pools_count, sizeof *s->entries);
    s->runnable.items = calloc(pools_count, sizeof *s->runnable.items);
    s->waiting.items = calloc(pools_count, sizeof *s->waiting.items);
    if (s->entries && s->runnable.items && s->waiting.items)
        return 0;
    scheduler_destroy(scheduler);
    return -ENOMEM;
}

void scheduler_destroy(struct scheduler **scheduler)
{
    if (!*scheduler)
        return;
    free((*scheduler)->entries);
    free((*scheduler)->runnable.items);
    free((*scheduler)->waiting.items);
    free(*scheduler);
    *scheduler = NULL;
}

void scheduler_add(struct scheduler *scheduler, uint32_t index, struct pool *pool, const struct pool_limits *limits)
{
    scheduler->entries[index].pool = pool;
    scheduler->entries[index].limits = *limits;
    scheduler->entries[index].place = PLACE_IDLE;
}

void scheduler_remove(struct scheduler *scheduler, uint32_t index)
{
    move(scheduler, index, PLACE_NONE, 0);
    scheduler->entries[index].pool = NULL;
}

void scheduler_limit(struct scheduler *scheduler, uint32_t index, const struct pool_limits *limits)
{
    scheduler->entries[index].limits = *limits;
}

void scheduler_prefetch_handle(const struct scheduler *scheduler, uint32_t index)
{
    if (scheduler->entries[index].pool)
        pool_prefetch_handle(scheduler->entries[index].pool);
}

void scheduler_prefetch(const struct scheduler *scheduler, uint32_t index)
{
    if (scheduler->entries[index].pool)
        pool_prefetch_shared(scheduler->entries[index].pool);
}

bool scheduler_broken(const struct scheduler *scheduler)
{
    return scheduler->broken;
}

void scheduler_notice(struct scheduler *scheduler, uint32_t index, uint64_t now_ns)
{
    /* A new task is never the oldest of a pool that had one already: a runnable pool is where it belongs. */
    const enum place place = scheduler->entries[index].place;
    if (place == PLACE_IDLE || place == PLACE_WAITING)
        place_by_age(scheduler, index, now_ns);
}

void scheduler_hold(struct scheduler *scheduler, uint32_t index)
{
    if (scheduler->entries[index].place != PLACE_BROKEN)
        move(scheduler, index, PLACE_HELD, 0);
}

void scheduler_release(struct scheduler *scheduler, uint32_t index, uint64_t now_ns)
{
    if (scheduler->entries[index].place == PLACE_HELD)
        place_by_age(scheduler, index, now_ns);
}

int scheduler_next(struct scheduler *scheduler, uint64_t now_ns, uint32_t *index, uint64_t *retry_ns)
{
    while (scheduler->waiting.count > 0 && key_at(scheduler, &scheduler->waiting, 0) <= now_ns)
        place_by_age(scheduler, scheduler->waiting.items[0], now_ns);
    while (scheduler->runnable.count > 0) {
        const uint32_t first = scheduler->runnable.items[0];
        /* Its oldest task may have been cancelled meanwhile, and the next one be younger than other pools' oldest. */
        place_by_age(scheduler, first, now_ns);
        if (scheduler->runnable.count > 0 && scheduler->runnable.items[0] == first) {
            *index = first;
            return 1;
        }
    }
    *retry_ns = scheduler->waiting.count > 0 ? key_at(scheduler, &scheduler->waiting, 0) : UINT64_MAX;
    return 0;
}

/* The pool's own limits, or what the wish makes of them. */
static struct pool_limits wished_limits(const struct entry *entry, const struct scheduler_wish *wish)
{
    const uint32_t most = pool_header(entry->pool)->max_batch_size;
    struct pool_limits limits = entry->limits;
    const uint32_t rows = wish->rows < most ? wish->rows : most;
    /* What the pool was told to wait for, and how long, is not made shorter. */
    if (rows <= limits.min_batch_size || (limits.min_batch_size > 1 && wish->until_ns != UINT64_MAX))
        return limits;
    limits.min_batch_size = rows;
    /* The key is when the oldest task was queued, from which its wait counts. */
    limits.batch_timeout_ns = wish->until_ns == UINT64_MAX  ? 3600 * NS_PER_S
                              : wish->until_ns > entry->key ? wish->until_ns - entry->key
                                                            : 0;
    return limits;
}

int scheduler_take(struct scheduler *scheduler, uint32_t index, const struct scheduler_wish *wish, uint64_t now_ns,
                   struct pool_batch *batch)
{
    struct entry *entry = &scheduler->entries[index];
    const struct pool_limits limits = wished_limits(entry, wish);
    uint64_t retry_ns = 0;
    uint32_t completed = 0;
    const int rc = pool_take(entry->pool, &limits, now_ns, batch, &retry_ns, &completed);
    report_skipped(scheduler, index, completed);
    if (rc < 0) {
        set_aside(scheduler, index, rc, now_ns);
        return 0;
    }
    if (rc == 1)
        place_by_age(scheduler, index, now_ns);
    else if (wish->until_ns != UINT64_MAX)
        move(scheduler, index, retry_ns == UINT64_MAX ? PLACE_IDLE : PLACE_WAITING, retry_ns);
    return rc;
}
