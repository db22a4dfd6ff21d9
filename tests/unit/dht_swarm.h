/* Many DHT nodes in one process, on loopback, for tests and the benchmark. */
#ifndef EXPERTD_TESTS_UNIT_DHT_SWARM_H
#define EXPERTD_TESTS_UNIT_DHT_SWARM_H

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dht/agent.h"
#include "dht/lookup.h"

enum { SWARM_MAX = 1024 };

struct swarm {
    struct agent *agents[SWARM_MAX]; /* NULL: killed */
    size_t count;
    uint32_t network_id;
    uint16_t bootstrap_port; /* of a node of another process; 0: the first joins by nobody, the others by it */
    uint64_t update_period_ns, expiration_ns;
};

/* One more node, that joins by the first; with endpoint NULL it publishes nothing. NULL: failed. */
static inline struct agent *swarm_add(struct swarm *swarm, const char *endpoint)
{
    static char addresses[SWARM_MAX][32];
    const size_t number = swarm->count;
    const char *bootstrap[1] = {addresses[number]};
    struct agent_options options = {.node.network_id = swarm->network_id,
                                    .identity_file = "",
                                    .bootstrap = bootstrap,
                                    .bootstrap_count = number > 0 || swarm->bootstrap_port,
                                    .endpoint = endpoint,
                                    .update_period_ns = swarm->update_period_ns,
                                    .expiration_ns = swarm->expiration_ns,
                                    .max_cache = 65536};
    if (options.bootstrap_count)
        snprintf(addresses[number], sizeof addresses[number], "127.0.0.1:%u",
                 swarm->bootstrap_port ? swarm->bootstrap_port : node_port(swarm->agents[0]->node));
    if (agent_create(&swarm->agents[number], &options, moment_now()) != 0)
        return NULL;
    return swarm->agents[swarm->count++];
}

/* Lets all nodes do what they have to, for a while or until something happens; returns after at most ms. */
static inline void swarm_step(struct swarm *swarm, int ms)
{
    static struct pollfd items[SWARM_MAX];
    nfds_t count = 0;
    for (size_t i = 0; i < swarm->count; i++) {
        if (!swarm->agents[i])
            continue;
        agent_step(swarm->agents[i], moment_now());
        items[count].fd = agent_fd(swarm->agents[i]);
        items[count++].events = POLLIN;
    }
    poll(items, count, ms);
}

/* Steps until the condition holds, and returns true; or for so long, and returns false. */
#define SWARM_UNTIL(swarm, ms, condition)                                                                              \
    ({                                                                                                                 \
        const uint64_t swarm_end_ns = clock_now_ns() + (uint64_t)(ms)*NS_PER_MS;                                       \
        while (!(condition) && clock_now_ns() < swarm_end_ns)                                                          \
            swarm_step(swarm, 5);                                                                                      \
        (condition);                                                                                                   \
    })

static inline bool swarm_joined(const struct swarm *swarm)
{
    for (size_t i = swarm->bootstrap_port ? 0 : 1; i < swarm->count; i++)
        if (swarm->agents[i] && bootstrap_alive(swarm->agents[i]->bootstrap) == 0)
            return false;
    return true;
}

/* As a kill -9: no farewell, nothing is handed over. */
static inline void swarm_kill(struct swarm *swarm, size_t number)
{
    agent_destroy(&swarm->agents[number], 0);
}

static inline void swarm_end(struct swarm *swarm)
{
    for (size_t i = swarm->count; i-- > 0;)
        agent_destroy(&swarm->agents[i], 0);
    swarm->count = 0;
}

static inline bool swarm_published(const struct swarm *swarm)
{
    for (size_t i = 0; i < swarm->count; i++)
        if (swarm->agents[i] && swarm->agents[i]->publisher && publisher_catalog(swarm->agents[i]->publisher)->count &&
            !publisher_done(swarm->agents[i]->publisher))
            return false;
    return true;
}

static bool swarm_woken;

static inline void swarm_wake(struct lookup *lookup)
{
    (void)lookup;
    swarm_woken = true;
}

/* Runs a request to its end on one node, while all nodes go on. Returns its status; the lookup is to be destroyed. */
static inline unsigned swarm_ask(struct swarm *swarm, size_t number, const Expertd__Dht__Request *request,
                                 struct lookup *lookup)
{
    lookup_init(lookup, &swarm->agents[number]->cache, request, moment_now());
    lookup->wake = swarm_wake;
    for (;;) {
        swarm_woken = false;
        const enum lookup_result result = lookup_run(lookup, moment_now());
        if (result == LOOKUP_DONE)
            return lookup->reply.status;
        while (result == LOOKUP_WAITING && !swarm_woken && clock_now_ns() < lookup->deadline_ns)
            swarm_step(swarm, 5);
    }
}

#endif
