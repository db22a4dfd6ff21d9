#include "dht/prefix.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool prefix_valid(const char *prefix)
{
    char uid[UID_SIZE];
    const size_t length = strnlen(prefix, UID_SIZE);
    if (length == 0 || length > UID_SIZE - 2 || prefix[length - 1] != '.')
        return false;
    memcpy(uid, prefix, length);
    memcpy(uid + length, "0", 2);
    return uid_valid(uid);
}

/* The last coordinate of text[0, length), which is part of a valid uid. */
static bool cut(const char *text, size_t length, char before[UID_SIZE], uint32_t *coordinate)
{
    size_t at = length;
    while (at > 0 && text[at - 1] != '.')
        at--;
    if (at == 0 || at == length)
        return false;
    *coordinate = (uint32_t)strtoul(text + at, NULL, 10);
    memmove(before, text, at);
    before[at] = '\0';
    return true;
}

bool prefix_of_uid(const char *uid, char prefix[UID_SIZE], uint32_t *coordinate)
{
    return uid_valid(uid) && cut(uid, strlen(uid), prefix, coordinate);
}

bool prefix_parent(const char *prefix, char parent[UID_SIZE], uint32_t *coordinate)
{
    return cut(prefix, strlen(prefix) - 1, parent, coordinate);
}

bool prefix_child(const char *prefix, uint32_t coordinate, bool dot, char child[UID_SIZE])
{
    const int length = snprintf(child, UID_SIZE, "%s%" PRIu32 "%s", prefix, coordinate, dot ? "." : "");
    return length > 0 && length < UID_SIZE;
}
