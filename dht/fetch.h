/* Keys of the DHT: got, and then listened to.
 *
 *     IDLE -> QUEUED -> RUNNING -> IDLE         a get at a time
 *                          \-> RETRYING -> QUEUED   no peer answered, or what came is not sure to be all
 *
 * What the end of a get proves: OpenDHT asks the eight peers nearest to the key for the list of its values, and then
 * each of them for each value; after a second it asks again for what has not come, and leaves out whoever is late. So
 * an end says that all there is has come (`sure`) if it came sooner than that, or if the get brought nothing that was
 * not there before. So does a get that goes on, when what was asked for again has brought nothing: where packets are
 * lost, few gets end soon. That there is nothing at all is believed when two gets say so.
 *
 * While a key is listened to, OpenDHT answers a get from what it has heard so far, even if that is nothing; so
 * listening begins when the key's owner has all that he needs (fetch_listen), and when there is time for it.
 *
 * A node of OpenDHT drops, without a word, what exceeds 1,024 requests a second from one address, and a get makes one
 * of each of eight peers for each value. So gets are paced: FETCH_WINDOW values under way at once, and no more than
 * FETCH_RATE a second for each eight nodes that are known to be there.
 *
 * No locks: one thread. The DHT is behind struct fetch_engine, so that tests can be one. */
#ifndef EXPERTD_DHT_FETCH_H
#define EXPERTD_DHT_FETCH_H

#include <stdbool.h>

#include "dht/moment.h"
#include "dht/table.h"

enum {
    FETCH_ATTEMPTS = 4,
    FETCH_ALONE_MS = 1000,
    FETCH_CALM_MS = 900,   /* an end that comes sooner has left no peer out */
    FETCH_QUIET_MS = 1300, /* so long after the last news, what was asked for again has come */
    FETCH_BURST_MS = 150,  /* so long a get counts as under way: what comes later comes one by one */
    FETCH_WINDOW = 256,
    FETCH_RATE = 800,
    FETCH_NODES = 8, /* that OpenDHT asks */
};

struct fetch_engine {
    void *context;
    /* As node_get, node_listen and node_unlisten. */
    int (*get)(void *context, const char *key, uint64_t token);
    int (*listen)(void *context, const char *key, uint64_t token, void **listening);
    void (*unlisten)(void *context, void **listening);
    /* What this node itself has published under the key: comes back by cache_on_value. NULL: nothing, ever. */
    void (*local)(void *context, const char *key, struct moment now);
};

enum fetch_state { FETCH_IDLE, FETCH_QUEUED, FETCH_RUNNING, FETCH_RETRYING };

struct fetch;
struct fetch_link {
    struct fetch_link *next, *prev; /* NULL: in no ring */
    struct fetch *fetch;
};

struct fetch {
    const char *key; /* the owner's string */
    uint64_t token;
    enum fetch_state state;
    bool sure;        /* all that there was has come; or it was asked for often enough */
    bool unconfirmed; /* sure only because no peer answered */
    bool news;        /* the get that runs has brought something */
    unsigned attempts;
    unsigned ends;     /* of gets that peers answered */
    uint32_t expected; /* values that a get brings, as far as one can tell */
    uint32_t window;   /* its share of the window */
    uint32_t values;   /* that the get has brought so far */
    uint64_t since_ns; /* of the state */
    uint64_t asked_ns; /* when it was first queued; 0: not yet */
    bool heard;        /* a value, ever */
    uint64_t news_ns;  /* when the last news came */
    void *listening;
    struct fetch_link queue;  /* while QUEUED */
    struct fetch_link listen; /* while it is to be listened to, and is not yet */
    void *owner;
    bool of_peer; /* what the owner is: the cache's business */
};

struct fetcher {
    struct fetch_engine engine;
    struct table by_token;
    struct fetch_link queue, listen; /* heads of rings */
    uint32_t window;                 /* taken */
    double credit;                   /* values that may be asked for before time passes */
    uint64_t credit_ns;              /* when it was last reckoned */
    size_t nodes;                    /* at least so many are there */
    uint64_t next_listen_ns;
    bool alone; /* no peer has answered yet: gets are tried for FETCH_ALONE_MS, in case one is about to */
    uint64_t last_token;
    uint64_t tokens_tag; /* high bits of every token: the caller's, to tell them from its other ones */
};

void fetcher_init(struct fetcher *fetcher, const struct fetch_engine *engine, uint64_t tokens_tag);
void fetcher_destroy(struct fetcher *fetcher);
/* The key that an event belongs to; NULL: one that is no longer kept. */
struct fetch *fetcher_find(const struct fetcher *fetcher, uint64_t token);
/* Starts what is queued, as far as the pace lets it, and listens to what is to be listened to. Returns when it is to be
 * called again; UINT64_MAX: when something happens. */
uint64_t fetcher_step(struct fetcher *fetcher, struct moment now);

/* Makes the key known to the fetcher; nothing is asked yet. 0 or -ENOMEM. */
int fetch_start(struct fetcher *fetcher, struct fetch *fetch, const char *key);
void fetch_stop(struct fetcher *fetcher, struct fetch *fetch);
/* Queues the first get, if there was none yet. */
void fetch_want(struct fetcher *fetcher, struct fetch *fetch, struct moment now);
/* Queues another get, if none is queued or under way. */
void fetch_again(struct fetcher *fetcher, struct fetch *fetch, struct moment now);
/* The same, after a pause. */
void fetch_again_later(struct fetcher *fetcher, struct fetch *fetch, struct moment now);
/* What is queued is of no use any more. */
void fetch_drop(struct fetcher *fetcher, struct fetch *fetch, struct moment now);
/* The key's owner has what he needs: listens, when there is time. */
void fetch_listen(struct fetcher *fetcher, struct fetch *fetch, struct moment now);
/* A value of the key came; news: one that tells something. */
void fetch_heard(struct fetcher *fetcher, struct fetch *fetch, bool news, struct moment now);
/* A get has ended. */
void fetch_ended(struct fetcher *fetcher, struct fetch *fetch, bool ok, struct moment now);
/* Time passes: retries are queued, a get that never ended is given up. */
void fetch_tick(struct fetcher *fetcher, struct fetch *fetch, struct moment now);
/* When fetch_tick has something to do; UINT64_MAX: never. */
uint64_t fetch_due_ns(const struct fetcher *fetcher, const struct fetch *fetch);

#endif
