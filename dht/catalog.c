#include "dht/catalog.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dht/prefix.h"

int catalog_add(struct catalog *catalog, const char *uid, bool alive)
{
    char prefix[UID_SIZE];
    uint32_t coordinate;
    if (!prefix_of_uid(uid, prefix, &coordinate))
        return -EINVAL;
    const size_t length = strlen(prefix);
    struct dialogue_content *content = table_find(&catalog->by_prefix, prefix, length);
    if (!content) {
        content = calloc(1, sizeof *content);
        if (!content)
            return -ENOMEM;
        memcpy(content->prefix, prefix, length);
        if (table_insert(&catalog->by_prefix, content->prefix, length, content) != 0) {
            free(content);
            return -ENOMEM;
        }
    }
    if (alive && ranges_append(&content->experts, coordinate, (uint64_t)coordinate + 1) != 0)
        return -ENOMEM;
    catalog->experts++;
    catalog->alive += alive;
    return 0;
}

static int compare(const void *a, const void *b)
{
    const struct dialogue_content *const *x = a, *const *y = b;
    return strcmp((*x)->prefix, (*y)->prefix);
}

int catalog_finish(struct catalog *catalog)
{
    struct dialogue_content *content;
    catalog->contents = calloc(catalog->by_prefix.count + 1, sizeof(struct dialogue_content *));
    if (!catalog->contents)
        return -ENOMEM;
    for (size_t at = 0; (content = table_next(&catalog->by_prefix, &at));) {
        ranges_normalize(&content->experts);
        catalog->contents[catalog->count++] = content;
    }
    qsort(catalog->contents, catalog->count, sizeof(struct dialogue_content *), compare);
    return 0;
}

const struct dialogue_content *catalog_find(const struct catalog *catalog, const char *prefix)
{
    return table_find(&catalog->by_prefix, prefix, strlen(prefix));
}

int catalog_changes(const struct catalog *old, const struct catalog *new, struct dialogue_content **changes,
                    size_t *count)
{
    *count = 0;
    *changes = calloc(old->count + new->count + 1, sizeof **changes);
    if (!*changes)
        return -ENOMEM;
    for (size_t i = 0; i < new->count; i++) {
        const struct dialogue_content *content = new->contents[i];
        const struct dialogue_content *before = catalog_find(old, content->prefix);
        if (before ? !ranges_equal(&before->experts, &content->experts) : content->experts.count > 0)
            (*changes)[(*count)++] = *content;
    }
    for (size_t i = 0; i < old->count; i++) {
        const struct dialogue_content *content = old->contents[i];
        if (content->experts.count == 0 || catalog_find(new, content->prefix))
            continue;
        memcpy((*changes)[*count].prefix, content->prefix, UID_SIZE);
        ++*count;
    }
    return 0;
}

void catalog_destroy(struct catalog *catalog)
{
    struct dialogue_content *content;
    for (size_t at = 0; (content = table_next(&catalog->by_prefix, &at));) {
        ranges_destroy(&content->experts);
        free(content);
    }
    table_destroy(&catalog->by_prefix);
    free(catalog->contents);
    *catalog = (struct catalog){0};
}
