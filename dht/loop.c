#include "dht/loop.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "common/log.h"
#include "common/notify.h"
#include "common/owner.h"
#include "common/process.h"
#include "dht/agent.h"
#include "dht/askers.h"
#include "dht/service.h"
#include "dht/watch.h"
#include "proto/gate.h"
#include "proto/guard.h"

/* A message is one frame, and two or three of an envelope; the largest is a request for look-ups. */
enum { POLL_MAX_MS = 1000, MESSAGE_FRAMES = 16, MESSAGE_BYTES = SERVICE_FRAME_MAX + 4096 };

struct loop {
    struct guard guard; /* who may ask; its address stays */
    struct trust *trust;
    struct voucher voucher; /* for this server */
    void *context;
    struct agent *agent;
    struct service *service;
    struct watch *watch;  /* NULL: no frontend */
    const char *endpoint; /* published; NULL: none */
    uint32_t network_id;
    const struct config *config;
    int owner_fd;
    uint64_t next_owner_ns; /* when the lock's name is looked at */
    uint64_t ended_said;    /* connections that the gate has ended */
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

/* The frontend that is published, as a server among the others. */
static bool publishes(const struct loop *loop)
{
    return loop->agent->publisher && publisher_state(loop->agent->publisher) == PUBLISHER_LIVE;
}

static int count_all(const struct loop *loop, struct arena *arena, Expertd__Dht__NodeStatus *status, struct moment now)
{
    static const struct publisher_counters unpublished;
    static const struct announcer_counters unannounced;
    static const struct catalog nothing;
    const struct agent *agent = loop->agent;
    const struct cache *cache = &agent->cache;
    const struct service_counters *s = service_counters(loop->service);
    const struct servers_counters *v = servers_counters(agent->servers);
    const struct publisher_counters *p = agent->publisher ? publisher_counters(agent->publisher) : &unpublished;
    const struct announcer_counters *a =
        agent->publisher ? announcer_counters(publisher_announcer(agent->publisher)) : &unannounced;
    const struct catalog *catalog = agent->publisher ? publisher_catalog(agent->publisher) : &nothing;
    const struct named named[] = {
        {"dht.pid", (double)getpid()},
        {"dht.uptime_s", (double)(now.ns - agent->started_ns) / 1e9},
        {"dht.connected", agent_connected(agent)},
        {"dht.nodes", (double)engine_nodes(agent->engine)},
        {"dht.bootstrap_alive", bootstrap_alive(agent->bootstrap)},
        {"dht.bootstrap_addresses", agent->bootstrap_count},
        {"dht.experts", (double)catalog->experts},
        {"dht.experts_alive", (double)catalog->alive},
        {"dht.announcements", (double)a->made},
        {"dht.announcements_unheard", (double)a->unheard},
        {"dht.subscribers", agent->publisher ? (double)publisher_subscribers(agent->publisher) : 0},
        {"dht.catalogs_asked", (double)p->asked},
        {"dht.heartbeats_sent", (double)p->heartbeats},
        {"dht.prefixes_cached", (double)cache->entries.count},
        {"dht.holdings", (double)agent->world.holdings},
        {"dht.catalog_bytes", (double)agent->world.bytes},
        {"dht.servers_known", (double)servers_total(agent->servers) + publishes(loop)},
        {"dht.servers_alive", (double)servers_count(agent->servers, SERVER_LIVE) + publishes(loop)},
        {"dht.servers_resting", (double)servers_count(agent->servers, SERVER_RESTING)},
        {"dht.servers_asked", (double)v->asked},
        {"dht.servers_refused", (double)v->refused},
        {"dht.servers_silent", (double)v->silent},
        {"dht.servers_lying", (double)v->liars},
        {"dht.servers_lost", (double)v->lost},
        {"dht.servers_let_go", (double)v->let_go},
        {"dht.servers_overflow", (double)v->overflow},
        {"dht.identities_doubled", (double)v->doubles},
        {"dht.untrusted", (double)v->untrusted},
        {"dht.farewells", (double)v->farewells},
        {"dht.finds", (double)cache->counters.finds},
        {"dht.cache_hits", (double)cache->counters.hits},
        {"dht.cache_misses", (double)cache->counters.misses},
        {"dht.evictions", (double)cache->counters.evictions},
        {"dht.requests", (double)s->requests},
        {"dht.requests_refused", (double)s->refused},
        {"dht.requests_late", (double)s->late},
        {"dht.replies_unsent", (double)s->unsent},
        {"dht.replies_unread", (double)s->unread},
        {"dht.closed_large", (double)gate_ended()},
    };
    return add_counters(arena, status, named, sizeof named / sizeof named[0]);
}

static int fill_status(void *context, struct arena *arena, Expertd__Dht__NodeStatus *status, struct moment now)
{
    const struct loop *loop = context;
    const struct agent *agent = loop->agent;
    status->server_id = arena_take(arena, SERVER_ID_TEXT);
    status->node_id = arena_take(arena, ENGINE_ID_TEXT);
    status->frontend = arena_text(arena, publishes(loop) ? loop->endpoint : "");
    status->software = arena_text(arena, "expertd " EXPERTD_VERSION);
    if (!status->server_id || !status->node_id || !status->frontend || !status->software)
        return -ENOMEM;
    server_id_format(identity_id(agent->identity), status->server_id);
    engine_id_text(agent->engine, status->node_id);
    status->port = engine_port(agent->engine);
    status->network_id = loop->network_id;
    return count_all(loop, arena, status, now);
}

/* ---- life ----------------------------------------------------------------------------------------------------------
 */

/* Not the same as the DHT's: libtorrent holds that of TCP too. */
static uint16_t tcp_port(const struct config_dht *dht)
{
    if (dht->tcp_port)
        return (uint16_t)dht->tcp_port;
    return dht->port && dht->port < UINT16_MAX ? (uint16_t)(dht->port + 1) : 0;
}

/* Of the first of frontend.listen that other machines reach. */
static uint16_t frontend_port(const struct config *config)
{
    for (unsigned i = 0; i < config->frontend.listen.count; i++) {
        const char *endpoint = config->frontend.listen.items[i];
        if (strncmp(endpoint, "tcp://", 6) == 0 && strncmp(endpoint, "tcp://127.", 10) != 0)
            return (uint16_t)strtoul(strrchr(endpoint, ':') + 1, NULL, 10);
    }
    return 0;
}

static int start_agent(struct loop *loop, const struct config *config)
{
    const struct config_dht *dht = &config->dht;
    struct curve_key curve_key = {.is = guard_is_on(&loop->guard)};
    if (curve_key.is && !zmq_z85_decode(curve_key.bytes, loop->guard.own.public_key))
        return -EINVAL;
    const struct agent_options options = {.context = loop->context,
                                          .curve_key = curve_key,
                                          .voucher = dht->voucher[0] ? &loop->voucher : NULL,
                                          .trust = loop->trust,
                                          .address = dht->address,
                                          .port = (uint16_t)dht->port,
                                          .tcp_port = tcp_port(dht),
                                          .network_id = (uint32_t)dht->network_id,
                                          .port_mapping = dht->port_mapping,
                                          .lan = dht->lan,
                                          .identity_file = dht->identity_file,
                                          .bootstrap = dht->bootstrap.items,
                                          .bootstrap_count = dht->bootstrap.count,
                                          .endpoint = loop->endpoint,
                                          .frontend_port = frontend_port(config),
                                          .update_period_ns = (uint64_t)(dht->update_period * (double)NS_PER_S),
                                          .expiration_ns = (uint64_t)(dht->expiration * (double)NS_PER_S),
                                          .max_cache = dht->max_cache,
                                          .max_servers = dht->max_servers,
                                          .max_catalogs = dht->max_catalogs};
    return agent_create(&loop->agent, &options, moment_now());
}

static int start_watch(struct loop *loop, const struct config *config)
{
    uint64_t period_ns = (uint64_t)(config->dht.update_period * (double)NS_PER_S);
    if (!loop->endpoint)
        return 0;
    if (period_ns > WATCH_PERIOD_MS * NS_PER_MS)
        period_ns = WATCH_PERIOD_MS * NS_PER_MS;
    return watch_create(&loop->watch, loop->context, config->dht.frontend, &loop->guard, period_ns, moment_now());
}

int loop_create(struct loop **loop, const struct config *config, int owner_fd)
{
    struct loop *made = calloc(1, sizeof *made);
    char text[SERVER_ID_TEXT], address[CONTACT_TEXT];
    *loop = NULL;
    if (!made)
        return -ENOMEM;
    made->network_id = (uint32_t)config->dht.network_id;
    made->config = config;
    made->owner_fd = owner_fd;
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
    int rc = guard_open(&made->guard, &config->server);
    /* Strangers connect to this process, and it to them; look-ups alone may be encrypted. */
    gate_set(MESSAGE_FRAMES, MESSAGE_BYTES, guard_is_on(&made->guard), ASKERS_KEPT_BYTES_MAX);
    if (rc == 0)
        made->context = zmq_ctx_new();
    if (rc == 0 && !made->context)
        rc = -ENOMEM;
    if (rc == 0)
        rc = guard_watch(&made->guard, made->context);
    if (rc == 0 && config->dht.trusted.count)
        rc = trust_create(&made->trust, &config->dht.trusted);
    if (rc == 0 && config->dht.voucher[0] && (rc = voucher_parse(&made->voucher, config->dht.voucher)) < 0)
        log_error("dht.voucher is none: it has %d hexadecimal digits, and expertd-dht --vouch makes it",
                  VOUCHER_TEXT - 1);
    if (rc == 0)
        rc = start_agent(made, config);
    if (rc == 0 && config->dht.voucher[0] && !voucher_holds(&made->voucher, identity_id(made->agent->identity))) {
        log_error("dht.voucher is for another server: this one's id is that of its dht.identity_file");
        rc = -EINVAL;
    }
    if (rc == 0)
        rc = service_create(&made->service, made->context, config->dht.listen, &made->guard, &made->agent->cache,
                            fill_status, made);
    if (rc == 0)
        rc = start_watch(made, config);
    if (rc != 0) {
        loop_destroy(&made);
        return rc;
    }
    const struct contact at = engine_address(made->agent->engine);
    log_info("DHT node at UDP %s, look-ups at %s, server id %s", contact_format(&at, address), config->dht.listen,
             server_id_format(identity_id(made->agent->identity), text));
    if (made->endpoint)
        log_info("publishing %s; other directories ask at TCP port %u", made->endpoint,
                 (unsigned)publisher_port(made->agent->publisher));
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
    agent_destroy(&old->agent);
    if (old->context)
        zmq_ctx_term(old->context);
    guard_close(&old->guard);
    trust_destroy(&old->trust);
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
            publisher_confirm(publisher, watch_confirmed_ns(loop->watch), now);
        if (news == WATCH_LOST)
            publisher_lose(publisher, now);
        if (news == WATCH_CHANGED) {
            struct catalog catalog = watch_take(loop->watch);
            log_info("the frontend hosts %llu experts, %llu of them alive", (unsigned long long)catalog.experts,
                     (unsigned long long)catalog.alive);
            if (publisher_set(publisher, &catalog, watch_confirmed_ns(loop->watch), now) != 0)
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

static void say_ended(struct loop *loop)
{
    static struct log_burst burst;
    const uint64_t ended = gate_ended();
    if (ended == loop->ended_said || !log_burst_allows(&burst, NULL, NULL))
        return;
    log_warning("ended %llu connections on which a message had more than %d frames or %d MiB, or no ZMTP 2 or 3 was "
                "spoken",
                (unsigned long long)(ended - loop->ended_said), MESSAGE_FRAMES, MESSAGE_BYTES >> 20);
    loop->ended_said = ended;
}

/* The run folder may have been emptied, and another process have taken the role under the lock's name. */
static int keep_role(struct loop *loop, struct moment now, uint64_t *due_ns)
{
    static const uint64_t period_ns = 500 * NS_PER_MS;
    const struct config_server *server = &loop->config->server;
    if (now.ns >= loop->next_owner_ns) {
        loop->next_owner_ns = now.ns + period_ns;
        if (owner_keep(&loop->owner_fd, server->run_dir, server->name, "dht") == -EBUSY)
            return -EBUSY;
        service_keep(loop->service);
        say_ended(loop);
    }
    *due_ns = sooner(*due_ns, loop->next_owner_ns);
    return 0;
}

/* Two servers with one identity would be taken for one that moves. */
static bool ends_for_twin(struct loop *loop)
{
    char text[CONTACT_TEXT];
    const struct server *twin = agent_twin(loop->agent);
    if (!twin)
        return false;
    log_error(
        "the server at %s has the same identity, and started before this one: dht.identity_file is a copy of its. "
        "Remove it, and a new one is made",
        contact_format(&twin->contact, text));
    publisher_leave(loop->agent->publisher, moment_now());
    return true;
}

int loop_run(struct loop *loop)
{
    zmq_pollitem_t items[3 + AGENT_POLL_ITEMS] = {
        {.fd = process_stop_fd(), .events = ZMQ_POLLIN},
        {.socket = service_socket(loop->service), .events = ZMQ_POLLIN},
    };
    int count = 2;
    if (loop->watch)
        items[count++] = (zmq_pollitem_t){.socket = watch_socket(loop->watch), .events = ZMQ_POLLIN};
    count += agent_poll_items(loop->agent, items + count);
    while (!process_stopping()) {
        const struct moment now = moment_now();
        notify_alive(now.ns);
        log_bursts_settle();
        uint64_t due_ns = step_watch(loop, now);
        due_ns = sooner(due_ns, agent_step(loop->agent, now));
        /* After the agent: what has come is there for those who wait. It may ask for more. */
        due_ns = sooner(due_ns, service_step(loop->service, moment_now()));
        due_ns = sooner(due_ns, agent_due_ns(loop->agent));
        if (ends_for_twin(loop))
            return -EEXIST;
        if (keep_role(loop, now, &due_ns) < 0)
            return -EBUSY;
        if (zmq_poll(items, count, timeout_ms(due_ns, moment_now())) < 0 && zmq_errno() != EINTR) {
            const int rc = -zmq_errno();
            log_error("cannot wait for events: %s", zmq_strerror(-rc));
            return rc;
        }
    }
    log_info("stopping");
    notify_stopping();
    if (loop->agent->publisher)
        publisher_leave(loop->agent->publisher, moment_now());
    return 0;
}
