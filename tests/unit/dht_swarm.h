/* Many DHT nodes in one process, on loopback, for tests and the benchmark. */
#ifndef EXPERTD_TESTS_UNIT_DHT_SWARM_H
#define EXPERTD_TESTS_UNIT_DHT_SWARM_H

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dht/agent.h"
#include "dht/lookup_kinds.h"

enum { SWARM_MAX = 1024 };

struct swarm {
    void *context;                   /* of ZeroMQ */
    struct agent *agents[SWARM_MAX]; /* NULL: killed */
    size_t count;
    uint32_t network_id;
    uint16_t bootstrap_port; /* of a node of another process; 0: the first joins by nobody, the others by it */
    const char *addresses;   /* "10.9": each node has one of its own, 10.9.0.1 and so on; NULL: all have loopback's */
    size_t first;            /* the number of this process's first node among all */
    uint64_t update_period_ns, expiration_ns;
    /* of each: */
    bool ready[SWARM_MAX]; /* something has come */
    uint64_t due_ns[SWARM_MAX], stepped_ns[SWARM_MAX];
    int fds[SWARM_MAX][AGENT_POLL_ITEMS];
    bool fds_right[SWARM_MAX];
};

static inline const char *swarm_address(const struct swarm *swarm, size_t number, char text[32])
{
    if (swarm->addresses)
        snprintf(text, 32, "%s.%zu.%zu", swarm->addresses, number / 250, number % 250 + 1);
    else
        snprintf(text, 32, "127.0.0.1");
    return text;
}

/* One more node, that joins by the first; with endpoint NULL it publishes nothing. NULL: failed. */
static inline struct agent *swarm_add(struct swarm *swarm, const char *endpoint)
{
    static char addresses[SWARM_MAX][48];
    char own[32], first[32];
    if (!swarm->context && (swarm->context = zmq_ctx_new()))
        zmq_ctx_set(swarm->context, ZMQ_MAX_SOCKETS, 8 * SWARM_MAX);
    const size_t number = swarm->count;
    const char *bootstrap[1] = {addresses[number]};
    struct agent_options options = {.context = swarm->context,
                                    .address = swarm_address(swarm, swarm->first + number, own),
                                    .network_id = swarm->network_id,
                                    .identity_file = "",
                                    .bootstrap = bootstrap,
                                    .bootstrap_count = number > 0 || swarm->bootstrap_port,
                                    .endpoint = endpoint,
                                    .update_period_ns = swarm->update_period_ns,
                                    .expiration_ns = swarm->expiration_ns,
                                    .max_cache = 65536,
                                    .max_servers = 4096,
                                    .max_catalogs = 256 << 20};
    if (options.bootstrap_count)
        snprintf(addresses[number], sizeof addresses[number], "%s:%u", swarm_address(swarm, 0, first),
                 swarm->bootstrap_port ? swarm->bootstrap_port : engine_port(swarm->agents[0]->engine));
    if (agent_create(&swarm->agents[number], &options, moment_now()) != 0)
        return NULL;
    return swarm->agents[swarm->count++];
}

/* ZeroMQ's own wait looks into each socket, twice: too much for many nodes. Their descriptors say when to look, and
 * what they do not say (they speak of changes alone) is seen when a node is stepped now and then. */
static inline int swarm_descriptors(struct swarm *swarm, size_t number, struct pollfd *fds)
{
    zmq_pollitem_t items[AGENT_POLL_ITEMS];
    const int count = agent_poll_items(swarm->agents[number], items);
    for (int i = 0; i < count; i++) {
        int *fd = &swarm->fds[number][i];
        size_t size = sizeof *fd;
        if (!swarm->fds_right[number] && items[i].socket)
            zmq_getsockopt(items[i].socket, ZMQ_FD, fd, &size);
        else if (!items[i].socket)
            *fd = items[i].fd;
        fds[i] = (struct pollfd){.fd = *fd, .events = POLLIN};
    }
    swarm->fds_right[number] = true;
    return count;
}

static bool swarm_woken; /* whoever waits for an answer (swarm_ask) */

/* Lets all nodes do what they have to, for a while or until something happens; returns after at most ms. */
static inline void swarm_step(struct swarm *swarm, int ms)
{
    static struct pollfd fds[SWARM_MAX * AGENT_POLL_ITEMS];
    static size_t owners[SWARM_MAX * AGENT_POLL_ITEMS];
    static const uint64_t idle_ns = 2 * NS_PER_MS;
    nfds_t count = 0;
    uint64_t due_ns = clock_now_ns() + (uint64_t)ms * NS_PER_MS;
    for (size_t i = 0; i < swarm->count; i++) {
        struct agent *agent = swarm->agents[i];
        if (!agent)
            continue;
        const struct moment now = moment_now();
        if (swarm->ready[i] || now.ns >= swarm->due_ns[i] || now.ns - swarm->stepped_ns[i] >= idle_ns ||
            agent_due_ns(agent) == 0) {
            swarm->ready[i] = false;
            swarm->due_ns[i] = agent_step(agent, now);
            swarm->stepped_ns[i] = now.ns;
        }
        if (swarm->due_ns[i] < due_ns)
            due_ns = swarm->due_ns[i];
        for (const nfds_t end = count + (nfds_t)swarm_descriptors(swarm, i, fds + count); count < end; count++)
            owners[count] = i;
    }
    const uint64_t now_ns = clock_now_ns();
    /* Woken by a step, and not by what is polled. */
    poll(fds, count, swarm_woken || due_ns <= now_ns ? 0 : (int)((due_ns - now_ns) / NS_PER_MS) + 1);
    for (nfds_t i = 0; i < count; i++)
        swarm->ready[owners[i]] |= fds[i].revents != 0;
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
    agent_destroy(&swarm->agents[number]);
}

static inline void swarm_end(struct swarm *swarm)
{
    for (size_t i = swarm->count; i-- > 0;)
        agent_destroy(&swarm->agents[i]);
    swarm->count = 0;
    if (swarm->context)
        zmq_ctx_term(swarm->context);
    swarm->context = NULL;
}

static inline bool swarm_published(const struct swarm *swarm)
{
    for (size_t i = 0; i < swarm->count; i++)
        if (swarm->agents[i] && swarm->agents[i]->publisher && publisher_catalog(swarm->agents[i]->publisher)->count &&
            !announcer_done(publisher_announcer(swarm->agents[i]->publisher)))
            return false;
    return true;
}

static inline void swarm_wake(struct lookup *lookup)
{
    (void)lookup;
    swarm_woken = true;
}

/* Runs a request to its end on one node, while all nodes go on. Returns its status; the lookup is to be destroyed. */
static inline unsigned swarm_ask(struct swarm *swarm, size_t number, const struct lookup_kind *kind,
                                 const Expertd__Dht__Request *request, struct lookup *lookup)
{
    lookup_init(lookup, &swarm->agents[number]->cache, kind, request, moment_now());
    lookup->wake = swarm_wake;
    for (;;) {
        swarm_woken = false;
        const enum lookup_result result = lookup_run(lookup, moment_now());
        if (result == LOOKUP_DONE)
            return lookup->reply.status;
        if (result == LOOKUP_AGAIN)
            agent_step(swarm->agents[number], moment_now());
        while (result == LOOKUP_WAITING && !swarm_woken && clock_now_ns() < lookup->deadline_ns)
            swarm_step(swarm, 5);
    }
}

#endif
