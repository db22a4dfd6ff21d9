#include "frontend/expert_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/uid.h"

struct expert_table {
    struct expert_place *places;
    uint32_t count, capacity;
    uint32_t *slots; /* open addressing: 1 + number of a place; 0: empty */
    uint32_t slots_count;
    char *uids;
    size_t uids_used, uids_size;
};

enum { FIRST_CAPACITY = 64 };

int expert_table_create(struct expert_table **table)
{
    *table = calloc(1, sizeof **table);
    return *table ? 0 : -ENOMEM;
}

void expert_table_destroy(struct expert_table **table)
{
    if (!*table)
        return;
    free((*table)->places);
    free((*table)->slots);
    free((*table)->uids);
    free(*table);
    *table = NULL;
}

void expert_table_clear(struct expert_table *table)
{
    table->count = 0;
    table->uids_used = 0;
    if (table->slots)
        memset(table->slots, 0, table->slots_count * sizeof *table->slots);
}

/* The slot that has uid, or the empty one where it belongs. */
static uint32_t find_slot(const struct expert_table *table, const char *uid, uint64_t hash)
{
    const uint32_t mask = table->slots_count - 1;
    uint32_t s = (uint32_t)(hash ^ hash >> 32) & mask;
    for (; table->slots[s]; s = (s + 1) & mask) {
        const struct expert_place *place = &table->places[table->slots[s] - 1];
        if (place->uid_hash == hash && strcmp(table->uids + place->uid_offset, uid) == 0)
            break;
    }
    return s;
}

/* Room for one more place; the slots stay at most half full. */
static int grow_places(struct expert_table *table)
{
    if (table->count < table->capacity)
        return 0;
    const uint32_t capacity = table->capacity ? 2 * table->capacity : FIRST_CAPACITY;
    struct expert_place *places = realloc(table->places, capacity * sizeof *places);
    if (!places)
        return -ENOMEM;
    table->places = places;
    uint32_t *slots = calloc(2 * (size_t)capacity, sizeof *slots);
    if (!slots)
        return -ENOMEM;
    free(table->slots);
    table->slots = slots;
    table->slots_count = 2 * capacity;
    table->capacity = capacity;
    for (uint32_t i = 0; i < table->count; i++)
        slots[find_slot(table, table->uids + places[i].uid_offset, places[i].uid_hash)] = i + 1;
    return 0;
}

static int grow_uids(struct expert_table *table, size_t length)
{
    if (length <= table->uids_size - table->uids_used)
        return 0;
    size_t size = table->uids_size ? 2 * table->uids_size : 4096;
    while (size - table->uids_used < length)
        size *= 2;
    char *uids = size <= UINT32_MAX ? realloc(table->uids, size) : NULL;
    if (!uids)
        return -ENOMEM;
    table->uids = uids;
    table->uids_size = size;
    return 0;
}

int expert_table_set(struct expert_table *table, const char *uid, uint32_t device, uint32_t expert)
{
    const size_t length = strlen(uid) + 1;
    int rc = grow_places(table);
    if (rc == 0)
        rc = grow_uids(table, length);
    if (rc < 0)
        return rc;
    const uint64_t hash = uid_hash(uid, length - 1);
    const uint32_t slot = find_slot(table, uid, hash);
    if (table->slots[slot]) {
        struct expert_place *place = &table->places[table->slots[slot] - 1];
        if (place->expert != EXPERT_ABSENT)
            return -EEXIST;
        place->device = device;
        place->expert = expert;
        return 0;
    }
    memcpy(table->uids + table->uids_used, uid, length);
    table->places[table->count] = (struct expert_place){
        .uid_offset = (uint32_t)table->uids_used, .device = device, .expert = expert, .uid_hash = hash};
    table->uids_used += length;
    table->slots[slot] = ++table->count;
    return 0;
}

void expert_table_advise(struct expert_table *table, const char *uid, uint32_t compression)
{
    const uint32_t slot = table->count ? find_slot(table, uid, uid_hash(uid, strlen(uid))) : 0;
    if (table->count && table->slots[slot]) {
        table->places[table->slots[slot] - 1].compression = compression;
        table->places[table->slots[slot] - 1].configured = true;
    }
}

void expert_table_close(struct expert_table *table, const char *uid)
{
    const uint32_t slot = table->count ? find_slot(table, uid, uid_hash(uid, strlen(uid))) : 0;
    if (table->count && table->slots[slot])
        table->places[table->slots[slot] - 1].closing = true;
}

const struct expert_place *expert_table_find(const struct expert_table *table, const char *uid)
{
    if (table->count == 0)
        return NULL;
    const uint32_t slot = find_slot(table, uid, uid_hash(uid, strlen(uid)));
    return table->slots[slot] ? &table->places[table->slots[slot] - 1] : NULL;
}

uint32_t expert_table_count(const struct expert_table *table)
{
    return table->count;
}

const struct expert_place *expert_table_at(const struct expert_table *table, uint32_t i)
{
    return &table->places[i];
}

const char *expert_table_uid(const struct expert_table *table, const struct expert_place *place)
{
    return table->uids + place->uid_offset;
}
