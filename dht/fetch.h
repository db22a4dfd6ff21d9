/* Keys of the DHT that are kept known: got once, then listened to, and got again when that is due.
 *
 *     QUEUED -> RUNNING -> DONE            a get at a time; at most FETCH_RUNNING_MAX over all keys
 *                  \-> RETRYING -> QUEUED  no peer answered: tried again, and after FETCH_ATTEMPTS taken for known
 *     DONE -> QUEUED                       fetch_again; what is known stays known meanwhile
 *
 * A get ends only when the last of the peers near the key has answered, or been given up after three seconds. All of
 * them store the same values; so once there are values, FETCH_GRACE_MS are enough for the others', and the key is taken
 * for known while the get still runs. That there are none is known only at its end.
 *
 * No locks: one thread. The DHT is behind struct fetch_engine, so that tests can be one. */
#ifndef EXPERTD_DHT_FETCH_H
#define EXPERTD_DHT_FETCH_H

#include <stdbool.h>

#include "dht/moment.h"
#include "dht/table.h"

enum { FETCH_RUNNING_MAX = 64, FETCH_ATTEMPTS = 4, FETCH_GRACE_MS = 300, FETCH_ALONE_MS = 1000 };

struct fetch_engine {
    void *context;
    /* As node_get, node_listen and node_unlisten. */
    int (*get)(void *context, const char *key, uint64_t token);
    int (*listen)(void *context, const char *key, uint64_t token, void **listening);
    void (*unlisten)(void *context, void **listening);
    /* What this node itself has published under the key: comes back by cache_on_value. NULL: nothing, ever. */
    void (*local)(void *context, const char *key, struct moment now);
};

enum fetch_state { FETCH_QUEUED, FETCH_RUNNING, FETCH_RETRYING, FETCH_DONE };

struct fetch {
    const char *key; /* the owner's string */
    uint64_t token;
    enum fetch_state state;
    bool heard;       /* the get that runs has brought a value */
    bool known;       /* a get has ended well, or often enough not, or its grace has passed */
    bool unconfirmed; /* known only because no peer answered */
    unsigned attempts;
    uint64_t since_ns; /* of the state */
    void *listening;
    struct fetch *next, *prev; /* in the queue, while QUEUED */
    void *owner;
    bool of_peer; /* what the owner is: the cache's business */
};

struct fetcher {
    struct fetch_engine engine;
    struct table by_token;
    struct fetch queue; /* head of the ring */
    unsigned running;
    bool alone; /* no peer has answered yet: gets are given up sooner, and not tried again, since nobody is there to
                   answer */
    uint64_t last_token;
    uint64_t tokens_tag; /* high bits of every token: the caller's, to tell them from its other ones */
};

void fetcher_init(struct fetcher *fetcher, const struct fetch_engine *engine, uint64_t tokens_tag);
void fetcher_destroy(struct fetcher *fetcher);
/* The key that an event belongs to; NULL: one that is no longer kept. */
struct fetch *fetcher_find(const struct fetcher *fetcher, uint64_t token);
/* Starts what is queued, as far as the limit lets it. */
void fetcher_step(struct fetcher *fetcher, struct moment now);

/* Queues the first get. 0 or -ENOMEM. */
int fetch_start(struct fetcher *fetcher, struct fetch *fetch, const char *key, struct moment now);
void fetch_stop(struct fetcher *fetcher, struct fetch *fetch);
/* Queues another get, if none is queued or under way. */
void fetch_again(struct fetcher *fetcher, struct fetch *fetch, struct moment now);
/* A value of the key came. */
void fetch_heard(struct fetch *fetch);
/* A get has ended. True if the key became known by it. */
bool fetch_ended(struct fetcher *fetcher, struct fetch *fetch, bool ok, struct moment now);
/* Time passes: retries are queued, a get that never ended is given up. True if the key became known by it. */
bool fetch_tick(struct fetcher *fetcher, struct fetch *fetch, struct moment now);
/* When fetch_tick has something to do; UINT64_MAX: never. */
uint64_t fetch_due_ns(const struct fetcher *fetcher, const struct fetch *fetch);

#endif
