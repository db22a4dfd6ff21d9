/* What the server says of itself at one moment, as metrics show it. */
#ifndef EXPERTD_HTTP_SNAPSHOT_H
#define EXPERTD_HTTP_SNAPSHOT_H

#include <stdbool.h>
#include <stdint.h>

#include "client/frontends.h"
#include "http/upstream.h"

struct snapshot {
    const struct expertd_pong *pong;   /* of http.frontend; NULL: it did not answer */
    const struct expertd_stats *stats; /* of all frontends of the server that answered, added up; NULL likewise */
    uint64_t experts, experts_alive;   /* of these frontends */
    struct {
        const char *name;                  /* its server's, or its endpoint if it did not answer */
        const struct expertd_stats *stats; /* NULL: it did not answer */
    } frontends[FRONTENDS_MAX];            /* where there are several, each by itself */
    size_t frontends_count;
    double wall_s; /* seconds since 1970, for ages */
    struct {
        uint64_t used_bytes, free_bytes; /* of the server's segments in /dev/shm, and of that file system */
    } shm;
    struct frontends_look look; /* what the above lies in */
};

enum { SNAPSHOT_ALL_EXPERTS = 4096 };

/* Asks the frontend, and looks at this host. `experts`: at most so many of those that did most rows have figures of
 * their own; 0: none. Always succeeds; release it. */
void snapshot_take(struct snapshot *snapshot, struct expertd_client *client, const struct config *config,
                   uint32_t experts, uint32_t timeout_ms);
void snapshot_release(struct snapshot *snapshot);

#endif
