/* Another server, or this one, as its heartbeats show it: whether it lives, where, and which of its experts do not. */
#ifndef EXPERTD_DHT_PEER_H
#define EXPERTD_DHT_PEER_H

#include "dht/cache_waiter.h"
#include "dht/fetch.h"
#include "dht/record.h"
#include "dht/table.h"

/* A heartbeat from further in the reader's future is a broken clock, or a lie. */
enum { PEER_FUTURE_MS = 60000 };
/* A heartbeat that says that it lives is believed when so much time has brought no newer one, which may be a farewell.
 */
enum { PEER_GRACE_MS = 100 };

struct peer {
    uint8_t id[SERVER_ID_SIZE];
    char key[HEARTBEAT_KEY_SIZE];
    struct fetch fetch;
    bool heard; /* a heartbeat, ever; all below is of the newest */
    struct heartbeat heartbeat;
    uint64_t alive_until_ns;           /* monotonic */
    uint64_t life_ns;                  /* what was left of its life when it came */
    struct table excluded;             /* prefix -> struct exclusion of the heartbeat */
    uint64_t change;                   /* grows when records_from or the exclusions changed */
    struct holding *holdings;          /* what the cache has of it */
    bool counted_alive, counted_known; /* as the cache's views have it */
    struct cache_waiter *waiters;      /* for it to be known */
    uint64_t mark;                     /* the cache's, while it compares lists */
};

void peer_init(struct peer *peer, const uint8_t id[SERVER_ID_SIZE]);
void peer_destroy(struct peer *peer);
/* Whether the newest heartbeat says that it lives. */
bool peer_alive(const struct peer *peer, struct moment now);
/* Whether that is certain: all its heartbeats that there are have been seen, or one that lives, and its grace is over.
 */
bool peer_known(const struct peer *peer, struct moment now);
/* When it will be, if nothing comes; UINT64_MAX: it is, or never. */
uint64_t peer_due_ns(const struct peer *peer, struct moment now);

enum peer_result { PEER_OLD, PEER_TAKEN, PEER_GARBLED, PEER_FORGED, PEER_TIME };
/* A value that was found under its key. Takes it if it is newer. */
enum peer_result peer_hear(struct peer *peer, const uint8_t *value, size_t size, struct moment now);

/* What the newest heartbeat excludes under the prefix; NULL: nothing. *all: everything, by a shorter prefix. */
const struct exclusion *peer_exclusion(const struct peer *peer, const char *prefix, bool *all);

#endif
