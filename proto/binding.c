#include "proto/binding.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <zmq.h>

#include "common/log.h"

/* NULL: no file has the name. */
static const char *path_of(const char *endpoint)
{
    static const char scheme[] = "ipc://";
    const char *path = endpoint + sizeof scheme - 1;
    return strncmp(endpoint, scheme, sizeof scheme - 1) == 0 && path[0] != '@' && path[0] != '*' && path[0] ? path
                                                                                                            : NULL;
}

int binding_check(const char *path)
{
    struct stat found;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (lstat(path, &found) != 0 || strlen(path) >= sizeof address.sun_path)
        return 0;
    if (!S_ISSOCK(found.st_mode))
        return -EEXIST;
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    /* One of another type, or whose queue is full, is listened at. */
    const bool left = connect(fd, (const struct sockaddr *)&address, sizeof address) != 0 &&
                      (errno == ECONNREFUSED || errno == ENOENT);
    close(fd);
    return left ? 0 : -EADDRINUSE;
}

int bindings_bind(struct bindings *bindings, void *socket, const char *endpoint)
{
    const int taken = path_of(endpoint) ? binding_check(path_of(endpoint)) : 0;
    if (taken < 0) {
        errno = -taken;
        return -1;
    }
    if (zmq_bind(socket, endpoint) != 0)
        return -1;
    if (path_of(endpoint) && strlen(endpoint) < BINDING_SIZE && bindings->count < BINDINGS_MAX)
        snprintf(bindings->endpoints[bindings->count++], BINDING_SIZE, "%s", endpoint);
    return 0;
}

static void bind_anew(const char *endpoint, void *socket)
{
    static struct log_burst burst;
    if (zmq_bind(socket, endpoint) == 0)
        log_warning("the socket '%s' was removed: made anew", path_of(endpoint));
    else if (log_burst_allows(&burst, NULL, endpoint))
        log_warning("the socket '%s' was removed, and cannot be made anew: %s", path_of(endpoint), zmq_strerror(errno));
}

void bindings_keep(struct bindings *bindings, void *socket)
{
    struct stat found;
    for (unsigned i = 0; i < bindings->count; i++)
        if (lstat(path_of(bindings->endpoints[i]), &found) != 0 && errno == ENOENT)
            bind_anew(bindings->endpoints[i], socket);
}
