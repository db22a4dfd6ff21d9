#include "frontend/roster.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "frontend/checkpoint.h"
#include "frontend/task.h"

/* How often the devices are looked at, while requests wait for one and while none does. */
static const uint64_t look_busy_ns = 50 * NS_PER_MS, look_idle_ns = 250 * NS_PER_MS;

const char *roster_refusal(const struct device_link *device, char *text, size_t size)
{
    switch (device->state) {
    case DEVICE_UP:
        return NULL;
    case DEVICE_ABSENT:
        snprintf(text, size, "the runtime of device '%s' is not up", device->name);
        break;
    case DEVICE_DEAD:
        snprintf(text, size, "the runtime of device '%s' died and is not back yet", device->name);
        break;
    case DEVICE_HUNG:
        snprintf(text, size, "the runtime of device '%s' hangs: it has work but finishes nothing", device->name);
        break;
    }
    return text;
}

static void place_configured(struct server *server, uint32_t device)
{
    const struct config *config = server->config;
    for (unsigned e = 0; e < config->experts_count; e++) {
        char **uids = NULL;
        uint64_t count = 0;
        if (config_find_device(config, config->experts[e].device) != &config->devices[device] ||
            config_expert_uids(&config->experts[e], &uids, &count) < 0)
            continue;
        for (uint64_t u = 0; u < count; u++)
            (void)expert_table_set(server->experts, uids[u], device, EXPERT_ABSENT);
        free(uids);
    }
}

static void place_attached(struct server *server, uint32_t d)
{
    struct device_link *device = server->devices[d];
    device->experts_placed = 0;
    for (uint32_t e = 0; e < device->experts_count; e++) {
        char uid[UID_SIZE];
        memcpy(uid, control_expert(device->control, e)->uid, sizeof uid);
        uid[sizeof uid - 1] = 0;
        const int rc = uid_valid(uid) ? expert_table_set(server->experts, uid, d, e) : -EINVAL;
        if (rc == 0)
            device->experts_placed++;
        else if (rc == -EEXIST)
            log_warning("expert %s is on device '%s' and on another one; requests go to the other one", uid,
                        device->name);
    }
}

void roster_rebuild(struct server *server)
{
    expert_table_clear(server->experts);
    for (uint32_t d = 0; d < server->devices_count; d++)
        place_configured(server, d);
    for (uint32_t d = 0; d < server->devices_count; d++)
        place_attached(server, d);
    server->list_generation++;
}

struct visit {
    struct server *server;
    struct device_link *device;
    uint32_t results;
};

static struct pool_link *link_of(uint32_t pool, void *context)
{
    const struct visit *visit = context;
    return visit->device->pools[pool];
}

static void fetch_link(uint32_t pool, void *context)
{
    __builtin_prefetch(link_of(pool, context));
}

static void fetch_pool(uint32_t pool, void *context)
{
    const struct pool_link *link = link_of(pool, context);
    if (link) {
        pool_prefetch_handle(link->pool);
        __builtin_prefetch(link->requests.first, 1);
    }
}

static void fetch_shared(uint32_t pool, void *context)
{
    const struct pool_link *link = link_of(pool, context);
    if (link)
        pool_prefetch_shared(link->pool);
}

static void visit_pool(uint32_t pool, void *context)
{
    struct visit *visit = context;
    struct pool_link *link = visit->device->pools[pool];
    if (link)
        visit->results += task_results(visit->server, link);
}

static control_visit *const stages[] = {fetch_link, fetch_pool, fetch_shared, visit_pool};

static void detach(struct server *server, struct device_link *device, uint64_t now_ns)
{
    char text[128];
    /* The runtime finished what it had before it left. */
    struct visit visit = {server, device, 0};
    for (uint32_t p = 0; p < 2 * device->experts_count; p++)
        visit_pool(p, &visit);
    snprintf(text, sizeof text, "the runtime of device '%s' has stopped", device->name);
    task_fail_device(server, device, STATUS_UNAVAILABLE, text);
    task_forget_device(server, device);
    device_link_detach(device, now_ns);
    roster_rebuild(server);
    checkpoint_look(server);
    log_info("%s", text);
}

static void on_change(struct server *server, struct device_link *device, enum device_change change, uint64_t now_ns)
{
    char text[128];
    switch (change) {
    case DEVICE_SAME:
        break;
    case DEVICE_ATTACHED:
        roster_rebuild(server);
        log_info("device '%s' is %s with %" PRIu32 " experts", device->name, device_state_name(device->state),
                 device->experts_count);
        break;
    case DEVICE_DIED:
        log_warning("the runtime of device '%s' died with %" PRIu32 " requests; they wait %" PRIu64
                    " ms for its restart",
                    device->name, device->in_flight, server->config->frontend.restart_grace);
        break;
    case DEVICE_STALLED:
        log_warning("the runtime of device '%s' has finished nothing for %" PRIu64 " ms; %" PRIu32
                    " requests are answered UNAVAILABLE",
                    device->name, server->config->frontend.stall_timeout, device->in_flight);
        task_fail_device(server, device, STATUS_UNAVAILABLE, roster_refusal(device, text, sizeof text));
        break;
    case DEVICE_REVIVED:
        log_info("the runtime of device '%s' is back", device->name);
        break;
    case DEVICE_RETIRED:
        detach(server, device, now_ns);
        break;
    }
    if (change != DEVICE_SAME)
        server->list_generation++;
}

static void look_at(struct server *server, struct device_link *device, uint64_t now_ns)
{
    on_change(server, device, device_link_look(device, now_ns), now_ns);
}

bool roster_take_results(struct server *server)
{
    uint32_t results = 0;
    for (unsigned d = 0; d < server->devices_count; d++) {
        struct visit visit = {server, server->devices[d], 0};
        /* A new runtime has answered what the dead one left: whoever is told so may come with more at once. */
        if (visit.device->state == DEVICE_DEAD && control_any_done(visit.device->control))
            look_at(server, visit.device, clock_now_ns());
        if (visit.device->control)
            control_take_done(visit.device->control, stages, sizeof stages / sizeof stages[0], &visit);
        results += visit.results;
    }
    return results > 0;
}

void roster_look(struct server *server, uint64_t now_ns)
{
    uint32_t in_flight = server->checkpoints.count;
    for (unsigned d = 0; d < server->devices_count; d++) {
        struct device_link *device = server->devices[d];
        look_at(server, device, now_ns);
        char text[128];
        if (device->state == DEVICE_DEAD && device->in_flight > 0 &&
            now_ns - device->state_since_ns >= server->config->frontend.restart_grace * NS_PER_MS)
            task_fail_device(server, device, STATUS_UNAVAILABLE, roster_refusal(device, text, sizeof text));
        in_flight += device->in_flight;
    }
    server->next_look_ns = now_ns + (in_flight ? look_busy_ns : look_idle_ns);
}
