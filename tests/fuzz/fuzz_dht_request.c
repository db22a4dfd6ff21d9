/* A frame from a client of expertd-dht, all the way to its reply, over a cache that knows nothing; and a frame from the
 * frontend that the process watches. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "common/log.h"
#include "dht/service.h"
#include "dht/watch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    log_open("fuzz", LOG_LEVEL_ERROR);
    return 0;
}

static uint64_t tokens[256];
static size_t tokens_count;

static void find(void *context, const char *key, uint64_t token)
{
    (void)context;
    (void)key;
    if (tokens_count < sizeof tokens / sizeof tokens[0])
        tokens[tokens_count++] = token;
}

static void wake(struct lookup *lookup)
{
    (void)lookup;
}

static void fuzz_request(const uint8_t *data, size_t size)
{
    static const uint8_t instance[INSTANCE_SIZE];
    const struct servers_options asked = {.max_servers = 64, .max_bytes = 1 << 20, .own_instance = instance};
    const struct cache_options options = {.max_entries = 64, .max_servers = 64, .find = find};
    struct moment now = {NS_PER_S, 1700000000000};
    struct world world = {0};
    struct servers *servers;
    struct cache cache;
    struct lookup lookup;
    if (servers_create(&servers, NULL, &world, &asked) != 0)
        return;
    cache_init(&cache, &world, servers, &options);
    tokens_count = 0;
    Expertd__Dht__Request *request = service_decode(data, size, &cache, &lookup, now);
    lookup.wake = wake;
    if (lookup.kind && !lookup.failed) {
        bool done = false;
        for (int i = 0; i < 8 && !(done = lookup_run(&lookup, now) == LOOKUP_DONE); i++) {
            for (size_t t = 0; t < tokens_count; t++)
                cache_on_found(&cache, tokens[t], 8, 0, 0, now);
            tokens_count = 0;
            cache_step(&cache, now);
        }
        now.ns += 100 * NS_PER_S;
        if (!done && lookup_run(&lookup, now) != LOOKUP_DONE)
            abort();
    }
    const size_t packed = expertd__dht__reply__get_packed_size(&lookup.reply);
    uint8_t *bytes = malloc(packed + 1);
    if (bytes)
        expertd__dht__reply__pack(&lookup.reply, bytes);
    free(bytes);
    lookup_destroy(&lookup);
    if (request)
        expertd__dht__request__free_unpacked(request, NULL);
    cache_destroy(&cache);
    servers_destroy(&servers);
    world_destroy(&world);
}

static void fuzz_watch(const uint8_t *data, size_t size)
{
    const struct moment now = {NS_PER_S, 1700000000000};
    struct watch *watch = watch_deaf(data[0] & 3);
    if (watch && watch_hear(watch, data + 1, size - 1, now) == WATCH_CHANGED) {
        struct catalog catalog = watch_take(watch);
        catalog_destroy(&catalog);
    }
    watch_destroy(&watch);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    if (data[0] & 0x80)
        fuzz_watch(data, size);
    else
        fuzz_request(data + 1, size - 1);
    return 0;
}
