#include "frontend/moves.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/config_edit.h"
#include "common/log.h"
#include "common/uid.h"
#include "frontend/device_link.h"
#include "frontend/task_end.h"

static const uint64_t again_ns = 10 * NS_PER_S;

/* A device, as one that may be lost. */
struct loss {
    uint64_t since_ns; /* it is; 0: it is not */
    uint64_t next_ns;  /* not before */
    size_t most;       /* that go at once */
    size_t proposed, left;
};

struct moves {
    struct server *server;
    struct loss *losses;
};

/* Experts and where they go. */
struct plan {
    struct config_move *items;
    size_t count, capacity;
    char ***lists; /* whose strings the uids are, by entry */
    unsigned lists_count;
    uint32_t *room; /* free slots, by device */
    size_t left;    /* that have no room, or are too many for now */
};

int moves_create(struct moves **moves, struct server *server)
{
    struct moves *made = *moves = calloc(1, sizeof *made);
    if (!made)
        return -ENOMEM;
    made->server = server;
    made->losses = calloc((size_t)server->config->devices_count + 1, sizeof *made->losses);
    if (made->losses)
        return 0;
    free(made);
    *moves = NULL;
    return -ENOMEM;
}

void moves_destroy(struct moves **moves)
{
    if (*moves)
        free((*moves)->losses);
    free(*moves);
    *moves = NULL;
}

/* --- who goes where --------------------------------------------------------------------------------------------------
 */

static void plan_free(struct plan *plan)
{
    for (unsigned i = 0; i < plan->lists_count; i++)
        free(plan->lists[i]);
    free(plan->lists);
    free(plan->items);
    free(plan->room);
    *plan = (struct plan){0};
}

static void look_for_room(const struct server *server, struct plan *plan)
{
    for (uint32_t d = 0; d < server->devices_count; d++) {
        const struct device_link *device = server->devices[d];
        if (device->state == DEVICE_UP)
            plan->room[d] = device->experts_count - device_link_count(device);
    }
}

static bool takes(const struct server *server, uint32_t device, const struct config_expert *expert)
{
    const struct config_device *is = config_find_device(server->live, server->devices[device]->name);
    return !is || config_device_takes(is, config_find_device(server->live, expert->device), expert);
}

/* The device with the most room that can have it; -1: none has any. */
static int roomiest(const struct server *server, const struct plan *plan, const struct config_expert *expert)
{
    int best = -1;
    for (uint32_t d = 0; d < server->devices_count; d++)
        if (plan->room[d] > 0 && (best < 0 || plan->room[d] > plan->room[best]) && takes(server, d, expert))
            best = (int)d;
    return best;
}

static int place(const struct server *server, struct plan *plan, const struct config_expert *expert, const char *uid,
                 size_t most)
{
    const int device = plan->count < most ? roomiest(server, plan, expert) : -1;
    if (device < 0) {
        plan->left++;
        return 0;
    }
    if (plan->count == plan->capacity) {
        const size_t capacity = plan->capacity ? 2 * plan->capacity : 64;
        struct config_move *items = realloc(plan->items, capacity * sizeof *items);
        if (!items)
            return -ENOMEM;
        plan->items = items;
        plan->capacity = capacity;
    }
    plan->room[device]--;
    plan->items[plan->count++] = (struct config_move){.uid = uid, .device = server->devices[device]->name};
    return 0;
}

static int plan_make(const struct server *server, struct plan *plan, const char *lost, size_t most)
{
    const struct config *live = server->live;
    *plan = (struct plan){.lists = calloc((size_t)live->experts_count + 1, sizeof *plan->lists),
                          .room = calloc((size_t)server->devices_count + 1, sizeof *plan->room)};
    int rc = plan->lists && plan->room ? 0 : -ENOMEM;
    if (rc == 0)
        look_for_room(server, plan);
    for (unsigned e = 0; e < live->experts_count && rc == 0; e++) {
        uint64_t count = 0;
        if (strcmp(live->experts[e].device, lost) != 0)
            continue;
        rc = config_expert_uids(&live->experts[e], &plan->lists[plan->lists_count], &count);
        for (uint64_t u = 0; u < count && rc == 0; u++)
            rc = place(server, plan, &live->experts[e], plan->lists[plan->lists_count][u], most);
        plan->lists_count += rc == 0 || count > 0;
    }
    return rc;
}

/* --- when ------------------------------------------------------------------------------------------------------------
 */

/* It has been lost for as long as what was queued waits for a restart. */
static bool due(const struct server *server, uint32_t d, struct loss *loss, uint64_t now_ns)
{
    if (!device_link_lost(server->devices[d])) {
        /* While its runtime tries to start, it may come back; when it is up, it has. */
        if (server->devices[d]->state == DEVICE_UP)
            *loss = (struct loss){0};
        return false;
    }
    if (loss->since_ns == 0)
        *loss = (struct loss){.since_ns = now_ns, .most = SIZE_MAX};
    return now_ns - loss->since_ns >= server->config->frontend.restart_grace * NS_PER_MS && now_ns >= loss->next_ns;
}

static int propose(const struct server *server, uint32_t d, struct loss *loss, char **text)
{
    struct plan plan;
    char why[CONFIG_EDIT_WHY_SIZE] = "no memory";
    int rc = plan_make(server, &plan, server->devices[d]->name, loss->most);
    const size_t count = plan.count, left = plan.left;
    if (rc == 0 && count > 0)
        rc = config_edit_move(server->live, plan.items, count, text, why);
    plan_free(&plan);
    loss->proposed = count;
    loss->left = left;
    if (rc < 0)
        log_error("the experts of the lost device '%s' cannot be given to others: %s", server->devices[d]->name, why);
    return rc < 0 ? rc : count > 0;
}

int moves_propose(struct moves *moves, uint64_t now_ns, uint32_t *lost, char **text)
{
    static struct log_burst burst;
    struct server *server = moves->server;
    if (strcmp(server->config->server.on_device_loss, "move") != 0)
        return 0;
    for (uint32_t d = 0; d < server->devices_count; d++) {
        struct loss *loss = &moves->losses[d];
        if (!due(server, d, loss, now_ns))
            continue;
        const int rc = propose(server, d, loss, text);
        *lost = d;
        if (rc > 0)
            return rc;
        loss->next_ns = now_ns + again_ns;
        loss->most = SIZE_MAX;
        if (rc < 0)
            return rc;
        if (loss->left > 0 && log_burst_allows(&burst, NULL, server->devices[d]->name))
            log_warning("device '%s' is lost, and no other has room for its %zu experts (spare_experts)",
                        server->devices[d]->name, loss->left);
    }
    return 0;
}

void moves_refused(struct moves *moves, uint32_t lost, enum status status, const char *why, uint64_t now_ns)
{
    static struct log_burst burst;
    struct loss *loss = &moves->losses[lost];
    unsigned left_out = 0;
    if (log_burst_allows(&burst, &left_out, why))
        log_warning("%zu experts of the lost device '%s' cannot go to others yet: %s (%u more like it)", loss->proposed,
                    moves->server->devices[lost]->name, why, left_out);
    /* What has no memory for all may have it for some. */
    if (status == STATUS_RESOURCE_EXHAUSTED && loss->proposed > 1)
        loss->most = loss->proposed / 2;
    else
        loss->next_ns = now_ns + (status == STATUS_RESOURCE_EXHAUSTED ? again_ns : NS_PER_S);
}

void moves_done(struct moves *moves, uint32_t lost)
{
    struct server *server = moves->server;
    struct device_link *device = server->devices[lost];
    struct loss *loss = &moves->losses[lost];
    for (uint32_t e = 0; e < device->experts_count; e++) {
        char uid[UID_SIZE];
        if (!device_link_has(device, e))
            continue;
        control_expert_uid(control_expert(device->control, e), uid);
        const struct expert_place *now = expert_table_find(server->experts, uid);
        if (now && now->device != lost)
            task_end_expert(server, device, e, "the expert's device was lost, and it is on another one now");
    }
    log_warning("device '%s' is lost: %zu of its experts are on other devices now, as their last checkpoints have "
                "them; %zu still wait",
                device->name, loss->proposed, loss->left);
    if (!server->config->checkpoint.dir[0])
        log_warning("checkpoint.dir is empty: what they had learned is lost, they began anew");
}
