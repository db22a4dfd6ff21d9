/* Where a server and who looks for it meet: the keys of the DHT (proto/PROTOCOL-dht.md, "Who"). A server announces each
 * prefix of its experts under the prefix's own key. When that is crowded, it also announces under the key of a shard,
 * which is named by the first hexadecimal digit of its id, and by the first two when that is crowded too, and so on.
 * Who looks and finds a key crowded looks into its sixteen shards. All functions are pure. */
#ifndef EXPERTD_DHT_RENDEZVOUS_H
#define EXPERTD_DHT_RENDEZVOUS_H

#include <stdint.h>
#include <stdio.h>

#include "common/uid.h"

enum {
    RENDEZVOUS_KEY_SIZE = UID_SIZE + 96,
    RENDEZVOUS_CROWDED = 50, /* addresses in a reply: half of what one holds, so that none has been left out yet */
    RENDEZVOUS_SHARDS = 16,
    RENDEZVOUS_DIGITS_MAX = 3, /* enough for 4096 x 50 servers under one prefix */
};

static inline const char *rendezvous_key(char key[RENDEZVOUS_KEY_SIZE], uint32_t network_id, const char *prefix,
                                         const char *shard)
{
    snprintf(key, RENDEZVOUS_KEY_SIZE, "expertd %u %s%s%s", (unsigned)network_id, prefix, *shard ? "#" : "", shard);
    return key;
}

#endif
