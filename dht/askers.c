#include "dht/askers.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "dht/table.h"

enum { KEPT_SHARE = 8, UNREAD_SHARE = 4, TIDY_LEAST = 64 };

struct asker {
    size_t kept, kept_bytes;
    _Atomic size_t unread;
    _Atomic size_t references; /* the table's, and one of each answer that is on its way */
    size_t id_size;
    uint8_t id[];
};

struct askers {
    struct table by_id;
    size_t kept, kept_bytes;
    size_t tidy_at; /* when there are so many */
};

/* Of the process's: an answer may outlive its service. */
static _Atomic size_t unread_of_all;

int askers_create(struct askers **askers)
{
    *askers = calloc(1, sizeof **askers);
    if (!*askers)
        return -ENOMEM;
    (*askers)->tidy_at = TIDY_LEAST;
    return 0;
}

/* Acquire and release: who is the last has seen what the others did. */
static void release(struct asker *asker)
{
    if (atomic_fetch_sub_explicit(&asker->references, 1, memory_order_acq_rel) == 1)
        free(asker);
}

void askers_destroy(struct askers **askers)
{
    size_t at = 0;
    struct asker *asker;
    if (!*askers)
        return;
    while ((asker = table_next(&(*askers)->by_id, &at)) != NULL)
        release(asker);
    table_destroy(&(*askers)->by_id);
    free(*askers);
    *askers = NULL;
}

static bool is_of_use(struct asker *asker)
{
    return asker->kept > 0 || atomic_load_explicit(&asker->references, memory_order_acquire) > 1;
}

struct asker *askers_find(struct askers *askers, const void *id, size_t size)
{
    struct asker *asker = table_find(&askers->by_id, id, size);
    if (asker)
        return asker;
    asker = calloc(1, sizeof *asker + size);
    if (!asker)
        return NULL;
    atomic_init(&asker->references, 1);
    asker->id_size = size;
    memcpy(asker->id, id, size);
    if (table_insert(&askers->by_id, asker->id, size, asker) == 0)
        return asker;
    free(asker);
    return NULL;
}

/* Those of whom something is left, in a table of their own, which takes the other's place. A look over all costs as
 * much as there are, so it waits until there are twice as many as it left before. Without memory it is put off. */
void askers_tidy(struct askers *askers)
{
    struct table left = {0};
    struct asker *asker;
    size_t at = 0;
    int rc = 0;
    if (askers->by_id.count < askers->tidy_at)
        return;
    askers->tidy_at = 2 * askers->by_id.count;
    while (rc == 0 && (asker = table_next(&askers->by_id, &at)) != NULL) {
        if (is_of_use(asker))
            rc = table_insert(&left, asker->id, asker->id_size, asker);
    }
    if (rc < 0) {
        table_destroy(&left);
        return;
    }
    at = 0;
    while ((asker = table_next(&askers->by_id, &at)) != NULL) {
        if (!table_find(&left, asker->id, asker->id_size))
            release(asker);
    }
    table_destroy(&askers->by_id);
    askers->by_id = left;
    askers->tidy_at = 2 * left.count < TIDY_LEAST ? TIDY_LEAST : 2 * left.count;
}

size_t askers_count(const struct askers *askers)
{
    return askers->by_id.count;
}

bool asker_keep(struct askers *askers, struct asker *asker, size_t bytes)
{
    if (askers->kept >= ASKERS_KEPT_MAX || bytes > ASKERS_KEPT_BYTES_MAX - askers->kept_bytes)
        return false;
    const size_t left = ASKERS_KEPT_MAX - askers->kept, bytes_left = ASKERS_KEPT_BYTES_MAX - askers->kept_bytes;
    if (asker->kept > KEPT_SHARE * left || asker->kept_bytes > KEPT_SHARE * (bytes_left - bytes))
        return false;
    asker->kept++;
    asker->kept_bytes += bytes;
    askers->kept++;
    askers->kept_bytes += bytes;
    return true;
}

void asker_let_go(struct askers *askers, struct asker *asker, size_t bytes)
{
    asker->kept--;
    asker->kept_bytes -= bytes;
    askers->kept--;
    askers->kept_bytes -= bytes;
}

bool asker_charge(struct asker *asker, size_t bytes)
{
    const size_t own = atomic_load_explicit(&asker->unread, memory_order_relaxed);
    const size_t all = atomic_load_explicit(&unread_of_all, memory_order_relaxed);
    const size_t left = all < ASKERS_UNREAD_BYTES_MAX ? ASKERS_UNREAD_BYTES_MAX - all : 0;
    if (own > 0 ? own + bytes > left / UNREAD_SHARE : left == 0)
        return false;
    atomic_fetch_add_explicit(&asker->references, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&asker->unread, bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&unread_of_all, bytes, memory_order_relaxed);
    return true;
}

void asker_credit(struct asker *asker, size_t bytes)
{
    atomic_fetch_sub_explicit(&unread_of_all, bytes, memory_order_relaxed);
    atomic_fetch_sub_explicit(&asker->unread, bytes, memory_order_relaxed);
    release(asker);
}
