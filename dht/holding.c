#include "dht/holding.h"

#include <errno.h>
#include <stdlib.h>

struct holding *holding_create(struct peer *peer, struct cache_entry *entry, const char *prefix)
{
    struct holding *holding = calloc(1, sizeof *holding);
    if (!holding)
        return NULL;
    holding->peer = peer;
    holding->entry = entry;
    holding->prefix = prefix;
    holding->next = peer->holdings;
    holding->at = &peer->holdings;
    if (holding->next)
        holding->next->at = &holding->next;
    peer->holdings = holding;
    return holding;
}

static void drop_parts(struct holding *holding)
{
    for (uint32_t i = 0; i < holding->parts_count; i++) {
        ranges_destroy(&holding->parts[i].experts);
        ranges_destroy(&holding->parts[i].branches);
    }
    free(holding->parts);
    holding->parts = NULL;
    holding->parts_count = 0;
}

void holding_destroy(struct holding **holding)
{
    struct holding *old = *holding;
    *holding = NULL;
    if (!old)
        return;
    *old->at = old->next;
    if (old->next)
        old->next->at = old->at;
    drop_parts(old);
    ranges_destroy(&old->experts);
    ranges_destroy(&old->branches);
    free(old);
}

bool holding_wants(const struct holding *holding, const struct record *record)
{
    if (holding->parts_count == 0 || record->sequence > holding->sequence)
        return true;
    return record->sequence == holding->sequence &&
           (record->part >= holding->parts_count || !holding->parts[record->part].have);
}

int holding_take(struct holding *holding, struct record *record)
{
    if (holding->parts_count == 0 || record->sequence > holding->sequence) {
        struct holding_part *parts = calloc(record->parts, sizeof *parts);
        if (!parts)
            return -ENOMEM;
        drop_parts(holding);
        holding->parts = parts;
        holding->parts_count = record->parts;
        holding->sequence = record->sequence;
    }
    if (record->parts != holding->parts_count)
        return -EBADMSG;
    struct holding_part *part = &holding->parts[record->part];
    ranges_destroy(&part->experts);
    ranges_destroy(&part->branches);
    part->experts = record->experts;
    part->branches = record->branches;
    part->have = true;
    record->experts = record->branches = (struct ranges){0};
    holding->forgotten = false;
    holding->updated = false;
    return 0;
}

/* Of a life before the present one, as far as the heartbeats that were heard say so. */
static bool obsolete(const struct holding *holding)
{
    return holding->peer->heard && holding->sequence < holding->peer->heartbeat.records_from;
}

bool holding_whole(const struct holding *holding)
{
    for (uint32_t i = 0; i < holding->parts_count; i++)
        if (!holding->parts[i].have)
            return false;
    return holding->parts_count > 0 && !obsolete(holding);
}

bool holding_claims(const struct holding *holding, uint32_t coordinate)
{
    bool all, claimed = false;
    for (uint32_t i = 0; i < holding->parts_count && !claimed; i++)
        claimed = ranges_contain(&holding->parts[i].branches, coordinate);
    if (!claimed || obsolete(holding))
        return false;
    const struct exclusion *excluded = peer_exclusion(holding->peer, holding->prefix, &all);
    return !all && !(excluded && ranges_contain(&excluded->branches, coordinate));
}

static int collect(struct holding *holding)
{
    for (uint32_t i = 0; i < holding->parts_count; i++)
        if (ranges_append_all(&holding->experts, &holding->parts[i].experts) != 0 ||
            ranges_append_all(&holding->branches, &holding->parts[i].branches) != 0)
            return -ENOMEM;
    ranges_normalize(&holding->experts);
    ranges_normalize(&holding->branches);
    return 0;
}

int holding_update(struct holding *holding)
{
    const struct peer *peer = holding->peer;
    bool all;
    int rc = 0;
    if (holding->updated && holding->peer_change == peer->change)
        return 0;
    ranges_clear(&holding->experts);
    ranges_clear(&holding->branches);
    const struct exclusion *excluded = peer_exclusion(peer, holding->prefix, &all);
    if (!all && !obsolete(holding))
        rc = collect(holding);
    if (rc == 0 && excluded)
        rc = ranges_subtract(&holding->experts, &excluded->experts);
    if (rc == 0 && excluded)
        rc = ranges_subtract(&holding->branches, &excluded->branches);
    holding->updated = rc == 0;
    holding->peer_change = peer->change;
    return rc;
}
