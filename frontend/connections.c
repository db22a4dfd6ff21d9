#include "frontend/connections.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <zmq.h>

#include "common/log.h"
#include "frontend/client_peer.h"
#include "proto/gate.h"

enum {
    SPARE_FILES = 16, /* for what is opened now and then: segments, locks */
    CLOSE_SHARE = 16, /* one of so many goes when there are too many */
    TAKE_MOST = 4096, /* events at once */
    SMALLEST_SHED = 1 << 20,
};

static const int failed_handshake =
    ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;

struct connection {
    bool open;
    bool early;               /* heard before its beginning was told */
    struct client_peer *peer; /* who speaks here; NULL: nobody yet */
    uint64_t wire_bytes;      /* of whole messages that came */
    uint64_t since_ns;        /* the last message, or else the beginning */
};

struct connections {
    void *socket, *monitor;
    int fd;
    struct connection *table; /* by descriptor */
    uint32_t size, count, limit, others;
    bool peer_gone; /* one with requests, that connections_take has not told yet */
    struct connections_counters counters;
};

/* --- beginning and end ----------------------------------------------------------------------------------------------
 */

int connections_create(struct connections **connections, void *context, void *socket)
{
    static unsigned number;
    char endpoint[64];
    struct connections *made = *connections = calloc(1, sizeof *made);
    if (!made)
        return -ENOMEM;
    made->socket = socket;
    made->limit = UINT32_MAX;
    snprintf(endpoint, sizeof endpoint, "inproc://connections-%p-%u", socket, number++);
    const int unbounded = 0, at_once = 0;
    size_t size = sizeof made->fd;
    int rc = zmq_socket_monitor(
        socket, endpoint, ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_ACCEPT_FAILED | ZMQ_EVENT_DISCONNECTED | failed_handshake);
    if (rc == 0 && (made->monitor = zmq_socket(context, ZMQ_PAIR)) == NULL)
        rc = -1;
    /* A full queue would stop ZeroMQ's thread. */
    if (rc == 0)
        rc = zmq_setsockopt(made->monitor, ZMQ_RCVHWM, &unbounded, sizeof unbounded);
    if (rc == 0)
        rc = zmq_setsockopt(made->monitor, ZMQ_LINGER, &at_once, sizeof at_once);
    if (rc == 0)
        rc = zmq_connect(made->monitor, endpoint);
    if (rc == 0)
        rc = zmq_getsockopt(made->monitor, ZMQ_FD, &made->fd, &size);
    if (rc == 0)
        return 0;
    rc = -errno;
    log_error("cannot watch the socket's connections: %s", zmq_strerror(-rc));
    connections_destroy(connections);
    return rc;
}

void connections_destroy(struct connections **connections)
{
    struct connections *old = *connections;
    *connections = NULL;
    if (!old)
        return;
    (void)zmq_socket_monitor(old->socket, NULL, 0);
    if (old->monitor)
        zmq_close(old->monitor);
    free(old->table);
    free(old);
}

static uint32_t open_files(void)
{
    uint32_t count = 0;
    DIR *folder = opendir("/proc/self/fd");
    while (folder && readdir(folder))
        count++;
    if (folder)
        closedir(folder);
    return count; /* "." and ".." are as good as the folder's own and one more */
}

int connections_set_limit(struct connections *connections)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur == RLIM_INFINITY)
        return 0;
    const uint64_t used = open_files() + (uint64_t)SPARE_FILES;
    if (files.rlim_cur <= used) {
        log_error("the limit of open files, %" PRIu64 ", leaves none for clients: at least %" PRIu64
                  " are needed beside "
                  "one for each (ulimit -n, LimitNOFILE)",
                  (uint64_t)files.rlim_cur, used);
        return -EMFILE;
    }
    const uint64_t left = files.rlim_cur - used;
    connections->limit = left < UINT32_MAX ? (uint32_t)left : UINT32_MAX;
    return 0;
}

/* --- who comes and goes ---------------------------------------------------------------------------------------------
 */

static bool grow(struct connections *connections, uint32_t fd)
{
    uint32_t size = connections->size ? connections->size : 64;
    while (size <= fd)
        size *= 2;
    if (size == connections->size)
        return true;
    struct connection *table = realloc(connections->table, size * sizeof *table);
    if (!table)
        return false;
    memset(table + connections->size, 0, (size - connections->size) * sizeof *table);
    connections->table = table;
    connections->size = size;
    return true;
}

static struct connection *find(struct connections *connections, int fd)
{
    return fd >= 0 && (uint32_t)fd < connections->size && connections->table[fd].open ? &connections->table[fd] : NULL;
}

/* Its client will not read what it has asked for. One with a routing id of its own choice may come back under it. */
static void on_gone(struct connections *connections, int fd)
{
    struct connection *connection = find(connections, fd);
    if (!connection)
        return;
    struct client_peer *peer = connection->peer;
    if (peer) {
        peer->fd = -1;
        if (client_peer_is_one_connection(peer)) {
            peer->gone = true;
            connections->peer_gone |= peer->references > 0;
        }
    }
    *connection = (struct connection){0};
    connections->count--;
}

static void on_accepted(struct connections *connections, int fd, uint64_t now_ns)
{
    struct connection *heard = find(connections, fd);
    if (heard && heard->early) {
        heard->early = false;
        return;
    }
    on_gone(connections, fd); /* not every end is told */
    if (fd < 0 || !grow(connections, (uint32_t)fd))
        return;
    connections->table[fd] = (struct connection){.open = true, .since_ns = now_ns};
    connections->count++;
}

static void on_accept_failure(struct connections *connections, int error)
{
    static struct log_burst burst;
    unsigned left_out = 0;
    connections->counters.accept_failures++;
    if (log_burst_allows(&burst, &left_out, strerror(error)))
        log_warning("cannot accept a connection: %s; %" PRIu32 " are open (%u more like it)", strerror(error),
                    connections->count, left_out);
}

/* An event is two frames: number and value, then the endpoint. */
static bool take_event(struct connections *connections, uint64_t now_ns)
{
    zmq_msg_t frame;
    zmq_msg_init(&frame);
    if (zmq_msg_recv(&frame, connections->monitor, ZMQ_DONTWAIT) < 0) {
        zmq_msg_close(&frame);
        return errno == EINTR;
    }
    uint16_t event = 0;
    uint32_t value = 0;
    if (zmq_msg_size(&frame) >= sizeof event + sizeof value) {
        memcpy(&event, zmq_msg_data(&frame), sizeof event);
        memcpy(&value, (char *)zmq_msg_data(&frame) + sizeof event, sizeof value);
    }
    while (zmq_msg_more(&frame) && zmq_msg_recv(&frame, connections->monitor, ZMQ_DONTWAIT) >= 0)
        ;
    zmq_msg_close(&frame);
    if (event == ZMQ_EVENT_ACCEPTED)
        on_accepted(connections, (int)value, now_ns);
    else if (event == ZMQ_EVENT_DISCONNECTED)
        on_gone(connections, (int)value);
    else if (event == ZMQ_EVENT_ACCEPT_FAILED)
        on_accept_failure(connections, (int)value);
    else if (event & failed_handshake)
        connections->counters.failed_handshakes++;
    return true;
}

/* --- closing --------------------------------------------------------------------------------------------------------
 */

struct candidate {
    int fd;
    bool spoke;
    uint64_t weight;
};

/* Its socket is ZeroMQ's to close; a shut one ends it there. Between our last look and this the descriptor may have
 * become another connection's: that one then connects again. */
static void shut(int fd)
{
    (void)shutdown(fd, SHUT_RDWR);
}

/* First those who never said anything; of each kind the longest idle first. */
static int by_idleness(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->spoke != y->spoke)
        return x->spoke ? 1 : -1;
    return x->weight < y->weight ? -1 : x->weight > y->weight;
}

static int by_weight(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    return x->weight > y->weight ? -1 : x->weight < y->weight;
}

static void make_room(struct connections *connections)
{
    static struct log_burst burst;
    unsigned left_out = 0;
    uint32_t n = 0;
    struct candidate *candidates = malloc(connections->count * sizeof *candidates);
    if (!candidates)
        return;
    for (uint32_t fd = 0; fd < connections->size && n < connections->count; fd++) {
        const struct connection *connection = &connections->table[fd];
        if (connection->open && !(connection->peer && connection->peer->references > 0))
            candidates[n++] = (struct candidate){(int)fd, connection->peer != NULL, connection->since_ns};
    }
    qsort(candidates, n, sizeof *candidates, by_idleness);
    const uint32_t most =
        connections->count + connections->others - connections->limit + connections->limit / CLOSE_SHARE;
    const uint32_t closed = n < most ? n : most;
    for (uint32_t i = 0; i < closed; i++) {
        shut(candidates[i].fd);
        on_gone(connections, candidates[i].fd);
    }
    free(candidates);
    connections->counters.closed_idle += closed;
    if (log_burst_allows(&burst, &left_out, NULL))
        log_warning("%" PRIu32 " connections are more than the limit of open files allows: closed %" PRIu32
                    " idle ones (ulimit -n, LimitNOFILE; %u more like it)",
                    connections->count + closed, closed, left_out);
}

/* What the connection has sent beyond its whole messages, as the gate has counted it, or else the kernel, which tells
 * nothing of ipc://. */
static uint64_t unfinished_bytes(const struct connection *connection, int fd)
{
    struct tcp_info info = {0};
    uint64_t counted;
    if (gate_unfinished(fd, &counted))
        return counted;
    socklen_t size = sizeof info;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0 ||
        size < offsetof(struct tcp_info, tcpi_bytes_received) + sizeof info.tcpi_bytes_received)
        return 0;
    const uint64_t received = info.tcpi_bytes_received;
    return received > connection->wire_bytes ? received - connection->wire_bytes : 0;
}

void connections_end(struct connections *connections, int fd, const char *why)
{
    static struct log_burst burst;
    unsigned left_out = 0;
    if (!find(connections, fd))
        return;
    shut(fd);
    on_gone(connections, fd);
    if (log_burst_allows(&burst, &left_out, why))
        log_warning("closed a connection %s (%u more like it)", why, left_out);
}

uint32_t connections_shed(struct connections *connections, uint64_t bytes)
{
    static struct log_burst burst;
    unsigned left_out = 0;
    uint32_t n = 0, closed = 0;
    struct candidate *candidates = malloc(connections->count * sizeof *candidates + 1);
    if (!candidates)
        return 0;
    for (uint32_t fd = 0; fd < connections->size && n < connections->count; fd++) {
        if (connections->table[fd].open)
            candidates[n++] = (struct candidate){(int)fd, false, unfinished_bytes(&connections->table[fd], (int)fd)};
    }
    qsort(candidates, n, sizeof *candidates, by_weight);
    uint64_t shed = 0;
    for (; closed < n && shed < bytes && candidates[closed].weight >= SMALLEST_SHED; closed++) {
        shed += candidates[closed].weight;
        shut(candidates[closed].fd);
        on_gone(connections, candidates[closed].fd);
    }
    free(candidates);
    connections->counters.closed_large += closed;
    if (closed && log_burst_allows(&burst, &left_out, NULL))
        log_warning("closed %" PRIu32 " connections that had sent %" PRIu64
                    " MiB of messages that did not end, since the "
                    "memory for messages (frontend.max_memory) is used up (%u more like it)",
                    closed, shed >> 20, left_out);
    return closed;
}

/* --- taking ---------------------------------------------------------------------------------------------------------
 */

int connections_fd(const struct connections *connections)
{
    return connections->fd;
}

bool connections_take(struct connections *connections, uint64_t now_ns)
{
    for (int i = 0; i < TAKE_MOST && take_event(connections, now_ns); i++)
        ;
    if ((uint64_t)connections->count + connections->others > connections->limit)
        make_room(connections);
    const bool gone = connections->peer_gone;
    connections->peer_gone = false;
    return gone;
}

/* With several threads of ZeroMQ's a message may be there before its connection is told of. NULL: it has gone. */
static struct connection *heard_early(struct connections *connections, int fd, uint64_t now_ns)
{
    int type;
    socklen_t size = sizeof type;
    if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0)
        return NULL;
    on_accepted(connections, fd, now_ns);
    struct connection *connection = find(connections, fd);
    if (connection)
        connection->early = true;
    return connection;
}

void connections_heard(struct connections *connections, int fd, struct client_peer *peer, uint64_t wire_bytes,
                       uint64_t now_ns)
{
    struct connection *connection = find(connections, fd);
    gate_heard(fd);
    if (!connection || connection->peer != peer) {
        /* What is told of an earlier connection with this descriptor comes first. */
        while (take_event(connections, now_ns))
            ;
        connection = find(connections, fd);
        if (!connection)
            connection = heard_early(connections, fd, now_ns);
        /* What it sent before it went is read after that. */
        if (client_peer_is_one_connection(peer) && fd >= 0 && (!connection || peer->gone)) {
            peer->gone = connections->peer_gone = true;
            return;
        }
        if (!connection)
            return;
        struct connection *before = peer->fd == fd ? NULL : find(connections, peer->fd);
        if (before && before->peer == peer)
            before->peer = NULL;
        if (connection->peer && connection->peer != peer)
            connection->peer->fd = -1;
        connection->peer = peer;
        peer->fd = fd;
        peer->gone = false;
    }
    connection->wire_bytes += wire_bytes;
    connection->since_ns = now_ns;
}

void connections_set_others(struct connections *connections, uint32_t files)
{
    connections->others = files;
}

uint32_t connections_count(const struct connections *connections)
{
    return connections->count;
}

const struct connections_counters *connections_counters(const struct connections *connections)
{
    return &connections->counters;
}
