/* Tells others what this server hosts: has its prefixes announced (announcer.h), and answers whoever then asks, with
 * its catalog, and from then on with what changes, and heartbeats.
 *
 *     SILENT -> LIVE       the frontend is there: what it hosts is told
 *     LIVE   -> SILENT     it no longer confirms: nothing of it lives
 *     any    -> LEAVING    farewell, for good
 *
 * A heartbeat vouches for `expiration` from the moment at which the frontend was last known to be there, so that no
 * expert is held live longer than that, however its server died. A subscriber that does not read is told all anew when
 * it does, and one that is gone is forgotten. One thread. */
#ifndef EXPERTD_DHT_PUBLISHER_H
#define EXPERTD_DHT_PUBLISHER_H

#include "dht/announcer.h"
#include "dht/world.h"

enum publisher_state { PUBLISHER_SILENT, PUBLISHER_LIVE, PUBLISHER_LEAVING };
const char *publisher_state_name(enum publisher_state state);

enum { PUBLISHER_SUBSCRIBERS_MAX = 16384 };

struct publisher_options {
    uint32_t network_id;
    uint16_t port;                 /* TCP, of all addresses; 0: any free one */
    const char *endpoint;          /* of the frontend, for clients; kept */
    struct curve_key curve_key;    /* of the frontend */
    const struct voucher *voucher; /* for this server; NULL: none; kept */
    uint64_t update_period_ns;
    uint64_t expiration_ns;
    bool single;             /* no other nodes are looked for */
    uint64_t tokens_tag;     /* bits that no other's tokens have */
    const uint8_t *instance; /* INSTANCE_SIZE bytes; kept */
};

struct publisher_counters {
    uint64_t asked, told, heartbeats;
};

struct publisher;

/* context: a ZeroMQ context. Engine, identity and world must outlive it. 0 or -errno, then a message was logged. */
int publisher_create(struct publisher **publisher, void *context, struct engine *engine, struct world *world,
                     const struct identity *identity, const struct publisher_options *options, struct moment now);
void publisher_destroy(struct publisher **publisher);
void *publisher_socket(const struct publisher *publisher); /* readable: call publisher_step */
uint16_t publisher_port(const struct publisher *publisher);

/* What the frontend hosts, as of confirmed_ns; the catalog (finished) becomes the publisher's. 0 or -ENOMEM. */
int publisher_set(struct publisher *publisher, struct catalog *catalog, uint64_t confirmed_ns, struct moment now);
/* The same as before. */
void publisher_confirm(struct publisher *publisher, uint64_t confirmed_ns, struct moment now);
/* Nothing is known of it any more. */
void publisher_lose(struct publisher *publisher, struct moment now);
/* For a clean end: the farewell is sent. */
void publisher_leave(struct publisher *publisher, struct moment now);

/* Does what is due; returns when the next is. */
uint64_t publisher_step(struct publisher *publisher, struct moment now);

enum publisher_state publisher_state(const struct publisher *publisher);
/* What it announces; events with its tokens are to be told to it. */
struct announcer *publisher_announcer(const struct publisher *publisher);
const struct catalog *publisher_catalog(const struct publisher *publisher);
size_t publisher_subscribers(const struct publisher *publisher);
uint64_t publisher_started_ms(const struct publisher *publisher);
const struct publisher_counters *publisher_counters(const struct publisher *publisher);

#endif
