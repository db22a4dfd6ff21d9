#include "http/upstream.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

struct upstream {
    const struct config *config;
    pthread_mutex_t lock;
    pthread_cond_t given;
    unsigned made, free;
    struct expertd_client *clients[]; /* all `made` of them: the first `free` are not taken */
};

static void set_options(struct expertd_client_options *options, const struct config *config)
{
    expertd_client_options_init(options);
    if (config->server.key_file[0]) /* the server's own key is an operator's */
        options->server_key = options->key_file = config->server.key_file;
    options->impatient = true; /* a full pool is said, for who asks to decide */
}

bool upstream_changes(const struct upstream *upstream)
{
    return upstream->config->http.changes;
}

/* frontend: the name of one of several; NULL. */
static struct expertd_client *connect_own(const struct upstream *upstream, const char *frontend)
{
    struct expertd_client *client = NULL;
    struct expertd_client_options options;
    char endpoint[PATH_MAX + 64];
    const struct config_server *server = &upstream->config->server;
    set_options(&options, upstream->config);
    const int length = snprintf(endpoint, sizeof endpoint, "ipc://%s/%s%s%s.socket", server->run_dir, server->name,
                                frontend ? "-" : "", frontend ? frontend : "");
    if (length < 0 || (size_t)length >= sizeof endpoint || expertd_client_new(&client, endpoint, &options) < 0)
        return NULL;
    return client;
}

static bool answers(const struct upstream *upstream, struct expertd_client *client)
{
    struct expertd_call *call = NULL;
    const bool up = expertd_ping(client, upstream_patience_ms(upstream), &call) == 0 && upstream_wait(call);
    expertd_call_release(&call);
    return up;
}

struct expertd_client *upstream_own(const struct upstream *upstream)
{
    const struct config *config = upstream->config;
    for (unsigned i = 0; i < config->frontends_count; i++) { /* any of them says which is the right one */
        struct expertd_client *client = connect_own(upstream, config->frontends[i].name);
        if (!client || answers(upstream, client))
            return client;
        expertd_client_destroy(&client);
    }
    return connect_own(upstream, config->frontends_count > 0 ? config->frontends[0].name : NULL);
}

int upstream_create(struct upstream **upstream, const struct config *config)
{
    const unsigned count = (unsigned)config->http.threads + 1;
    struct upstream *u = *upstream = calloc(1, sizeof *u + count * sizeof(struct expertd_client *));
    if (!u)
        return -ENOMEM;
    u->config = config;
    pthread_mutex_init(&u->lock, NULL);
    pthread_cond_init(&u->given, NULL);
    for (; u->made < count; u->made++, u->free++) {
        struct expertd_client_options options;
        set_options(&options, config);
        const int rc = expertd_client_new(&u->clients[u->made], config->http.frontend, &options);
        if (rc < 0) {
            log_error("http.frontend '%s': %s", config->http.frontend, strerror(-rc));
            upstream_destroy(upstream);
            return rc;
        }
    }
    return 0;
}

void upstream_destroy(struct upstream **upstream)
{
    if (!*upstream)
        return;
    for (unsigned i = 0; i < (*upstream)->free; i++)
        expertd_client_destroy(&(*upstream)->clients[i]);
    pthread_cond_destroy(&(*upstream)->given);
    pthread_mutex_destroy(&(*upstream)->lock);
    free(*upstream);
    *upstream = NULL;
}

struct expertd_client *upstream_take(struct upstream *upstream)
{
    pthread_mutex_lock(&upstream->lock);
    while (upstream->free == 0)
        pthread_cond_wait(&upstream->given, &upstream->lock);
    struct expertd_client *client = upstream->clients[--upstream->free];
    pthread_mutex_unlock(&upstream->lock);
    return client;
}

void upstream_give(struct upstream *upstream, struct expertd_client *client)
{
    pthread_mutex_lock(&upstream->lock);
    upstream->clients[upstream->free++] = client;
    pthread_cond_signal(&upstream->given);
    pthread_mutex_unlock(&upstream->lock);
}

bool upstream_wait(struct expertd_call *call)
{
    while (expertd_call_wait(call, -1) == -EINTR) {
    }
    return expertd_call_status(call) == EXPERTD_OK;
}

uint32_t upstream_timeout_ms(const struct upstream *upstream)
{
    return (uint32_t)upstream->config->http.timeout;
}

uint32_t upstream_patience_ms(const struct upstream *upstream)
{
    enum { PATIENCE_MS = 2000 };
    const uint32_t timeout_ms = upstream_timeout_ms(upstream);
    return timeout_ms < PATIENCE_MS ? timeout_ms : PATIENCE_MS;
}
