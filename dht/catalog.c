#include "dht/catalog.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dht/prefix.h"

static struct catalog_entry *entry_for(struct catalog *catalog, const char *prefix)
{
    const size_t length = strlen(prefix);
    struct catalog_entry *entry = table_find(&catalog->by_prefix, prefix, length);
    if (entry)
        return entry;
    entry = calloc(1, sizeof *entry);
    if (!entry)
        return NULL;
    memcpy(entry->prefix, prefix, length);
    if (table_insert(&catalog->by_prefix, entry->prefix, length, entry) != 0) {
        free(entry);
        return NULL;
    }
    return entry;
}

int catalog_add(struct catalog *catalog, const char *uid, bool alive)
{
    char prefix[UID_SIZE];
    uint32_t coordinate;
    if (!prefix_of_uid(uid, prefix, &coordinate))
        return -EINVAL;
    struct catalog_entry *entry = entry_for(catalog, prefix);
    if (!entry || ranges_append(&entry->experts, coordinate, (uint64_t)coordinate + 1) != 0 ||
        (!alive && ranges_append(&entry->dead_experts, coordinate, (uint64_t)coordinate + 1) != 0))
        return -ENOMEM;
    entry->total++;
    entry->alive += alive;
    while (prefix_parent(prefix, prefix, &coordinate)) {
        entry = entry_for(catalog, prefix);
        if (!entry || ranges_append(&entry->branches, coordinate, (uint64_t)coordinate + 1) != 0)
            return -ENOMEM;
        entry->total++;
        entry->alive += alive;
    }
    catalog->experts++;
    catalog->alive += alive;
    return 0;
}

static int compare(const void *a, const void *b)
{
    const struct catalog_entry *const *x = a, *const *y = b;
    return strcmp((*x)->prefix, (*y)->prefix);
}

int catalog_finish(struct catalog *catalog)
{
    catalog->entries = calloc(catalog->by_prefix.count + 1, sizeof(struct catalog_entry *));
    if (!catalog->entries)
        return -ENOMEM;
    size_t at = 0;
    struct catalog_entry *entry;
    while ((entry = table_next(&catalog->by_prefix, &at)))
        catalog->entries[catalog->count++] = entry;
    qsort(catalog->entries, catalog->count, sizeof(struct catalog_entry *), compare);
    for (size_t i = 0; i < catalog->count; i++) {
        entry = catalog->entries[i];
        char parent[UID_SIZE];
        uint32_t coordinate;
        ranges_normalize(&entry->experts);
        ranges_normalize(&entry->branches);
        ranges_normalize(&entry->dead_experts);
        if (entry->alive > 0 || !prefix_parent(entry->prefix, parent, &coordinate))
            continue;
        struct catalog_entry *above = table_find(&catalog->by_prefix, parent, strlen(parent));
        if (ranges_append(&above->dead_branches, coordinate, (uint64_t)coordinate + 1) != 0)
            return -ENOMEM;
    }
    for (size_t i = 0; i < catalog->count; i++)
        ranges_normalize(&catalog->entries[i]->dead_branches);
    return 0;
}

const struct catalog_entry *catalog_find(const struct catalog *catalog, const char *prefix)
{
    return table_find(&catalog->by_prefix, prefix, strlen(prefix));
}

/* ---- exclusions ----------------------------------------------------------------------------------------------------
 */

/* Whether the entry has to be named: a live one with something dead, or a dead one that no dead one is above. */
static bool named(const struct catalog_entry *entry)
{
    char parent[UID_SIZE];
    uint32_t coordinate;
    if (entry->dead_experts.count == 0 && entry->dead_branches.count == 0)
        return false;
    return entry->alive > 0 || !prefix_parent(entry->prefix, parent, &coordinate);
}

static size_t exclusion_bytes(const struct exclusion *exclusion)
{
    /* Three fields with their tags and lengths, and those of the message around. */
    return strlen(exclusion->prefix) + 16 + record_list_bytes(&exclusion->experts, 0, exclusion->experts.count) +
           record_list_bytes(&exclusion->branches, 0, exclusion->branches.count);
}

static int give_up(struct exclusion *exclusion)
{
    ranges_clear(&exclusion->experts);
    ranges_clear(&exclusion->branches);
    const int rc = ranges_append(&exclusion->experts, 0, RANGES_END_MAX);
    return rc != 0 ? rc : ranges_append(&exclusion->branches, 0, RANGES_END_MAX);
}

/* The whole of the top prefix: the last resort of a server with thousands of prefixes that each have dead experts. */
static int give_up_all(const struct catalog *catalog, struct exclusion *excluded, size_t *count)
{
    size_t kept = 0;
    for (size_t i = 0; i < catalog->count; i++) {
        char parent[UID_SIZE];
        uint32_t coordinate;
        const struct catalog_entry *entry = catalog->entries[i];
        /* Those that are left each had something named in the list, so that there is room. */
        if (entry->total == entry->alive || prefix_parent(entry->prefix, parent, &coordinate))
            continue;
        memcpy(excluded[kept].prefix, entry->prefix, UID_SIZE);
        if (give_up(&excluded[kept++]) != 0)
            return -ENOMEM;
    }
    for (size_t i = kept; i < *count; i++) {
        ranges_destroy(&excluded[i].experts);
        ranges_destroy(&excluded[i].branches);
    }
    *count = kept;
    return 0;
}

static int fit(const struct catalog *catalog, struct exclusion *excluded, size_t *count, size_t *degraded)
{
    size_t bytes = 0;
    for (size_t i = 0; i < *count; i++)
        bytes += exclusion_bytes(&excluded[i]);
    while (bytes > HEARTBEAT_LIST_BYTES) {
        struct exclusion *longest = &excluded[0];
        for (size_t i = 1; i < *count; i++)
            if (exclusion_bytes(&excluded[i]) > exclusion_bytes(longest))
                longest = &excluded[i];
        const size_t before = exclusion_bytes(longest);
        if (before < 512 || *degraded >= 256) {
            *degraded = catalog->count;
            return give_up_all(catalog, excluded, count);
        }
        if (give_up(longest) != 0)
            return -ENOMEM;
        bytes -= before - exclusion_bytes(longest);
        ++*degraded;
    }
    return 0;
}

int catalog_exclusions(const struct catalog *catalog, struct exclusion **excluded, size_t *count, size_t *degraded)
{
    struct exclusion *list = NULL;
    size_t used = 0;
    int rc = 0;
    *excluded = NULL;
    *count = 0;
    *degraded = 0;
    for (size_t i = 0; i < catalog->count; i++)
        used += named(catalog->entries[i]);
    if (used == 0)
        return 0;
    list = calloc(used, sizeof *list);
    if (!list)
        return -ENOMEM;
    used = 0;
    for (size_t i = 0; rc == 0 && i < catalog->count; i++) {
        const struct catalog_entry *entry = catalog->entries[i];
        if (!named(entry))
            continue;
        struct exclusion *exclusion = &list[used++];
        memcpy(exclusion->prefix, entry->prefix, UID_SIZE);
        rc = ranges_copy(&exclusion->experts, &entry->dead_experts);
        if (rc == 0)
            rc = ranges_copy(&exclusion->branches, &entry->dead_branches);
    }
    if (rc == 0)
        rc = fit(catalog, list, &used, degraded);
    if (rc != 0) {
        catalog_exclusions_free(list, used);
        return rc;
    }
    *excluded = list;
    *count = used;
    return 0;
}

void catalog_exclusions_free(struct exclusion *excluded, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        ranges_destroy(&excluded[i].experts);
        ranges_destroy(&excluded[i].branches);
    }
    free(excluded);
}

void catalog_destroy(struct catalog *catalog)
{
    size_t at = 0;
    struct catalog_entry *entry;
    while ((entry = table_next(&catalog->by_prefix, &at))) {
        ranges_destroy(&entry->experts);
        ranges_destroy(&entry->branches);
        ranges_destroy(&entry->dead_experts);
        ranges_destroy(&entry->dead_branches);
        free(entry);
    }
    table_destroy(&catalog->by_prefix);
    free(catalog->entries);
    *catalog = (struct catalog){0};
}
