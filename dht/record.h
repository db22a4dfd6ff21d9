/* The values that servers put into the DHT (proto/dht.proto, proto/PROTOCOL-dht.md), decoded and checked.
 * What comes from the DHT was written by anybody: decoding refuses whatever breaks a limit. No locks; any one thread.
 */
#ifndef EXPERTD_DHT_RECORD_H
#define EXPERTD_DHT_RECORD_H

#include <stddef.h>
#include <stdint.h>

#include "common/uid.h"
#include "dht/identity.h"
#include "dht/ranges.h"

enum {
    RECORD_FORMAT = 1,
    ENDPOINT_SIZE = 256,
    RECORD_MAX_PARTS = 64,
    RECORD_PART_BYTES = 32768,    /* of lists, encoded: a value of OpenDHT holds 64 KiB in all */
    HEARTBEAT_LIST_BYTES = 49152, /* the same, of all `excluded` together */
};

struct record {
    char endpoint[ENDPOINT_SIZE];
    char prefix[UID_SIZE];
    struct ranges experts;
    struct ranges branches;
    uint64_t published_ms;
    uint64_t sequence;
    uint32_t part, parts;
};

/* Hosted by a server, but not alive. */
struct exclusion {
    char prefix[UID_SIZE];
    struct ranges experts;
    struct ranges branches;
};

struct heartbeat {
    char endpoint[ENDPOINT_SIZE];
    uint64_t published_ms;
    uint64_t expiration_ms;
    uint64_t sequence;
    uint64_t records_from;
    struct exclusion *excluded;
    size_t excluded_count;
};

/* Keys of the DHT, before hashing. */
enum { HEARTBEAT_KEY_SIZE = 10 + SERVER_ID_TEXT };
void heartbeat_key(const uint8_t id[SERVER_ID_SIZE], char key[HEARTBEAT_KEY_SIZE]);

/* An endpoint that others may connect to: tcp://host:port without wildcard, printable, short enough. */
bool endpoint_valid(const char *endpoint);

/* Into malloc'd *bytes: the caller frees. 0 or -ENOMEM.
 * record_encode takes of the lists only what stands at [experts_from, +experts) and [branches_from, +branches). */
struct record_slice {
    size_t experts_from, experts, branches_from, branches;
};
int record_encode(const struct record *record, const struct record_slice *slice, uint8_t **bytes, size_t *size);
int heartbeat_encode(const struct heartbeat *heartbeat, uint8_t **bytes, size_t *size);
/* Bytes that ranges [from, from + n) take in a value, at most. */
size_t record_list_bytes(const struct ranges *set, size_t from, size_t n);

/* 0; -EBADMSG for what is no valid value; -ENOMEM. On success free with _destroy. */
int record_decode(struct record *record, const uint8_t *bytes, size_t size);
int heartbeat_decode(struct heartbeat *heartbeat, const uint8_t *bytes, size_t size);
void record_destroy(struct record *record);
void heartbeat_destroy(struct heartbeat *heartbeat);

#endif
