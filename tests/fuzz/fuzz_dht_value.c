/* What the DHT brings: envelopes, records, heartbeats. The first byte says which. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "dht/cache.h"
#include "dht/seal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_record(const uint8_t *data, size_t size)
{
    struct record record;
    uint8_t *bytes;
    size_t length;
    if (record_decode(&record, data, size) != 0)
        return;
    const struct record_slice all = {0, record.experts.count, 0, record.branches.count};
    if (record_encode(&record, &all, &bytes, &length) == 0) {
        struct record back;
        if (record_decode(&back, bytes, length) != 0 || !ranges_equal(&back.experts, &record.experts) ||
            !ranges_equal(&back.branches, &record.branches))
            abort();
        record_destroy(&back);
        free(bytes);
    }
    struct ranges set = {0};
    if (ranges_copy(&set, &record.experts) != 0 || ranges_subtract(&set, &record.branches) != 0)
        abort();
    for (size_t i = 0; i < set.count; i++)
        if (ranges_contain(&record.branches, set.items[i].first) || set.items[i].first >= set.items[i].end)
            abort();
    ranges_destroy(&set);
    record_destroy(&record);
}

static void fuzz_heartbeat(const uint8_t *data, size_t size)
{
    struct heartbeat heartbeat;
    uint8_t *bytes;
    size_t length;
    if (heartbeat_decode(&heartbeat, data, size) != 0)
        return;
    if (heartbeat_encode(&heartbeat, &bytes, &length) == 0) {
        struct heartbeat back;
        if (heartbeat_decode(&back, bytes, length) != 0 || back.excluded_count != heartbeat.excluded_count)
            abort();
        heartbeat_destroy(&back);
        free(bytes);
    }
    heartbeat_destroy(&heartbeat);
}

static int no_get(void *context, const char *key, uint64_t token)
{
    (void)context;
    (void)key;
    (void)token;
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

static void fuzz_value(const uint8_t *data, size_t size)
{
    const struct fetch_engine engine = {NULL, no_get, no_listen, no_unlisten, NULL};
    const struct moment now = {NS_PER_S, 1700000000000};
    struct cache cache;
    struct cache_entry *entry;
    cache_init(&cache, &engine, 0, 16);
    if (cache_find(&cache, "ffn.", CACHE_EXACT, true, now, &entry) == 0)
        cache_on_value(&cache, entry->fetch.token, false, data, size, now);
    cache_on_value(&cache, 1, true, data, size, now);
    cache_tick(&cache, now);
    cache_destroy(&cache);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if (data[0] % 3 == 0)
        fuzz_record(data + 1, size - 1);
    else if (data[0] % 3 == 1)
        fuzz_heartbeat(data + 1, size - 1);
    else
        fuzz_value(data + 1, size - 1);
    return 0;
}
