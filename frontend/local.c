#include "frontend/local.h"

#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/log.h"
#include "frontend/connections.h"
#include "frontend/local_private.h"
#include "frontend/server.h"
#include "proto/binding.h"

enum { GROUPS_MOST = 1024, BACKLOG = 64 };

/* --- the socket -----------------------------------------------------------------------------------------------------
 */

static int find_group(struct local *local, const char *name)
{
    char *end, memory[16384];
    struct group entry, *group = NULL;
    if (getgrnam_r(name, &entry, memory, sizeof memory, &group) != 0)
        group = NULL;
    const unsigned long number = strtoul(name, &end, 10);
    local->by_group = true;
    local->group = group ? group->gr_gid : (gid_t)number;
    if (group || (*name && !*end))
        return 0;
    log_error("frontend.local: there is no group '%s' here", name);
    return -ENOENT;
}

static int find_place(struct local *local, const struct config *config)
{
    const char *own = config->frontend.local_path;
    const int n = own[0] ? snprintf(local->address.sun_path, sizeof local->address.sun_path, "%s", own)
                         : snprintf(local->address.sun_path, sizeof local->address.sun_path, "%s/%s.local",
                                    config->server.run_dir, config->server.name);
    local->address.sun_family = AF_UNIX;
    if (n > 0 && (size_t)n < sizeof local->address.sun_path)
        return 0;
    log_warning("clients on this host use ZeroMQ alone: the path of the socket would have %d characters, and %zu are "
                "possible (frontend.local_path)",
                n, sizeof local->address.sun_path - 1);
    return -ENAMETOOLONG;
}

/* Mode 0600 from its first moment on. Whoever holds the frontend's role removes what an earlier one left; but not what
 * another server listens at, whose frontend.local_path may be the same. */
static int listen_there(struct local *local)
{
    struct stat status = {0};
    const char *path = local->address.sun_path;
    const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int rc = binding_check(path);
    if (rc == 0 && unlink(path) != 0 && errno != ENOENT)
        rc = -errno;
    if (rc == 0 && (fchmod(fd, 0600) != 0 || bind(fd, (struct sockaddr *)&local->address, sizeof local->address) != 0 ||
                    (local->by_group && (chown(path, (uid_t)-1, local->group) != 0 || chmod(path, 0660) != 0)) ||
                    lstat(path, &status) != 0 || listen(fd, BACKLOG) != 0))
        rc = -errno;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (rc == 0 && epoll_ctl(local->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
        rc = -errno;
    if (rc < 0) {
        close(fd);
        return rc;
    }
    local->device = status.st_dev;
    local->inode = status.st_ino;
    local->listen_fd = fd;
    local->accepting = true;
    return 0;
}

int local_open(struct local **local, const struct config *config)
{
    static const char group[] = "group ";
    const struct config_frontend *frontend = &config->frontend;
    *local = NULL;
    if (strcmp(frontend->local, "off") == 0)
        return 0;
    struct local *made = calloc(1, sizeof *made);
    if (!made) {
        log_error("out of memory");
        return -ENOMEM;
    }
    TAILQ_INIT(&made->clients);
    made->listen_fd = -1;
    made->region_max = frontend->local_memory;
    made->most = (uint32_t)frontend->local_clients;
    made->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int rc =
        made->epoll_fd < 0 || getrandom(made->instance, sizeof made->instance, 0) != sizeof made->instance ? -errno : 0;
    if (rc < 0)
        log_error("cannot prepare for clients on this host: %s", strerror(-rc));
    if (rc == 0 && strncmp(frontend->local, group, strlen(group)) == 0)
        rc = find_group(made, frontend->local + strlen(group));
    bool there = rc == 0 && find_place(made, config) == 0;
    if (there && (rc = listen_there(made)) < 0) {
        log_warning("clients on this host use ZeroMQ alone: cannot listen on '%s': %s (frontend.local_path)",
                    made->address.sun_path, strerror(-rc));
        there = false;
        rc = 0;
    }
    if (there)
        log_info("clients on this host connect to %s", made->address.sun_path);
    else
        local_close(&made);
    *local = made;
    return rc;
}

static bool is_ours(const struct local *local)
{
    struct stat status;
    return lstat(local->address.sun_path, &status) == 0 && status.st_dev == local->device &&
           status.st_ino == local->inode;
}

void local_close(struct local **local)
{
    struct local *old = *local;
    struct local_client *client;
    *local = NULL;
    if (!old)
        return;
    while ((client = TAILQ_FIRST(&old->clients)) != NULL) {
        (void)local_client_flush(client);
        TAILQ_REMOVE(&old->clients, client, link);
        client->peer->local = NULL;
        local_client_free(client);
    }
    if (old->listen_fd >= 0) {
        if (is_ours(old))
            (void)unlink(old->address.sun_path);
        close(old->listen_fd);
    }
    if (old->epoll_fd >= 0)
        close(old->epoll_fd);
    free(old);
}

static void accept_more(struct local *local, bool more)
{
    struct epoll_event event = {.events = more ? EPOLLIN : 0, .data.ptr = NULL};
    if (local->accepting != more && epoll_ctl(local->epoll_fd, EPOLL_CTL_MOD, local->listen_fd, &event) == 0)
        local->accepting = more;
}

void local_keep(struct local *local)
{
    static struct log_burst burst;
    unsigned left_out = 0;
    if (local)
        accept_more(local, true); /* files may be there again */
    if (!local || (local->listen_fd >= 0 && is_ours(local)))
        return;
    if (local->listen_fd >= 0)
        close(local->listen_fd); /* which takes it out of the epoll */
    local->listen_fd = -1;
    const int rc = listen_there(local);
    if (log_burst_allows(&burst, &left_out, rc < 0 ? strerror(-rc) : NULL))
        log_warning("the socket '%s' for clients on this host was removed%s%s (%u more like it)",
                    local->address.sun_path, rc < 0 ? ", and cannot be made anew: " : ": made anew",
                    rc < 0 ? strerror(-rc) : "", left_out);
}

/* --- who comes and goes ---------------------------------------------------------------------------------------------
 */

static bool in_group(int fd, const struct ucred *peer, gid_t group)
{
    gid_t groups[GROUPS_MOST];
    socklen_t size = sizeof groups;
    if (peer->gid == group)
        return true;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &size) != 0)
        return false;
    for (size_t i = 0; i < size / sizeof groups[0]; i++) {
        if (groups[i] == group)
            return true;
    }
    return false;
}

/* The mode of the socket says the same; but a folder's or a copy's may have been changed. */
static bool may_come(const struct local *local, int fd, bool *owner)
{
    struct ucred peer;
    socklen_t size = sizeof peer;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
        return false;
    *owner = peer.uid == 0 || peer.uid == geteuid();
    return *owner || (local->by_group && in_group(fd, &peer, local->group));
}

void local_watch(const struct local *local, struct local_client *client, bool add)
{
    /* One that does not read is not read from. */
    struct epoll_event event = {.events = client->full ? EPOLLOUT : EPOLLIN, .data.ptr = client};
    if (epoll_ctl(local->epoll_fd, add ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, client->fd, &event) != 0)
        client->broken = true;
}

void local_end(struct server *server, struct local_client *client, const char *why)
{
    static struct log_burst burst;
    unsigned left_out = 0;
    struct local *local = server->local;
    if (why) {
        local->counters.ended++;
        if (log_burst_allows(&burst, &left_out, why))
            log_warning("closed a client on this host: %s (%u more like it)", why, left_out);
    }
    for (struct local_client **at = &local->dirty; *at; at = &(*at)->next_dirty) {
        if (*at == client) {
            *at = client->next_dirty;
            break;
        }
    }
    TAILQ_REMOVE(&local->clients, client, link);
    client->peer->local = NULL;
    client->peer->gone = true;
    client_peer_release(client->peer);
    local->gone = true;
    local_client_free(client);
    local->count--;
    connections_set_others(server->connections, 2 * local->count);
    accept_more(local, true);
}

/* Peers are known by ids; ZeroMQ gives none of this form to anybody. */
static struct client_peer *make_peer(struct server *server, struct local_client *client)
{
    unsigned char id[1 + sizeof server->local->last_number + 5] = "\0local";
    const uint64_t number = ++server->local->last_number;
    memcpy(id + 6, &number, sizeof number);
    struct client_peer *peer = client_peers_find(server->peers, id, sizeof id);
    if (peer)
        peer->local = client;
    return peer;
}

static void take_in(struct server *server, int fd)
{
    struct local *local = server->local;
    bool owner;
    if (!may_come(local, fd, &owner)) {
        local->counters.refused++;
        close(fd);
        return;
    }
    struct local_client *client = local_client_new(fd, local->region_max, local->instance);
    if (!client)
        return;
    client->dirty_list = &local->dirty;
    client->owner = owner;
    client->peer = make_peer(server, client);
    if (!client->peer) {
        local_client_free(client);
        return;
    }
    TAILQ_INSERT_TAIL(&local->clients, client, link);
    local->count++;
    connections_set_others(server->connections, 2 * local->count);
    local_watch(local, client, true);
    if (client->broken)
        local_end(server, client, NULL);
}

/* When there is no place left: the oldest that never handed over its memory goes. */
static bool make_room(struct server *server)
{
    struct local_client *client = NULL;
    TAILQ_FOREACH(client, &server->local->clients, link)
    {
        if (client->ready)
            continue;
        local_end(server, client, "it never handed over its memory, and others wait (frontend.local_clients)");
        return true;
    }
    return false;
}

void local_accept(struct server *server)
{
    static struct log_burst burst;
    unsigned left_out = 0;
    struct local *local = server->local;
    for (int i = 0; i < BACKLOG; i++) {
        const int fd = accept4(local->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0 && (local->count < local->most || make_room(server))) {
            take_in(server, fd);
            continue;
        }
        if (fd >= 0) { /* it has ZeroMQ */
            local->counters.refused++;
            close(fd);
            continue;
        }
        if (errno == EINTR || errno == ECONNABORTED)
            continue;
        if (errno != EAGAIN) {
            /* Until one goes: the socket stays readable meanwhile. */
            accept_more(local, false);
            if (log_burst_allows(&burst, &left_out, strerror(errno)))
                log_warning("cannot accept a client on this host: %s (%u more like it)", strerror(errno), left_out);
        }
        return;
    }
}

void local_flush(struct local *local)
{
    struct local_client *client = local ? local->dirty : NULL, *next;
    if (!client)
        return;
    local->dirty = NULL;
    for (; client; client = next) {
        next = client->next_dirty;
        client->dirty = false;
        if (client->full)
            continue; /* until it reads */
        const int rc = client->broken || client->region.lost ? -ENOMEM : local_client_flush(client);
        if (rc == -EAGAIN) {
            client->full = true;
            local_watch(local, client, false);
        } else if (rc < 0) {
            (void)shutdown(client->fd, SHUT_RDWR); /* of which the epoll then tells */
        }
    }
}

/* --- what is told of them -------------------------------------------------------------------------------------------
 */

int local_fd(const struct local *local)
{
    return local ? local->epoll_fd : -1;
}

uint32_t local_count(const struct local *local)
{
    return local ? local->count : 0;
}

const char *local_path(const struct local *local)
{
    return local && local->listen_fd >= 0 ? local->address.sun_path : NULL;
}

const unsigned char *local_instance(const struct local *local)
{
    return local ? local->instance : NULL;
}

const struct local_counters *local_counters(const struct local *local)
{
    static const struct local_counters none;
    return local ? &local->counters : &none;
}
