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
    bool sure; /* the kind's, as what follows */
    bool done;
    char prefix[UID_SIZE];
};

enum lookup_result {
    LOOKUP_DONE,    /* the reply is ready */
    LOOKUP_WAITING, /* run again when something that it wants is known, or at the deadline */
    LOOKUP_AGAIN,   /* run again soon: others first */
};

struct lookup_kind {
    /* Checks the request, and sets the lookup's state and answer, or fails. */
    void (*begin)(struct lookup *lookup);
    /* One call is short (some milliseconds). last: the deadline has come: end with what is known. */
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
    uint64_t deadline_ns;
    /* Called when it should run again; must not run it at once. */
    void (*wake)(struct lookup *lookup);
};

/* The request must outlive the lookup. NULL for a kind: the method is unknown. If reply.status says that something is
 * wrong with the request, it is done. */
void lookup_init(struct lookup *lookup, struct cache *cache, const struct lookup_kind *kind,
                 const Expertd__Dht__Request *request, struct moment now);
void lookup_destroy(struct lookup *lookup);
/* After lookup_init, and when it is to run again. A deadline that has come ends it. */
enum lookup_result lookup_run(struct lookup *lookup, struct moment now);

/* ---- for the kinds --------------------------------------------------------------------------------------------------
 */
/* Sets status and message, drops the answer. LOOKUP_DONE. */
enum lookup_result lookup_fail(struct lookup *lookup, enum status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Of the lookup's arena, as arena_take; NULL: the lookup has failed. */
void *lookup_take(struct lookup *lookup, size_t size);
/* Makes `count` wants. 0 or a failed lookup (-1). */
int lookup_make_wants(struct lookup *lookup, size_t count);
/* Asks for the want's prefix. 1: *place has what lives (`last`: as far as is known), 0: waiting, -1: failed. */
int lookup_ask(struct lookup *lookup, struct lookup_want *want, enum cache_need need, bool last, struct moment now,
               const struct place **place);
/* The same, for who can do with a part of what lives: 2: the prefix is wide, *place has what is known of it, and the
 * want waits for more. */
int lookup_ask_part(struct lookup *lookup, struct lookup_want *want, enum cache_need need, bool last, struct moment now,
                    const struct place **place);
/* Waits for an entry that cache_find is finding out. */
void lookup_wait(struct lookup_want *want, struct cache_entry *entry, enum cache_need need);
/* The live servers of a place's expert, into *resolved. 0 or a failed lookup (-1). */
int lookup_replicas(struct lookup *lookup, const struct place *place, uint32_t coordinate,
                    Expertd__Dht__Resolved *resolved);

#endif
