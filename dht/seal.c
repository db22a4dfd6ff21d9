#include "dht/seal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "proto/dht.pb-c.h"
#include "proto/wire.h"

static const char *const contexts[] = {[SEAL_RECORD] = "expertd record 1", [SEAL_HEARTBEAT] = "expertd heartbeat 1"};

int seal_encode(const struct identity *identity, enum seal_kind kind, const uint8_t *payload, size_t payload_size,
                uint8_t **bytes, size_t *size)
{
    uint8_t signature[SIGNATURE_SIZE];
    Expertd__Dht__Signed message = EXPERTD__DHT__SIGNED__INIT;
    const int rc = identity_sign(identity, contexts[kind], payload, payload_size, signature);
    if (rc != 0)
        return rc;
    message.server_id = (ProtobufCBinaryData){SERVER_ID_SIZE, (uint8_t *)identity_id(identity)};
    message.payload = (ProtobufCBinaryData){payload_size, (uint8_t *)payload};
    message.signature = (ProtobufCBinaryData){SIGNATURE_SIZE, signature};
    *size = expertd__dht__signed__get_packed_size(&message);
    *bytes = malloc(*size);
    if (!*bytes)
        return -ENOMEM;
    expertd__dht__signed__pack(&message, *bytes);
    return 0;
}

int seal_decode(struct seal *seal, const uint8_t *bytes, size_t size)
{
    int rc = -EBADMSG;
    *seal = (struct seal){0};
    Expertd__Dht__Signed *message = wire_unpack(&expertd__dht__signed__descriptor, NULL, size, bytes);
    if (!message)
        return -EBADMSG;
    if (message->server_id.len == SERVER_ID_SIZE && message->signature.len == SIGNATURE_SIZE &&
        message->payload.len > 0) {
        memcpy(seal->server_id, message->server_id.data, SERVER_ID_SIZE);
        memcpy(seal->signature, message->signature.data, SIGNATURE_SIZE);
        seal->payload = malloc(message->payload.len);
        seal->size = message->payload.len;
        rc = seal->payload ? 0 : -ENOMEM;
        if (rc == 0)
            memcpy(seal->payload, message->payload.data, seal->size);
    }
    expertd__dht__signed__free_unpacked(message, NULL);
    return rc;
}

bool seal_valid(const struct seal *seal, enum seal_kind kind)
{
    return identity_verify(seal->server_id, contexts[kind], seal->payload, seal->size, seal->signature);
}

void seal_destroy(struct seal *seal)
{
    free(seal->payload);
    seal->payload = NULL;
}
