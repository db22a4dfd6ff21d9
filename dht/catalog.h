/* What this server's frontend hosts, by prefix: the content of its records and of its heartbeats' exclusions.
 * Built once from a list of experts, then only read. No locks; any one thread. Zero-initialised is empty. */
#ifndef EXPERTD_DHT_CATALOG_H
#define EXPERTD_DHT_CATALOG_H

#include <stdbool.h>

#include "dht/record.h"
#include "dht/table.h"

struct catalog_entry {
    char prefix[UID_SIZE];
    struct ranges experts;
    struct ranges branches;
    struct ranges dead_experts;
    struct ranges dead_branches; /* with no live expert below; what lies below says nothing more */
    uint64_t total, alive;       /* experts at and below it */
};

struct catalog {
    struct table by_prefix;         /* -> struct catalog_entry */
    struct catalog_entry **entries; /* ascending by prefix, after catalog_finish */
    size_t count;
    uint64_t experts, alive;
};

/* 0; -EINVAL for no uid; -ENOMEM. */
int catalog_add(struct catalog *catalog, const char *uid, bool alive);
/* Call once, after the last catalog_add. 0 or -ENOMEM. */
int catalog_finish(struct catalog *catalog);
const struct catalog_entry *catalog_find(const struct catalog *catalog, const char *prefix);
/* What is hosted but not alive, as a heartbeat says it, within HEARTBEAT_LIST_BYTES: where the lists are longer, all of
 * a prefix is given up, the longest first (*degraded says how many prefixes), since an expert that is missed does less
 * harm than one that is advertised and does not answer. A malloc'd array; free with catalog_exclusions_free. 0 or
 * -ENOMEM. */
int catalog_exclusions(const struct catalog *catalog, struct exclusion **excluded, size_t *count, size_t *degraded);
void catalog_exclusions_free(struct exclusion *excluded, size_t count);
void catalog_destroy(struct catalog *catalog);

#endif
