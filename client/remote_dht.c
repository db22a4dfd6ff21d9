/* struct expertd_dht as programs make and unmake it: above its state (dht.h) and the tasks that use it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/remote_progress.h"
#include "client/remote_task.h"
#include "client/struct_size.h"
#include "common/clock.h"
#include "common/tensor.h"
#include "proto/codec.h"

enum { LOOKUP_TIMEOUT_MS = 5000, CACHE_MS = 10000, DEADLINE_MS = 30000 };

static int set_up(struct expertd_dht *dht, const char *endpoint, const struct expertd_dht_options *options)
{
    dht->lookup_timeout_ms = options->lookup_timeout_ms ? options->lookup_timeout_ms : LOOKUP_TIMEOUT_MS;
    dht->cache_ns = (options->cache_ms ? options->cache_ms : CACHE_MS) * NS_PER_MS;
    struct expertd_client_options client = {.size = sizeof client};
    int rc = options->client ? struct_size_take(&client, sizeof client, options->client) : 0;
    if (!codec_takes((uint32_t)client.codec, DTYPE_FLOAT32) ||
        !codec_takes((uint32_t)client.reply_codec, DTYPE_FLOAT32))
        rc = -EINVAL;
    if (rc == 0)
        rc = server_list_init(&dht->servers, &client);
    dht->deadline_ms = client.deadline_ms ? client.deadline_ms : DEADLINE_MS;
    for (size_t i = 0; i < TASK_STATES; i++)
        TAILQ_INIT(&dht->tasks[i]);
    TAILQ_INIT(&dht->resolves);
    if (rc < 0 || !endpoint)
        return rc;
    struct keys keys;
    rc = keys_take(&keys, dht->servers.options.server_key, dht->servers.options.key_file);
    if (rc == 0)
        rc = dht_client_new(&dht->lookups, endpoint, dht->servers.options.zmq_context, &keys);
    explicit_bzero(&keys, sizeof keys);
    return rc;
}

int expertd_dht_new(struct expertd_dht **result, const char *endpoint, const struct expertd_dht_options *options)
{
    struct expertd_dht_options own = {.size = sizeof own};
    *result = NULL;
    int rc = options ? struct_size_take(&own, sizeof own, options) : 0;
    if (rc < 0)
        return rc;
    struct expertd_dht *dht = calloc(1, sizeof *dht);
    if (!dht)
        return -ENOMEM;
    dht->servers.fd = -1;
    TAILQ_INIT(&dht->servers.servers);
    rc = set_up(dht, endpoint, &own);
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
    remote_progress_drop(dht);
    dht_client_destroy(&dht->lookups);
    server_list_clear(&dht->servers);
    replica_cache_clear(&dht->cache);
    free(dht);
}

void expertd_dht_read_counters(const struct expertd_dht *dht, struct expertd_dht_counters *counters)
{
    struct expertd_dht_counters own = dht->counters;
    own.servers = dht->servers.count;
    struct_size_give(counters, &own, sizeof own);
}
