#include "dht/twin.h"

#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "dht/rendezvous.h"

const char *twin_name(const uint8_t id[SERVER_ID_SIZE], char name[TWIN_NAME_SIZE])
{
    char text[SERVER_ID_TEXT];
    snprintf(name, TWIN_NAME_SIZE, "id %s", server_id_format(id, text));
    return name;
}

static void on_changed(struct server_link *link, bool gone)
{
    /* What has become of it is looked at when it matters. */
    (void)link;
    (void)gone;
}

void twin_init(struct twin *twin, struct servers *servers, const struct twin_options *options)
{
    *twin = (struct twin){.options = *options, .servers = servers};
    for (int i = 0; i < TWIN_LINKS; i++)
        twin->links[i].changed = on_changed;
}

void twin_destroy(struct twin *twin)
{
    for (int i = 0; twin->servers && i < TWIN_LINKS; i++)
        servers_unlink(twin->servers, &twin->links[i]);
}

static bool linked(const struct twin *twin, const struct contact *contact)
{
    for (int i = 0; i < TWIN_LINKS; i++)
        if (twin->links[i].server && memcmp(&twin->links[i].server->contact, contact, sizeof *contact) == 0)
            return true;
    return false;
}

void twin_on_peers(struct twin *twin, const struct contact *contacts, size_t count, struct moment now)
{
    for (size_t i = 0; i < count; i++)
        for (int l = 0; l < TWIN_LINKS && !linked(twin, &contacts[i]); l++)
            if (!twin->links[l].server && servers_link(twin->servers, &contacts[i], &twin->links[l], now) != 0)
                return;
}

void twin_on_found(struct twin *twin)
{
    twin->finding = false;
}

void twin_on_connected(struct twin *twin, struct moment now)
{
    twin->next_ns = now.ns;
}

uint64_t twin_step(struct twin *twin, struct moment now)
{
    char name[TWIN_NAME_SIZE], key[RENDEZVOUS_KEY_SIZE];
    if (twin->finding || now.ns < twin->next_ns)
        return twin->finding ? UINT64_MAX : twin->next_ns;
    /* Those that are no servers make room for others; they are found again. */
    for (int i = 0; i < TWIN_LINKS; i++)
        if (twin->links[i].server && twin->links[i].server->state == SERVER_RESTING)
            servers_unlink(twin->servers, &twin->links[i]);
    twin->finding = true;
    twin->next_ns = now.ns + TWIN_PERIOD_S * NS_PER_S;
    rendezvous_key(key, twin->options.network_id, twin_name(twin->options.id, name), "");
    twin->options.find(twin->options.context, key, twin->options.token);
    return UINT64_MAX;
}

const struct server *twin_older(struct twin *twin)
{
    for (int i = 0; i < TWIN_LINKS; i++) {
        struct server *server = twin->links[i].server;
        if (!server || server->state != SERVER_LIVE ||
            memcmp(server->resident.id, twin->options.id, SERVER_ID_SIZE) != 0 || !resident_proves(&server->resident))
            continue;
        const int order = memcmp(server->instance, twin->options.instance, INSTANCE_SIZE);
        if (server->started_ms < twin->options.started_ms ||
            (server->started_ms == twin->options.started_ms && order < 0))
            return server;
        char text[CONTACT_TEXT];
        if (order != 0 && !twin->warned)
            log_warning("%s has the same identity as this server, and started later: it has to end (a copied "
                        "dht.identity_file?)",
                        contact_format(&server->contact, text));
        twin->warned = true;
    }
    return NULL;
}
