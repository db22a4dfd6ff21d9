#include "client/dht.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/remote_task.h"
#include "common/clock.h"

enum { LOOKUP_TIMEOUT_MS = 5000, CACHE_MS = 10000, DEADLINE_MS = 30000, SILENCE_MS = 1000 };

enum expertd_status dht_ask(struct expertd_dht *dht, Expertd__Dht__Request *request, uint32_t timeout_ms,
                            const Expertd__Dht__Reply **reply, char message[DHT_CLIENT_MESSAGE])
{
    *reply = NULL;
    if (!dht->lookups || clock_now_ns() < dht->silent_until_ns) {
        snprintf(message, DHT_CLIENT_MESSAGE, "%s",
                 dht->lookups ? "expertd-dht did not answer" : "there is no dht endpoint");
        return EXPERTD_UNAVAILABLE;
    }
    if (timeout_ms > dht->lookup_timeout_ms)
        timeout_ms = dht->lookup_timeout_ms;
    dht->counters.lookups++;
    const enum expertd_status status = dht_client_ask(dht->lookups, request, timeout_ms, reply, message);
    if (status != EXPERTD_OK)
        dht->counters.failed_lookups++;
    /* Each question blocks, so that one that nobody answers is not repeated for every expert. */
    if (!*reply && (status == EXPERTD_UNAVAILABLE || status == EXPERTD_DEADLINE_EXCEEDED))
        dht->silent_until_ns = clock_now_ns() + SILENCE_MS * NS_PER_MS;
    return status;
}

const struct replicas *dht_replicas(const struct expertd_dht *dht, const char *uid)
{
    const uint64_t now_ns = clock_now_ns();
    return replica_cache_get(&dht->cache, uid, now_ns > dht->cache_ns ? now_ns - dht->cache_ns : 1);
}

static int set_up(struct expertd_dht *dht, const char *endpoint, const struct expertd_dht_options *options)
{
    dht->lookup_timeout_ms = options->lookup_timeout_ms ? options->lookup_timeout_ms : LOOKUP_TIMEOUT_MS;
    dht->cache_ns = (options->cache_ms ? options->cache_ms : CACHE_MS) * NS_PER_MS;
    dht->deadline_ms = options->client.deadline_ms ? options->client.deadline_ms : DEADLINE_MS;
    for (size_t i = 0; i < TASK_STATES; i++)
        TAILQ_INIT(&dht->tasks[i]);
    const int rc = server_list_init(&dht->servers, &options->client);
    if (rc < 0 || !endpoint)
        return rc;
    return dht_client_new(&dht->lookups, endpoint, dht->servers.options.zmq_context);
}

int expertd_dht_new(struct expertd_dht **result, const char *endpoint, const struct expertd_dht_options *options)
{
    static const struct expertd_dht_options defaults;
    struct expertd_dht *dht = calloc(1, sizeof *dht);
    *result = NULL;
    if (!dht)
        return -ENOMEM;
    const int rc = set_up(dht, endpoint, options ? options : &defaults);
    if (rc < 0)
        expertd_dht_destroy(&dht);
    *result = dht;
    return rc;
}

void expertd_dht_destroy(struct expertd_dht **pointer)
{
    struct expertd_dht *dht = *pointer;
    *pointer = NULL;
    if (!dht)
        return;
    remote_task_release_all(dht);
    dht_client_destroy(&dht->lookups);
    server_list_clear(&dht->servers);
    replica_cache_clear(&dht->cache);
    free(dht);
}

void expertd_dht_counters(const struct expertd_dht *dht, struct expertd_dht_counters *counters)
{
    *counters = dht->counters;
    counters->servers = dht->servers.count;
}
