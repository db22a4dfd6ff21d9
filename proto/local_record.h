/* The messages between a client and a frontend on the same host (PROTOCOL.md, "On the same host"): they travel over a
 * UNIX socket of the kind SEQPACKET, and say where in the client's memory tensors lie. Little-endian, as they stand in
 * memory. All are from outside until parsed. Pure functions; any thread. */
#ifndef EXPERTD_PROTO_LOCAL_RECORD_H
#define EXPERTD_PROTO_LOCAL_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/message.h"

enum {
    LOCAL_VERSION = 1,
    LOCAL_INSTANCE = 16,         /* bytes that tell one run of a frontend from all others */
    LOCAL_SLOTS = 1024,          /* requests that a client has on their way */
    LOCAL_PACKET_MAX = 32 << 10, /* bytes of one packet; it has any number of whole records */
    LOCAL_HEADER_MAX = 16 << 10, /* of a request's or reply's header in a record */
    LOCAL_READY = 0x7fffffff,    /* instead of a slot: the memory was taken */
};
#define LOCAL_MAGIC "expertdL"

/* The first packet, of the frontend. */
struct local_welcome {
    char magic[8];
    uint32_t version, slots;
    uint64_t region_max; /* bytes of memory that a client may bring */
    unsigned char instance[LOCAL_INSTANCE];
};
/* The second one, of the client, with the descriptor of its memory. Answered by a reply for LOCAL_READY. */
struct local_hello {
    char magic[8];
    uint32_t version, zero;
    uint64_t region_bytes;
};

struct local_span {
    uint64_t at, bytes; /* in the client's memory */
};

/* A request: this, its spans, its header; then zeros up to a multiple of 8. */
struct local_request {
    uint32_t bytes; /* of all of it */
    uint32_t header_bytes, slot, tensors;
    struct local_span room; /* for the reply's tensors */
};
/* A reply: this, its spans, its header; zeros. Without a header it is none: with `wanted` the request was not looked at
 * further, as its reply takes a room of so many bytes; with 0 no reply will come. Either way the slot is free. */
struct local_reply {
    uint32_t bytes;
    uint32_t header_bytes, slot, tensors;
    uint64_t wanted;
};

_Static_assert(sizeof(struct local_welcome) == 40 && sizeof(struct local_hello) == 24, "as PROTOCOL.md has them");
_Static_assert(sizeof(struct local_request) == 32 && sizeof(struct local_reply) == 24, "as PROTOCOL.md has them");

/* A record that was parsed: its parts lie in the packet, the spans lie within `region_bytes`. */
struct local_record {
    uint32_t slot;
    uint32_t header_bytes, tensors;
    const unsigned char *header;
    struct local_span spans[MESSAGE_MAX_TENSORS]; /* the first of them, if there are more tensors */
    struct local_span room;                       /* of a request */
    uint64_t wanted;                              /* of a reply */
};

/* Parses the record at the beginning of size bytes. How many bytes it has; -EBADMSG: it is none, or something in it is
 * out of bounds. A request's slot is below LOCAL_SLOTS; a reply's may be LOCAL_READY. */
long local_request_parse(const void *data, size_t size, uint64_t region_bytes, struct local_record *record);
long local_reply_parse(const void *data, size_t size, uint64_t region_bytes, struct local_record *record);

/* Writes a record. Its bytes, or -ENOBUFS. */
long local_request_write(const struct local_record *record, void *data, size_t size);
long local_reply_write(const struct local_record *record, void *data, size_t size);

#endif
