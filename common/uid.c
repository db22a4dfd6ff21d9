#include "common/uid.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"

static const uint64_t coordinate_end = UINT64_C(1) << 32;
static const uint64_t pattern_count_max = UINT64_C(1) << 63;

/* White space, controls, and what shows nothing or turns the text around: none of it belongs in a name that people
 * compare by eye. */
static bool printable(uint32_t c)
{
    static const struct {
        uint32_t first, last;
    } refused[] = {{0, 0x20},        {0x7f, 0xa0},     {0xad, 0xad},      {0x1680, 0x1680}, {0x180e, 0x180e},
                   {0x2000, 0x200f}, {0x2028, 0x202f}, {0x205f, 0x206f},  {0x3000, 0x3000}, {0xfeff, 0xfeff},
                   {0xfff0, 0xfffb}, {0xfffe, 0xffff}, {0xe0000, 0xe0fff}};
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        if (c >= refused[i].first && c <= refused[i].last)
            return false;
    return true;
}

/* Bytes of the prefix at the start of text; 0 if there is none. */
static size_t prefix_parse(const char *text)
{
    size_t length = 0;
    while (text[length] && text[length] != '.') {
        uint32_t character = 0;
        const size_t n = utf8_decode((const unsigned char *)text + length, &character);
        if (n == 0 || !printable(character))
            return 0;
        length += n;
    }
    return length;
}

/* A decimal number at most `limit`, without leading zeros, at *text, which is moved behind it. */
static bool number_parse(const char **text, uint64_t limit, uint64_t *number)
{
    const char *at = *text;
    if (*at < '0' || *at > '9' || (*at == '0' && at[1] >= '0' && at[1] <= '9'))
        return false;
    uint64_t value = 0;
    for (; *at >= '0' && *at <= '9'; at++) {
        value = value * 10 + (uint64_t)(*at - '0');
        if (value > limit)
            return false;
    }
    *text = at;
    *number = value;
    return true;
}

int uid_split(const char *uid, size_t *prefix_length, uint32_t coordinates[UID_MAX_DIMS])
{
    if (strnlen(uid, UID_SIZE) == UID_SIZE)
        return -EINVAL;
    const size_t length = prefix_parse(uid);
    const char *at = uid + length;
    int count = 0;
    while (*at == '.' && count < UID_MAX_DIMS) {
        uint64_t coordinate;
        at++;
        if (!number_parse(&at, coordinate_end - 1, &coordinate))
            return -EINVAL;
        coordinates[count++] = (uint32_t)coordinate;
    }
    if (length == 0 || count == 0 || *at)
        return -EINVAL;
    *prefix_length = length;
    return count;
}

bool uid_valid(const char *uid)
{
    size_t prefix_length;
    uint32_t coordinates[UID_MAX_DIMS];
    return uid_split(uid, &prefix_length, coordinates) > 0;
}

/* How many coordinates a dimension has. `end` 0 stands for 2^32, which the difference gets right by itself. */
static uint32_t extent(const struct uid_pattern *pattern, uint32_t dim)
{
    return pattern->range[dim].end - pattern->range[dim].first;
}

/* "4" or "[0:16]" at *text; NULL, or what is wrong with it. */
static const char *range_parse(const char **text, uint32_t *first, uint32_t *end)
{
    uint64_t a;
    uint64_t b;
    if (**text != '[') {
        if (!number_parse(text, coordinate_end - 1, &a))
            return "a coordinate is a number below 2^32 without leading zeros, or a range like [0:16]";
        b = a + 1;
    } else {
        ++*text;
        if (!number_parse(text, coordinate_end - 1, &a) || *(*text)++ != ':' ||
            !number_parse(text, coordinate_end, &b) || *(*text)++ != ']')
            return "a range is written [first:end], both numbers up to 2^32 without leading zeros";
        if (a >= b)
            return "a range [first:end] must have end above first (end itself is not part of it)";
        if (b - a == coordinate_end)
            return "a range must leave out at least one of the 2^32 coordinates";
    }
    *first = (uint32_t)a;
    *end = (uint32_t)b;
    return NULL;
}

static const char *ranges_parse(struct uid_pattern *pattern, const char *at)
{
    while (*at == '.') {
        if (pattern->dims == UID_MAX_DIMS)
            return "a uid has at most 16 coordinates";
        const uint32_t dim = pattern->dims;
        at++;
        const char *problem = range_parse(&at, &pattern->range[dim].first, &pattern->range[dim].end);
        if (problem)
            return problem;
        pattern->dims++;
    }
    if (*at)
        return "coordinates are separated by dots";
    return pattern->dims ? NULL : "it has no coordinates: write it like ffn.4.17 or ffn.[0:4].[0:16]";
}

/* What only the whole of a pattern can violate: its count, and the length of the longest uid. */
static const char *whole_check(const struct uid_pattern *pattern)
{
    uint64_t count = 1;
    size_t length = strlen(pattern->prefix);
    for (uint32_t i = 0; i < pattern->dims; i++) {
        if (count > pattern_count_max / extent(pattern, i))
            return "it names more than 2^63 uids";
        count *= extent(pattern, i);
        length += (size_t)snprintf(NULL, 0, ".%" PRIu32, pattern->range[i].end - 1);
    }
    return length < UID_SIZE ? NULL : "its uids are longer than 127 bytes";
}

int uid_pattern_parse(struct uid_pattern *pattern, const char *text, char *error, size_t error_size)
{
    const char *problem = NULL;
    const size_t length = prefix_parse(text);
    *pattern = (struct uid_pattern){0};
    if (length == 0)
        problem = "it must begin with a prefix of printable characters without spaces and dots";
    else if (length >= UID_SIZE)
        problem = "its uids are longer than 127 bytes";
    else
        memcpy(pattern->prefix, text, length);
    if (!problem)
        problem = ranges_parse(pattern, text + length);
    if (!problem)
        problem = whole_check(pattern);
    if (!problem)
        return 0;
    snprintf(error, error_size, "'%.160s' is no uid or pattern of uids: %s", text, problem);
    return -EINVAL;
}

uint64_t uid_pattern_count(const struct uid_pattern *pattern)
{
    uint64_t count = 1;
    for (uint32_t i = 0; i < pattern->dims; i++)
        count *= extent(pattern, i);
    return count;
}

void uid_pattern_nth(const struct uid_pattern *pattern, uint64_t index, char uid[UID_SIZE])
{
    uint32_t coordinates[UID_MAX_DIMS] = {0};
    for (uint32_t i = pattern->dims; i-- > 0; index /= extent(pattern, i))
        coordinates[i] = pattern->range[i].first + (uint32_t)(index % extent(pattern, i));
    int used = snprintf(uid, UID_SIZE, "%s", pattern->prefix);
    for (uint32_t i = 0; i < pattern->dims && used > 0 && used < UID_SIZE; i++)
        used += snprintf(uid + used, UID_SIZE - (size_t)used, ".%" PRIu32, coordinates[i]);
}

/* SplitMix64 (Steele, Lea, Flood 2014): a counter and a mixing function, so any seed is a good one. */
static uint64_t random_next(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* Uniform below bound: what lies in the last, incomplete multiple of bound is drawn again. */
static uint64_t random_below(uint64_t *state, uint64_t bound)
{
    const uint64_t incomplete = (UINT64_MAX % bound + 1) % bound;
    uint64_t value;
    do
        value = random_next(state);
    while (value > UINT64_MAX - incomplete);
    return value % bound;
}

/* Open addressing over indices + 1, so that 0 is an empty slot. True if index was not there. */
static bool set_insert(uint64_t *slots, uint64_t mask, uint64_t index)
{
    uint64_t hashed = index;
    for (uint64_t at = random_next(&hashed) & mask;; at = (at + 1) & mask) {
        if (slots[at] == index + 1)
            return false;
        if (slots[at] == 0) {
            slots[at] = index + 1;
            return true;
        }
    }
}

static int compare_indices(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a;
    const uint64_t y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Floyd's sample without replacement (Bentley and Floyd 1987): its cost grows with count, not with the grid. */
int uid_pattern_draw(const struct uid_pattern *pattern, uint64_t count, uint64_t seed, uint64_t *indices)
{
    const uint64_t total = uid_pattern_count(pattern);
    if (count > total)
        return -EINVAL;
    if (count == 0)
        return 0;
    if (count > SIZE_MAX / 64)
        return -ENOMEM;
    uint64_t size = 2;
    while (size < 2 * count)
        size *= 2;
    uint64_t *slots = calloc(size, sizeof *slots);
    if (!slots)
        return -ENOMEM;
    for (uint64_t i = 0; i < count; i++) {
        const uint64_t last = total - count + i;
        uint64_t drawn = random_below(&seed, last + 1);
        if (!set_insert(slots, size - 1, drawn)) {
            drawn = last;
            set_insert(slots, size - 1, drawn);
        }
        indices[i] = drawn;
    }
    free(slots);
    qsort(indices, count, sizeof *indices, compare_indices);
    return 0;
}

uint64_t uid_hash(const void *bytes, size_t length)
{
    const unsigned char *at = bytes;
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ at[i]) * UINT64_C(0x100000001b3);
    return hash;
}
