/* Sets of coordinates as ranges: [first, end), ascending and apart. A set of four billion costs what a set of one
 * costs, so a set that a stranger sent can be kept as it is; nothing here ever lists the members. No locks: one thread
 * at a time for each set. Zero-initialised is the empty set. */
#ifndef EXPERTD_DHT_RANGES_H
#define EXPERTD_DHT_RANGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RANGES_END_MAX (UINT64_C(1) << 32) /* coordinates are below 2^32 */

struct range {
    uint64_t first, end;
};

struct ranges {
    struct range *items;
    size_t count;
    size_t capacity;
};

/* Appends; the set is one again only after ranges_normalize. first < end <= RANGES_END_MAX. 0 or -ENOMEM. */
int ranges_append(struct ranges *set, uint64_t first, uint64_t end);
int ranges_append_all(struct ranges *set, const struct ranges *other);
/* Sorts, and joins what overlaps or touches. */
void ranges_normalize(struct ranges *set);
/* Takes the members of `what` out of `set`. 0, or -ENOMEM and `set` is unchanged. */
int ranges_subtract(struct ranges *set, const struct ranges *what);
bool ranges_contain(const struct ranges *set, uint64_t coordinate);
bool ranges_equal(const struct ranges *a, const struct ranges *b);
/* Members below `limit`. */
uint64_t ranges_members(const struct ranges *set, uint64_t limit);
int ranges_copy(struct ranges *to, const struct ranges *from); /* `to` is replaced; 0 or -ENOMEM, then unchanged */
void ranges_clear(struct ranges *set);                         /* keeps the memory */
void ranges_destroy(struct ranges *set);

/* The wire's form: gap, length, gap, length, ... with gaps counted from the end of the range before.
 * encode: to pairs[2 * count]. */
void ranges_encode(const struct ranges *set, uint64_t *pairs);
/* Appends to an empty set. -EINVAL if `numbers` is odd, a length is 0, a gap is 0 (but the first), or a coordinate is
 * not below 2^32; -ENOMEM. */
int ranges_decode(struct ranges *set, const uint64_t *pairs, size_t numbers);

#endif
