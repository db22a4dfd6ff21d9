/* Keeps this server announced in the DHT: under each prefix of what it hosts, under the shards of those that are
 * crowded (rendezvous.h), and under its own id (twin.h). Each announcement is made again before nodes forget it, soon
 * where no node has taken it, and where there are others that are nearer to it now. Knows nothing of the DHT but what
 * it is told. One thread; time comes from outside. */
#ifndef EXPERTD_DHT_ANNOUNCER_H
#define EXPERTD_DHT_ANNOUNCER_H

#include "dht/catalog.h"
#include "dht/engine.h"

enum {
    ANNOUNCER_REFRESH_S = ENGINE_KEPT_S / 3, /* made again */
    ANNOUNCER_RETRY_S = 1,                   /* when no node has taken it, and twice as long each time */
    ANNOUNCER_RETRY_MAX_S = 64,
};

struct announcer_options {
    uint32_t network_id;
    const uint8_t *id;   /* SERVER_ID_SIZE bytes; kept */
    bool single;         /* no other nodes are looked for: that none takes it is as it should be */
    uint64_t tokens_tag; /* bits that no other's tokens have */
    /* Begins to announce a key; ends with announcer_on_announced. */
    void (*announce)(void *context, const char *key, uint64_t token);
    void *context;
};

struct announcer_counters {
    uint64_t made, unheard;
};

struct announcer;

/* 0 or -ENOMEM. */
int announcer_create(struct announcer **announcer, const struct announcer_options *options);
void announcer_destroy(struct announcer **announcer);
/* What is hosted now; what is no more ends with the nodes' own memory. 0 or -ENOMEM. */
int announcer_host(struct announcer *announcer, const struct catalog *catalog);
/* Of its token, as engine.h has it. */
void announcer_on_announced(struct announcer *announcer, uint64_t token, unsigned answered, unsigned fullest,
                            struct moment now);
/* Other nodes answer (again): all is announced anew. */
void announcer_on_connected(struct announcer *announcer);
/* Does what is due; returns when the next is. nodes: that are known. */
uint64_t announcer_step(struct announcer *announcer, size_t nodes, struct moment now);
/* Whether everything is announced. */
bool announcer_done(const struct announcer *announcer);
const struct announcer_counters *announcer_counters(const struct announcer *announcer);

#endif
