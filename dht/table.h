/* A hash table from byte strings to pointers, for prefixes, server ids and operation numbers. Keys are not copied: they
 * lie in the values. No locks. Zero-initialised is the empty table. */
#ifndef EXPERTD_DHT_TABLE_H
#define EXPERTD_DHT_TABLE_H

#include <stddef.h>
#include <stdint.h>

struct table_slot {
    const void *key; /* NULL: free */
    size_t length;
    uint64_t hash;
    void *value;
};

struct table {
    struct table_slot *slots;
    size_t capacity; /* a power of 2, or 0 */
    size_t count;
};

void *table_find(const struct table *table, const void *key, size_t length); /* NULL: not there */
/* The key must not be in the table, and must live as long as it is. 0 or -ENOMEM. */
int table_insert(struct table *table, const void *key, size_t length, void *value);
void *table_remove(struct table *table, const void *key, size_t length); /* the value; NULL: not there */
/* The next value from *at (0 at first); NULL at the end. Nothing may be inserted or removed meanwhile. */
void *table_next(const struct table *table, size_t *at);
void table_destroy(struct table *table); /* the values are the caller's */

#endif
