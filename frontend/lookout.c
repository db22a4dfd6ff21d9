#include "frontend/lookout.h"

#include <errno.h>

#include "common/clock.h"
#include "common/doorbell.h"
#include "common/log.h"
#include "common/owner.h"
#include "frontend/elsewhere.h"
#include "frontend/local.h"
#include "frontend/changes.h"
#include "frontend/results.h"
#include "frontend/roster.h"

/* How often the devices are looked at, while requests wait for one and while none does; how old what is told of them
 * may be; how often the own names are. */
static const uint64_t busy_ns = 50 * NS_PER_MS, idle_ns = 250 * NS_PER_MS, fresh_ns = NS_PER_MS,
                      names_ns = NS_PER_S / 2;

void lookout_device(struct server *server, struct device_link *device, uint64_t now_ns)
{
    const enum device_change change = device_link_look(device, now_ns);
    if (change == DEVICE_RETIRED)
        results_take_last(server, device);
    roster_change(server, device, change, now_ns);
}

/* How many requests wait for them. */
static uint32_t look_at_devices(struct server *server, uint64_t now_ns)
{
    uint32_t in_flight = 0;
    for (unsigned d = 0; d < server->devices_count; d++) {
        lookout_device(server, server->devices[d], now_ns);
        roster_grace(server, server->devices[d], now_ns);
        in_flight += server->devices[d]->in_flight;
    }
    server->looked_ns = now_ns;
    return in_flight;
}

/* When all is looked at next stays as it is: else who asks often enough would put it off for ever. */
void lookout_refresh(struct server *server, uint64_t now_ns)
{
    if (now_ns - server->looked_ns > fresh_ns)
        look_at_devices(server, now_ns);
}

static int look_at_names(struct server *server, uint64_t now_ns)
{
    static struct log_burst burst;
    const struct config_server *config = &server->config->server;
    if (now_ns < server->next_names_ns)
        return 0;
    server->next_names_ns = now_ns + names_ns;
    if (owner_keep(&server->owner_fd, config->run_dir, config->name, "frontend") == -EBUSY)
        return -EBUSY;
    if (elsewhere_look(server->elsewhere)) {
        server->list_generation++;
        if (elsewhere_outdated(server->elsewhere))
            changes_refresh_elsewhere(server);
    }
    local_keep(server->local);
    endpoint_keep(&server->endpoint);
    if (doorbell_fifo_keep(&server->bell_fd, config->run_dir, config->name) != 1)
        return 0;
    if (log_burst_allows(&burst, NULL, NULL))
        log_warning("the doorbell in '%s' was removed: made anew", config->run_dir);
    for (unsigned d = 0; d < server->devices_count; d++) {
        if (server->devices[d]->control)
            control_begin_epoch(server->devices[d]->control); /* the runtimes open it then */
    }
    return 0;
}

int lookout_look(struct server *server, uint64_t now_ns)
{
    log_bursts_settle();
    const uint32_t in_flight = look_at_devices(server, now_ns) + server->checkpoints.count + changes_running(server);
    server->next_look_ns = now_ns + (in_flight ? busy_ns : idle_ns);
    changes_bring(server);
    return look_at_names(server, now_ns);
}
