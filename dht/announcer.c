#include "dht/announcer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/failpoint.h"
#include "dht/prefix.h"
#include "dht/rendezvous.h"
#include "dht/twin.h"

static const uint64_t review_ns = NS_PER_S; /* of how many nodes there are */
static const uint64_t growth_pause_ns = 2 * NS_PER_S;

/* A prefix, or a shard of it, that is to be found in the DHT. */
struct announcement {
    uint64_t token; /* of what is under way; 0: nothing */
    uint64_t due_ns;
    uint64_t tried_ns; /* latest, */
    size_t nodes;      /* with so many nodes */
    unsigned digits;   /* of the shard */
    unsigned failures; /* how often in a row no node has taken it */
    bool hosted;
    char prefix[UID_SIZE];
    char name[UID_SIZE + SERVER_ID_TEXT]; /* prefix#digits */
};

struct announcer {
    struct announcer_options options;
    struct table announcements, by_token;
    size_t running, failed; /* announcements */
    uint64_t next_review_ns, last_token;
    uint64_t next_ns; /* no announcement is due before; 0: one is */
    struct announcer_counters counters;
};

int announcer_create(struct announcer **announcer, const struct announcer_options *options)
{
    *announcer = calloc(1, sizeof **announcer);
    if (!*announcer)
        return -ENOMEM;
    (*announcer)->options = *options;
    return 0;
}

void announcer_destroy(struct announcer **announcer)
{
    struct announcer *old = *announcer;
    struct announcement *announcement;
    *announcer = NULL;
    if (!old)
        return;
    for (size_t at = 0; (announcement = table_next(&old->announcements, &at));)
        free(announcement);
    table_destroy(&old->announcements);
    table_destroy(&old->by_token);
    free(old);
}

/* ---- what to announce ----------------------------------------------------------------------------------------------
 */

/* The first digits of this server's id. */
static const char *shard_of(const struct announcer *announcer, unsigned digits, char text[SERVER_ID_TEXT])
{
    server_id_format(announcer->options.id, text);
    text[digits] = '\0';
    return text;
}

/* NULL: no memory. */
static struct announcement *announcement_for(struct announcer *announcer, const char *prefix, unsigned digits)
{
    char name[UID_SIZE + SERVER_ID_TEXT], shard[SERVER_ID_TEXT];
    const size_t length = (size_t)snprintf(name, sizeof name, "%s#%s", prefix, shard_of(announcer, digits, shard));
    struct announcement *announcement = table_find(&announcer->announcements, name, length);
    if (announcement || !(announcement = calloc(1, sizeof *announcement)))
        return announcement;
    memcpy(announcement->name, name, length);
    snprintf(announcement->prefix, sizeof announcement->prefix, "%s", prefix);
    announcement->digits = digits;
    if (table_insert(&announcer->announcements, announcement->name, length, announcement) != 0) {
        free(announcement);
        return NULL;
    }
    announcer->next_ns = 0;
    return announcement;
}

static int host(struct announcer *announcer, const char *prefix)
{
    struct announcement *announcement = announcement_for(announcer, prefix, 0);
    if (!announcement)
        return -ENOMEM;
    announcement->hosted = true;
    return 0;
}

int announcer_host(struct announcer *announcer, const struct catalog *catalog)
{
    struct announcement *announcement;
    char name[TWIN_NAME_SIZE], prefix[UID_SIZE];
    uint32_t coordinate;
    for (size_t at = 0; (announcement = table_next(&announcer->announcements, &at));)
        announcement->hosted = false;
    announcer->next_ns = 0;
    int rc = host(announcer, twin_name(announcer->options.id, name));
    for (size_t i = 0; rc == 0 && i < catalog->count; i++) {
        memcpy(prefix, catalog->contents[i]->prefix, UID_SIZE);
        do
            rc = host(announcer, prefix);
        while (rc == 0 && prefix_parent(prefix, prefix, &coordinate));
    }
    return rc;
}

/* A shard is, where its prefix is hosted. */
static bool wanted(struct announcer *announcer, const struct announcement *announcement)
{
    if (announcement->digits > 0)
        announcement = announcement_for(announcer, announcement->prefix, 0);
    return announcement && announcement->hosted;
}

/* ---- announcing ----------------------------------------------------------------------------------------------------
 */

static void end_try(struct announcer *announcer, struct announcement *announcement, bool heard, struct moment now)
{
    uint64_t pause_s = ANNOUNCER_REFRESH_S;
    announcer->failed -= announcement->failures > 0;
    if (!heard) {
        const unsigned doublings = announcement->failures < 6 ? announcement->failures : 6;
        pause_s = (uint64_t)ANNOUNCER_RETRY_S << doublings;
        announcement->failures++;
        announcer->failed++;
    } else {
        announcement->failures = 0;
    }
    announcement->due_ns = now.ns + pause_s * NS_PER_S;
    if (announcement->due_ns < announcer->next_ns)
        announcer->next_ns = announcement->due_ns;
}

static void announce(struct announcer *announcer, struct announcement *announcement, struct moment now)
{
    char key[RENDEZVOUS_KEY_SIZE], shard[SERVER_ID_TEXT];
    announcement->token = announcer->options.tokens_tag | ++announcer->last_token;
    if (FAILPOINT("dht.publish") ||
        table_insert(&announcer->by_token, &announcement->token, sizeof announcement->token, announcement) != 0) {
        announcement->token = 0;
        end_try(announcer, announcement, false, now);
        return;
    }
    announcement->due_ns = UINT64_MAX;
    announcer->running++;
    announcer->counters.made++;
    rendezvous_key(key, announcer->options.network_id, announcement->prefix,
                   shard_of(announcer, announcement->digits, shard));
    announcer->options.announce(announcer->options.context, key, announcement->token);
}

void announcer_on_announced(struct announcer *announcer, uint64_t token, unsigned answered, unsigned fullest,
                            struct moment now)
{
    struct announcement *announcement = table_remove(&announcer->by_token, &token, sizeof token);
    if (!announcement)
        return;
    announcement->token = 0;
    announcer->running--;
    announcer->counters.unheard += answered == 0;
    /* A key that is full takes nobody more; its shards do. */
    end_try(announcer, announcement, answered > 0 || fullest >= RENDEZVOUS_CROWDED || announcer->options.single, now);
    if (fullest >= RENDEZVOUS_CROWDED && announcement->digits < RENDEZVOUS_DIGITS_MAX)
        announcement_for(announcer, announcement->prefix, announcement->digits + 1);
}

static void make_due(struct announcer *announcer, struct announcement *announcement)
{
    if (announcement->token == 0)
        announcement->due_ns = announcer->next_ns = 0;
}

void announcer_on_connected(struct announcer *announcer)
{
    struct announcement *announcement;
    for (size_t at = 0; (announcement = table_next(&announcer->announcements, &at));)
        make_due(announcer, announcement);
}

static void announce_due(struct announcer *announcer, size_t nodes, struct moment now)
{
    struct announcement *announcement;
    if (now.ns < announcer->next_ns)
        return;
    announcer->next_ns = UINT64_MAX;
    for (size_t at = 0; (announcement = table_next(&announcer->announcements, &at));) {
        if (now.ns >= announcement->due_ns) {
            announcement->nodes = nodes;
            announcement->tried_ns = now.ns;
            if (wanted(announcer, announcement))
                announce(announcer, announcement, now);
            else
                end_try(announcer, announcement, true, now);
        }
        if (announcement->due_ns < announcer->next_ns)
            announcer->next_ns = announcement->due_ns;
    }
}

/* The nodes that are nearest to a key are others when there are more of them: not all eight, until there are many
 * times as many, and those of before go on telling. What is announced while a network forms is left with the few that
 * are known by then, and nobody looks there any more when all are. */
static void review_nodes(struct announcer *announcer, size_t nodes, struct moment now)
{
    struct announcement *announcement;
    if (now.ns < announcer->next_review_ns)
        return;
    announcer->next_review_ns = now.ns + review_ns;
    for (size_t at = 0; (announcement = table_next(&announcer->announcements, &at));)
        if (2 * nodes > 3 * announcement->nodes && now.ns - announcement->tried_ns >= growth_pause_ns)
            make_due(announcer, announcement);
}

uint64_t announcer_step(struct announcer *announcer, size_t nodes, struct moment now)
{
    review_nodes(announcer, nodes, now);
    announce_due(announcer, nodes, now);
    return announcer->next_ns < announcer->next_review_ns ? announcer->next_ns : announcer->next_review_ns;
}

bool announcer_done(const struct announcer *announcer)
{
    return announcer->next_ns > 0 && announcer->running == 0 && announcer->failed == 0;
}

const struct announcer_counters *announcer_counters(const struct announcer *announcer)
{
    return &announcer->counters;
}
