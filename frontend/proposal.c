#include "frontend/proposal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_live.h"
#include "frontend/device_link.h"
#include "frontend/roster.h"

void proposal_free(struct proposal *proposal)
{
    for (size_t i = 0; i < proposal->closing_count; i++)
        free(proposal->closing[i]);
    free(proposal->closing);
    config_diff_free(&proposal->diff);
    config_free(&proposal->live);
    config_free(&proposal->file);
    elsewhere_destroy(&proposal->elsewhere);
    *proposal = (struct proposal){.server = proposal->server, .change = proposal->change};
}

static int parse(struct config **config, const char *text, const char *origin)
{
    *config = calloc(1, sizeof **config);
    if (!*config)
        return -ENOMEM;
    const int rc = config_parse(*config, text, strlen(text), origin);
    if (rc < 0) {
        free(*config);
        *config = NULL;
    }
    return rc;
}

static char *print(const struct config *config)
{
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    if (!out)
        return NULL;
    config_print(out, config);
    return fclose(out) == 0 ? text : NULL;
}

int proposal_read_file(struct proposal *proposal, const struct startup *startup, char **text)
{
    const struct server *server = proposal->server;
    struct config *file = calloc(1, sizeof *file);
    if (!file)
        return -ENOMEM;
    int rc = startup_read(startup, server->config, file);
    if (rc == 0)
        rc = startup_cut(startup, file, &proposal->elsewhere);
    if (rc < 0) {
        free(file);
        return rc;
    }
    proposal->file = file;
    const char *section = config_diff_elsewhere(server->config, file);
    const char *other = elsewhere_changed(server->elsewhere, proposal->elsewhere);
    if (section)
        snprintf(proposal->note, sizeof proposal->note,
                 "what is new in the section '%s' counts from the next start of the programs on", section);
    else if (other)
        snprintf(proposal->note, sizeof proposal->note,
                 "another frontend has other experts, too: reload --server %.32s", other);
    *text = print(file);
    return *text ? 0 : -ENOMEM;
}

/* --- what is refused -------------------------------------------------------------------------------------------------
 */

/* That of the name, or NULL. */
static struct device_link *device_of(const struct server *server, const char *name)
{
    for (unsigned d = 0; d < server->devices_count; d++)
        if (strcmp(server->devices[d]->name, name) == 0)
            return server->devices[d];
    return NULL;
}

/* Every device that the change touches is there; one that is lost, and whose experts go elsewhere, need not be. */
static bool all_there(struct proposal *proposal, uint32_t lost)
{
    char text[160];
    for (size_t i = 0; i < proposal->diff.count; i++) {
        const struct config_diff_item *item = &proposal->diff.items[i];
        const struct config_expert *entry = item->new ? item->new : item->old;
        if (item->difference == CONFIG_SAME)
            continue;
        const struct device_link *device = device_of(proposal->server, entry->device);
        if (!device) {
            snprintf(text, sizeof text, "'%.64s' is for device '%.32s', which needs a start of the programs", item->uid,
                     entry->device);
            change_refuse(proposal->change, STATUS_INVALID_ARGUMENT, text);
            return false;
        }
        if (lost != CHANGE_NONE && device == proposal->server->devices[lost])
            continue;
        if (device_link_refusal(device, text, sizeof text)) {
            change_refuse(proposal->change, STATUS_UNAVAILABLE, text);
            return false;
        }
    }
    return true;
}

static int by_uid(const void *a, const void *b)
{
    const struct config_diff_item *const *left = a, *const *right = b;
    return strcmp((*left)->uid, (*right)->uid);
}

/* Experts that would go from a device to another, whose checkpoints the one still has when the other wants them. */
struct torn {
    const struct config_diff_item *from, *to; /* of the first */
    size_t count;
};

static bool learns(const struct config_expert *expert)
{
    return strcmp(expert->optimizer, "none") != 0;
}

/* 0 or -ENOMEM. */
static int find_torn(const struct config_diff *diff, struct torn *torn)
{
    const struct config_diff_item **gone = calloc(diff->count + 1, sizeof(struct config_diff_item *));
    size_t count = 0;
    *torn = (struct torn){0};
    if (!gone)
        return -ENOMEM;
    for (size_t i = 0; i < diff->count; i++)
        if (diff->items[i].difference == CONFIG_REMOVED && learns(diff->items[i].old))
            gone[count++] = &diff->items[i];
    qsort(gone, count, sizeof *gone, by_uid);
    for (size_t i = 0; i < diff->count; i++) {
        const struct config_diff_item *to = &diff->items[i];
        const bool comes = to->difference == CONFIG_ADDED && learns(to->new);
        const struct config_diff_item *const *from = comes ? bsearch(&to, gone, count, sizeof *gone, by_uid) : NULL;
        if (from && torn->count++ == 0) {
            torn->from = *from;
            torn->to = to;
        }
    }
    free(gone);
    return 0;
}

/* What has learned moves in two steps. */
static int refuse_torn(struct proposal *proposal)
{
    char text[CONTROL_WHY_SIZE], others[48] = "";
    struct torn torn;
    if (!proposal->file || !proposal->server->config->checkpoint.dir[0])
        return 0;
    const int rc = find_torn(&proposal->diff, &torn);
    if (rc < 0 || torn.count == 0)
        return rc;
    if (torn.count > 1)
        snprintf(others, sizeof others, " (and %zu more, likewise)", torn.count - 1);
    snprintf(text, sizeof text,
             "'%.64s' trains, and does not go from device '%.32s' to '%.32s' in one step, as its checkpoints have one "
             "owner at a time: expertctl unload %.64s%s, then reload again",
             torn.to->uid, torn.from->old->device, torn.to->new->device, torn.to->uid, others);
    change_refuse(proposal->change, STATUS_INVALID_ARGUMENT, text);
    return -EBUSY;
}

/* --- what goes -------------------------------------------------------------------------------------------------------
 */

/* There is room for it. */
static int add_closing(struct proposal *proposal, const char *uid)
{
    char *copy = strdup(uid);
    if (!copy)
        return -ENOMEM;
    proposal->closing[proposal->closing_count++] = copy;
    return 0;
}

static int list_closing(struct proposal *proposal)
{
    const struct config_diff *diff = &proposal->diff;
    proposal->closing = calloc(diff->count + 1, sizeof(char *));
    int rc = proposal->closing ? 0 : -ENOMEM;
    for (size_t i = 0; i < diff->count && rc == 0; i++)
        if (diff->items[i].difference == CONFIG_REMOVED || diff->items[i].difference == CONFIG_REPLACED)
            rc = add_closing(proposal, diff->items[i].uid);
    return rc;
}

static bool is_live(const struct server *server, const char *uid)
{
    const struct expert_place *place = expert_table_find(server->experts, uid);
    return place && place->configured;
}

/* What the device has that is not live. */
static int list_strangers(struct proposal *proposal, const struct device_link *device)
{
    const struct server *server = proposal->server;
    proposal->closing = calloc((size_t)device->experts_count + 1, sizeof(char *));
    int rc = proposal->closing ? 0 : -ENOMEM;
    for (uint32_t i = 0; i < expert_table_count(server->experts) && rc == 0; i++) {
        const struct expert_place *place = expert_table_at(server->experts, i);
        const char *uid = expert_table_uid(server->experts, place);
        if (server->devices[place->device] == device && place->expert != EXPERT_ABSENT && !is_live(server, uid) &&
            proposal->closing_count < device->experts_count)
            rc = add_closing(proposal, uid);
    }
    return rc;
}

/* --- the whole -------------------------------------------------------------------------------------------------------
 */

int proposal_make(struct proposal *proposal, const char *text, const char *origin, const struct config *file,
                  uint32_t lost)
{
    char why[96];
    const struct server *server = proposal->server;
    int rc = parse(&proposal->live, text, origin);
    if (rc == 0)
        rc = config_diff_make(&proposal->diff, server->live, proposal->live, NULL);
    if (rc == 0 && !all_there(proposal, lost))
        rc = -ENODEV;
    if (rc == 0)
        rc = refuse_torn(proposal);
    if (rc == 0) {
        const int written = config_live_propose(server->config, proposal->file ? proposal->file : file, text);
        if (written < 0) {
            snprintf(why, sizeof why, "cannot write to server.run_dir: %s", strerror(-written));
            change_refuse(proposal->change, STATUS_INTERNAL, why);
            rc = -EIO;
        }
    }
    /* A lost device's have none that could go on: they are ended when they are elsewhere. */
    return rc == 0 && lost == CHANGE_NONE ? list_closing(proposal) : rc;
}

int proposal_repeat(struct proposal *proposal, const struct config *live, const struct config *file, uint32_t device)
{
    const struct server *server = proposal->server;
    char *text = print(live);
    int rc = text ? parse(&proposal->live, text, "what is live") : -ENOMEM;
    if (rc == 0)
        rc = config_live_propose(server->config, file, text);
    free(text);
    return rc == 0 ? list_strangers(proposal, server->devices[device]) : rc;
}
