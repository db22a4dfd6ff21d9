#include "frontend/roster.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/notify.h"
#include "frontend/checkpoint.h"
#include "frontend/task_end.h"
#include "proto/codec.h"

static void place_configured(struct server *server, uint32_t device)
{
    const struct config *config = server->live;
    for (unsigned e = 0; e < config->experts_count; e++) {
        char **uids = NULL;
        uint64_t count = 0;
        if (strcmp(config->experts[e].device, server->devices[device]->name) != 0 ||
            config_expert_uids(&config->experts[e], &uids, &count) < 0)
            continue;
        const int codec = codec_of_name(config->experts[e].compression); /* the configuration was checked */
        for (uint64_t u = 0; u < count; u++) {
            if (expert_table_set(server->experts, uids[u], device, EXPERT_ABSENT) == 0)
                expert_table_advise(server->experts, uids[u], codec < 0 ? CODEC_NONE : (uint32_t)codec);
        }
        free(uids);
    }
}

/* A dead runtime's expert that was given to another device since. */
static bool moved(const struct server *server, uint32_t d, const char *uid)
{
    const struct expert_place *place = expert_table_find(server->experts, uid);
    return server->devices[d]->state == DEVICE_DEAD && place && place->configured && place->device != d;
}

static void place_attached(struct server *server, uint32_t d)
{
    struct device_link *device = server->devices[d];
    device->experts_placed = 0;
    for (uint32_t e = 0; e < device->experts_count; e++) {
        char uid[UID_SIZE];
        if (!device_link_has(device, e))
            continue;
        control_expert_uid(control_expert(device->control, e), uid);
        if (moved(server, d, uid))
            continue;
        const int rc = uid_valid(uid) ? expert_table_set(server->experts, uid, d, e) : -EINVAL;
        if (rc == 0)
            device->experts_placed++;
        else if (rc == -EEXIST)
            log_warning("expert %s is on device '%s' and on another one; requests go to the other one", uid,
                        device->name);
    }
}

void roster_close(struct server *server)
{
    for (size_t i = 0; i < server->closing.count; i++)
        expert_table_close(server->experts, server->closing.uids[i]);
    server->list_generation++;
}

void roster_rebuild(struct server *server)
{
    expert_table_clear(server->experts);
    for (uint32_t d = 0; d < server->devices_count; d++)
        place_configured(server, d);
    for (uint32_t d = 0; d < server->devices_count; d++)
        place_attached(server, d);
    roster_close(server);
}

static void detach(struct server *server, struct device_link *device, uint64_t now_ns)
{
    char text[128];
    snprintf(text, sizeof text, "the runtime of device '%s' has stopped", device->name);
    task_fail_device(server, device, STATUS_UNAVAILABLE, text);
    task_forget_device(server, device);
    device_link_detach(device, now_ns);
    roster_rebuild(server);
    checkpoint_look(server);
    log_info("%s", text);
}

static void tell_status(const struct server *server)
{
    const struct config *config = server->config;
    unsigned up = 0;
    for (unsigned d = 0; d < server->devices_count; d++)
        up += server->devices[d]->state == DEVICE_UP;
    notify_status("answers at %s, %u of %u devices up",
                  config->frontend.listen.count ? config->frontend.listen.items[0] : "no endpoint", up,
                  server->devices_count);
}

void roster_change(struct server *server, struct device_link *device, enum device_change change, uint64_t now_ns)
{
    char text[128];
    switch (change) {
    case DEVICE_SAME:
        break;
    case DEVICE_ATTACHED:
        roster_rebuild(server);
        log_info("device '%s' is %s with %" PRIu32 " experts", device->name, device_state_name(device->state),
                 device_link_count(device));
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
        task_fail_device(server, device, STATUS_UNAVAILABLE, device_link_refusal(device, text, sizeof text));
        break;
    case DEVICE_CHANGED:
        for (uint32_t e = 0; e < device->experts_count; e++)
            if (!device_link_has(device, e))
                task_end_expert(server, device, e, "the expert was unloaded");
        roster_rebuild(server);
        break;
    case DEVICE_REVIVED:
        log_info("the runtime of device '%s' is back", device->name);
        break;
    case DEVICE_RETIRED:
        detach(server, device, now_ns);
        break;
    }
    if (change == DEVICE_SAME)
        return;
    server->list_generation++;
    tell_status(server);
}

void roster_grace(struct server *server, struct device_link *device, uint64_t now_ns)
{
    char text[128];
    if (device->state == DEVICE_DEAD && device->in_flight > 0 &&
        now_ns - device->state_since_ns >= server->config->frontend.restart_grace * NS_PER_MS)
        task_fail_device(server, device, STATUS_UNAVAILABLE, device_link_refusal(device, text, sizeof text));
}
