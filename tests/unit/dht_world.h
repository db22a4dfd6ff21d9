/* A DHT of the tests' own, with a clock of their own: what servers put is found and heard, when the test says so. */
#ifndef EXPERTD_TESTS_UNIT_DHT_WORLD_H
#define EXPERTD_TESTS_UNIT_DHT_WORLD_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dht/cache.h"
#include "dht/catalog.h"
#include "dht/seal.h"

enum { WORLD_VALUES = 8192, WORLD_GETS = 8192 };

struct world_value {
    char key[UID_SIZE];
    uint8_t *bytes;
    size_t size;
    bool lost; /* gets do not find it */
};

struct world {
    struct moment now;
    struct world_value values[WORLD_VALUES];
    size_t values_count;
    struct {
        char key[UID_SIZE];
        uint64_t token;
    } gets[WORLD_GETS], listenings[WORLD_GETS];
    size_t gets_count, listenings_count, gets_total;
    bool down; /* nobody answers */
    struct cache cache;
};

struct world_server {
    struct identity *identity;
    uint64_t sequence, records_from;
    char endpoint[ENDPOINT_SIZE];
};

static struct world world;

static inline int world_get(void *context, const char *key, uint64_t token)
{
    (void)context;
    ck_assert_uint_lt(world.gets_count, WORLD_GETS);
    snprintf(world.gets[world.gets_count].key, UID_SIZE, "%s", key);
    world.gets[world.gets_count++].token = token;
    world.gets_total++;
    return 0;
}

static inline int world_listen(void *context, const char *key, uint64_t token, void **listening)
{
    (void)context;
    ck_assert_uint_lt(world.listenings_count, WORLD_GETS);
    snprintf(world.listenings[world.listenings_count].key, UID_SIZE, "%s", key);
    world.listenings[world.listenings_count].token = token;
    *listening = (void *)(uintptr_t)++world.listenings_count;
    return 0;
}

static inline void world_unlisten(void *context, void **listening)
{
    (void)context;
    world.listenings[(uintptr_t)*listening - 1].token = 0;
    *listening = NULL;
}

static inline void world_begin(size_t max_keys)
{
    const struct fetch_engine engine = {NULL, world_get, world_listen, world_unlisten, NULL};
    memset(&world, 0, sizeof world);
    world.now = (struct moment){1000 * NS_PER_S, 1700000000000};
    cache_init(&world.cache, &engine, UINT64_C(1) << 56, max_keys);
}

static inline void world_end(void)
{
    cache_destroy(&world.cache);
    for (size_t i = 0; i < world.values_count; i++)
        free(world.values[i].bytes);
    for (size_t i = 0; i < world.listenings_count; i++)
        ck_assert_uint_eq(world.listenings[i].token, 0);
}

static inline void world_pass(uint64_t ms)
{
    world.now.ns += ms * NS_PER_MS;
    world.now.wall_ms += ms;
    cache_tick(&world.cache, world.now);
}

/* Puts a value: whoever listens hears of it. The bytes become the world's. */
static inline void world_put(const char *key, uint8_t *bytes, size_t size)
{
    ck_assert_uint_lt(world.values_count, WORLD_VALUES);
    struct world_value *value = &world.values[world.values_count++];
    snprintf(value->key, UID_SIZE, "%s", key);
    value->bytes = bytes;
    value->size = size;
    for (size_t i = 0; i < world.listenings_count; i++)
        if (world.listenings[i].token && strcmp(world.listenings[i].key, key) == 0)
            cache_on_value(&world.cache, world.listenings[i].token, false, bytes, size, world.now);
    cache_tick(&world.cache, world.now);
}

/* Answers a get. */
static inline void world_answer_one(size_t at)
{
    const uint64_t token = world.gets[at].token;
    char key[UID_SIZE];
    memcpy(key, world.gets[at].key, UID_SIZE);
    memmove(world.gets + at, world.gets + at + 1, (--world.gets_count - at) * sizeof world.gets[0]);
    for (size_t i = 0; !world.down && i < world.values_count; i++)
        if (strcmp(world.values[i].key, key) == 0 && !world.values[i].lost)
            cache_on_value(&world.cache, token, false, world.values[i].bytes, world.values[i].size, world.now);
    cache_on_got(&world.cache, token, !world.down, world.now);
    cache_tick(&world.cache, world.now);
}

/* Answers the gets that are under way, and those that follow from the answers, also after a short pause. */
static inline void world_answer(void)
{
    enum { PAUSE_MS = 400, ROUNDS_MAX = 10000 };
    for (int round = 0;; round++) {
        ck_assert_int_lt(round, ROUNDS_MAX);
        while (world.gets_count > 0)
            world_answer_one(0);
        const uint64_t due_ns = cache_tick(&world.cache, world.now);
        if (world.gets_count == 0 && due_ns > world.now.ns + PAUSE_MS * NS_PER_MS)
            return;
        if (world.gets_count == 0)
            world_pass(due_ns > world.now.ns ? (due_ns - world.now.ns) / NS_PER_MS + 1 : 0);
    }
}

/* ---- servers -------------------------------------------------------------------------------------------------------
 */

static inline struct world_server world_server(int number)
{
    struct world_server server = {.sequence = 1};
    ck_assert_int_eq(identity_create(&server.identity, ""), 0);
    snprintf(server.endpoint, sizeof server.endpoint, "tcp://10.0.0.%d:31330", number);
    return server;
}

static inline void world_seal(struct world_server *server, enum seal_kind kind, const char *key, uint8_t *payload,
                              size_t payload_size)
{
    uint8_t *bytes;
    size_t size;
    ck_assert_int_eq(seal_encode(server->identity, kind, payload, payload_size, &bytes, &size), 0);
    free(payload);
    world_put(key, bytes, size);
}

static inline void world_record(struct world_server *server, const char *prefix, const struct ranges *experts,
                                const struct ranges *branches)
{
    struct record record = {.published_ms = world.now.wall_ms, .sequence = ++server->sequence, .parts = 1};
    uint8_t *payload;
    size_t size;
    snprintf(record.prefix, sizeof record.prefix, "%s", prefix);
    memcpy(record.endpoint, server->endpoint, ENDPOINT_SIZE);
    if (experts)
        record.experts = *experts;
    if (branches)
        record.branches = *branches;
    const struct record_slice all = {0, record.experts.count, 0, record.branches.count};
    ck_assert_int_eq(record_encode(&record, &all, &payload, &size), 0);
    world_seal(server, SEAL_RECORD, prefix, payload, size);
}

static inline void world_heartbeat(struct world_server *server, uint64_t expiration_ms, const struct catalog *catalog)
{
    struct heartbeat heartbeat = {.published_ms = world.now.wall_ms,
                                  .expiration_ms = expiration_ms,
                                  .sequence = ++server->sequence,
                                  .records_from = server->records_from};
    uint8_t *payload;
    size_t size;
    size_t degraded;
    char key[HEARTBEAT_KEY_SIZE];
    memcpy(heartbeat.endpoint, server->endpoint, ENDPOINT_SIZE);
    if (catalog)
        ck_assert_int_eq(catalog_exclusions(catalog, &heartbeat.excluded, &heartbeat.excluded_count, &degraded), 0);
    ck_assert_int_eq(heartbeat_encode(&heartbeat, &payload, &size), 0);
    heartbeat_destroy(&heartbeat);
    heartbeat_key(identity_id(server->identity), key);
    world_seal(server, SEAL_HEARTBEAT, key, payload, size);
}

/* Records of all that the catalog has, and a heartbeat. */
static inline void world_publish(struct world_server *server, const struct catalog *catalog, uint64_t expiration_ms)
{
    for (size_t i = 0; i < catalog->count; i++)
        world_record(server, catalog->entries[i]->prefix, &catalog->entries[i]->experts,
                     &catalog->entries[i]->branches);
    world_heartbeat(server, expiration_ms, catalog);
}

/* "ffn.0.1 ffn.0.2 !ffn.1.0": the last one is dead. */
static inline struct catalog world_catalog(const char *uids)
{
    struct catalog catalog = {0};
    char *text = strdup(uids);
    char *rest = text;
    for (char *uid; (uid = strsep(&rest, " "));)
        if (*uid)
            ck_assert_int_eq(catalog_add(&catalog, uid + (*uid == '!'), *uid != '!'), 0);
    free(text);
    ck_assert_int_eq(catalog_finish(&catalog), 0);
    return catalog;
}

static inline void world_host(struct world_server *server, const char *uids)
{
    struct catalog catalog = world_catalog(uids);
    world_publish(server, &catalog, 60000);
    catalog_destroy(&catalog);
}

/* "0-3 7" */
static inline const char *world_text(const struct ranges *set)
{
    static char text[1024];
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < set->count; i++) {
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%llu", i ? " " : "",
                                 (unsigned long long)set->items[i].first);
        if (set->items[i].end > set->items[i].first + 1)
            used +=
                (size_t)snprintf(text + used, sizeof text - used, "-%llu", (unsigned long long)set->items[i].end - 1);
    }
    return text;
}

/* The experts under a prefix, once it is known. */
static inline const char *world_experts(const char *prefix)
{
    struct cache_entry *entry;
    int known = cache_find(&world.cache, prefix, CACHE_EXACT, true, world.now, &entry);
    if (known == 0) {
        world_answer();
        known = cache_find(&world.cache, prefix, CACHE_EXACT, false, world.now, &entry);
    }
    ck_assert_int_eq(known, 1);
    return world_text(&entry->experts);
}

static inline const char *world_branches(const char *prefix)
{
    struct cache_entry *entry;
    world_experts(prefix);
    ck_assert_int_eq(cache_find(&world.cache, prefix, CACHE_EXACT, false, world.now, &entry), 1);
    return world_text(&entry->branches);
}

/* Runs the tests of one file. */
static inline int world_run(TCase *tests, const char *name)
{
    Suite *suite = suite_create(name);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

#endif
