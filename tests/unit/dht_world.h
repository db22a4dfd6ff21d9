/* A DHT and servers of the tests' own, with a clock of their own: what is announced is found, and who is asked answers,
 * when the test says so. */
#ifndef EXPERTD_TESTS_UNIT_DHT_WORLD_H
#define EXPERTD_TESTS_UNIT_DHT_WORLD_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "dht/cache.h"
#include "dht/catalog.h"
#include "dht/prefix.h"
#include "dht/rendezvous.h"

enum { WORLD_NETWORK = 7, WORLD_ANNOUNCED = 65536, WORLD_FINDS = 8192, WORLD_SERVERS = 12000 };

struct world_server {
    struct identity *identity;
    struct contact contact;
    struct catalog catalog;        /* as it will answer when it is asked */
    const struct identity *signer; /* of its introduction; NULL: itself */
    uint8_t instance[INSTANCE_SIZE];
    char endpoint[ENDPOINT_SIZE];
    uint32_t expiration_ms;
    bool silent, refuses;        /* when it is asked */
    struct server *subscription; /* while those that are asked answer; NULL */
};

static struct {
    struct moment now;
    struct {
        char key[RENDEZVOUS_KEY_SIZE];
        struct contact contact;
    } announced[WORLD_ANNOUNCED];
    size_t announced_count;
    struct {
        char key[RENDEZVOUS_KEY_SIZE];
        uint64_t token;
    } finds[WORLD_FINDS];
    size_t finds_count, finds_total;
    bool down;       /* no node answers; */
    unsigned silent; /* so many nodes do not, nearer than the eight that do */
    struct world_server *servers[WORLD_SERVERS];
    size_t servers_count;
    struct table by_contact; /* -> struct world_server */
    uint8_t own_instance[INSTANCE_SIZE];
    struct world places;
    struct servers *subscriptions;
    struct cache cache;
} world;

static const struct trust *world_trust
    __attribute__((unused)); /* of worlds that begin from now on; NULL: everybody is believed */

static inline void world_find_begins(void *context, const char *key, uint64_t token)
{
    (void)context;
    ck_assert_uint_lt(world.finds_count, WORLD_FINDS);
    snprintf(world.finds[world.finds_count].key, RENDEZVOUS_KEY_SIZE, "%s", key);
    world.finds[world.finds_count++].token = token;
    world.finds_total++;
}

static inline void world_begin_with(size_t max_entries, size_t max_servers, size_t max_bytes)
{
    log_open("test", LOG_LEVEL_ERROR);
    memset(&world, 0, sizeof world);
    world.now = (struct moment){1000 * NS_PER_S, 1700000000000};
    const struct servers_options servers = {.network_id = WORLD_NETWORK,
                                            .max_servers = max_servers,
                                            .max_bytes = max_bytes,
                                            .trust = world_trust,
                                            .own_instance = world.own_instance};
    const struct cache_options cache = {.network_id = WORLD_NETWORK,
                                        .max_entries = max_entries,
                                        .max_servers = max_servers,
                                        .tokens_tag = UINT64_C(1) << 56,
                                        .find = world_find_begins};
    ck_assert_int_eq(servers_create(&world.subscriptions, NULL, &world.places, &servers), 0);
    cache_init(&world.cache, &world.places, world.subscriptions, &cache);
    cache_on_connected(&world.cache, world.now);
}

static inline void world_begin(size_t max_entries)
{
    world_begin_with(max_entries, 16384, 64 << 20);
}

static inline void world_end(void)
{
    cache_destroy(&world.cache);
    servers_destroy(&world.subscriptions);
    ck_assert_uint_eq(world.places.holdings, 0);
    ck_assert_uint_eq(world.places.bytes, 0);
    world_destroy(&world.places);
    table_destroy(&world.by_contact);
    for (size_t i = 0; i < world.servers_count; i++) {
        catalog_destroy(&world.servers[i]->catalog);
        identity_destroy(&world.servers[i]->identity);
        free(world.servers[i]);
    }
}

/* ---- servers -------------------------------------------------------------------------------------------------------
 */

static inline struct world_server *world_server(int number)
{
    struct world_server *server = calloc(1, sizeof *server);
    char text[CONTACT_TEXT];
    ck_assert_ptr_nonnull(server);
    ck_assert_uint_lt(world.servers_count, WORLD_SERVERS);
    ck_assert_int_eq(identity_create(&server->identity, ""), 0);
    snprintf(text, sizeof text, "10.0.%d.%d:4222", number / 256, number % 256);
    ck_assert(contact_parse(&server->contact, text));
    snprintf(server->endpoint, sizeof server->endpoint, "tcp://10.0.%d.%d:31330", number / 256, number % 256);
    memcpy(server->instance, &number, sizeof number);
    server->instance[INSTANCE_SIZE - 1] = 1;
    server->expiration_ms = 60000;
    world.servers[world.servers_count++] = server;
    ck_assert_int_eq(table_insert(&world.by_contact, &server->contact, sizeof server->contact, server), 0);
    return server;
}

/* As the subscriptions have it; NULL: not yet. */
static inline struct server *world_subscription(const struct world_server *server)
{
    const struct server *found;
    if (server->subscription)
        return server->subscription;
    for (size_t at = 0; (found = servers_next(world.subscriptions, &at));)
        if (memcmp(&found->contact, &server->contact, sizeof server->contact) == 0)
            return (struct server *)found;
    return NULL;
}

static inline void world_hear(const struct world_server *server, const struct dialogue_tell *tell)
{
    uint8_t *bytes;
    size_t size;
    struct server *subscription = world_subscription(server);
    ck_assert_ptr_nonnull(subscription);
    ck_assert_int_eq(dialogue_pack_tell(tell, &bytes, &size), 0);
    servers_hear(world.subscriptions, subscription, bytes, size, world.now);
    free(bytes);
}

/* What a server says first when it is asked. */
static inline struct dialogue_tell world_introduction(const struct world_server *server, const struct identity *signer)
{
    struct dialogue_tell tell = {
        .network_id = WORLD_NETWORK, .expiration_ms = server->expiration_ms, .introduced = true};
    struct dialogue_ask ask = {.network_id = WORLD_NETWORK};
    const struct server *subscription = world_subscription(server);
    memcpy(ask.challenge, subscription->challenge, CHALLENGE_SIZE);
    memcpy(tell.introduction.server_id, identity_id(server->identity), SERVER_ID_SIZE);
    memcpy(tell.introduction.instance, server->instance, INSTANCE_SIZE);
    memcpy(tell.introduction.endpoint, server->endpoint, ENDPOINT_SIZE);
    tell.introduction.started_ms = world.now.wall_ms;
    ck_assert_int_eq(dialogue_sign(&tell.introduction, signer, &ask), 0);
    return tell;
}

/* All of its catalog. */
static inline void world_tell(const struct world_server *server)
{
    struct dialogue_tell tell = world_introduction(server, server->signer ? server->signer : server->identity);
    world_hear(server, &tell);
    for (size_t i = 0; i < server->catalog.count; i++) {
        const struct dialogue_tell page = {.network_id = WORLD_NETWORK,
                                           .expiration_ms = server->expiration_ms,
                                           .contents = server->catalog.contents[i],
                                           .contents_count = 1};
        if (world_subscription(server)->state == SERVER_ASKED)
            world_hear(server, &page);
    }
    const struct dialogue_tell end = {
        .network_id = WORLD_NETWORK, .expiration_ms = server->expiration_ms, .whole = true};
    if (world_subscription(server)->state == SERVER_ASKED)
        world_hear(server, &end);
}

static inline void world_heartbeat(const struct world_server *server, uint32_t expiration_ms)
{
    const struct dialogue_tell tell = {.network_id = WORLD_NETWORK, .expiration_ms = expiration_ms};
    world_hear(server, &tell);
}

static inline void world_announce_key(const struct world_server *server, const char *prefix)
{
    ck_assert_uint_lt(world.announced_count, WORLD_ANNOUNCED);
    char key[RENDEZVOUS_KEY_SIZE];
    rendezvous_key(key, WORLD_NETWORK, prefix, "");
    /* What the server itself has announced before comes last. */
    for (size_t i = world.announced_count; i-- > 0;) {
        if (memcmp(&world.announced[i].contact, &server->contact, sizeof server->contact) != 0)
            break;
        if (strcmp(world.announced[i].key, key) == 0)
            return;
    }
    memcpy(world.announced[world.announced_count].key, key, sizeof key);
    world.announced[world.announced_count++].contact = server->contact;
}

/* Under the prefix, and all above it. */
static inline void world_announce(const struct world_server *server, const char *prefix)
{
    char above[UID_SIZE];
    uint32_t coordinate;
    snprintf(above, sizeof above, "%s", prefix);
    world_announce_key(server, above);
    while (prefix_parent(above, above, &coordinate))
        world_announce_key(server, above);
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

/* The catalog, finished, becomes the server's. */
static inline void world_publish(struct world_server *server, struct catalog catalog)
{
    catalog_destroy(&server->catalog);
    server->catalog = catalog;
    for (size_t i = 0; i < catalog.count; i++)
        world_announce(server, catalog.contents[i]->prefix);
}

static inline void world_host(struct world_server *server, const char *uids)
{
    world_publish(server, world_catalog(uids));
}

/* ---- answers -------------------------------------------------------------------------------------------------------
 */

static inline void world_step(void)
{
    servers_step(world.subscriptions, world.now);
    cache_step(&world.cache, world.now);
}

static inline void world_pass(uint64_t ms)
{
    world.now.ns += ms * NS_PER_MS;
    world.now.wall_ms += ms;
    world_step();
}

/* Answers a find, as nodes do that keep no more than a reply holds. */
static inline void world_answer_find(size_t at)
{
    const uint64_t token = world.finds[at].token;
    char key[RENDEZVOUS_KEY_SIZE];
    unsigned count = 0;
    memcpy(key, world.finds[at].key, RENDEZVOUS_KEY_SIZE);
    memmove(world.finds + at, world.finds + at + 1, (--world.finds_count - at) * sizeof world.finds[0]);
    for (size_t i = 0; !world.down && i < world.announced_count && count < 100; i++)
        if (strcmp(world.announced[i].key, key) == 0) {
            cache_on_peers(&world.cache, token, &world.announced[i].contact, 1, world.now);
            count++;
        }
    cache_on_found(&world.cache, token, world.down ? 0 : 8, world.silent, count, world.now);
}

/* Answers of those that were asked. False: nobody was. */
static inline bool world_answer_asks(void)
{
    bool any = false;
    const struct server *found;
    world_step();
    for (size_t at = 0; (found = servers_next(world.subscriptions, &at));) {
        struct world_server *server = table_find(&world.by_contact, &found->contact, sizeof found->contact);
        if (server)
            server->subscription = (struct server *)found;
    }
    for (size_t i = 0; i < world.servers_count; i++) {
        struct world_server *server = world.servers[i];
        if (server->subscription && server->subscription->state == SERVER_ASKED && !server->silent) {
            any = true;
            world_tell(server);
        }
        server->subscription = NULL;
    }
    return any;
}

/* Everything that is under way comes to its end, and what follows from it. */
static inline void world_answer(void)
{
    enum { ROUNDS_MAX = 10000 };
    bool any = true;
    for (int round = 0; any; round++) {
        ck_assert_int_lt(round, ROUNDS_MAX);
        any = world.finds_count > 0;
        while (world.finds_count > 0)
            world_answer_find(0);
        any |= world_answer_asks();
    }
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

static inline int world_known(const char *prefix, enum cache_need need)
{
    struct cache_entry *entry;
    return cache_find(&world.cache, prefix, need, true, world.now, &entry);
}

/* What is under a prefix, once it is known. */
static inline const struct place *world_look(const char *prefix)
{
    if (world_known(prefix, CACHE_SURE) == 0)
        world_answer();
    ck_assert_int_eq(world_known(prefix, CACHE_SURE), 1);
    return world_find(&world.places, prefix);
}

static inline const char *world_experts(const char *prefix)
{
    return world_text(&world_look(prefix)->experts);
}

static inline const char *world_branches(const char *prefix)
{
    return world_text(&world_look(prefix)->branches);
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
