#include "dht/loop.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "common/log.h"
#include "common/process.h"
#include "dht/agent.h"
#include "dht/service.h"
#include "dht/watch.h"

enum { FAREWELL_MS = 700, SHUTDOWN_MS = 300, POLL_MAX_MS = 1000 };

struct loop {
    void *context;
    struct agent *agent;
    struct service *service;
    struct watch *watch;  /* NULL: no frontend */
    const char *endpoint; /* published; NULL: none */
    uint32_t network_id;
};

/* ---- STATUS --------------------------------------------------------------------------------------------------------
 */

struct named {
    const char *name;
    double value;
};

static int add_counters(struct arena *arena, Expertd__Dht__NodeStatus *status, const struct named *named, size_t count)
{
    Expertd__Dht__NodeStatus__Counter *counters = arena_take(arena, count * sizeof *counters);
    status->counters = arena_take(arena, count * sizeof(Expertd__Dht__NodeStatus__Counter *));
    if (!counters || !status->counters)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        expertd__dht__node_status__counter__init(&counters[i]);
        counters[i].name = (char *)named[i].name;
        counters[i].value = named[i].value;
        status->counters[i] = &counters[i];
    }
    status->n_counters = count;
    return 0;
}

static int count_all(const struct loop *loop, struct arena *arena, Expertd__Dht__NodeStatus *status, struct moment now)
{
    static const struct publisher_counters unpublished;
    static const struct catalog nothing;
    const struct agent *agent = loop->agent;
    const struct cache *cache = &agent->cache;
    const struct cache_counters *c = &cache->counters;
    const struct service_counters *s = service_counters(loop->service);
    const struct publisher_counters *p = agent->publisher ? publisher_counters(agent->publisher) : &unpublished;
    const struct catalog *catalog = agent->publisher ? publisher_catalog(agent->publisher) : &nothing;
    const uint64_t overflow = c->ignored_overflow + node_dropped(agent->node);
    const struct named named[] = {
        {"dht.uptime_s", (double)(now.ns - agent->started_ns) / 1e9},
        {"dht.connected", agent_connected(agent, now)},
        {"dht.bootstrap_alive", bootstrap_alive(agent->bootstrap)},
        {"dht.bootstrap_addresses", agent->bootstrap_count},
        {"dht.experts", (double)catalog->experts},
        {"dht.experts_alive", (double)catalog->alive},
        {"dht.records_published", (double)p->records},
        {"dht.heartbeats_published", (double)p->heartbeats},
        {"dht.put_failures", (double)p->put_failures},
        {"dht.prefixes_cached", (double)cache->entries.count},
        {"dht.records_cached", (double)cache->records},
        {"dht.servers_known", (double)cache->peers.count},
        {"dht.servers_alive", (double)cache_peers_alive(cache, now)},
        {"dht.cache_hits", (double)c->hits},
        {"dht.cache_misses", (double)c->misses},
        {"dht.evictions", (double)c->evictions},
        {"dht.ignored_records", (double)(c->ignored_forged + c->ignored_garbled + c->ignored_time + overflow)},
        {"dht.ignored_forged", (double)c->ignored_forged},
        {"dht.ignored_garbled", (double)c->ignored_garbled},
        {"dht.ignored_time", (double)c->ignored_time},
        {"dht.ignored_overflow", (double)overflow},
        {"dht.requests", (double)s->requests},
        {"dht.requests_refused", (double)s->refused},
        {"dht.requests_late", (double)s->late},
        {"dht.replies_unsent", (double)s->unsent},
    };
    return add_counters(arena, status, named, sizeof named / sizeof named[0]);
}

static int fill_status(void *context, struct arena *arena, Expertd__Dht__NodeStatus *status, struct moment now)
{
    const struct loop *loop = context;
    const struct agent *agent = loop->agent;
    const bool live = agent->publisher && publisher_state(agent->publisher) != PUBLISHER_SILENT;
    status->server_id = arena_take(arena, SERVER_ID_TEXT);
    status->node_id = arena_take(arena, 41);
    status->frontend = arena_text(arena, live ? loop->endpoint : "");
    status->software = arena_text(arena, "expertd " EXPERTD_VERSION);
    if (!status->server_id || !status->node_id || !status->frontend || !status->software)
        return -ENOMEM;
    server_id_format(identity_id(agent->identity), status->server_id);
    node_id_text(agent->node, status->node_id);
    status->port = node_port(agent->node);
    status->network_id = loop->network_id;
    return count_all(loop, arena, status, now);
}

/* ---- life ----------------------------------------------------------------------------------------------------------
 */

static int start_agent(struct loop *loop, const struct config *config)
{
    const struct config_dht *dht = &config->dht;
    const struct agent_options options = {.node = {.port = (uint16_t)dht->port,
                                                   .network_id = (uint32_t)dht->network_id,
                                                   .lan_discovery = dht->lan_discovery},
                                          .identity_file = dht->identity_file,
                                          .bootstrap = dht->bootstrap.items,
                                          .bootstrap_count = dht->bootstrap.count,
                                          .endpoint = loop->endpoint,
                                          .update_period_ns = (uint64_t)(dht->update_period * (double)NS_PER_S),
                                          .expiration_ns = (uint64_t)(dht->expiration * (double)NS_PER_S),
                                          .max_cache = dht->max_cache};
    return agent_create(&loop->agent, &options, moment_now());
}

static int start_watch(struct loop *loop, const struct config *config)
{
    uint64_t period_ns = (uint64_t)(config->dht.update_period * (double)NS_PER_S);
    if (!loop->endpoint)
        return 0;
    if (period_ns > WATCH_PERIOD_MS * NS_PER_MS)
        period_ns = WATCH_PERIOD_MS * NS_PER_MS;
    return watch_create(&loop->watch, loop->context, config->dht.frontend, period_ns, moment_now());
}

int loop_create(struct loop **loop, const struct config *config)
{
    struct loop *made = calloc(1, sizeof *made);
    char text[SERVER_ID_TEXT];
    *loop = NULL;
    if (!made)
        return -ENOMEM;
    made->network_id = (uint32_t)config->dht.network_id;
    if (strcmp(config->dht.frontend, "none") != 0) {
        made->endpoint = config->frontend.advertise;
        if (!endpoint_valid(made->endpoint)) {
            log_error(
                "frontend.advertise '%s' cannot be published: clients of other machines need tcp://host:port (or set "
                "dht.frontend to none, to publish nothing)",
                made->endpoint);
            free(made);
            return -EINVAL;
        }
    }
    made->context = zmq_ctx_new();
    int rc = made->context ? start_agent(made, config) : -ENOMEM;
    if (rc == 0)
        rc = service_create(&made->service, made->context, config->dht.listen, &made->agent->cache, fill_status, made);
    if (rc == 0)
        rc = start_watch(made, config);
    if (rc != 0) {
        loop_destroy(&made);
        return rc;
    }
    log_info("DHT node on UDP port %u, look-ups at %s, publishing %s, server id %s", node_port(made->agent->node),
             config->dht.listen, made->endpoint ? made->endpoint : "nothing",
             server_id_format(identity_id(made->agent->identity), text));
    *loop = made;
    return 0;
}

void loop_destroy(struct loop **loop)
{
    struct loop *old = *loop;
    *loop = NULL;
    if (!old)
        return;
    watch_destroy(&old->watch);
    service_destroy(&old->service);
    agent_destroy(&old->agent, SHUTDOWN_MS);
    if (old->context)
        zmq_ctx_term(old->context);
    free(old);
}

/* ---- running -------------------------------------------------------------------------------------------------------
 */

static uint64_t step_watch(struct loop *loop, struct moment now)
{
    uint64_t due_ns = UINT64_MAX;
    enum watch_news news = WATCH_NOTHING;
    if (!loop->watch)
        return due_ns;
    do {
        struct publisher *publisher = loop->agent->publisher;
        news = watch_step(loop->watch, now, &due_ns);
        if (news == WATCH_CONFIRMED)
            publisher_confirm(publisher, watch_confirmed_ns(loop->watch));
        if (news == WATCH_LOST)
            publisher_lose(publisher, now);
        if (news == WATCH_CHANGED) {
            struct catalog catalog = watch_take(loop->watch);
            log_info("the frontend hosts %llu experts, %llu of them alive", (unsigned long long)catalog.experts,
                     (unsigned long long)catalog.alive);
            if (publisher_set(publisher, &catalog, watch_confirmed_ns(loop->watch)) != 0)
                log_error("not enough memory to publish the experts");
        }
    } while (news != WATCH_NOTHING);
    return due_ns;
}

static long timeout_ms(uint64_t due_ns, struct moment now)
{
    if (due_ns <= now.ns)
        return 0;
    const uint64_t ms = (due_ns - now.ns + NS_PER_MS - 1) / NS_PER_MS;
    return ms < POLL_MAX_MS ? (long)ms : POLL_MAX_MS;
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* A heartbeat that has expired, so that nobody asks a server that is no more. */
static void say_farewell(struct loop *loop)
{
    struct publisher *publisher = loop->agent->publisher;
    const uint64_t end_ns = clock_now_ns() + FAREWELL_MS * NS_PER_MS;
    if (!publisher)
        return;
    publisher_leave(publisher, moment_now());
    for (struct moment now = moment_now(); !publisher_quiet(publisher) && now.ns < end_ns; now = moment_now()) {
        zmq_pollitem_t item = {.fd = agent_fd(loop->agent), .events = ZMQ_POLLIN};
        if (zmq_poll(&item, 1, timeout_ms(end_ns, now)) < 0 && zmq_errno() != EINTR)
            return;
        agent_step(loop->agent, moment_now());
    }
    if (!publisher_quiet(publisher))
        log_warning("the farewell was not confirmed in time: this server's last heartbeat ends by itself");
}

int loop_run(struct loop *loop)
{
    zmq_pollitem_t items[] = {
        {.fd = process_stop_fd(), .events = ZMQ_POLLIN},
        {.fd = agent_fd(loop->agent), .events = ZMQ_POLLIN},
        {.socket = service_socket(loop->service), .events = ZMQ_POLLIN},
        {.socket = loop->watch ? watch_socket(loop->watch) : NULL, .events = ZMQ_POLLIN},
    };
    while (!process_stopping()) {
        const struct moment now = moment_now();
        uint64_t due_ns = step_watch(loop, now);
        due_ns = sooner(due_ns, agent_step(loop->agent, now));
        /* After the agent: what the DHT answered is in the cache for those who wait. It may ask for more. */
        due_ns = sooner(due_ns, service_step(loop->service, moment_now()));
        due_ns = sooner(due_ns, cache_due_ns(&loop->agent->cache));
        if (zmq_poll(items, loop->watch ? 4 : 3, timeout_ms(due_ns, moment_now())) < 0 && zmq_errno() != EINTR) {
            const int rc = -zmq_errno();
            log_error("cannot wait for events: %s", zmq_strerror(-rc));
            return rc;
        }
    }
    log_info("stopping");
    say_farewell(loop);
    return 0;
}
