#include "common/config_cut.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_print.h"
#include "common/config_table.h"
#include "common/log.h"

/* What a directory is told that the configuration does not say. */
struct dht_texts {
    char identity[PATH_MAX + 64], first[320];
    const char *bootstrap;
};

static bool has(const struct config_frontend_entry *entry, const char *device)
{
    for (unsigned i = 0; i < entry->devices.count; i++)
        if (strcmp(entry->devices.items[i], device) == 0)
            return true;
    return false;
}

unsigned config_cut_owner(const struct config *whole, const char *device)
{
    unsigned i = 0;
    while (i < whole->frontends_count && !has(&whole->frontends[i], device))
        i++;
    return i;
}

/* The host of tcp://HOST:PORT, which is what clients reach; "127.0.0.1" of another endpoint. */
static void host_of(const char *endpoint, char *host, size_t size)
{
    static const char scheme[] = "tcp://";
    const char *colon = strrchr(endpoint, ':');
    if (strncmp(endpoint, scheme, strlen(scheme)) == 0 && colon > endpoint + strlen(scheme))
        snprintf(host, size, "%.*s", (int)(colon - endpoint - (ptrdiff_t)strlen(scheme)), endpoint + strlen(scheme));
    else
        snprintf(host, size, "127.0.0.1");
}

/* Each frontend's experts are published by a directory of its own, with an identity of its own. The first one's is
 * where the configuration says; the others have free ports, and join by it unless they join by others anyway. */
static void set_dht(struct config *one, const struct config *whole, unsigned index, struct dht_texts *texts)
{
    if (strcmp(one->dht.frontend, "none") != 0)
        one->dht.frontend = "";
    one->dht.voucher = whole->frontends[index].voucher;
    if (index == 0)
        return;
    one->dht.listen = "tcp://127.0.0.1:*";
    one->dht.port = one->dht.tcp_port = 0;
    if (one->dht.identity_file[0]) {
        snprintf(texts->identity, sizeof texts->identity, "%s-%s", one->dht.identity_file,
                 whole->frontends[index].name);
        one->dht.identity_file = texts->identity;
    }
    if (one->dht.bootstrap.count == 0 && whole->dht.port != 0) {
        char host[256];
        host_of(whole->frontends[index].advertise, host, sizeof host);
        snprintf(texts->first, sizeof texts->first, "%s:%u", whole->dht.address[0] ? whole->dht.address : host,
                 (unsigned)whole->dht.port);
        texts->bootstrap = texts->first;
        one->dht.bootstrap = (struct config_strings){&texts->bootstrap, 1};
    }
}

/* As text, and from there as any other: what an entry says beside its options (arguments, layers) comes along. */
static void print(FILE *out, const struct config *whole, unsigned index)
{
    const struct config_frontend_entry *entry = &whole->frontends[index];
    struct config one = *whole;
    struct dht_texts texts;
    char name[128];
    snprintf(name, sizeof name, "%s-%s", whole->server.name, entry->name);
    one.server.name = name;
    one.frontend.listen = entry->listen;
    one.frontend.advertise = entry->advertise;
    one.frontend.local_path = entry->local_path;
    set_dht(&one, whole, index, &texts);
    one.http.frontend = "";
    for (unsigned s = 0; s < CONFIG_SECTIONS; s++)
        if (!config_sections[s].list || strcmp(config_sections[s].name, "blocks") == 0)
            config_print_section(out, &one, &config_sections[s]);
    fputs("devices:\n", out);
    for (unsigned d = 0; d < whole->devices_count; d++)
        if (has(entry, whole->devices[d].name))
            config_print_entry(out, whole, "devices", d, NULL);
    fputs("experts:\n", out);
    for (unsigned e = 0; e < whole->experts_count; e++)
        if (has(entry, whole->experts[e].device))
            config_print_entry(out, whole, "experts", e, NULL);
}

int config_cut(struct config *cut, const struct config *whole, unsigned index)
{
    char *text = NULL, origin[64];
    size_t length;
    *cut = (struct config){0};
    FILE *out = open_memstream(&text, &length);
    if (out)
        print(out, whole, index);
    if (!out || fclose(out) != 0) {
        free(text);
        log_error("out of memory");
        return -ENOMEM;
    }
    snprintf(origin, sizeof origin, "frontend '%.32s'", whole->frontends[index].name);
    const int rc = config_parse(cut, text, length, origin);
    free(text);
    return rc;
}

/* "left, right" */
static void list_names(const struct config *whole, char *text, size_t size)
{
    size_t used = 0;
    text[0] = 0;
    for (unsigned i = 0; i < whole->frontends_count && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%s", i ? ", " : "", whole->frontends[i].name);
}

int config_cut_frontend(const struct config **chosen, struct config *cut, const struct config *whole, const char *name)
{
    char names[512];
    *cut = (struct config){0};
    *chosen = whole;
    if (whole->frontends_count == 0 && !name)
        return 0;
    if (whole->frontends_count == 0) {
        log_error("--frontend %.100s: the configuration has one frontend, without a name (it has no list `frontends`)",
                  name);
        return -EINVAL;
    }
    *chosen = cut;
    for (unsigned i = 0; name && i < whole->frontends_count; i++)
        if (strcmp(whole->frontends[i].name, name) == 0)
            return config_cut(cut, whole, i);
    list_names(whole, names, sizeof names);
    if (name)
        log_error("the configuration has no frontend '%.100s': it has %s", name, names);
    else
        log_error("the configuration has several frontends: --frontend says which this one is (%s)", names);
    return -EINVAL;
}

int config_cut_device(const struct config **chosen, struct config *cut, const struct config *whole, const char *device)
{
    *cut = (struct config){0};
    *chosen = whole;
    if (whole->frontends_count == 0)
        return 0;
    *chosen = cut;
    return config_cut(cut, whole, config_cut_owner(whole, device));
}
