/* What directories say to each other (Ask and Tell of proto/dht.proto), packed, unpacked and checked. What comes in was
 * written by anybody: unpacking refuses whatever breaks a limit. No locks; any one thread. */
#ifndef EXPERTD_DHT_DIALOGUE_H
#define EXPERTD_DHT_DIALOGUE_H

#include "common/uid.h"
#include "dht/identity.h"
#include "dht/trust.h"
#include "dht/ranges.h"

enum {
    DIALOGUE_VERSION = 1,
    CHALLENGE_SIZE = 32,
    INSTANCE_SIZE = 16,
    CURVE_KEY_SIZE = 32,
    ENDPOINT_SIZE = 256,
    DIALOGUE_FRAME_MAX = 64 << 10,      /* bytes of a message; a larger one ends its connection */
    DIALOGUE_CONTENTS_BYTES = 32 << 10, /* of contents, that this program puts into one */
    DIALOGUE_EXPIRATION_MAX_MS = 86400000,
};

/* The key that a frontend proves to its clients. */
struct curve_key {
    bool is; /* false: it takes plain connections */
    uint8_t bytes[CURVE_KEY_SIZE];
};

struct dialogue_ask {
    uint32_t network_id;
    uint8_t challenge[CHALLENGE_SIZE];
};

struct dialogue_content {
    char prefix[UID_SIZE];
    bool adds; /* to what is there; else it takes its place */
    struct ranges experts;
};

struct dialogue_introduction {
    uint8_t server_id[SERVER_ID_SIZE];
    uint8_t instance[INSTANCE_SIZE];
    char endpoint[ENDPOINT_SIZE];
    uint64_t started_ms;
    struct curve_key curve_key; /* of the frontend */
    bool vouched;
    struct voucher voucher;
    uint8_t signature[SIGNATURE_SIZE];
};

struct dialogue_tell {
    uint32_t network_id;
    uint32_t expiration_ms;
    bool introduced;
    struct dialogue_introduction introduction;
    bool whole;
    struct dialogue_content *contents;
    size_t contents_count;
};

/* An endpoint that others may connect to: tcp://host:port without wildcard, printable, short enough. */
bool endpoint_valid(const char *endpoint);

/* Into malloc'd *bytes: the caller frees. 0 or -ENOMEM. */
int dialogue_pack_ask(const struct dialogue_ask *ask, uint8_t **bytes, size_t *size);
int dialogue_pack_tell(const struct dialogue_tell *tell, uint8_t **bytes, size_t *size);
/* Bytes that a content takes in a message, at most. */
size_t dialogue_content_bytes(const struct dialogue_content *content);

/* 0; -EBADMSG for what is no valid message; -ENOMEM. A tell that was unpacked is to be destroyed. */
int dialogue_unpack_ask(struct dialogue_ask *ask, const uint8_t *bytes, size_t size);
int dialogue_unpack_tell(struct dialogue_tell *tell, const uint8_t *bytes, size_t size);
void dialogue_tell_destroy(struct dialogue_tell *tell);

/* The server's proof that it has the key of its id, for who sent the challenge. 0 or -ENOMEM. */
int dialogue_sign(struct dialogue_introduction *introduction, const struct identity *identity,
                  const struct dialogue_ask *ask);
bool dialogue_proven(const struct dialogue_introduction *introduction, const struct dialogue_ask *ask);

#endif
