#include "client/replica_cache.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "common/certificate.h"

enum { FIRST_SIZE = 256, CURVE_KEY_SIZE = 32 };

static void drop_endpoints(struct replicas *replicas)
{
    for (size_t i = 0; i < replicas->count; i++)
        free(replicas->endpoints[i]);
    replicas->count = 0;
}

void replica_cache_clear(struct replica_cache *cache)
{
    for (size_t i = 0; i < cache->size; i++) {
        for (struct replicas *entry = cache->buckets[i], *next; entry; entry = next) {
            next = entry->next;
            drop_endpoints(entry);
            free(entry);
        }
    }
    free(cache->buckets);
    *cache = (struct replica_cache){0};
}

static struct replicas **bucket_of(const struct replica_cache *cache, const char *uid)
{
    return &cache->buckets[uid_hash(uid, strlen(uid)) & (cache->size - 1)];
}

static struct replicas *find(const struct replica_cache *cache, const char *uid)
{
    if (cache->size == 0)
        return NULL;
    for (struct replicas *entry = *bucket_of(cache, uid); entry; entry = entry->next)
        if (strcmp(entry->uid, uid) == 0)
            return entry;
    return NULL;
}

static int grow(struct replica_cache *cache)
{
    struct replica_cache larger = {.size = cache->size ? 2 * cache->size : FIRST_SIZE, .count = cache->count};
    larger.buckets = calloc(larger.size, sizeof(struct replicas *));
    if (!larger.buckets)
        return -ENOMEM;
    for (size_t i = 0; i < cache->size; i++) {
        for (struct replicas *entry = cache->buckets[i], *next; entry; entry = next) {
            struct replicas **bucket = bucket_of(&larger, entry->uid);
            next = entry->next;
            entry->next = *bucket;
            *bucket = entry;
        }
    }
    free(cache->buckets);
    *cache = larger;
    return 0;
}

static struct replicas *insert(struct replica_cache *cache, const char *uid)
{
    if (cache->count >= REPLICA_CACHE_MAX)
        replica_cache_clear(cache);
    if (cache->count >= cache->size && grow(cache) < 0)
        return NULL;
    struct replicas *entry = calloc(1, sizeof *entry);
    if (!entry)
        return NULL;
    memcpy(entry->uid, uid, strlen(uid) + 1); /* a valid uid fits */
    struct replicas **bucket = bucket_of(cache, uid);
    entry->next = *bucket;
    *bucket = entry;
    cache->count++;
    return entry;
}

/* Somebody else may claim an endpoint with a key of his own. */
static bool has(const struct replicas *replicas, const char *endpoint, const char *key)
{
    for (size_t i = 0; i < replicas->count; i++)
        if (strcmp(replicas->endpoints[i], endpoint) == 0 && strcmp(replicas->keys[i], key) == 0)
            return true;
    return false;
}

int replica_cache_put(struct replica_cache *cache, const Expertd__Dht__Resolved *resolved, uint64_t now_ns)
{
    struct replicas *entry = uid_valid(resolved->uid) ? find(cache, resolved->uid) : NULL;
    if (!entry && uid_valid(resolved->uid))
        entry = insert(cache, resolved->uid);
    if (!entry)
        return -ENOMEM;
    drop_endpoints(entry);
    entry->learned_ns = now_ns;
    for (size_t i = 0; i < resolved->n_replicas && entry->count < REPLICAS_MAX; i++) {
        const char *endpoint = resolved->replicas[i]->endpoint;
        const ProtobufCBinaryData *curve = &resolved->replicas[i]->curve_key;
        char key[CERTIFICATE_KEY_SIZE] = "";
        if (curve->len == CURVE_KEY_SIZE)
            zmq_z85_encode(key, curve->data, curve->len);
        if (strncmp(endpoint, "tcp://", strlen("tcp://")) != 0 || (curve->len && !key[0]) || has(entry, endpoint, key))
            continue;
        const size_t size = strlen(endpoint) + 1;
        char *both = malloc(size + sizeof key);
        if (!both)
            return -ENOMEM;
        memcpy(both, endpoint, size);
        memcpy(both + size, key, sizeof key);
        entry->endpoints[entry->count] = both;
        entry->keys[entry->count++] = both + size;
    }
    return 0;
}

const struct replicas *replica_cache_get(const struct replica_cache *cache, const char *uid, uint64_t since_ns)
{
    const struct replicas *entry = find(cache, uid);
    return entry && entry->learned_ns >= since_ns ? entry : NULL;
}

void replica_cache_forget(struct replica_cache *cache, const char *uid)
{
    struct replicas *entry = find(cache, uid);
    if (entry)
        entry->learned_ns = 0;
}
