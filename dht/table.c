#include "dht/table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/uid.h"

static size_t probe(const struct table *table, const void *key, size_t length, uint64_t hash)
{
    size_t at = hash & (table->capacity - 1);
    while (table->slots[at].key && (table->slots[at].hash != hash || table->slots[at].length != length ||
                                    memcmp(table->slots[at].key, key, length) != 0))
        at = (at + 1) & (table->capacity - 1);
    return at;
}

void *table_find(const struct table *table, const void *key, size_t length)
{
    if (table->count == 0)
        return NULL;
    return table->slots[probe(table, key, length, uid_hash(key, length))].value;
}

static int grow(struct table *table)
{
    struct table bigger = {.capacity = table->capacity ? table->capacity * 2 : 16, .count = table->count};
    bigger.slots = calloc(bigger.capacity, sizeof *bigger.slots);
    if (!bigger.slots)
        return -ENOMEM;
    for (size_t i = 0; i < table->capacity; i++) {
        const struct table_slot *slot = &table->slots[i];
        if (slot->key)
            bigger.slots[probe(&bigger, slot->key, slot->length, slot->hash)] = *slot;
    }
    free(table->slots);
    *table = bigger;
    return 0;
}

int table_insert(struct table *table, const void *key, size_t length, void *value)
{
    if (2 * (table->count + 1) > table->capacity) {
        const int rc = grow(table);
        if (rc != 0)
            return rc;
    }
    const uint64_t hash = uid_hash(key, length);
    table->slots[probe(table, key, length, hash)] = (struct table_slot){key, length, hash, value};
    table->count++;
    return 0;
}

void *table_remove(struct table *table, const void *key, size_t length)
{
    if (table->count == 0)
        return NULL;
    const size_t mask = table->capacity - 1;
    size_t hole = probe(table, key, length, uid_hash(key, length));
    void *value = table->slots[hole].value;
    if (!table->slots[hole].key)
        return NULL;
    /* Move up whatever would not be found any more past the hole. */
    for (size_t at = (hole + 1) & mask; table->slots[at].key; at = (at + 1) & mask) {
        const size_t home = table->slots[at].hash & mask;
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            table->slots[hole] = table->slots[at];
            hole = at;
        }
    }
    table->slots[hole] = (struct table_slot){0};
    table->count--;
    return value;
}

void *table_next(const struct table *table, size_t *at)
{
    while (*at < table->capacity) {
        const struct table_slot *slot = &table->slots[(*at)++];
        if (slot->key)
            return slot->value;
    }
    return NULL;
}

void table_destroy(struct table *table)
{
    free(table->slots);
    *table = (struct table){0};
}
