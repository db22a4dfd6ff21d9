#include "dht/ranges.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/array.h"

static int reserve(struct ranges *set, size_t count)
{
    return ARRAY_RESERVE(set->items, set->capacity, count);
}

int ranges_append(struct ranges *set, uint64_t first, uint64_t end)
{
    /* Most sets are built in ascending order: then they are one range, or few, at any time. */
    if (set->count && set->items[set->count - 1].end == first) {
        set->items[set->count - 1].end = end;
        return 0;
    }
    const int rc = reserve(set, set->count + 1);
    if (rc == 0)
        set->items[set->count++] = (struct range){first, end};
    return rc;
}

int ranges_append_all(struct ranges *set, const struct ranges *other)
{
    const int rc = reserve(set, set->count + other->count);
    if (rc == 0 && other->count) {
        memcpy(set->items + set->count, other->items, other->count * sizeof *other->items);
        set->count += other->count;
    }
    return rc;
}

static int compare(const void *a, const void *b)
{
    const struct range *x = a, *y = b;
    return (x->first > y->first) - (x->first < y->first);
}

void ranges_normalize(struct ranges *set)
{
    size_t sorted = 1;
    while (sorted < set->count && set->items[sorted - 1].end < set->items[sorted].first)
        sorted++;
    if (sorted >= set->count)
        return;
    qsort(set->items, set->count, sizeof *set->items, compare);
    size_t kept = 0;
    for (size_t i = 1; i < set->count; i++) {
        if (set->items[i].first > set->items[kept].end)
            set->items[++kept] = set->items[i];
        else if (set->items[i].end > set->items[kept].end)
            set->items[kept].end = set->items[i].end;
    }
    set->count = kept + 1;
}

int ranges_subtract(struct ranges *set, const struct ranges *what)
{
    struct ranges left = {0};
    if (what->count == 0 || set->count == 0)
        return 0;
    /* Each range of `what` splits at most one more piece off. */
    if (reserve(&left, set->count + what->count) != 0)
        return -ENOMEM;
    size_t w = 0;
    for (size_t i = 0; i < set->count; i++) {
        uint64_t first = set->items[i].first;
        const uint64_t end = set->items[i].end;
        while (w < what->count && what->items[w].end <= first)
            w++;
        for (size_t k = w; k < what->count && what->items[k].first < end; k++) {
            if (what->items[k].first > first)
                left.items[left.count++] = (struct range){first, what->items[k].first};
            first = what->items[k].end;
        }
        if (first < end)
            left.items[left.count++] = (struct range){first, end};
    }
    ranges_destroy(set);
    *set = left;
    return 0;
}

bool ranges_contain(const struct ranges *set, uint64_t coordinate)
{
    size_t low = 0, high = set->count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (set->items[middle].end <= coordinate)
            low = middle + 1;
        else
            high = middle;
    }
    return low < set->count && set->items[low].first <= coordinate;
}

bool ranges_equal(const struct ranges *a, const struct ranges *b)
{
    return a->count == b->count && (a->count == 0 || memcmp(a->items, b->items, a->count * sizeof *a->items) == 0);
}

uint64_t ranges_members(const struct ranges *set, uint64_t limit)
{
    uint64_t members = 0;
    for (size_t i = 0; i < set->count && set->items[i].first < limit; i++)
        members += (set->items[i].end < limit ? set->items[i].end : limit) - set->items[i].first;
    return members;
}

int ranges_copy(struct ranges *to, const struct ranges *from)
{
    const int rc = reserve(to, from->count);
    if (rc == 0) {
        to->count = 0;
        return ranges_append_all(to, from);
    }
    return rc;
}

void ranges_clear(struct ranges *set)
{
    set->count = 0;
}

void ranges_destroy(struct ranges *set)
{
    free(set->items);
    *set = (struct ranges){0};
}

void ranges_encode(const struct ranges *set, uint64_t *pairs)
{
    uint64_t end = 0;
    for (size_t i = 0; i < set->count; i++) {
        const struct range *range = &set->items[i];
        pairs[2 * i] = range->first - end;
        pairs[2 * i + 1] = range->end - range->first;
        end = range->end;
    }
}

int ranges_decode(struct ranges *set, const uint64_t *pairs, size_t numbers)
{
    uint64_t end = 0;
    if (numbers % 2 != 0)
        return -EINVAL;
    if (reserve(set, numbers / 2) != 0)
        return -ENOMEM;
    for (size_t i = 0; i < numbers; i += 2) {
        const uint64_t gap = pairs[i], length = pairs[i + 1];
        if ((gap == 0 && i > 0) || length == 0 || gap > RANGES_END_MAX - end || length > RANGES_END_MAX - end - gap)
            return -EINVAL;
        set->items[set->count++] = (struct range){end + gap, end + gap + length};
        end += gap + length;
    }
    return 0;
}
