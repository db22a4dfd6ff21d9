/* Publishes what this server hosts: a record for each prefix, and heartbeats.
 *
 *     SILENT -> ANNOUNCING   there is something to publish: records go out
 *     ANNOUNCING -> LIVE     they are out (or took too long): the first heartbeat, and then one every update_period,
 * and at once when something changed LIVE -> SILENT         the frontend no longer confirms: a heartbeat that has
 * expired any -> LEAVING         farewell: the same, for good
 *
 * A heartbeat vouches for `expiration` from the moment at which the frontend was last known to be there, so that no
 * expert is advertised longer than that, however its server died. One thread. */
#ifndef EXPERTD_DHT_PUBLISHER_H
#define EXPERTD_DHT_PUBLISHER_H

#include "dht/catalog.h"
#include "dht/identity.h"
#include "dht/moment.h"
#include "dht/node.h"

enum publisher_state { PUBLISHER_SILENT, PUBLISHER_ANNOUNCING, PUBLISHER_LIVE, PUBLISHER_LEAVING };
const char *publisher_state_name(enum publisher_state state);

struct publisher_options {
    const char *endpoint; /* of the frontend, for clients; kept */
    uint64_t update_period_ns;
    uint64_t expiration_ns;
    /* Told of every value that is put: a record under its prefix, or (prefix NULL) a heartbeat. May be NULL. */
    void (*published)(void *context, const char *prefix, const uint8_t *value, size_t size, struct moment now);
    void *context;
};

struct publisher_counters {
    uint64_t records, heartbeats, put_failures;
};

struct publisher;

/* Tokens of its puts begin with the tag (bits that no other user of the node has). 0 or -ENOMEM. */
int publisher_create(struct publisher **publisher, struct node *node, const struct identity *identity,
                     const struct publisher_options *options, uint64_t tokens_tag, struct moment now);
void publisher_destroy(struct publisher **publisher);

/* What the frontend hosts, as of confirmed_ns; the catalog (finished) becomes the publisher's. 0 or -ENOMEM. */
int publisher_set(struct publisher *publisher, struct catalog *catalog, uint64_t confirmed_ns);
/* The same as before. */
void publisher_confirm(struct publisher *publisher, uint64_t confirmed_ns);
/* Nothing is known of it any more. */
void publisher_lose(struct publisher *publisher, struct moment now);
/* For a clean end. It is out when publisher_quiet says so. */
void publisher_leave(struct publisher *publisher, struct moment now);
bool publisher_quiet(const struct publisher *publisher);

/* Whether all that there is to publish is out, records too. */
bool publisher_done(const struct publisher *publisher);

/* Tells again of what is put under the key of the DHT. */
void publisher_repeat(const struct publisher *publisher, const char *key, struct moment now);
void publisher_on_put(struct publisher *publisher, uint64_t token, bool ok);
/* A value under this server's own heartbeat key: of an earlier life of this identity, or of its double. */
void publisher_on_own(struct publisher *publisher, const uint8_t *value, size_t size, struct moment now);
/* Peers answer (again): a heartbeat at once. */
void publisher_on_connected(struct publisher *publisher, struct moment now);
/* Does what is due; returns when the next is. */
uint64_t publisher_step(struct publisher *publisher, struct moment now);

enum publisher_state publisher_state(const struct publisher *publisher);
const struct catalog *publisher_catalog(const struct publisher *publisher);
const struct publisher_counters *publisher_counters(const struct publisher *publisher);

#endif
