/* A hash table of things that have a struct keyed in them, by a 64-bit key of which the low bits differ: numbers in a
 * row, or a hash. It allocates its buckets alone. Zeroed is empty. */
#ifndef EXPERTD_CLIENT_KEY_TABLE_H
#define EXPERTD_CLIENT_KEY_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct keyed {
    struct keyed *next; /* in its bucket */
    uint64_t key;
};

struct key_table {
    struct keyed **buckets;
    size_t size; /* a power of two */
    size_t count;
};

/* -ENOMEM. The key stays as it is until it is removed. */
int key_table_insert(struct key_table *table, struct keyed *keyed);
/* Takes it out of the table; false if it is not there. */
bool key_table_remove(struct key_table *table, const struct keyed *keyed);
/* One that has the key; NULL. */
struct keyed *key_table_find(const struct key_table *table, uint64_t key);
/* Forgets all of them, which stay whose they are. */
void key_table_clear(struct key_table *table);

#endif
