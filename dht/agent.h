/* A directory: a node of the DHT with all that belongs to it, i.e. what other servers have told, the prefixes that were
 * looked up, what this server tells, the addresses to join by. What the process is but for what its clients ask, so
 * that tests and benchmarks can have many in one process. One thread. */
#ifndef EXPERTD_DHT_AGENT_H
#define EXPERTD_DHT_AGENT_H

#include <zmq.h>

#include "dht/bootstrap.h"
#include "dht/cache.h"
#include "dht/lan.h"
#include "dht/publisher.h"
#include "dht/twin.h"

struct agent_options {
    void *context;           /* of ZeroMQ */
    const char *address;     /* as engine.h's */
    uint16_t port, tcp_port; /* 0: any free ones; the latter is for what is published */
    uint32_t network_id;
    bool port_mapping;
    bool lan; /* look for others by broadcasts */
    const char *identity_file;
    const char *const *bootstrap;
    unsigned bootstrap_count;
    const char *endpoint;          /* of the frontend, as published; NULL: publish nothing */
    struct curve_key curve_key;    /* of the frontend */
    const struct voucher *voucher; /* for this server; NULL: none; kept */
    const struct trust *trust;     /* NULL: everybody is believed; kept */
    uint16_t frontend_port;        /* at which it listens, for the router to let in; 0: nowhere that others reach */
    uint64_t update_period_ns, expiration_ns;
    size_t max_cache, max_servers, max_catalogs;
};

struct agent {
    struct identity *identity;
    struct engine *engine;
    struct bootstrap *bootstrap;
    struct lan *lan; /* NULL: no broadcasts */
    bool lan_met;    /* somebody that was heard of so */
    struct world world;
    struct servers *servers;
    struct cache cache;
    struct publisher *publisher; /* NULL: publish nothing */
    struct twin twin;            /* of what is published */
    uint8_t instance[INSTANCE_SIZE];
    unsigned bootstrap_count;
    uint64_t started_ns;
    bool asked; /* the engine, since the last step */
};

enum { AGENT_POLL_ITEMS = 5 };

/* 0 or -errno, then a message was logged. */
int agent_create(struct agent **agent, const struct agent_options *options, struct moment now);
void agent_destroy(struct agent **agent);
/* What to poll: when something is ready, or the time has come, agent_step. Returns how many. */
int agent_poll_items(const struct agent *agent, zmq_pollitem_t items[AGENT_POLL_ITEMS]);
/* Takes what has come and does what is due. Returns when the next is. */
uint64_t agent_step(struct agent *agent, struct moment now);
/* When agent_step is due because somebody has asked since for what is not known; UINT64_MAX: nobody has. */
uint64_t agent_due_ns(const struct agent *agent);
/* The process that has the same identity, and started before: this one must not go on. NULL: there is none. */
const struct server *agent_twin(struct agent *agent);
/* Whether peers answer, or none are looked for. */
bool agent_connected(const struct agent *agent);

#endif
