/* What this server's frontend hosts and what of it is alive, by prefix. Built once from a list of experts, then only
 * read. No locks; any one thread. Zero-initialised is empty. */
#ifndef EXPERTD_DHT_CATALOG_H
#define EXPERTD_DHT_CATALOG_H

#include "dht/table.h"
#include "dht/dialogue.h"

struct catalog {
    struct table by_prefix;             /* -> struct dialogue_content */
    struct dialogue_content **contents; /* ascending by prefix, after catalog_finish; some may have no live expert */
    size_t count;
    uint64_t experts, alive;
};

/* 0; -EINVAL for no uid; -ENOMEM. */
int catalog_add(struct catalog *catalog, const char *uid, bool alive);
/* Call once, after the last catalog_add. 0 or -ENOMEM. */
int catalog_finish(struct catalog *catalog);
/* NULL: nothing is hosted right under the prefix. */
const struct dialogue_content *catalog_find(const struct catalog *catalog, const char *prefix);
/* What is to be told so that the old becomes the new: new contents and, of prefixes that are gone, empty ones. Into a
 * malloc'd array whose ranges belong to the catalogs. 0 or -ENOMEM. */
int catalog_changes(const struct catalog *old, const struct catalog *new, struct dialogue_content **changes,
                    size_t *count);
void catalog_destroy(struct catalog *catalog);

#endif
