#include "dht/agent.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

/* The high byte of a token says whose operation it is. */
enum { TAG_SHIFT = 56 };
static const uint64_t tag_mask = UINT64_C(0xff) << TAG_SHIFT;
static const uint64_t tag_cache = UINT64_C(1) << TAG_SHIFT;
static const uint64_t tag_publisher = UINT64_C(2) << TAG_SHIFT;
static const uint64_t tag_bootstrap = UINT64_C(3) << TAG_SHIFT;
static const uint64_t tag_own = UINT64_C(4) << TAG_SHIFT;

static const uint64_t silence_ns = 150 * NS_PER_S; /* two pings of a bootstrap address that answers, and some */

static int engine_get(void *context, const char *key, uint64_t token)
{
    return node_get(((struct agent *)context)->node, key, token);
}

static int engine_listen(void *context, const char *key, uint64_t token, void **listening)
{
    struct node_listening *made;
    const int rc = node_listen(((struct agent *)context)->node, key, token, &made);
    *listening = made;
    return rc;
}

static void engine_unlisten(void *context, void **listening)
{
    struct node_listening *old = *listening;
    node_unlisten(((struct agent *)context)->node, &old);
    *listening = NULL;
}

static void engine_local(void *context, const char *key, struct moment now)
{
    const struct agent *agent = context;
    if (agent->publisher)
        publisher_repeat(agent->publisher, key, now);
}

static void on_published(void *context, const char *prefix, const uint8_t *value, size_t size, struct moment now)
{
    struct agent *agent = context;
    cache_on_own(&agent->cache, prefix, identity_id(agent->identity), value, size, now);
}

static int start_publishing(struct agent *agent, const struct agent_options *options, struct moment now)
{
    const struct publisher_options publishing = {.endpoint = options->endpoint,
                                                 .update_period_ns = options->update_period_ns,
                                                 .expiration_ns = options->expiration_ns,
                                                 .published = on_published,
                                                 .context = agent};
    char key[HEARTBEAT_KEY_SIZE];
    if (!options->endpoint)
        return 0;
    int rc = publisher_create(&agent->publisher, agent->node, agent->identity, &publishing, tag_publisher, now);
    heartbeat_key(identity_id(agent->identity), key);
    if (rc == 0)
        rc = node_listen(agent->node, key, tag_own, &agent->own);
    return rc;
}

int agent_create(struct agent **agent, const struct agent_options *options, struct moment now)
{
    struct agent *made = calloc(1, sizeof *made);
    *agent = NULL;
    if (!made)
        return -ENOMEM;
    made->started_ns = now.ns;
    made->bootstrap_count = options->bootstrap_count;
    int rc = identity_create(&made->identity, options->identity_file);
    if (rc == 0)
        rc = node_start(&made->node, &options->node);
    const struct fetch_engine engine = {made, engine_get, engine_listen, engine_unlisten, engine_local};
    cache_init(&made->cache, &engine, tag_cache, options->max_cache);
    if (rc == 0)
        rc =
            bootstrap_create(&made->bootstrap, made->node, options->bootstrap, options->bootstrap_count, tag_bootstrap);
    if (rc == 0)
        rc = start_publishing(made, options, now);
    if (rc != 0)
        agent_destroy(&made, 0);
    *agent = made;
    return rc;
}

void agent_destroy(struct agent **agent, unsigned bound_ms)
{
    struct agent *old = *agent;
    *agent = NULL;
    if (!old)
        return;
    cache_destroy(&old->cache);
    bootstrap_destroy(&old->bootstrap);
    if (old->node)
        node_unlisten(old->node, &old->own);
    publisher_destroy(&old->publisher);
    node_stop(&old->node, bound_ms);
    identity_destroy(&old->identity);
    free(old);
}

int agent_fd(const struct agent *agent)
{
    return node_fd(agent->node);
}

/* ---- events --------------------------------------------------------------------------------------------------------
 */

static void on_connected(struct agent *agent, struct moment now)
{
    cache_on_connected(&agent->cache, now);
    if (agent->publisher)
        publisher_on_connected(agent->publisher, now);
}

static void dispatch(struct agent *agent, const struct node_event *event, struct moment now)
{
    const uint64_t tag = event->token & tag_mask;
    if (event->ok && event->kind != NODE_VALUE && event->kind != NODE_EXPIRED)
        agent->answered_ns = now.ns;
    if (tag == tag_cache) {
        if (event->kind == NODE_GOT)
            cache_on_got(&agent->cache, event->token, event->ok, now);
        else
            cache_on_value(&agent->cache, event->token, event->kind == NODE_EXPIRED, event->data, event->size, now);
    } else if (tag == tag_publisher && agent->publisher) {
        publisher_on_put(agent->publisher, event->token, event->ok);
    } else if (tag == tag_own && agent->publisher && event->kind == NODE_VALUE) {
        publisher_on_own(agent->publisher, event->data, event->size, now);
    } else if (tag == tag_bootstrap && bootstrap_on_pinged(agent->bootstrap, event->token, event->ok, now)) {
        on_connected(agent, now);
    }
}

/* The values of one get come oldest first, and all but the newest are of no use: so a run of them is taken backwards,
 * and no signature but the newest's is checked. Returns what follows the run. */
static struct node_event *reverse_run(struct node_event **first)
{
    struct node_event *reversed = NULL;
    struct node_event *event = *first;
    const uint64_t token = event->token;
    while (event && event->kind == NODE_VALUE && event->token == token) {
        struct node_event *next = event->next;
        event->next = reversed;
        reversed = event;
        event = next;
    }
    *first = reversed;
    return event;
}

static void take_events(struct agent *agent, struct moment now)
{
    struct node_event *event = node_take(agent->node);
    while (event) {
        struct node_event *run = event;
        if (event->kind == NODE_VALUE) {
            event = reverse_run(&run);
        } else {
            event = event->next;
            run->next = NULL;
        }
        for (struct node_event *next; run; run = next) {
            next = run->next;
            dispatch(agent, run, now);
            free(run);
        }
    }
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

uint64_t agent_step(struct agent *agent, struct moment now)
{
    take_events(agent, now);
    cache_set_alone(&agent->cache, agent->bootstrap_count > 0 && agent->answered_ns == 0);
    uint64_t next_ns = cache_tick(&agent->cache, now);
    next_ns = sooner(next_ns, bootstrap_step(agent->bootstrap, now));
    if (agent->publisher)
        next_ns = sooner(next_ns, publisher_step(agent->publisher, now));
    return next_ns;
}

bool agent_connected(const struct agent *agent, struct moment now)
{
    return agent->bootstrap_count == 0 || (agent->answered_ns && now.ns - agent->answered_ns < silence_ns);
}
