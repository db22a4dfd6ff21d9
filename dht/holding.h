/* What one server hosts under one prefix: the parts of its newest record there, less what its heartbeat excludes. */
#ifndef EXPERTD_DHT_HOLDING_H
#define EXPERTD_DHT_HOLDING_H

#include "dht/peer.h"

struct holding_part {
    bool have;
    struct ranges experts, branches;
};

struct holding {
    struct peer *peer;
    struct holding *next, **at; /* of the same peer */
    struct cache_entry *entry;  /* where it belongs: the cache's business */
    const char *prefix;         /* the entry's */
    uint64_t sequence;
    uint32_t parts_count;
    struct holding_part *parts;
    struct ranges experts, branches; /* that live while the peer does; right after holding_update */
    bool updated;
    bool forgotten;       /* the DHT says that it has expired */
    uint64_t peer_change; /* the peer's, when they were computed */
};

/* Belongs to the peer's list until holding_destroy. NULL: no memory. */
struct holding *holding_create(struct peer *peer, struct cache_entry *entry, const char *prefix);
void holding_destroy(struct holding **holding);

/* Whether the record would change anything: a look that is cheaper than checking its signature. */
bool holding_wants(const struct holding *holding, const struct record *record);
/* Moves the record's lists in. 0; -EBADMSG: its parts contradict those that came before; -ENOMEM. */
int holding_take(struct holding *holding, struct record *record);
/* Whether all parts of its newest record are there, and it is not of a life before the server's present one. */
bool holding_whole(const struct holding *holding);
/* Whether the server says that it hosts something below the coordinate, so that it has a record there. */
bool holding_claims(const struct holding *holding, uint32_t coordinate);
/* Makes experts and branches right. 0 or -ENOMEM. */
int holding_update(struct holding *holding);

#endif
