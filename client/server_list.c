#include "client/server_list.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>
#include <zmq.h>

enum {
    SERVERS_KEPT = 256,
    DESCRIPTORS = 5, /* of one server: two sockets' signals and the monitor's, the connection, the epoll over them */
    MAX_SOCKETS = 65535, /* ZeroMQ's own limit is 1023 in a context; a server needs three */
};

/* Half of the process' descriptors are its own. */
static size_t servers_kept(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur / (2 * DESCRIPTORS) >= SERVERS_KEPT)
        return SERVERS_KEPT;
    return limit.rlim_cur / (2 * DESCRIPTORS);
}

int server_list_init(struct server_list *list, const struct expertd_client_options *options)
{
    *list = (struct server_list){.fd = -1, .options = *options};
    list->server_key = options->server_key ? strdup(options->server_key) : NULL;
    list->key_file = options->key_file ? strdup(options->key_file) : NULL;
    list->options.server_key = list->server_key;
    list->options.key_file = list->key_file;
    list->options.impatient = true; /* there may be another server to ask (client/remote_attempt.c) */
    TAILQ_INIT(&list->servers);
    list->kept = servers_kept();
    list->fd = epoll_create1(EPOLL_CLOEXEC);
    if (list->fd < 0)
        return -errno;
    if (!options->zmq_context) {
        list->options.zmq_context = zmq_ctx_new();
        if (!list->options.zmq_context)
            return -errno;
        list->owns_context = true;
        zmq_ctx_set(list->options.zmq_context, ZMQ_MAX_SOCKETS, MAX_SOCKETS);
    }
    return 0;
}

void server_list_clear(struct server_list *list)
{
    struct server *next;
    for (struct server *server = TAILQ_FIRST(&list->servers); server; server = next) {
        next = TAILQ_NEXT(server, link);
        expertd_client_destroy(&server->client);
        free(server);
    }
    free(list->server_key);
    free(list->key_file);
    list->server_key = list->key_file = NULL;
    TAILQ_INIT(&list->servers);
    list->count = 0;
    if (list->fd >= 0)
        close(list->fd);
    list->fd = -1;
    if (list->owns_context)
        while (zmq_ctx_term(list->options.zmq_context) < 0 && errno == EINTR)
            ;
    list->owns_context = false;
}

static void drop_oldest(struct server_list *list)
{
    struct server *oldest = NULL;
    struct server *server;
    for (server = TAILQ_FIRST(&list->servers); server; server = TAILQ_NEXT(server, link))
        if (server->refs == 0 && (!oldest || server->last_used < oldest->last_used))
            oldest = server;
    if (!oldest)
        return;
    TAILQ_REMOVE(&list->servers, oldest, link);
    list->count--;
    expertd_client_destroy(&oldest->client);
    free(oldest);
}

static struct server *add(struct server_list *list, const char *endpoint, const char *key)
{
    struct server *server = calloc(1, sizeof *server);
    if (!server)
        return NULL;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = server};
    struct expertd_client_options options = list->options;
    snprintf(server->key, sizeof server->key, "%s", key);
    if (key[0])
        options.server_key = server->key;
    int rc = expertd_client_new(&server->client, endpoint, &options);
    if (rc == 0 && epoll_ctl(list->fd, EPOLL_CTL_ADD, expertd_client_fd(server->client), &event) < 0)
        rc = -errno;
    if (rc < 0) {
        expertd_client_destroy(&server->client);
        free(server);
        errno = -rc;
        return NULL;
    }
    TAILQ_INSERT_TAIL(&list->servers, server, link);
    list->count++;
    return server;
}

struct server *server_list_get(struct server_list *list, const char *endpoint, const char *key)
{
    struct server *server;
    for (server = TAILQ_FIRST(&list->servers); server; server = TAILQ_NEXT(server, link))
        if (strcmp(expertd_client_endpoint(server->client), endpoint) == 0 && strcmp(server->key, key) == 0)
            break;
    if (!server) {
        if (list->count >= list->kept)
            drop_oldest(list);
        server = add(list, endpoint, key);
    }
    if (server)
        server->refs++;
    return server;
}

void server_release(struct server *server)
{
    server->refs--;
}

void server_use(struct server_list *list, struct server *server)
{
    server->last_used = ++list->uses;
}

static void take_in(struct server *server)
{
    expertd_poll(server->client, 0);
    if (expertd_client_connected(server->client))
        server->down = false;
}

bool server_usable(struct server *server)
{
    if (server->down)
        take_in(server);
    return !server->down;
}

void server_list_poll(struct server_list *list)
{
    struct server *server;
    for (server = TAILQ_FIRST(&list->servers); server; server = TAILQ_NEXT(server, link)) {
        if (server->calls == 0)
            continue;
        expertd_poll(server->client, 0);
        if (expertd_client_connected(server->client))
            server->down = false;
    }
}

int server_list_timeout_ms(const struct server_list *list)
{
    const struct server *server;
    int least_ms = -1;
    for (server = TAILQ_FIRST(&list->servers); server; server = TAILQ_NEXT(server, link)) {
        const int ms = server->calls > 0 ? expertd_client_timeout_ms(server->client) : -1;
        if (ms >= 0 && (least_ms < 0 || ms < least_ms))
            least_ms = ms;
    }
    return least_ms;
}

void server_list_take_news(const struct server_list *list)
{
    enum { EVENTS = 32 };
    struct epoll_event events[EVENTS];
    const int count = epoll_wait(list->fd, events, EVENTS, 0);
    for (int i = 0; i < count; i++)
        take_in(events[i].data.ptr);
}
