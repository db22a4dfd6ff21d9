#include "dht/record.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dht/prefix.h"
#include "proto/dht.pb-c.h"
#include "proto/wire.h"

/* Longest life that a heartbeat may claim: what the option allows. */
static const uint64_t expiration_max_ms = UINT64_C(86400000);

void heartbeat_key(const uint8_t id[SERVER_ID_SIZE], char key[HEARTBEAT_KEY_SIZE])
{
    char text[SERVER_ID_TEXT];
    snprintf(key, HEARTBEAT_KEY_SIZE, "heartbeat/%s", server_id_format(id, text));
}

bool endpoint_valid(const char *endpoint)
{
    static const char scheme[] = "tcp://";
    const size_t length = strnlen(endpoint, ENDPOINT_SIZE);
    if (length >= ENDPOINT_SIZE || strncmp(endpoint, scheme, sizeof scheme - 1) != 0)
        return false;
    for (size_t i = 0; i < length; i++)
        if (endpoint[i] <= ' ' || endpoint[i] >= 0x7f || endpoint[i] == '*')
            return false;
    const char *host = endpoint + sizeof scheme - 1;
    const char *colon = strrchr(host, ':');
    if (!colon || colon == host || strncmp(host, "0.0.0.0:", 8) == 0 || strncmp(host, "[::]:", 5) == 0)
        return false;
    const size_t digits = strspn(colon + 1, "0123456789");
    const unsigned long port = strtoul(colon + 1, NULL, 10);
    return digits > 0 && digits <= 5 && colon[1 + digits] == '\0' && port >= 1 && port <= 65535;
}

/* ---- lists ---------------------------------------------------------------------------------------------------------
 */

static size_t varint_bytes(uint64_t value)
{
    size_t bytes = 1;
    while (value >>= 7)
        bytes++;
    return bytes;
}

size_t record_list_bytes(const struct ranges *set, size_t from, size_t n)
{
    size_t bytes = 0;
    for (size_t i = from; i < from + n; i++) {
        /* The first gap of a part counts from 0. */
        const uint64_t gap = set->items[i].first - (i > from ? set->items[i - 1].end : 0);
        bytes += varint_bytes(gap) + varint_bytes(set->items[i].end - set->items[i].first);
    }
    return bytes;
}

static int encode_list(const struct ranges *set, size_t from, size_t n, uint64_t **pairs, size_t *numbers)
{
    *numbers = 0;
    *pairs = NULL;
    if (n == 0)
        return 0;
    *pairs = malloc(2 * n * sizeof **pairs);
    if (!*pairs)
        return -ENOMEM;
    ranges_encode(set, from, n, *pairs);
    *numbers = 2 * n;
    return 0;
}

static int decode_list(struct ranges *set, const uint64_t *pairs, size_t numbers)
{
    const int rc = ranges_decode(set, pairs, numbers);
    return rc == -EINVAL ? -EBADMSG : rc;
}

static int pack(const ProtobufCMessage *message, uint8_t **bytes, size_t *size)
{
    *size = protobuf_c_message_get_packed_size(message);
    *bytes = malloc(*size ? *size : 1);
    if (!*bytes)
        return -ENOMEM;
    protobuf_c_message_pack(message, *bytes);
    return 0;
}

/* ---- records -------------------------------------------------------------------------------------------------------
 */

int record_encode(const struct record *record, const struct record_slice *slice, uint8_t **bytes, size_t *size)
{
    Expertd__Dht__Record message = EXPERTD__DHT__RECORD__INIT;
    message.format = RECORD_FORMAT;
    message.endpoint = (char *)record->endpoint;
    message.prefix = (char *)record->prefix;
    message.published_ms = record->published_ms;
    message.sequence = record->sequence;
    message.part = record->part;
    message.parts = record->parts;
    int rc = encode_list(&record->experts, slice->experts_from, slice->experts, &message.experts, &message.n_experts);
    if (rc == 0)
        rc = encode_list(&record->branches, slice->branches_from, slice->branches, &message.branches,
                         &message.n_branches);
    if (rc == 0)
        rc = pack(&message.base, bytes, size);
    free(message.experts);
    free(message.branches);
    return rc;
}

static int record_check(struct record *record, const Expertd__Dht__Record *message)
{
    if (message->format != RECORD_FORMAT || !endpoint_valid(message->endpoint) || !prefix_valid(message->prefix) ||
        message->parts < 1 || message->parts > RECORD_MAX_PARTS || message->part >= message->parts)
        return -EBADMSG;
    snprintf(record->endpoint, sizeof record->endpoint, "%s", message->endpoint);
    snprintf(record->prefix, sizeof record->prefix, "%s", message->prefix);
    record->published_ms = message->published_ms;
    record->sequence = message->sequence;
    record->part = message->part;
    record->parts = message->parts;
    const int rc = decode_list(&record->experts, message->experts, message->n_experts);
    return rc != 0 ? rc : decode_list(&record->branches, message->branches, message->n_branches);
}

int record_decode(struct record *record, const uint8_t *bytes, size_t size)
{
    *record = (struct record){0};
    Expertd__Dht__Record *message = wire_unpack(&expertd__dht__record__descriptor, NULL, size, bytes);
    if (!message)
        return -EBADMSG;
    const int rc = record_check(record, message);
    expertd__dht__record__free_unpacked(message, NULL);
    if (rc != 0)
        record_destroy(record);
    return rc;
}

void record_destroy(struct record *record)
{
    ranges_destroy(&record->experts);
    ranges_destroy(&record->branches);
}

/* ---- heartbeats ----------------------------------------------------------------------------------------------------
 */

static void free_excluded(Expertd__Dht__Heartbeat__Excluded *items, Expertd__Dht__Heartbeat__Excluded **list,
                          size_t count)
{
    for (size_t i = 0; items && i < count; i++) {
        free(items[i].experts);
        free(items[i].branches);
    }
    free(items);
    free(list);
}

int heartbeat_encode(const struct heartbeat *heartbeat, uint8_t **bytes, size_t *size)
{
    Expertd__Dht__Heartbeat message = EXPERTD__DHT__HEARTBEAT__INIT;
    message.format = RECORD_FORMAT;
    message.endpoint = (char *)heartbeat->endpoint;
    message.published_ms = heartbeat->published_ms;
    message.expiration_ms = (uint32_t)heartbeat->expiration_ms;
    message.sequence = heartbeat->sequence;
    message.records_from = heartbeat->records_from;
    const size_t count = heartbeat->excluded_count;
    Expertd__Dht__Heartbeat__Excluded *items = calloc(count + 1, sizeof *items);
    Expertd__Dht__Heartbeat__Excluded **list = calloc(count + 1, sizeof(Expertd__Dht__Heartbeat__Excluded *));
    int rc = items && list ? 0 : -ENOMEM;
    for (size_t i = 0; rc == 0 && i < count; i++) {
        const struct exclusion *from = &heartbeat->excluded[i];
        list[i] = &items[i];
        expertd__dht__heartbeat__excluded__init(list[i]);
        list[i]->prefix = (char *)from->prefix;
        rc = encode_list(&from->experts, 0, from->experts.count, &list[i]->experts, &list[i]->n_experts);
        if (rc == 0)
            rc = encode_list(&from->branches, 0, from->branches.count, &list[i]->branches, &list[i]->n_branches);
    }
    message.excluded = list;
    message.n_excluded = count;
    if (rc == 0)
        rc = pack(&message.base, bytes, size);
    free_excluded(items, list, count);
    return rc;
}

static int heartbeat_check(struct heartbeat *heartbeat, const Expertd__Dht__Heartbeat *message)
{
    if (message->format != RECORD_FORMAT || !endpoint_valid(message->endpoint) ||
        message->expiration_ms > expiration_max_ms)
        return -EBADMSG;
    snprintf(heartbeat->endpoint, sizeof heartbeat->endpoint, "%s", message->endpoint);
    heartbeat->published_ms = message->published_ms;
    heartbeat->expiration_ms = message->expiration_ms;
    heartbeat->sequence = message->sequence;
    heartbeat->records_from = message->records_from;
    if (message->n_excluded == 0)
        return 0;
    heartbeat->excluded = calloc(message->n_excluded, sizeof *heartbeat->excluded);
    if (!heartbeat->excluded)
        return -ENOMEM;
    for (size_t i = 0; i < message->n_excluded; i++) {
        const Expertd__Dht__Heartbeat__Excluded *from = message->excluded[i];
        struct exclusion *to = &heartbeat->excluded[i];
        heartbeat->excluded_count = i + 1;
        if (!prefix_valid(from->prefix))
            return -EBADMSG;
        snprintf(to->prefix, sizeof to->prefix, "%s", from->prefix);
        int rc = decode_list(&to->experts, from->experts, from->n_experts);
        if (rc == 0)
            rc = decode_list(&to->branches, from->branches, from->n_branches);
        if (rc != 0)
            return rc;
    }
    return 0;
}

int heartbeat_decode(struct heartbeat *heartbeat, const uint8_t *bytes, size_t size)
{
    *heartbeat = (struct heartbeat){0};
    Expertd__Dht__Heartbeat *message = wire_unpack(&expertd__dht__heartbeat__descriptor, NULL, size, bytes);
    if (!message)
        return -EBADMSG;
    const int rc = heartbeat_check(heartbeat, message);
    expertd__dht__heartbeat__free_unpacked(message, NULL);
    if (rc != 0)
        heartbeat_destroy(heartbeat);
    return rc;
}

void heartbeat_destroy(struct heartbeat *heartbeat)
{
    for (size_t i = 0; i < heartbeat->excluded_count; i++) {
        ranges_destroy(&heartbeat->excluded[i].experts);
        ranges_destroy(&heartbeat->excluded[i].branches);
    }
    free(heartbeat->excluded);
    heartbeat->excluded = NULL;
    heartbeat->excluded_count = 0;
}
