#include "client/siblings.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/address.h"

/* By the low bits of the uid's hash: one that has the place of another is asked for at home again. */
enum { ROUTES = 4096 };
struct sibling_route {
    uint64_t uid_hash;
    struct expertd_client *client;
};

int siblings_init(struct siblings *siblings, const struct expertd_client_options *options)
{
    *siblings = (struct siblings){.options = *options};
    siblings->server_key = options->server_key ? strdup(options->server_key) : NULL;
    siblings->key_file = options->key_file ? strdup(options->key_file) : NULL;
    if ((options->server_key && !siblings->server_key) || (options->key_file && !siblings->key_file))
        return -ENOMEM;
    siblings->options.size = sizeof siblings->options;
    siblings->options.server_key = siblings->server_key;
    siblings->options.key_file = siblings->key_file;
    return 0;
}

void siblings_clear(struct siblings *siblings)
{
    free(siblings->routes);
    free(siblings->server_key);
    free(siblings->key_file);
    *siblings = (struct siblings){0};
}

static bool begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

struct expertd_client *siblings_at(const struct siblings *siblings, const char *endpoint)
{
    for (size_t i = 0; i < siblings->count; i++)
        if (strcmp(siblings->endpoints[i], endpoint) == 0)
            return siblings->clients[i];
    return NULL;
}

bool siblings_may_add(const struct siblings *siblings, const char *home, const char *endpoint)
{
    const bool known = begins(endpoint, "tcp://") || (begins(endpoint, "ipc://") && address_endpoint_is_local(home));
    return siblings->count < SIBLINGS_MAX && known && !address_endpoint_problem(endpoint, false);
}

void siblings_add(struct siblings *siblings, struct expertd_client *client, const char *endpoint)
{
    siblings->endpoints[siblings->count] = endpoint;
    siblings->clients[siblings->count++] = client;
}

struct expertd_client *siblings_find(const struct siblings *siblings, uint64_t uid_hash)
{
    const struct sibling_route *route = siblings->routes ? &siblings->routes[uid_hash % ROUTES] : NULL;
    return route && route->uid_hash == uid_hash ? route->client : NULL;
}

void siblings_learn(struct siblings *siblings, uint64_t uid_hash, struct expertd_client *client)
{
    if (!siblings->routes && client)
        siblings->routes = calloc(ROUTES, sizeof *siblings->routes);
    struct sibling_route *route = siblings->routes ? &siblings->routes[uid_hash % ROUTES] : NULL;
    if (route && client)
        *route = (struct sibling_route){uid_hash, client};
    else if (route && route->uid_hash == uid_hash)
        route->client = NULL;
}
