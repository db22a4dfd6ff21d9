#include "client/key_table.h"

#include <errno.h>
#include <stdlib.h>

enum { FIRST_SIZE = 64 };

static struct keyed **bucket_of(const struct key_table *table, uint64_t key)
{
    return &table->buckets[key & (table->size - 1)];
}

static void put(const struct key_table *table, struct keyed *keyed)
{
    struct keyed **bucket = bucket_of(table, keyed->key);
    keyed->next = *bucket;
    *bucket = keyed;
}

static int grow(struct key_table *table)
{
    struct key_table larger = {.size = table->size ? 2 * table->size : FIRST_SIZE, .count = table->count};
    larger.buckets = calloc(larger.size, sizeof(struct keyed *));
    if (!larger.buckets)
        return -ENOMEM;
    for (size_t i = 0; i < table->size; i++) {
        for (struct keyed *keyed = table->buckets[i], *next; keyed; keyed = next) {
            next = keyed->next;
            put(&larger, keyed);
        }
    }
    free(table->buckets);
    *table = larger;
    return 0;
}

int key_table_insert(struct key_table *table, struct keyed *keyed)
{
    if (table->count >= table->size) {
        const int rc = grow(table);
        if (rc < 0 && table->size == 0)
            return rc; /* else longer chains will do */
    }
    put(table, keyed);
    table->count++;
    return 0;
}

bool key_table_remove(struct key_table *table, const struct keyed *keyed)
{
    if (table->size == 0)
        return false;
    for (struct keyed **at = bucket_of(table, keyed->key); *at; at = &(*at)->next) {
        if (*at == keyed) {
            *at = keyed->next;
            table->count--;
            return true;
        }
    }
    return false;
}

struct keyed *key_table_find(const struct key_table *table, uint64_t key)
{
    struct keyed *keyed = table->size ? *bucket_of(table, key) : NULL;
    while (keyed && keyed->key != key)
        keyed = keyed->next;
    return keyed;
}

void key_table_clear(struct key_table *table)
{
    free(table->buckets);
    *table = (struct key_table){0};
}
