#include "pools/applied.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 2 * POOL_APPLIED_RECORDS, NOWHERE = -1, FIRST_SLOT = 2 * POOL_APPLIED_RECORDS };

/* A node is an element of the index: nodes below POOL_APPLIED_RECORDS are the records, as many from there the restored
 * keys, the others the task slots.
 * Chains and buckets are private, so that a record that somebody else overwrote gives wrong answers at worst, never a
 * wild index; only the keys are read from where they are. */
struct node {
    int32_t next;   /* in the chain; NOWHERE ends it */
    int32_t bucket; /* NOWHERE: not in the index */
};

struct applied {
    struct pool_applied_shared *records;
    _Atomic uint64_t *newest;
    const struct pool_task_shared *tasks;
    uint64_t sequence;            /* of the newest record */
    struct applied_key *restored; /* oldest first; NULL: none */
    uint32_t restored_count;
    int32_t heads[BUCKETS];
    struct node nodes[];
};

/* A client picks its own id, and could make chains long; but never longer than the window and a batch together, so
 * there is no need for a secret seed. */
static int32_t bucket_of(const struct applied_key *key)
{
    uint64_t hash = key->client[0] ^ (key->client[1] * UINT64_C(0x9e3779b97f4a7c15));
    hash = (hash ^ (hash >> 29)) + key->request_id * UINT64_C(0xbf58476d1ce4e5b9);
    hash = (hash ^ (hash >> 32)) * UINT64_C(0x94d049bb133111eb);
    return (int32_t)((hash >> 40) % BUCKETS);
}

static struct applied_key key_of(const struct applied *applied, int32_t node)
{
    if (node < POOL_APPLIED_RECORDS) {
        const struct pool_applied_shared *record = &applied->records[node];
        return (struct applied_key){{record->client[0], record->client[1]}, record->request_id};
    }
    if (node < FIRST_SLOT)
        return applied->restored[node - POOL_APPLIED_RECORDS];
    const struct pool_task_shared *task = &applied->tasks[node - FIRST_SLOT];
    return (struct applied_key){{task->client[0], task->client[1]}, task->request_id};
}

static bool key_equal(const struct applied_key *a, const struct applied_key *b)
{
    return a->client[0] == b->client[0] && a->client[1] == b->client[1] && a->request_id == b->request_id;
}

static void insert(struct applied *applied, int32_t node, const struct applied_key *key)
{
    const int32_t bucket = bucket_of(key);
    applied->nodes[node] = (struct node){.next = applied->heads[bucket], .bucket = bucket};
    applied->heads[bucket] = node;
}

static void take_out(struct applied *applied, int32_t node)
{
    if (applied->nodes[node].bucket == NOWHERE)
        return;
    int32_t *link = &applied->heads[applied->nodes[node].bucket];
    while (*link != node)
        link = &applied->nodes[*link].next;
    *link = applied->nodes[node].next;
    applied->nodes[node].bucket = NOWHERE;
}

static bool find(const struct applied *applied, const struct applied_key *key, bool running)
{
    if (!applied_key_known(key))
        return false;
    for (int32_t node = applied->heads[bucket_of(key)]; node != NOWHERE; node = applied->nodes[node].next) {
        const struct applied_key other = key_of(applied, node);
        if ((node >= FIRST_SLOT) == running && key_equal(&other, key))
            return true;
    }
    return false;
}

/* The newest record may be one ahead of *newest: its runtime died between the two stores. */
static void rebuild(struct applied *applied)
{
    const uint64_t newest = atomic_load_explicit(applied->newest, memory_order_acquire);
    applied->sequence = newest < UINT64_MAX / 2 ? newest : 0;
    const uint64_t oldest = applied->sequence < POOL_APPLIED_RECORDS ? 0 : applied->sequence - POOL_APPLIED_RECORDS;
    for (int32_t i = 0; i < POOL_APPLIED_RECORDS; i++) {
        const uint64_t sequence = atomic_load_explicit(&applied->records[i].sequence, memory_order_acquire);
        if (sequence <= oldest || sequence > applied->sequence + 1 || sequence % POOL_APPLIED_RECORDS != (uint64_t)i)
            continue;
        const struct applied_key key = key_of(applied, i);
        insert(applied, i, &key);
    }
    const uint64_t ahead = applied->sequence + 1;
    if (atomic_load_explicit(&applied->records[ahead % POOL_APPLIED_RECORDS].sequence, memory_order_acquire) == ahead)
        applied->sequence = ahead;
}

int applied_open(struct applied **applied, struct pool_applied_shared *records, _Atomic uint64_t *newest,
                 const struct pool_task_shared *tasks, uint32_t capacity_tasks)
{
    const size_t nodes = FIRST_SLOT + (size_t)capacity_tasks;
    struct applied *made = malloc(sizeof *made + nodes * sizeof made->nodes[0]);
    if (!made)
        return -ENOMEM;
    made->records = records;
    made->newest = newest;
    made->tasks = tasks;
    made->restored = NULL;
    made->restored_count = 0;
    for (size_t i = 0; i < BUCKETS; i++)
        made->heads[i] = NOWHERE;
    for (size_t i = 0; i < nodes; i++)
        made->nodes[i] = (struct node){.next = NOWHERE, .bucket = NOWHERE};
    rebuild(made);
    *applied = made;
    return 0;
}

int applied_restore(struct applied *applied, const struct applied_key *keys, uint32_t count)
{
    assert(count <= POOL_APPLIED_RECORDS && applied->restored_count == 0);
    if (count == 0)
        return 0;
    applied->restored = malloc(count * sizeof *keys);
    if (!applied->restored)
        return -ENOMEM;
    for (uint32_t i = 0; i < count; i++) {
        if (!applied_key_known(&keys[i]) || applied_done(applied, &keys[i]))
            continue;
        applied->restored[applied->restored_count] = keys[i];
        insert(applied, POOL_APPLIED_RECORDS + (int32_t)applied->restored_count++, &keys[i]);
    }
    return 0;
}

/* Records that are in the index, by their sequence; then what was restored, as far as there is room. */
uint32_t applied_list(const struct applied *applied, struct applied_key keys[POOL_APPLIED_RECORDS])
{
    uint32_t count = 0;
    for (uint64_t back = 0; back < POOL_APPLIED_RECORDS && back < applied->sequence; back++) {
        const int32_t node = (int32_t)((applied->sequence - back) % POOL_APPLIED_RECORDS);
        if (applied->nodes[node].bucket != NOWHERE)
            keys[count++] = key_of(applied, node);
    }
    for (uint32_t i = applied->restored_count; i > 0 && count < POOL_APPLIED_RECORDS; i--)
        keys[count++] = applied->restored[i - 1];
    for (uint32_t i = 0; i < count / 2; i++) {
        const struct applied_key newer = keys[i];
        keys[i] = keys[count - 1 - i];
        keys[count - 1 - i] = newer;
    }
    return count;
}

void applied_close(struct applied **applied)
{
    if (*applied)
        free((*applied)->restored);
    free(*applied);
    *applied = NULL;
}

bool applied_done(const struct applied *applied, const struct applied_key *key)
{
    return find(applied, key, false);
}

bool applied_running(const struct applied *applied, const struct applied_key *key)
{
    return find(applied, key, true);
}

void applied_begin(struct applied *applied, uint32_t slot, const struct applied_key *key)
{
    const int32_t node = FIRST_SLOT + (int32_t)slot;
    assert(applied->nodes[node].bucket == NOWHERE);
    if (applied_key_known(key))
        insert(applied, node, key);
}

void applied_forget(struct applied *applied, uint32_t slot)
{
    take_out(applied, FIRST_SLOT + (int32_t)slot);
}

void applied_record(struct applied *applied, uint32_t slot)
{
    const int32_t node = FIRST_SLOT + (int32_t)slot;
    if (applied->nodes[node].bucket == NOWHERE)
        return;
    const struct applied_key key = key_of(applied, node);
    take_out(applied, node);

    const uint64_t sequence = ++applied->sequence;
    const int32_t slot_of_record = (int32_t)(sequence % POOL_APPLIED_RECORDS);
    struct pool_applied_shared *record = &applied->records[slot_of_record];
    take_out(applied, slot_of_record);
    /* Killed anywhere in here, the record is either the old one, none, or the new one. */
    atomic_store_explicit(&record->sequence, 0, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    record->client[0] = key.client[0];
    record->client[1] = key.client[1];
    record->request_id = key.request_id;
    atomic_store_explicit(&record->sequence, sequence, memory_order_release);
    atomic_store_explicit(applied->newest, sequence, memory_order_release);
    insert(applied, slot_of_record, &key);
}
