/* What each client has in each pool: tasks and rows that are queued, running, or wait for room. A client is a
 * connection (frontend/client_peer.h). At most as many as there are requests, so none is refused for want of a share.
 * One thread. */
#ifndef EXPERTD_FRONTEND_SHARE_H
#define EXPERTD_FRONTEND_SHARE_H

#include <stdint.h>

struct client_peer;
struct pool_link;
struct shares;

struct share {
    struct share *chain; /* in its hash bucket, or of the free ones */
    struct client_peer *peer;
    struct pool_link *pool;
    uint32_t tasks, rows;
};

int shares_create(struct shares **shares, uint32_t max_requests); /* -ENOMEM */
void shares_destroy(struct shares **shares);

/* NULL: the client has nothing in the pool. */
struct share *shares_find(const struct shares *shares, const struct pool_link *pool, const struct client_peer *peer);
/* One more task of so many rows; holds the peer. pool->clients and pool->held_rows follow. */
struct share *shares_charge(struct shares *shares, struct pool_link *pool, struct client_peer *peer, uint32_t rows);
/* A task of so many rows is gone, and with the last one the share. */
void shares_credit(struct shares *shares, struct share *share, uint32_t rows);

#endif
