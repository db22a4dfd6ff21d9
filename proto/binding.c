#include "proto/binding.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
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

int bindings_bind(struct bindings *bindings, void *socket, const char *endpoint)
{
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
