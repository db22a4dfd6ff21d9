/* What lives: which server hosts what under which prefix, as the servers have told. A server that is not there any more
 * has nothing in it. No locks: one thread. Zero-initialised is empty. */
#ifndef EXPERTD_DHT_WORLD_H
#define EXPERTD_DHT_WORLD_H

#include <sys/queue.h>

#include "dht/table.h"
#include "dht/dialogue.h"

struct place;

/* What one server hosts under one prefix: coordinates that complete uids, and those that more coordinates follow. */
struct holding {
    struct place *place;
    size_t at;               /* in place->holdings */
    struct resident *server; /* whose it is */
    LIST_ENTRY(holding) entry;
    struct ranges experts, branches;
};

/* All that is hosted under one prefix. */
struct place {
    struct holding **holdings;
    size_t count, capacity;
    struct ranges experts, branches; /* of all of them; right after world_find */
    bool right;
    char prefix[];
};

/* A server, as far as look-ups are concerned. Belongs to whoever put it into the world. */
struct resident {
    /* Whether it is who it says, where that is still to be seen: NULL when it is. What it hosts counts meanwhile, and
     * nobody is told of the server before. Must not change the world. */
    bool (*prove)(struct resident *server);
    uint8_t id[SERVER_ID_SIZE];
    char endpoint[ENDPOINT_SIZE];
    struct curve_key curve_key;
    bool named; /* by an answer, ever: somebody has asked for what it hosts */
    LIST_HEAD(holdings, holding) holdings;
    size_t bytes; /* of its holdings, about */
};

struct world {
    struct table places; /* prefix -> struct place */
    size_t holdings;
    size_t bytes; /* of all residents */
};

/* What the server now hosts right under the content's prefix; the ranges are copied. Call world_branch when all that
 * has changed is in. 0 or -ENOMEM. */
int world_put(struct world *world, struct resident *server, const struct dialogue_content *content);
/* Makes the server's branches right: after world_put of prefixes that it had nothing under before, or has not now. 0 or
 * -ENOMEM. */
int world_branch(struct world *world, struct resident *server);
/* Takes the server out, with all that it has. */
void world_remove(struct world *world, struct resident *server);
/* The place of a prefix, its sets made right; an empty one where nothing is. NULL: no memory. Valid until the world
 * changes. */
const struct place *world_find(struct world *world, const char *prefix);
/* The first server from *at (0 at first) that hosts the place's expert, and proves who it is; NULL: no more. */
struct resident *place_replica(const struct place *place, uint32_t coordinate, size_t *at);
bool resident_proves(struct resident *server);
void world_destroy(struct world *world);

#endif
