/* Which servers host a uid, as the DHT said lately. One thread at a time. */
#ifndef EXPERTD_CLIENT_REPLICA_CACHE_H
#define EXPERTD_CLIENT_REPLICA_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/uid.h"
#include "proto/dht.pb-c.h"

enum { REPLICAS_MAX = 16, REPLICA_CACHE_MAX = 65536 };

struct replicas {
    struct replicas *next; /* in its bucket */
    char uid[UID_SIZE];
    uint64_t learned_ns; /* 0: forgotten */
    size_t count;
    char *endpoints[REPLICAS_MAX];
    const char *keys[REPLICAS_MAX]; /* that their frontends prove, in Z85; "": they take plain connections */
};

struct replica_cache {
    struct replicas **buckets;
    size_t size, count;
};
void replica_cache_clear(struct replica_cache *cache);

/* Notes what a look-up said, of replicas that are reached over TCP: a record of the DHT must not choose a file or a
 * thread of this machine. Beyond REPLICA_CACHE_MAX uids, all others are forgotten. -ENOMEM. */
int replica_cache_put(struct replica_cache *cache, const Expertd__Dht__Resolved *resolved, uint64_t now_ns);
/* NULL if the uid is not known, or was learned before since_ns, or was forgotten since and since_ns is not 0. Valid
 * until the next put. */
const struct replicas *replica_cache_get(const struct replica_cache *cache, const char *uid, uint64_t since_ns);
void replica_cache_forget(struct replica_cache *cache, const char *uid);

#endif
