/* A frame from a client of expertd-dht, all the way to its reply, over a cache that knows nothing and one that claims
 * everything; and a frame from the frontend that the process watches. */
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

static int get(void *context, const char *key, uint64_t token)
{
    (void)context;
    (void)key;
    if (tokens_count < sizeof tokens / sizeof tokens[0])
        tokens[tokens_count++] = token;
    return 0;
}

static int no_listen(void *context, const char *key, uint64_t token, void **listening)
{
    (void)context;
    (void)key;
    (void)token;
    *listening = NULL;
    return 0;
}

static void no_unlisten(void *context, void **listening)
{
    (void)context;
    *listening = NULL;
}

static void wake(struct lookup *lookup)
{
    (void)lookup;
}

static void fuzz_request(const uint8_t *data, size_t size)
{
    const struct fetch_engine engine = {NULL, get, no_listen, no_unlisten, NULL};
    struct moment now = {NS_PER_S, 1700000000000};
    struct cache cache;
    struct lookup lookup;
    cache_init(&cache, &engine, 0, 64);
    tokens_count = 0;
    Expertd__Dht__Request *request = service_decode(data, size, &cache, &lookup, now);
    lookup.wake = wake;
    if (lookup.kind) {
        bool done = false;
        for (int i = 0; i < 8 && !(done = lookup_run(&lookup, now) == LOOKUP_DONE); i++) {
            for (size_t t = 0; t < tokens_count; t++)
                cache_on_got(&cache, tokens[t], true, now);
            tokens_count = 0;
            cache_tick(&cache, now);
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
