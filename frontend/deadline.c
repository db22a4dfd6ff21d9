#include "frontend/deadline.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

struct deadlines {
    uint32_t capacity, count;
    struct deadline *heap[];
};

int deadlines_create(struct deadlines **deadlines, uint32_t capacity)
{
    /* calloc, so that a large capacity costs pages only as far as it is used. */
    *deadlines = calloc(1, sizeof **deadlines + (size_t)capacity * sizeof(struct deadline *));
    if (!*deadlines)
        return -ENOMEM;
    (*deadlines)->capacity = capacity;
    return 0;
}

void deadlines_destroy(struct deadlines **deadlines)
{
    free(*deadlines);
    *deadlines = NULL;
}

static void put(struct deadlines *deadlines, uint32_t place, struct deadline *deadline)
{
    deadlines->heap[place] = deadline;
    deadline->place = place + 1;
}

static void sift_up(struct deadlines *deadlines, uint32_t place, struct deadline *deadline)
{
    while (place > 0) {
        const uint32_t parent = (place - 1) / 2;
        if (deadlines->heap[parent]->due_ns <= deadline->due_ns)
            break;
        put(deadlines, place, deadlines->heap[parent]);
        place = parent;
    }
    put(deadlines, place, deadline);
}

static void sift_down(struct deadlines *deadlines, uint32_t place, struct deadline *deadline)
{
    for (;;) {
        uint32_t child = 2 * place + 1;
        if (child >= deadlines->count)
            break;
        if (child + 1 < deadlines->count && deadlines->heap[child + 1]->due_ns < deadlines->heap[child]->due_ns)
            child++;
        if (deadlines->heap[child]->due_ns >= deadline->due_ns)
            break;
        put(deadlines, place, deadlines->heap[child]);
        place = child;
    }
    put(deadlines, place, deadline);
}

static void settle(struct deadlines *deadlines, uint32_t place, struct deadline *deadline)
{
    if (place > 0 && deadlines->heap[(place - 1) / 2]->due_ns > deadline->due_ns)
        sift_up(deadlines, place, deadline);
    else
        sift_down(deadlines, place, deadline);
}

void deadline_set(struct deadlines *deadlines, struct deadline *deadline, uint64_t due_ns)
{
    if (due_ns == 0 || due_ns == UINT64_MAX) {
        deadline_remove(deadlines, deadline);
        return;
    }
    deadline->due_ns = due_ns;
    if (deadline->place == 0) {
        assert(deadlines->count < deadlines->capacity);
        sift_up(deadlines, deadlines->count++, deadline);
    } else {
        settle(deadlines, deadline->place - 1, deadline);
    }
}

void deadline_remove(struct deadlines *deadlines, struct deadline *deadline)
{
    if (deadline->place == 0)
        return;
    const uint32_t place = deadline->place - 1;
    struct deadline *last = deadlines->heap[--deadlines->count];
    if (last != deadline)
        settle(deadlines, place, last);
    deadline->place = 0;
}

struct deadline *deadline_first(const struct deadlines *deadlines)
{
    return deadlines->count ? deadlines->heap[0] : NULL;
}
