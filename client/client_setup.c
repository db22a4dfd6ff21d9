/* A client is made and unmade. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "client/backlog.h"
#include "client/struct_size.h"
#include "common/clock.h"
#include "common/memory.h"
#include "proto/codec.h"

enum { DEADLINE_MS = 30000, QUEUE_LIMIT = 1000, HEARTBEAT_MS = 2000 };
static const uint64_t frame_bytes_max = UINT64_C(1) << 31, local_bytes_default = UINT64_C(256) << 20;

static int set_up(struct expertd_client *client, const char *endpoint, const struct expertd_client_options *options)
{
    struct keys keys;
    client->max_frame_bytes = options->max_frame_bytes ? options->max_frame_bytes : frame_bytes_max;
    const struct connection_options connection = {
        .keys = &keys,
        .context = options->zmq_context,
        .max_frame_bytes = client->max_frame_bytes,
        .max_message_bytes = options->max_message_bytes ? options->max_message_bytes
                                                        : credit_default(memory_limit(""), options->max_frame_bytes),
        .heartbeat_ms = options->heartbeat_ms ? options->heartbeat_ms : HEARTBEAT_MS,
        .local_bytes = options->local_off      ? 0
                       : options->local_memory ? options->local_memory
                                               : local_bytes_default,
    };
    client->connection.fd = -1;
    client->spin_ns = options->spin_us * UINT64_C(1000);
    client->deadline_ms = options->deadline_ms ? options->deadline_ms : DEADLINE_MS;
    client->queue_limit = options->queue_limit ? options->queue_limit : QUEUE_LIMIT;
    client->codec = (uint32_t)options->codec;
    client->reply_codec = (uint32_t)options->reply_codec;
    if (client->codec >= CODEC_COUNT || client->reply_codec >= CODEC_COUNT)
        return -EINVAL;
    client->impatient = options->impatient;
    client->earliest_ns = client->patient_until_ns = UINT64_MAX;
    for (size_t i = 0; i < CALL_STATES; i++)
        TAILQ_INIT(&client->calls[i]);
    TAILQ_INIT(&client->waiting_backlogs);
    client->endpoint = strdup(endpoint);
    if (!client->endpoint)
        return -ENOMEM;
    if (getrandom(client->id, sizeof client->id, 0) != (ssize_t)sizeof client->id)
        return -errno;
    memcpy(&client->random, client->id, sizeof client->random);
    int rc = siblings_init(&client->siblings, options);
    if (rc < 0)
        return rc;
    rc = keys_take(&keys, options->server_key, options->key_file);
    if (rc == 0)
        rc = connection_open(&client->connection, endpoint, &connection);
    explicit_bzero(&keys, sizeof keys);
    return rc;
}

int expertd_client_new(struct expertd_client **result, const char *endpoint,
                       const struct expertd_client_options *options)
{
    struct expertd_client_options own = {.size = sizeof own};
    *result = NULL;
    int rc = options ? struct_size_take(&own, sizeof own, options) : 0;
    if (rc < 0)
        return rc;
    struct expertd_client *client = calloc(1, sizeof *client);
    if (!client)
        return -ENOMEM;
    rc = set_up(client, endpoint, &own);
    if (rc < 0)
        expertd_client_destroy(&client);
    *result = client;
    return rc;
}

void expertd_client_destroy(struct expertd_client **pointer)
{
    struct expertd_client *client = *pointer;
    *pointer = NULL;
    if (!client)
        return;
    /* First: their calls are twins of these, and their sockets in this one's context. */
    for (size_t i = 0; i < client->siblings.count; i++)
        expertd_client_destroy(&client->siblings.clients[i]);
    siblings_clear(&client->siblings);
    for (size_t i = 0; i < CALL_STATES; i++) {
        struct expertd_call *call;
        while ((call = TAILQ_FIRST(&client->calls[i])) != NULL) {
            TAILQ_REMOVE(&client->calls[i], call, link);
            backlog_leave(call);
            if (i != CALL_FREE) {
                call_drop_request(call);
                call_drop_answer(call);
                free(call->away);
            }
            free(call);
        }
    }
    connection_close(&client->connection);
    key_table_clear(&client->backlogs);
    key_table_clear(&client->table);
    decoder_clear(&client->decoder);
    free(client->endpoint);
    free(client);
}
