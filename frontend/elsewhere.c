#include "frontend/elsewhere.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_cut.h"
#include "common/config_diff.h"
#include "common/config_live.h"
#include "common/log.h"
#include "common/uid.h"
#include "frontend/expert_table.h"
#include "proto/message.h"

struct sibling {
    struct config part;
    uint64_t stamp; /* of what is live there, as it was read */
    bool strange;   /* which is no change of `part` */
};

struct elsewhere {
    struct sibling *siblings;
    unsigned count;
    struct expert_table *experts; /* their `device` is a number of devices[] */
    struct {
        const char *name;
        unsigned sibling;
    } * devices;
    uint32_t devices_count;
};

/* --- what they have -------------------------------------------------------------------------------------------------
 */

static uint32_t find_device(const struct elsewhere *elsewhere, const char *name)
{
    uint32_t d = 0;
    while (d < elsewhere->devices_count && strcmp(elsewhere->devices[d].name, name) != 0)
        d++;
    return d;
}

static int add_experts(struct elsewhere *elsewhere, const struct config *config)
{
    int rc = 0;
    for (unsigned e = 0; e < config->experts_count && rc == 0; e++) {
        char **uids = NULL;
        uint64_t count = 0;
        const uint32_t device = find_device(elsewhere, config->experts[e].device);
        if (device == elsewhere->devices_count)
            continue;
        rc = config_expert_uids(&config->experts[e], &uids, &count);
        for (uint64_t u = 0; u < count && rc == 0; u++)
            rc = expert_table_set(elsewhere->experts, uids[u], device, EXPERT_ABSENT);
        free(uids);
    }
    return rc;
}

static void fill(struct elsewhere *elsewhere)
{
    expert_table_clear(elsewhere->experts);
    for (unsigned s = 0; s < elsewhere->count; s++) {
        struct sibling *sibling = &elsewhere->siblings[s];
        struct config live;
        /* Before it is read: what is written meanwhile is read the next time. */
        sibling->stamp = config_live_stamp(&sibling->part);
        const bool changed = sibling->stamp != 0 && config_live_read(&live, &sibling->part) == 1;
        sibling->strange = sibling->stamp != 0 && !changed;
        if (add_experts(elsewhere, changed ? &live : &sibling->part) < 0)
            log_error("not enough memory to know what the frontend '%s' has", sibling->part.server.name);
        if (changed)
            config_destroy(&live);
    }
}

bool elsewhere_look(struct elsewhere *elsewhere)
{
    bool changed = false;
    for (unsigned s = 0; elsewhere && s < elsewhere->count; s++)
        changed |= config_live_stamp(&elsewhere->siblings[s].part) != elsewhere->siblings[s].stamp;
    if (changed)
        fill(elsewhere);
    return changed;
}

bool elsewhere_outdated(const struct elsewhere *elsewhere)
{
    for (unsigned s = 0; elsewhere && s < elsewhere->count; s++)
        if (elsewhere->siblings[s].strange)
            return true;
    return false;
}

/* --- life -----------------------------------------------------------------------------------------------------------
 */

static int add_sibling(struct elsewhere *elsewhere, const struct config *whole, unsigned index, const char *own)
{
    struct sibling *sibling = &elsewhere->siblings[elsewhere->count];
    const int rc = config_cut(&sibling->part, whole, index);
    if (rc < 0)
        return rc;
    if (strcmp(sibling->part.server.name, own) == 0) {
        config_destroy(&sibling->part);
        return 0;
    }
    for (unsigned d = 0; d < sibling->part.devices_count; d++) {
        elsewhere->devices[elsewhere->devices_count].name = sibling->part.devices[d].name;
        elsewhere->devices[elsewhere->devices_count++].sibling = elsewhere->count;
    }
    elsewhere->count++;
    return 0;
}

int elsewhere_create(struct elsewhere **elsewhere, const struct config *whole, const char *own)
{
    *elsewhere = NULL;
    if (whole->frontends_count == 0)
        return 0;
    struct elsewhere *made = calloc(1, sizeof *made);
    if (!made)
        return -ENOMEM;
    made->siblings = calloc(whole->frontends_count, sizeof *made->siblings);
    made->devices = calloc((size_t)whole->devices_count + 1, sizeof *made->devices);
    int rc = made->siblings && made->devices ? expert_table_create(&made->experts) : -ENOMEM;
    for (unsigned i = 0; rc == 0 && i < whole->frontends_count; i++)
        rc = add_sibling(made, whole, i, own);
    if (rc == 0)
        fill(made);
    else
        elsewhere_destroy(&made);
    *elsewhere = made;
    return rc;
}

void elsewhere_destroy(struct elsewhere **elsewhere)
{
    struct elsewhere *old = *elsewhere;
    *elsewhere = NULL;
    if (!old)
        return;
    for (unsigned s = 0; s < old->count; s++)
        config_destroy(&old->siblings[s].part);
    expert_table_destroy(&old->experts);
    free(old->siblings);
    free(old->devices);
    free(old);
}

/* --- looking --------------------------------------------------------------------------------------------------------
 */

static void describe(const struct elsewhere *elsewhere, const struct expert_place *place,
                     struct elsewhere_expert *expert)
{
    const struct config *part = &elsewhere->siblings[elsewhere->devices[place->device].sibling].part;
    *expert = (struct elsewhere_expert){.uid = expert_table_uid(elsewhere->experts, place),
                                        .device = elsewhere->devices[place->device].name,
                                        .endpoint = part->frontend.advertise,
                                        .server = part->server.name};
}

bool elsewhere_find(const struct elsewhere *elsewhere, const char *uid, struct elsewhere_expert *expert)
{
    const struct expert_place *place = elsewhere ? expert_table_find(elsewhere->experts, uid) : NULL;
    if (place)
        describe(elsewhere, place, expert);
    return place != NULL;
}

uint32_t elsewhere_count(const struct elsewhere *elsewhere)
{
    return elsewhere ? expert_table_count(elsewhere->experts) : 0;
}

void elsewhere_at(const struct elsewhere *elsewhere, uint32_t i, struct elsewhere_expert *expert)
{
    describe(elsewhere, expert_table_at(elsewhere->experts, i), expert);
}

bool elsewhere_frontend(const struct elsewhere *elsewhere, unsigned i, const char **server, const char **endpoint)
{
    if (!elsewhere || i >= elsewhere->count)
        return false;
    *server = elsewhere->siblings[i].part.server.name;
    *endpoint = elsewhere->siblings[i].part.frontend.advertise;
    return true;
}

static bool has_entry(const struct config *part, const char *uid)
{
    bool found = false;
    for (unsigned e = 0; e < part->experts_count && !found; e++) {
        char **uids = NULL;
        uint64_t count = 0;
        if (config_expert_uids(&part->experts[e], &uids, &count) < 0)
            continue;
        for (uint64_t u = 0; u < count && !found; u++)
            found = strcmp(uids[u], uid) == 0;
        free(uids);
    }
    return found;
}

const char *elsewhere_server_of_entry(const struct elsewhere *elsewhere, const char *uid)
{
    for (unsigned s = 0; elsewhere && s < elsewhere->count; s++)
        if (has_entry(&elsewhere->siblings[s].part, uid))
            return elsewhere->siblings[s].part.server.name;
    return NULL;
}

const char *elsewhere_server_of(const struct elsewhere *elsewhere, const char *device)
{
    const uint32_t d = elsewhere ? find_device(elsewhere, device) : 0;
    if (!elsewhere || d == elsewhere->devices_count)
        return NULL;
    return elsewhere->siblings[elsewhere->devices[d].sibling].part.server.name;
}

const char *elsewhere_changed(const struct elsewhere *older, const struct elsewhere *newer)
{
    for (unsigned n = 0; older && newer && n < newer->count; n++) {
        const struct config *now = &newer->siblings[n].part;
        for (unsigned o = 0; o < older->count; o++) {
            const struct config *before = &older->siblings[o].part;
            if (strcmp(now->server.name, before->server.name) == 0 &&
                config_diff_fingerprint(now) != config_diff_fingerprint(before))
                return now->server.name;
        }
    }
    return NULL;
}

const char *elsewhere_where(const struct elsewhere *elsewhere, const char *uid, char *why, size_t size)
{
    struct elsewhere_expert expert;
    const bool found = elsewhere_find(elsewhere, uid, &expert);
    if (found)
        snprintf(why, size, "expert \"%s\" is at another frontend of this server, at %.256s", expert.uid,
                 expert.endpoint);
    else
        snprintf(why, size, "no expert \"%.*s\" on this server", UID_SIZE - 1, uid);
    message_clean(why);
    return found ? expert.endpoint : NULL;
}
