/* The envelope of every value in the DHT: who wrote it, the payload, the signature (message Signed of proto/dht.proto).
 */
#ifndef EXPERTD_DHT_SEAL_H
#define EXPERTD_DHT_SEAL_H

#include "dht/identity.h"

enum seal_kind { SEAL_RECORD, SEAL_HEARTBEAT };

struct seal {
    uint8_t server_id[SERVER_ID_SIZE];
    uint8_t signature[SIGNATURE_SIZE];
    uint8_t *payload;
    size_t size;
};

/* Signs and packs into malloc'd *bytes. 0 or -ENOMEM. */
int seal_encode(const struct identity *identity, enum seal_kind kind, const uint8_t *payload, size_t payload_size,
                uint8_t **bytes, size_t *size);
/* Unpacks; the signature is not yet checked, so that what is of no interest costs no check. 0, -EBADMSG or -ENOMEM.
 * On success free with seal_destroy. */
int seal_decode(struct seal *seal, const uint8_t *bytes, size_t size);
bool seal_valid(const struct seal *seal, enum seal_kind kind);
void seal_destroy(struct seal *seal);

#endif
