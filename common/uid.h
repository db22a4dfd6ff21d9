/* Expert uids: `ffn.4.17` is the prefix `ffn` and the grid coordinates 4 and 17. The grammar is hivemind's,
 * ^(([^.])+)([.](?:[0]|([1-9]([0-9]*))))+$ ; here a uid is also at most UID_SIZE - 1 bytes of printable UTF-8 without
 * white space, and a coordinate below 2^32. All functions are pure and may be called from any thread. */
#ifndef EXPERTD_COMMON_UID_H
#define EXPERTD_COMMON_UID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { UID_SIZE = 128, UID_MAX_DIMS = 16 };

bool uid_valid(const char *uid);
/* Splits a valid uid: the number of coordinates, which go to `coordinates`, and the length of the prefix in bytes (the
 * dot not counted). -EINVAL for an invalid one. */
int uid_split(const char *uid, size_t *prefix_length, uint32_t coordinates[UID_MAX_DIMS]);

/* A pattern names a grid of experts: each coordinate is a number or a half-open range `[first:end]`:
 * `ffn.[0:4].[0:16]` are 64 uids. A plain uid is a pattern of one. */
struct uid_pattern {
    char prefix[UID_SIZE];
    uint32_t dims;
    struct {
        uint32_t first, end; /* end 0 stands for 2^32; so a range never holds all of the 2^32 */
    } range[UID_MAX_DIMS];
};
/* -EINVAL and a sentence in error (of error_size bytes) when text is no pattern. */
int uid_pattern_parse(struct uid_pattern *pattern, const char *text, char *error, size_t error_size);
/* How many uids it names; at most 2^63. */
uint64_t uid_pattern_count(const struct uid_pattern *pattern);
/* The index-th, last coordinate fastest, into uid[UID_SIZE]. */
void uid_pattern_nth(const struct uid_pattern *pattern, uint64_t index, char uid[UID_SIZE]);
/* `count` distinct indices below uid_pattern_count(), ascending, drawn uniformly from a generator seeded with `seed`:
 * the same arguments give the same draw. -EINVAL if there are fewer than count. */
int uid_pattern_draw(const struct uid_pattern *pattern, uint64_t count, uint64_t seed, uint64_t *indices);

/* 64-bit hash of a byte string (FNV-1a), for tables and seeds; not for secrets. */
uint64_t uid_hash(const void *bytes, size_t length);

#endif
