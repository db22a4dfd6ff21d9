/* A question under way: asked of the cache, which may have to ask the DHT first. What it needs are wants, one for each
 * prefix; whenever some have become known it runs again, and at its deadline it ends with what is known.
 *
 * A lookup is made of a request, and ends with a reply that is complete but for its version and id. One thread. */
#ifndef EXPERTD_DHT_LOOKUP_H
#define EXPERTD_DHT_LOOKUP_H

#include "common/status.h"
#include "dht/arena.h"
#include "dht/cache.h"
#include "proto/dht.pb-c.h"

enum {
    LOOKUP_MAX_UIDS = 65536,
    LOOKUP_MAX_PREFIXES = 4096,
    LOOKUP_DEADLINE_MS = 5000,
    LOOKUP_DEADLINE_MAX_MS = 60000,
    LOOKUP_REPLY_MAX = 64 << 20, /* bytes of memory for an answer */
};

struct lookup;

struct lookup_want {
    struct cache_waiter waiter;
    struct lookup *lookup;
    bool asked;
    bool done;     /* the kind's */
    bool leads_on; /* a patient lookup runs again as soon as it has come, since it may lead to more */
    char prefix[UID_SIZE];
};

enum lookup_result {
    LOOKUP_DONE,    /* the reply is ready */
    LOOKUP_WAITING, /* run again when something that it wants is known, or at the deadline */
    LOOKUP_AGAIN,   /* run again soon: others first */
};

struct lookup_kind {
    /* One call of run is short (some milliseconds). last: the deadline has come: end with what is known. */
    enum lookup_result (*run)(struct lookup *lookup, struct moment now, bool last);
    void (*clean)(struct lookup *lookup); /* frees what is not in the arena; NULL: nothing */
};

struct lookup {
    const struct lookup_kind *kind;
    bool failed;
    struct cache *cache;
    const Expertd__Dht__Request *request;
    Expertd__Dht__Reply reply;
    char message[256];
    struct arena arena; /* of the wants, the state and the reply */
    void *state;
    struct lookup_want *wants;
    size_t wants_count;
    bool patient;   /* runs again only when all that it waits for has come, or something that leads on */
    size_t waiting; /* of a patient one: wants that wait */
    uint64_t deadline_ns;
    /* Called when it should run again; must not run it at once. */
    void (*wake)(struct lookup *lookup);
};

/* The request must outlive the lookup. Fills in kind, or has reply.status set to say what is wrong with the request:
 * then it is done. */
void lookup_init(struct lookup *lookup, struct cache *cache, const Expertd__Dht__Request *request, struct moment now);
void lookup_destroy(struct lookup *lookup);
/* After lookup_init, and when it is to run again. A deadline that has come ends it. */
enum lookup_result lookup_run(struct lookup *lookup, struct moment now);

/* ---- for the kinds --------------------------------------------------------------------------------------------------
 */
/* Sets status and message, drops the answer. LOOKUP_DONE. */
enum lookup_result lookup_fail(struct lookup *lookup, enum status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Makes `count` wants. 0 or a failed lookup (-1). */
int lookup_make_wants(struct lookup *lookup, size_t count);
/* Asks for the want's prefix. 1: it is worth `need` (or `last`, and then *entry has what lives as far as is known),
 * 0: waiting, -1: failed. */
int lookup_ask(struct lookup *lookup, struct lookup_want *want, enum cache_level need, bool last, struct moment now,
               struct cache_entry **entry);
/* The live servers of a known entry's expert, into *resolved. 0 or a failed lookup (-1). */
int lookup_replicas(struct lookup *lookup, const struct cache_entry *entry, uint32_t coordinate, struct moment now,
                    Expertd__Dht__Resolved *resolved);

/* How each method begins: checks the request, sets kind and state (or fails). */
void resolve_init(struct lookup *lookup);
void listing_init(struct lookup *lookup);
void search_init(struct lookup *lookup);
void draw_init(struct lookup *lookup);

#endif
