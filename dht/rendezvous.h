/* Where a server and who looks for it meet: the keys of the DHT (proto/PROTOCOL-dht.md, "Who"). A server announces each
 * prefix of its experts under the prefix's own key. When that is crowded, it also announces under the key of a shard,
 * which is named by the first hexadecimal digit of its id, and by the first two when that is crowded too, and so on.
 * Who looks and finds a key crowded looks into its sixteen shards.
 *
 * A server that hosts much under a prefix does not announce each of the longer ones: it announces the prefix's broad
 * key, unless that is crowded. Who looks for a prefix looks for the broad keys of all above it, too. All functions are
 * pure. */
#ifndef EXPERTD_DHT_RENDEZVOUS_H
#define EXPERTD_DHT_RENDEZVOUS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "common/uid.h"

enum {
    RENDEZVOUS_KEY_SIZE = UID_SIZE + 96,
    RENDEZVOUS_CROWDED = 50, /* addresses in a reply: half of what one holds, so that none has been left out yet */
    RENDEZVOUS_SHARDS = 16,
    RENDEZVOUS_DIGITS_MAX = 3, /* enough for 4096 x 50 servers under one prefix */
    RENDEZVOUS_BROAD = 8,      /* more prefixes right under one are much */
};

/* What stands for a valid prefix in its broad key; no prefix ends so. */
static inline const char *rendezvous_broad(char broad[UID_SIZE], const char *prefix)
{
    snprintf(broad, UID_SIZE, "%.*s*", UID_SIZE - 2, prefix);
    return broad;
}

static inline bool rendezvous_is_broad(const char *name)
{
    const size_t length = strlen(name);
    return length > 0 && name[length - 1] == '*';
}

static inline const char *rendezvous_key(char key[RENDEZVOUS_KEY_SIZE], uint32_t network_id, const char *prefix,
                                         const char *shard)
{
    snprintf(key, RENDEZVOUS_KEY_SIZE, "expertd %u %s%s%s", (unsigned)network_id, prefix, *shard ? "#" : "", shard);
    return key;
}

#endif
