#include "frontend/change.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/config_live.h"
#include "frontend/device_link.h"
#include "frontend/roster.h"

/* A runtime's part in it. */
struct part {
    bool asked;
    uint64_t generation; /* of its segments, when it was */
};

struct change {
    struct server *server;
    enum change_stage stage;
    struct part *parts; /* by device */
    uint32_t only, lost;
    uint64_t number;
    enum status status;
    char why[CONTROL_WHY_SIZE];
};

int change_create(struct change **change, struct server *server)
{
    struct change *made = *change = calloc(1, sizeof *made);
    if (!made)
        return -ENOMEM;
    made->server = server;
    made->parts = calloc((size_t)server->config->devices_count + 1, sizeof *made->parts);
    if (made->parts)
        return 0;
    free(made);
    *change = NULL;
    return -ENOMEM;
}

static void forget_closing(struct server *server)
{
    for (size_t i = 0; i < server->closing.count; i++)
        free(server->closing.uids[i]);
    free(server->closing.uids);
    server->closing.uids = NULL;
    server->closing.count = 0;
}

void change_leave(struct change *change)
{
    forget_closing(change->server);
    change->stage = CHANGE_IDLE;
    for (unsigned d = 0; d < change->server->config->devices_count; d++)
        change->parts[d].asked = false;
}

void change_destroy(struct change **change)
{
    struct change *old = *change;
    *change = NULL;
    if (!old)
        return;
    forget_closing(old->server);
    free(old->parts);
    free(old);
}

enum change_stage change_stage(const struct change *change)
{
    return change->stage;
}

enum status change_status(const struct change *change)
{
    return change->status;
}

const char *change_why(const struct change *change)
{
    return change->why;
}

void change_reset(struct change *change)
{
    change->status = STATUS_OK;
    change->why[0] = 0;
}

void change_refuse(struct change *change, enum status status, const char *why)
{
    if (change->status != STATUS_OK)
        return;
    change->status = status;
    snprintf(change->why, sizeof change->why, "%.*s", (int)sizeof change->why - 1, why);
}

void change_abort(struct change *change)
{
    struct server *server = change->server;
    for (unsigned d = 0; d < server->devices_count; d++)
        if (change->parts[d].asked && server->devices[d]->control)
            control_change_ask(server->devices[d]->control, change->number, CONTROL_ABORT);
    change_leave(change);
    roster_rebuild(server);
}

static enum change_event refused(struct change *change)
{
    change_abort(change);
    return CHANGE_REFUSED;
}

/* --- the runtimes' parts ---------------------------------------------------------------------------------------------
 */

/* The device as it was when it was asked: it is there, and its segments are the same. */
static bool still_there(const struct change *change, unsigned d, char *text, size_t size)
{
    const struct device_link *device = change->server->devices[d];
    const char *refusal = device_link_refusal(device, text, size);
    if (!refusal && control_generation(device->control) == change->parts[d].generation)
        return true;
    if (!refusal)
        snprintf(text, size, "the runtime of device '%s' began anew meanwhile", device->name);
    return false;
}

static bool concerns(const struct change *change, unsigned d)
{
    return (change->only == CHANGE_ALL || change->only == d) && change->server->devices[d]->state == DEVICE_UP;
}

/* Who is there takes part. */
static void enlist(struct change *change)
{
    struct server *server = change->server;
    for (unsigned d = 0; d < server->devices_count; d++) {
        change->parts[d].asked = concerns(change, d);
        if (change->parts[d].asked)
            change->parts[d].generation = control_generation(server->devices[d]->control);
    }
}

static void ask(struct change *change, enum control_phase phase)
{
    struct server *server = change->server;
    for (unsigned d = 0; d < server->devices_count; d++)
        if (change->parts[d].asked && server->devices[d]->control)
            control_change_ask(server->devices[d]->control, change->number, phase);
}

/* As a runtime says it. */
static enum status known_status(uint32_t status)
{
    return strcmp(status_name((enum status)status), "UNKNOWN") == 0 ? STATUS_INTERNAL : (enum status)status;
}

/* --- the stages ------------------------------------------------------------------------------------------------------
 */

void change_begin(struct change *change, char **closing, size_t closing_count, uint32_t only, uint32_t lost)
{
    change->server->closing.uids = closing;
    change->server->closing.count = closing_count;
    change->only = only;
    change->lost = lost;
    enlist(change);
    roster_close(change->server);
    change->stage = CHANGE_CLOSING;
}

/* Whether nothing of the expert is in its pools; then they are let go of. */
static bool close_expert(struct server *server, const char *uid)
{
    const struct expert_place *place = expert_table_find(server->experts, uid);
    if (!place || place->expert == EXPERT_ABSENT)
        return true;
    struct device_link *device = server->devices[place->device];
    for (uint32_t p = 2 * place->expert; p < 2 * place->expert + 2; p++) {
        const struct pool_link *link = device->pools[p];
        if (link && (link->requests.count > 0 || link->parked.count > 0 || pool_tasks_held(link->pool) > 0))
            return false;
    }
    device_link_close(device, place->expert);
    return true;
}

/* All experts that go are empty: asks the runtimes. */
static enum change_event close_all(struct change *change)
{
    bool empty = true;
    char text[128];
    for (unsigned d = 0; d < change->server->devices_count; d++)
        if (change->parts[d].asked && !still_there(change, d, text, sizeof text))
            change_refuse(change, STATUS_UNAVAILABLE, text);
    if (change->status != STATUS_OK)
        return refused(change);
    for (size_t i = 0; i < change->server->closing.count; i++)
        empty &= close_expert(change->server, change->server->closing.uids[i]);
    if (!empty)
        return CHANGE_WAITS;
    /* By the clock, so that numbers also grow over a restart of the frontend. */
    const uint64_t now_us = clock_wall_ns() / NS_PER_US;
    change->number = now_us > change->number ? now_us : change->number + 1;
    change->stage = CHANGE_PREPARING;
    enlist(change);
    ask(change, CONTROL_PREPARE);
    return CHANGE_WAITS;
}

static enum change_event prepare_all(struct change *change)
{
    struct server *server = change->server;
    char why[CONTROL_WHY_SIZE];
    for (unsigned d = 0; d < server->devices_count; d++) {
        uint32_t status = STATUS_OK;
        if (!change->parts[d].asked)
            continue;
        if (!still_there(change, d, why, sizeof why))
            change_refuse(change, STATUS_UNAVAILABLE, why);
        else if (!control_change_answered(server->devices[d]->control, change->number, CONTROL_PREPARE, &status, why))
            return CHANGE_WAITS;
        else if (status != STATUS_OK)
            change_refuse(change, known_status(status), why);
    }
    if (change->lost != CHANGE_NONE && !device_link_lost(server->devices[change->lost]))
        change_refuse(change, STATUS_ABORTED, "the device is back");
    const int rc = change->status == STATUS_OK ? config_live_accept(server->config) : 0;
    if (rc < 0) {
        snprintf(why, sizeof why, "cannot write to server.run_dir: %s", strerror(-rc));
        change_refuse(change, STATUS_INTERNAL, why);
    }
    if (change->status != STATUS_OK)
        return refused(change);
    change->stage = CHANGE_COMMITTING;
    ask(change, CONTROL_COMMIT);
    return CHANGE_ACCEPTED;
}

/* One that dies now begins with what is live. */
static enum change_event commit_all(struct change *change)
{
    struct server *server = change->server;
    char why[CONTROL_WHY_SIZE];
    for (unsigned d = 0; d < server->devices_count; d++) {
        uint32_t status = STATUS_OK;
        if (change->parts[d].asked && still_there(change, d, why, sizeof why) &&
            !control_change_answered(server->devices[d]->control, change->number, CONTROL_COMMIT, &status, why))
            return CHANGE_WAITS;
    }
    for (unsigned d = 0; d < server->devices_count; d++)
        if (server->devices[d]->control)
            server->devices[d]->slots_seen = control_slots_version(server->devices[d]->control);
    change_leave(change);
    roster_rebuild(server);
    return CHANGE_DONE;
}

enum change_event change_look(struct change *change)
{
    enum change_event event = CHANGE_WAITS;
    if (change->stage == CHANGE_CLOSING)
        event = close_all(change);
    if (event == CHANGE_WAITS && change->stage == CHANGE_PREPARING)
        event = prepare_all(change);
    else if (event == CHANGE_WAITS && change->stage == CHANGE_COMMITTING)
        event = commit_all(change);
    return event;
}
