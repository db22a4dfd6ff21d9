#include "dht/dialogue.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dht/arena.h"
#include "dht/prefix.h"
#include "proto/dht.pb-c.h"
#include "proto/wire.h"

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

static int pack(const ProtobufCMessage *message, uint8_t **bytes, size_t *size)
{
    *size = protobuf_c_message_get_packed_size(message);
    *bytes = malloc(*size ? *size : 1);
    if (!*bytes)
        return -ENOMEM;
    protobuf_c_message_pack(message, *bytes);
    return 0;
}

/* ---- asking --------------------------------------------------------------------------------------------------------
 */

int dialogue_pack_ask(const struct dialogue_ask *ask, uint8_t **bytes, size_t *size)
{
    Expertd__Dht__Ask message = EXPERTD__DHT__ASK__INIT;
    message.version = DIALOGUE_VERSION;
    message.network_id = ask->network_id;
    message.challenge = (ProtobufCBinaryData){CHALLENGE_SIZE, (uint8_t *)ask->challenge};
    return pack(&message.base, bytes, size);
}

int dialogue_unpack_ask(struct dialogue_ask *ask, const uint8_t *bytes, size_t size)
{
    Expertd__Dht__Ask *message =
        size <= DIALOGUE_FRAME_MAX ? wire_unpack(&expertd__dht__ask__descriptor, NULL, size, bytes) : NULL;
    if (!message)
        return -EBADMSG;
    const bool valid = message->version == DIALOGUE_VERSION && message->challenge.len == CHALLENGE_SIZE;
    ask->network_id = message->network_id;
    if (valid)
        memcpy(ask->challenge, message->challenge.data, CHALLENGE_SIZE);
    expertd__dht__ask__free_unpacked(message, NULL);
    return valid ? 0 : -EBADMSG;
}

/* ---- telling -------------------------------------------------------------------------------------------------------
 */

static size_t varint_bytes(uint64_t value)
{
    size_t bytes = 1;
    while (value >>= 7)
        bytes++;
    return bytes;
}

size_t dialogue_content_bytes(const struct dialogue_content *content)
{
    /* Two fields with their tags and lengths, and those of the message around. */
    size_t bytes = strlen(content->prefix) + 16;
    uint64_t end = 0;
    for (size_t i = 0; i < content->experts.count; i++) {
        const struct range *range = &content->experts.items[i];
        bytes += varint_bytes(range->first - end) + varint_bytes(range->end - range->first);
        end = range->end;
    }
    return bytes;
}

static void fill_introduction(Expertd__Dht__Tell__Introduction *message,
                              const struct dialogue_introduction *introduction)
{
    expertd__dht__tell__introduction__init(message);
    message->server_id = (ProtobufCBinaryData){SERVER_ID_SIZE, (uint8_t *)introduction->server_id};
    message->instance = (ProtobufCBinaryData){INSTANCE_SIZE, (uint8_t *)introduction->instance};
    message->endpoint = (char *)introduction->endpoint;
    message->started_ms = introduction->started_ms;
    message->signature = (ProtobufCBinaryData){SIGNATURE_SIZE, (uint8_t *)introduction->signature};
    if (introduction->curve_key.is)
        message->curve_key = (ProtobufCBinaryData){CURVE_KEY_SIZE, (uint8_t *)introduction->curve_key.bytes};
    if (introduction->vouched)
        message->voucher = (ProtobufCBinaryData){sizeof introduction->voucher, (uint8_t *)&introduction->voucher};
}

static int fill_content(Expertd__Dht__Tell__Content *message, const struct dialogue_content *content)
{
    const size_t count = content->experts.count;
    expertd__dht__tell__content__init(message);
    message->prefix = (char *)content->prefix;
    message->adds = content->adds;
    if (count == 0)
        return 0;
    message->experts = malloc(2 * count * sizeof *message->experts);
    if (!message->experts)
        return -ENOMEM;
    ranges_encode(&content->experts, message->experts);
    message->n_experts = 2 * count;
    return 0;
}

int dialogue_pack_tell(const struct dialogue_tell *tell, uint8_t **bytes, size_t *size)
{
    Expertd__Dht__Tell message = EXPERTD__DHT__TELL__INIT;
    Expertd__Dht__Tell__Introduction introduction;
    const size_t count = tell->contents_count;
    Expertd__Dht__Tell__Content *items = calloc(count + 1, sizeof *items);
    Expertd__Dht__Tell__Content **list = calloc(count + 1, sizeof(Expertd__Dht__Tell__Content *));
    int rc = items && list ? 0 : -ENOMEM;
    message.version = DIALOGUE_VERSION;
    message.network_id = tell->network_id;
    message.expiration_ms = tell->expiration_ms;
    message.whole = tell->whole;
    if (tell->introduced) {
        fill_introduction(&introduction, &tell->introduction);
        message.introduction = &introduction;
    }
    for (size_t i = 0; rc == 0 && i < count; i++) {
        list[i] = &items[i];
        rc = fill_content(&items[i], &tell->contents[i]);
    }
    message.contents = list;
    message.n_contents = count;
    if (rc == 0)
        rc = pack(&message.base, bytes, size);
    for (size_t i = 0; items && i < count; i++)
        free(items[i].experts);
    free(items);
    free(list);
    return rc;
}

static bool take_introduction(struct dialogue_introduction *introduction,
                              const Expertd__Dht__Tell__Introduction *message)
{
    if (message->server_id.len != SERVER_ID_SIZE || message->instance.len != INSTANCE_SIZE ||
        message->signature.len != SIGNATURE_SIZE || !endpoint_valid(message->endpoint) ||
        (message->curve_key.len != 0 && message->curve_key.len != CURVE_KEY_SIZE) ||
        (message->voucher.len != 0 && message->voucher.len != sizeof introduction->voucher))
        return false;
    introduction->curve_key.is = message->curve_key.len > 0;
    if (introduction->curve_key.is)
        memcpy(introduction->curve_key.bytes, message->curve_key.data, CURVE_KEY_SIZE);
    introduction->vouched = message->voucher.len > 0;
    if (introduction->vouched)
        memcpy(&introduction->voucher, message->voucher.data, sizeof introduction->voucher);
    memcpy(introduction->server_id, message->server_id.data, SERVER_ID_SIZE);
    memcpy(introduction->instance, message->instance.data, INSTANCE_SIZE);
    memcpy(introduction->signature, message->signature.data, SIGNATURE_SIZE);
    snprintf(introduction->endpoint, sizeof introduction->endpoint, "%s", message->endpoint);
    introduction->started_ms = message->started_ms;
    return true;
}

static int take_contents(struct dialogue_tell *tell, const Expertd__Dht__Tell *message)
{
    if (message->n_contents == 0)
        return 0;
    tell->contents = calloc(message->n_contents, sizeof *tell->contents);
    if (!tell->contents)
        return -ENOMEM;
    for (size_t i = 0; i < message->n_contents; i++) {
        const Expertd__Dht__Tell__Content *from = message->contents[i];
        struct dialogue_content *to = &tell->contents[i];
        tell->contents_count = i + 1;
        if (!prefix_valid(from->prefix))
            return -EBADMSG;
        memcpy(to->prefix, from->prefix, strlen(from->prefix) + 1);
        to->adds = from->adds;
        const int rc = ranges_decode(&to->experts, from->experts, from->n_experts);
        if (rc != 0)
            return rc == -EINVAL ? -EBADMSG : rc;
    }
    return 0;
}

static int take(struct dialogue_tell *tell, const Expertd__Dht__Tell *message)
{
    if (message->version != DIALOGUE_VERSION || message->expiration_ms > DIALOGUE_EXPIRATION_MAX_MS)
        return -EBADMSG;
    tell->network_id = message->network_id;
    tell->expiration_ms = message->expiration_ms;
    tell->introduced = message->introduction;
    tell->whole = message->whole;
    if (message->introduction && !take_introduction(&tell->introduction, message->introduction))
        return -EBADMSG;
    return take_contents(tell, message);
}

static void *arena_alloc(void *arena, size_t size)
{
    return arena_take(arena, size);
}

static void arena_free(void *arena, void *memory)
{
    (void)arena;
    (void)memory;
}

int dialogue_unpack_tell(struct dialogue_tell *tell, const uint8_t *bytes, size_t size)
{
    /* A catalog is three pieces of memory for each prefix, and is given back as a whole. */
    struct arena arena = {0};
    ProtobufCAllocator allocator = {.alloc = arena_alloc, .free = arena_free, .allocator_data = &arena};
    *tell = (struct dialogue_tell){0};
    const Expertd__Dht__Tell *message =
        size <= DIALOGUE_FRAME_MAX ? wire_unpack(&expertd__dht__tell__descriptor, &allocator, size, bytes) : NULL;
    const int rc = message ? take(tell, message) : -EBADMSG;
    arena_clear(&arena);
    if (rc != 0)
        dialogue_tell_destroy(tell);
    return rc;
}

void dialogue_tell_destroy(struct dialogue_tell *tell)
{
    for (size_t i = 0; i < tell->contents_count; i++)
        ranges_destroy(&tell->contents[i].experts);
    free(tell->contents);
    tell->contents = NULL;
    tell->contents_count = 0;
}

/* ---- proofs --------------------------------------------------------------------------------------------------------
 */

static const char proof_context[] = "expertd directory 1";

/* What is signed: so that nobody can pass a proof on with another endpoint, or in another network. */
struct proof {
    uint8_t challenge[CHALLENGE_SIZE];
    uint8_t network_id[4]; /* big-endian, as what follows */
    uint8_t started_ms[8];
    uint8_t instance[INSTANCE_SIZE];
    char rest[ENDPOINT_SIZE +
              CURVE_KEY_SIZE]; /* the endpoint, and where there is a key a NUL and that; so long as it is */
};

static size_t fill_proof(struct proof *proof, const struct dialogue_introduction *introduction,
                         const struct dialogue_ask *ask)
{
    size_t length = strlen(introduction->endpoint);
    memcpy(proof->challenge, ask->challenge, CHALLENGE_SIZE);
    for (int i = 0; i < 4; i++)
        proof->network_id[i] = (uint8_t)(ask->network_id >> (24 - 8 * i));
    for (int i = 0; i < 8; i++)
        proof->started_ms[i] = (uint8_t)(introduction->started_ms >> (56 - 8 * i));
    memcpy(proof->instance, introduction->instance, INSTANCE_SIZE);
    memcpy(proof->rest, introduction->endpoint, length);
    if (introduction->curve_key.is) {
        proof->rest[length++] = 0;
        memcpy(proof->rest + length, introduction->curve_key.bytes, CURVE_KEY_SIZE);
        length += CURVE_KEY_SIZE;
    }
    return offsetof(struct proof, rest) + length;
}

int dialogue_sign(struct dialogue_introduction *introduction, const struct identity *identity,
                  const struct dialogue_ask *ask)
{
    struct proof proof;
    const size_t size = fill_proof(&proof, introduction, ask);
    return identity_sign(identity, proof_context, (const uint8_t *)&proof, size, introduction->signature);
}

bool dialogue_proven(const struct dialogue_introduction *introduction, const struct dialogue_ask *ask)
{
    struct proof proof;
    const size_t size = fill_proof(&proof, introduction, ask);
    return identity_verify(introduction->server_id, proof_context, (const uint8_t *)&proof, size,
                           introduction->signature);
}
