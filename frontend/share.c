#include "frontend/share.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "frontend/client_peer.h"
#include "frontend/device_link.h"

struct shares {
    uint32_t capacity, touched; /* slots beyond `touched` were never used */
    uint32_t buckets_count;     /* a power of two */
    struct share *free;
    struct share **buckets;
    struct share slots[];
};

int shares_create(struct shares **shares, uint32_t max_requests)
{
    uint32_t buckets_count = 16;
    while (buckets_count < max_requests)
        buckets_count *= 2;
    struct shares *made = *shares = calloc(1, sizeof *made + (size_t)max_requests * sizeof(struct share));
    if (!made)
        return -ENOMEM;
    made->capacity = max_requests;
    made->buckets_count = buckets_count;
    made->buckets = calloc(buckets_count, sizeof(struct share *));
    if (made->buckets)
        return 0;
    shares_destroy(shares);
    return -ENOMEM;
}

void shares_destroy(struct shares **shares)
{
    if (*shares)
        free((*shares)->buckets);
    free(*shares);
    *shares = NULL;
}

/* Fibonacci hashing of two pointers, whose low bits say nothing. */
static struct share **bucket_of(const struct shares *shares, const struct pool_link *pool,
                                const struct client_peer *peer)
{
    const uint64_t key = ((uintptr_t)pool >> 4) * UINT64_C(31) + ((uintptr_t)peer >> 6);
    return &shares->buckets[(key * UINT64_C(0x9e3779b97f4a7c15)) >> 32 & (shares->buckets_count - 1)];
}

struct share *shares_find(const struct shares *shares, const struct pool_link *pool, const struct client_peer *peer)
{
    struct share *share = *bucket_of(shares, pool, peer);
    while (share && (share->pool != pool || share->peer != peer))
        share = share->chain;
    return share;
}

struct share *shares_charge(struct shares *shares, struct pool_link *pool, struct client_peer *peer, uint32_t rows)
{
    struct share *share = shares_find(shares, pool, peer);
    if (!share) {
        share = shares->free;
        if (share) {
            shares->free = share->chain;
        } else {
            assert(shares->touched < shares->capacity); /* each request has one share at most */
            share = &shares->slots[shares->touched++];
        }
        struct share **bucket = bucket_of(shares, pool, peer);
        *share = (struct share){.chain = *bucket, .peer = peer, .pool = pool};
        *bucket = share;
        client_peer_hold(peer);
        pool->clients++;
    }
    share->tasks++;
    share->rows += rows;
    pool->held_rows += rows;
    return share;
}

void shares_credit(struct shares *shares, struct share *share, uint32_t rows)
{
    share->pool->held_rows -= rows;
    share->rows -= rows;
    if (--share->tasks > 0)
        return;
    struct share **link = bucket_of(shares, share->pool, share->peer);
    while (*link != share)
        link = &(*link)->chain;
    *link = share->chain;
    client_peer_release(share->peer);
    share->pool->clients--;
    share->chain = shares->free;
    shares->free = share;
}
