/* Deadlines: an indexed binary heap of entries that live inside other structs, so that setting, moving and removing one
 * is O(log n) and costs no allocation. One thread. */
#ifndef EXPERTD_FRONTEND_DEADLINE_H
#define EXPERTD_FRONTEND_DEADLINE_H

#include <stdbool.h>
#include <stdint.h>

struct deadline {
    uint64_t due_ns;
    uint32_t place; /* 1 + place in the heap; 0: not set */
};

struct deadlines;

/* -ENOMEM. Holds up to `capacity` entries at once. */
int deadlines_create(struct deadlines **deadlines, uint32_t capacity);
void deadlines_destroy(struct deadlines **deadlines);

/* Sets or moves a deadline; due_ns 0 and UINT64_MAX stand for none, and remove it. */
void deadline_set(struct deadlines *deadlines, struct deadline *deadline, uint64_t due_ns);
void deadline_remove(struct deadlines *deadlines, struct deadline *deadline); /* fine if it is not set */
/* The entry that is due first; NULL: there is none. */
struct deadline *deadline_first(const struct deadlines *deadlines);

#endif
