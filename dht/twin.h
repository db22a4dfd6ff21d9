/* Another process with this one's identity: what a copied dht.identity_file makes. Each server announces its id, too,
 * and looks for who else does. An address that proves the id, and is another process, is a twin; of the two the one
 * that started later has to end, and both find out. One thread. */
#ifndef EXPERTD_DHT_TWIN_H
#define EXPERTD_DHT_TWIN_H

#include "dht/servers.h"

enum { TWIN_LINKS = 16, TWIN_PERIOD_S = 10, TWIN_NAME_SIZE = SERVER_ID_TEXT + 4 };

struct twin_options {
    uint32_t network_id;
    const uint8_t *id, *instance; /* of this process; kept */
    uint64_t started_ms;
    uint64_t token; /* of its finds */
    void (*find)(void *context, const char *key, uint64_t token);
    void *context;
};

struct twin {
    struct twin_options options;
    struct servers *servers;
    struct server_link links[TWIN_LINKS];
    uint64_t next_ns;
    bool finding;
    bool warned;
};

/* What an id is announced under, in place of a prefix. Returns name. */
const char *twin_name(const uint8_t id[SERVER_ID_SIZE], char name[TWIN_NAME_SIZE]);
void twin_init(struct twin *twin, struct servers *servers, const struct twin_options *options);
void twin_destroy(struct twin *twin);
/* Of its token, as the cache's. */
void twin_on_peers(struct twin *twin, const struct contact *contacts, size_t count, struct moment now);
void twin_on_found(struct twin *twin);
/* Looks again soon. */
void twin_on_connected(struct twin *twin, struct moment now);
/* Does what is due; returns when the next is. */
uint64_t twin_step(struct twin *twin, struct moment now);
/* The twin that this process has to give way to; NULL: none is known. */
const struct server *twin_older(struct twin *twin);

#endif
