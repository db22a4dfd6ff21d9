#include "dht/agent.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/log.h"

/* The high byte of a token says whose operation it is. */
enum { TAG_SHIFT = 56 };
static const uint64_t tag_mask = UINT64_C(0xff) << TAG_SHIFT;
static const uint64_t tag_cache = UINT64_C(1) << TAG_SHIFT;
static const uint64_t tag_publisher = UINT64_C(2) << TAG_SHIFT;
static const uint64_t tag_bootstrap = UINT64_C(3) << TAG_SHIFT;
static const uint64_t tag_lan = UINT64_C(5) << TAG_SHIFT;
static const uint64_t tag_twin = UINT64_C(4) << TAG_SHIFT;

static void find(void *context, const char *key, uint64_t token)
{
    struct agent *agent = context;
    engine_find(agent->engine, key, token);
    agent->asked = true;
}

static int start_engine(struct agent *agent, const struct agent_options *options)
{
    struct contact first;
    const struct engine_options engine = {
        .address = options->address,
        .port = options->port,
        .bootstrap = options->bootstrap_count && bootstrap_literal(options->bootstrap[0], &first) ? &first : NULL,
        .port_mapping = options->port_mapping,
    };
    return engine_start(&agent->engine, &engine);
}

/* Nobody is looked for. */
static bool is_single(const struct agent_options *options)
{
    return options->bootstrap_count == 0 && !options->lan;
}

static int start_reading(struct agent *agent, const struct agent_options *options)
{
    const struct servers_options servers = {.network_id = options->network_id,
                                            .max_servers = options->max_servers,
                                            .max_bytes = options->max_catalogs,
                                            .trust = options->trust,
                                            .own_instance = agent->instance};
    const struct cache_options cache = {.network_id = options->network_id,
                                        .max_entries = options->max_cache,
                                        .max_servers = options->max_servers,
                                        .single = is_single(options),
                                        .tokens_tag = tag_cache,
                                        .find = find,
                                        .context = agent};
    const int rc = servers_create(&agent->servers, options->context, &agent->world, &servers);
    cache_init(&agent->cache, &agent->world, agent->servers, &cache);
    return rc;
}

/* Of an endpoint that others may connect to. */
static uint16_t port_of(const char *endpoint)
{
    return (uint16_t)strtoul(strrchr(endpoint, ':') + 1, NULL, 10);
}

static int start_publishing(struct agent *agent, const struct agent_options *options, struct moment now)
{
    const struct publisher_options publishing = {.network_id = options->network_id,
                                                 .port = options->tcp_port,
                                                 .endpoint = options->endpoint,
                                                 .curve_key = options->curve_key,
                                                 .voucher = options->voucher,
                                                 .update_period_ns = options->update_period_ns,
                                                 .expiration_ns = options->expiration_ns,
                                                 .single = is_single(options),
                                                 .tokens_tag = tag_publisher,
                                                 .instance = agent->instance};
    if (!options->endpoint)
        return 0;
    const int rc = publisher_create(&agent->publisher, options->context, agent->engine, &agent->world, agent->identity,
                                    &publishing, now);
    if (rc != 0)
        return rc;
    if (options->frontend_port)
        engine_map_port(agent->engine, port_of(options->endpoint), options->frontend_port);
    const struct twin_options twin = {.network_id = options->network_id,
                                      .id = identity_id(agent->identity),
                                      .instance = agent->instance,
                                      .started_ms = publisher_started_ms(agent->publisher),
                                      .token = tag_twin,
                                      .find = find,
                                      .context = agent};
    twin_init(&agent->twin, agent->servers, &twin);
    return 0;
}

int agent_create(struct agent **agent, const struct agent_options *options, struct moment now)
{
    struct agent *made = calloc(1, sizeof *made);
    *agent = NULL;
    if (!made)
        return -ENOMEM;
    made->started_ns = now.ns;
    made->bootstrap_count = options->bootstrap_count;
    int rc = getrandom(made->instance, sizeof made->instance, 0) == (ssize_t)sizeof made->instance ? 0 : -EIO;
    if (rc == 0)
        rc = identity_create(&made->identity, options->identity_file);
    if (rc == 0)
        rc = bootstrap_create(&made->bootstrap, options->bootstrap, options->bootstrap_count, tag_bootstrap);
    if (rc == 0)
        rc = start_engine(made, options);
    if (rc == 0 && options->lan)
        rc = lan_create(&made->lan, options->network_id, engine_port(made->engine), tag_lan);
    if (rc == 0)
        rc = start_reading(made, options);
    if (rc == 0)
        rc = start_publishing(made, options, now);
    if (rc != 0)
        agent_destroy(&made);
    *agent = made;
    return rc;
}

void agent_destroy(struct agent **agent)
{
    struct agent *old = *agent;
    *agent = NULL;
    if (!old)
        return;
    if (old->servers)
        cache_destroy(&old->cache);
    twin_destroy(&old->twin);
    servers_destroy(&old->servers);
    publisher_destroy(&old->publisher);
    world_destroy(&old->world);
    bootstrap_destroy(&old->bootstrap);
    lan_destroy(&old->lan);
    engine_stop(&old->engine);
    identity_destroy(&old->identity);
    free(old);
}

int agent_poll_items(const struct agent *agent, zmq_pollitem_t items[AGENT_POLL_ITEMS])
{
    int count = 0;
    items[count++] = (zmq_pollitem_t){.fd = engine_fd(agent->engine), .events = ZMQ_POLLIN};
    items[count++] = (zmq_pollitem_t){.socket = servers_socket(agent->servers), .events = ZMQ_POLLIN};
    items[count++] = (zmq_pollitem_t){.socket = servers_monitor(agent->servers), .events = ZMQ_POLLIN};
    if (agent->publisher)
        items[count++] = (zmq_pollitem_t){.socket = publisher_socket(agent->publisher), .events = ZMQ_POLLIN};
    if (agent->lan)
        items[count++] = (zmq_pollitem_t){.socket = lan_socket(agent->lan), .events = ZMQ_POLLIN};
    return count;
}

/* ---- events --------------------------------------------------------------------------------------------------------
 */

static void on_connected(struct agent *agent, struct moment now)
{
    cache_on_connected(&agent->cache, now);
    if (agent->publisher)
        announcer_on_connected(publisher_announcer(agent->publisher));
    twin_on_connected(&agent->twin, now);
}

static void on_event(void *context, const struct engine_event *event, struct moment now)
{
    struct agent *agent = context;
    const uint64_t tag = event->token & tag_mask;
    switch (event->kind) {
    case ENGINE_PEERS:
        if (tag == tag_cache)
            cache_on_peers(&agent->cache, event->token, event->addresses, event->count, now);
        else if (tag == tag_twin)
            twin_on_peers(&agent->twin, event->addresses, event->count, now);
        break;
    case ENGINE_FOUND:
        if (tag == tag_cache)
            cache_on_found(&agent->cache, event->token, event->answered, event->silent, event->fullest, now);
        else if (tag == tag_twin)
            twin_on_found(&agent->twin);
        break;
    case ENGINE_ANNOUNCED:
        if (agent->publisher)
            announcer_on_announced(publisher_announcer(agent->publisher), event->token, event->answered, event->fullest,
                                   now);
        break;
    case ENGINE_MOVED:
        on_connected(agent, now);
        break;
    case ENGINE_KEPT:
        if (tag == tag_cache)
            cache_on_kept(&agent->cache, event->token, event->addresses, now);
        break;
    case ENGINE_PINGED:
        if (bootstrap_on_pinged(agent->bootstrap, event->token, event->answered > 0, now))
            on_connected(agent, now);
        if (tag == tag_lan && event->answered > 0 && !agent->lan_met) {
            agent->lan_met = true;
            on_connected(agent, now);
        }
        break;
    }
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

uint64_t agent_step(struct agent *agent, struct moment now)
{
    uint64_t next_ns = bootstrap_step(agent->bootstrap, agent->engine, now);
    if (agent->lan)
        lan_step(agent->lan, agent->engine, now);
    if (agent->publisher)
        next_ns = sooner(sooner(next_ns, publisher_step(agent->publisher, now)), twin_step(&agent->twin, now));
    next_ns = sooner(next_ns, servers_step(agent->servers, now));
    next_ns = sooner(next_ns, cache_step(&agent->cache, now));
    /* Last: it begins what the others have asked for; and what it brings, they take up at once. */
    agent->asked = false;
    next_ns = sooner(next_ns, engine_step(agent->engine, now, on_event, agent));
    return sooner(next_ns, servers_step(agent->servers, now));
}

const struct server *agent_twin(struct agent *agent)
{
    return agent->publisher ? twin_older(&agent->twin) : NULL;
}

uint64_t agent_due_ns(const struct agent *agent)
{
    return agent->asked ? 0 : UINT64_MAX;
}

bool agent_connected(const struct agent *agent)
{
    return (agent->bootstrap_count == 0 && !agent->lan) || engine_nodes(agent->engine) > 0;
}
