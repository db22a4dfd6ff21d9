/* A node of the DHT with all that belongs to it: the cache, the publisher, the addresses to join by. What the process
 * is but for its ZeroMQ sockets, so that tests and benchmarks can have many in one process. One thread. */
#ifndef EXPERTD_DHT_AGENT_H
#define EXPERTD_DHT_AGENT_H

#include "dht/bootstrap.h"
#include "dht/cache.h"
#include "dht/publisher.h"

struct agent_options {
    struct node_options node;
    const char *identity_file;
    const char *const *bootstrap;
    unsigned bootstrap_count;
    const char *endpoint; /* of the frontend, as published; NULL: publish nothing */
    uint64_t update_period_ns, expiration_ns;
    size_t max_cache;
};

struct agent {
    struct identity *identity;
    struct node *node;
    struct bootstrap *bootstrap;
    struct publisher *publisher; /* NULL: publish nothing */
    struct node_listening *own;  /* to this server's own heartbeats */
    struct cache cache;
    unsigned bootstrap_count;
    uint64_t started_ns;
    uint64_t answered_ns; /* when a peer last did */
};

/* 0 or -errno, then a message was logged. */
int agent_create(struct agent **agent, const struct agent_options *options, struct moment now);
/* bound_ms: for the node to end what is under way. */
void agent_destroy(struct agent **agent, unsigned bound_ms);
/* Readable when agent_step has something to do before its time. */
int agent_fd(const struct agent *agent);
/* Takes the node's events and does what is due. Returns when the next is. */
uint64_t agent_step(struct agent *agent, struct moment now);
/* Whether peers answer, or none are looked for. */
bool agent_connected(const struct agent *agent, struct moment now);

#endif
