#include "client/connection.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/tcp.h> /* glibc's struct tcp_info ends before the bytes */
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"

enum {
    LOOK_MS = 100,     /* what a peer sends meanwhile comes on top of what it may */
    RECONNECT_MS = 20, /* doubled up to RECONNECT_MAX_MS: a server that restarts is soon found again */
    RECONNECT_MAX_MS = 500,
    CONNECT_TIMEOUT_MS = 5000, /* of one attempt; the kernel's own is minutes */
    HANDSHAKE_TIMEOUT_MS = 5000,
    MISSED_HEARTBEATS = 5,
    ENDLESS_PAUSE_MS = 500, /* doubled up to ENDLESS_PAUSE_MAX_MS: each time may cost as much as a message may take */
    ENDLESS_PAUSE_MAX_MS = 60000,
    LOCAL_FAILURES = 3,
    FILES = 12, /* a context's threads, two sockets, the epoll, the connection; and some to spare */
    PINGS_BYTES =
        4096, /* more than pings have in that time: what the kernel of a stopped peer takes of them is no life */
    MONITORED = ZMQ_EVENT_CONNECTED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED |
                ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                ZMQ_EVENT_HANDSHAKE_FAILED_AUTH,
};

static const uint64_t local_soon_ns = NS_PER_S;

static int set_int(void *socket, int option, int value)
{
    return zmq_setsockopt(socket, option, &value, sizeof value) < 0 ? -errno : 0;
}

static bool over_tcp(const char *endpoint)
{
    return strncmp(endpoint, "tcp://", strlen("tcp://")) == 0;
}

static int set_options(struct connection *connection, const char *endpoint, const struct connection_options *options)
{
    const int heartbeat_ms = options->heartbeat_ms > INT32_MAX / MISSED_HEARTBEATS ? INT32_MAX / MISSED_HEARTBEATS
                                                                                   : (int)options->heartbeat_ms;
    const struct {
        int option, value;
    } settings[] = {
        {ZMQ_LINGER, 0},
        {ZMQ_IMMEDIATE, 1},
        {ZMQ_RECONNECT_IVL, RECONNECT_MS},
        {ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS},
        {ZMQ_CONNECT_TIMEOUT, CONNECT_TIMEOUT_MS},
        {ZMQ_HANDSHAKE_IVL, HANDSHAKE_TIMEOUT_MS},
        {ZMQ_HEARTBEAT_IVL, heartbeat_ms},
        {ZMQ_HEARTBEAT_TIMEOUT, over_tcp(endpoint) ? 0 : heartbeat_ms * MISSED_HEARTBEATS}, /* 0: never */
        /* With the option set, of a name that has addresses of both kinds only those of IPv6 are tried. */
        {ZMQ_IPV6, strchr(endpoint, '[') != NULL},
    };
    int rc = 0;
    connection->heartbeat_ns = over_tcp(endpoint) ? (uint64_t)heartbeat_ms * NS_PER_MS : 0;
    for (size_t i = 0; i < sizeof settings / sizeof settings[0] && rc == 0; i++)
        rc = set_int(connection->socket, settings[i].option, settings[i].value);
    const int64_t limit = options->max_frame_bytes > INT64_MAX ? INT64_MAX : (int64_t)options->max_frame_bytes;
    if (rc == 0 && zmq_setsockopt(connection->socket, ZMQ_MAXMSGSIZE, &limit, sizeof limit) < 0)
        rc = -errno;
    return rc == 0 && options->keys ? keys_set(options->keys, connection->socket) : rc;
}

/* The monitor is a PAIR within the process, on which ZeroMQ's I/O thread tells of the connection. Its name is used
 * once: ZeroMQ frees names some time after their sockets are closed, and a context may be shared with another copy of
 * this library. Its queue has no bound: the I/O thread, which may be others' too, would stop at a full one until the
 * program polls this client again. It gets some 500 bytes for each connection that came about, and nothing for those
 * that did not. */
static int open_monitor(struct connection *connection)
{
    static atomic_uint_fast64_t last;
    char address[96];
    snprintf(address, sizeof address, "inproc://expertd-monitor-%p-%" PRIuFAST64, (void *)&last,
             atomic_fetch_add_explicit(&last, 1, memory_order_relaxed));
    if (zmq_socket_monitor(connection->socket, address, MONITORED) < 0)
        return -errno;
    connection->monitor = zmq_socket(connection->context, ZMQ_PAIR);
    if (!connection->monitor || set_int(connection->monitor, ZMQ_LINGER, 0) < 0 ||
        set_int(connection->monitor, ZMQ_RCVHWM, 0) < 0 || zmq_connect(connection->monitor, address) < 0)
        return -errno;
    return 0;
}

static int watch(struct connection *connection, void *socket)
{
    int fd;
    size_t size = sizeof fd;
    if (zmq_getsockopt(socket, ZMQ_FD, &fd, &size) < 0)
        return -errno;
    struct epoll_event event = {.events = EPOLLIN};
    return epoll_ctl(connection->fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

/* ZeroMQ ends the process where it gets no descriptor for its threads. */
static int need_files(void)
{
    int files[FILES], count = 0;
    while (count < FILES && (files[count] = eventfd(0, EFD_CLOEXEC)) >= 0)
        count++;
    const int rc = count < FILES ? -errno : 0;
    while (count > 0)
        close(files[--count]);
    return rc;
}

static int open_all(struct connection *connection, const char *endpoint, const struct connection_options *options)
{
    connection->endpoint = strdup(endpoint);
    if (!connection->endpoint)
        return -ENOMEM;
    int rc = need_files();
    if (rc < 0)
        return rc;
    connection->owns_context = !options->context;
    connection->context = options->context ? options->context : zmq_ctx_new();
    if (!connection->context)
        return -errno;
    connection->socket = zmq_socket(connection->context, ZMQ_DEALER);
    if (!connection->socket)
        return -errno;
    rc = set_options(connection, endpoint, options);
    if (rc == 0)
        rc = open_monitor(connection);
    if (rc == 0 && zmq_connect(connection->socket, endpoint) < 0)
        rc = -errno;
    if (rc < 0)
        return rc;
    connection->fd = epoll_create1(EPOLL_CLOEXEC);
    if (connection->fd < 0)
        return -errno;
    rc = watch(connection, connection->socket);
    return rc < 0 ? rc : watch(connection, connection->monitor);
}

int connection_open(struct connection *connection, const char *endpoint, const struct connection_options *options)
{
    *connection = (struct connection){
        .fd = -1,
        .tcp_fd = -1,
        .local_bytes = options->local_bytes,
        .credit.most_bytes = options->max_message_bytes,
    };
    local_link_init(&connection->local);
    const int rc = open_all(connection, endpoint, options);
    switch (-rc) {
    case EPROTONOSUPPORT:
    case ENOCOMPATPROTO:
    case ENODEV:
        return -EINVAL;
    default:
        return rc;
    }
}

void connection_close(struct connection *connection)
{
    if (connection->endpoint)
        local_link_close(&connection->local);
    if (connection->fd >= 0)
        close(connection->fd);
    /* First: an event for a monitor that is closed already would stop ZeroMQ's thread for ever, and with it whatever
     * else lives in the context. */
    if (connection->socket)
        zmq_socket_monitor(connection->socket, NULL, 0);
    if (connection->monitor)
        zmq_close(connection->monitor);
    if (connection->socket)
        zmq_close(connection->socket);
    if (connection->owns_context && connection->context)
        while (zmq_ctx_term(connection->context) < 0 && errno == EINTR)
            ;
    free(connection->endpoint);
    *connection = (struct connection){.fd = -1, .tcp_fd = -1};
}

/* ---- shared memory ---------------------------------------------------------------------------------------------- */

static bool begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

static bool on_this_host(const char *endpoint)
{
    return begins(endpoint, "ipc://") || begins(endpoint, "tcp://127.") || begins(endpoint, "tcp://localhost:") ||
           begins(endpoint, "tcp://[::1]:");
}

bool connection_wants_local(const struct connection *connection)
{
    return connection->up && connection->local_bytes > 0 && connection->local.state == LOCAL_LINK_NONE &&
           connection->local_failures < LOCAL_FAILURES && on_this_host(connection->endpoint);
}

/* The descriptor is taken out of the epoll by being closed. */
static void watch_local(struct connection *connection)
{
    struct local_link *local = &connection->local;
    if (local->fd < 0)
        connection->local_watched = connection->local_full = false;
    const bool full = local->fd >= 0 && (connection->local_full || local_link_waits(local));
    struct epoll_event event = {.events = full ? EPOLLIN | EPOLLOUT : EPOLLIN};
    if (local->fd >= 0 && connection->local_watched && full != connection->local_watched_full)
        epoll_ctl(connection->fd, EPOLL_CTL_MOD, local->fd, &event);
    else if (local->fd >= 0 && !connection->local_watched)
        connection->local_watched = epoll_ctl(connection->fd, EPOLL_CTL_ADD, local->fd, &event) == 0;
    connection->local_watched_full = full;
}

void connection_offer_local(struct connection *connection, const char *path,
                            const unsigned char instance[LOCAL_INSTANCE])
{
    if (!connection_wants_local(connection))
        return;
    connection->local_since_ns = clock_now_ns();
    if (local_link_open(&connection->local, path, instance, connection->local_bytes) < 0)
        connection->local_failures++; /* another user's, a container's */
    watch_local(connection);
}

struct local_heap *connection_heap(const struct connection *connection)
{
    return connection->local.state == LOCAL_LINK_READY ? connection->local.heap : NULL;
}

static size_t receive_local(struct connection *connection, zmq_msg_t *frames, size_t limit)
{
    zmq_msg_t refused[1 + MESSAGE_MAX_TENSORS];
    if (connection->local.fd < 0)
        return 0;
    connection->local_full = false; /* until it is tried again */
    const size_t count = local_link_receive(&connection->local, frames, limit);
    size_t n;
    connection->local_failures += connection->local.failed;
    connection->local.failed = false;
    while ((n = local_link_refused(&connection->local, refused)) > 0) {
        /* If that cannot be now, the call waits for its deadline, as one whose message was lost does. */
        (void)connection_send(connection, refused, n, CONNECTION_NOT_LOCAL);
        for (size_t i = 0; i < n; i++)
            zmq_msg_close(&refused[i]);
    }
    watch_local(connection);
    return count;
}

/* Whether what was sent there gets no answer any more. */
static bool local_lost(struct connection *connection)
{
    struct local_link *local = &connection->local;
    if (!local->lost)
        return false;
    local->lost = false;
    const bool soon = clock_now_ns() - connection->local_since_ns < local_soon_ns;
    connection->local_failures = soon ? connection->local_failures + 1 : 0;
    return true;
}

/* ---- liveness --------------------------------------------------------------------------------------------------- */

uint64_t connection_look_ns(const struct connection *connection)
{
    if (!connection->up)
        return connection->left && connection->wanted ? connection->again_ns : UINT64_MAX;
    return connection->tcp_fd >= 0 && connection->heartbeat_ns > 0 ? connection->look_ns : UINT64_MAX;
}

static void look_later(struct connection *connection, uint64_t now_ns)
{
    const uint64_t most_ns = LOOK_MS * NS_PER_MS;
    connection->look_ns = now_ns + (connection->heartbeat_ns < most_ns ? connection->heartbeat_ns : most_ns);
}

static void begin_looking(struct connection *connection)
{
    const uint64_t now_ns = clock_now_ns();
    look_later(connection, now_ns);
    connection->taken = 0;
    connection->taken_ns = now_ns;
    connection->credit.ping_ns = connection->heartbeat_ns;
    credit_begin(&connection->credit, now_ns);
}

/* What the kernel knows of the connection, if it is time to look. The descriptor is ZeroMQ's and may have been closed
 * this moment, and be another connection's: then the monitor says so by now. */
static bool look(struct connection *connection, struct tcp_info *info)
{
    socklen_t size = sizeof *info;
    const uint64_t now_ns = clock_now_ns();
    if (!connection->up || now_ns < connection_look_ns(connection))
        return false;
    look_later(connection, now_ns);
    memset(info, 0, sizeof *info);
    return getsockopt(connection->tcp_fd, IPPROTO_TCP, TCP_INFO, info, &size) == 0 &&
           size >= offsetof(struct tcp_info, tcpi_bytes_received) + sizeof info->tcpi_bytes_received;
}

/* Whether nothing has moved for too long. */
static bool is_silent(struct connection *connection, const struct tcp_info *info)
{
    const uint64_t now_ns = clock_now_ns();
    const uint64_t limit_ns = connection->heartbeat_ns * MISSED_HEARTBEATS;
    /* Against wrapping, too: another connection's numbers. */
    if (info->tcpi_bytes_acked - connection->taken >= PINGS_BYTES) {
        connection->taken = info->tcpi_bytes_acked;
        connection->taken_ns = now_ns;
    }
    return info->tcpi_last_data_recv * NS_PER_MS >= limit_ns && now_ns - connection->taken_ns >= limit_ns;
}

static bool message_waits(struct connection *connection)
{
    int events = 0;
    size_t size = sizeof events;
    return zmq_getsockopt(connection->socket, ZMQ_EVENTS, &events, &size) < 0 || (events & ZMQ_POLLIN);
}

/* It is left as soon as what it brought is read. */
static enum connection_news give_up(struct connection *connection)
{
    connection->gone = true;
    connection->up = connection->wanted = false;
    connection->tcp_fd = -1;
    connection->disconnects++;
    return CONNECTION_LOST;
}

static enum connection_news give_up_endless(struct connection *connection)
{
    const uint64_t now_ns = clock_now_ns(), longest_ns = ENDLESS_PAUSE_MAX_MS * NS_PER_MS;
    const bool again = connection->pause_ns > 0 && now_ns - connection->again_ns < longest_ns;
    connection->pause_ns = again ? 2 * connection->pause_ns : ENDLESS_PAUSE_MS * NS_PER_MS;
    if (connection->pause_ns > longest_ns)
        connection->pause_ns = longest_ns;
    connection->again_ns = now_ns + connection->pause_ns;
    connection->endless = true;
    connection->trouble = CONNECTION_ENDLESS;
    return give_up(connection);
}

/* ZeroMQ still believes in the connection. What is closed here does not come up in the monitor. */
static void leave(struct connection *connection)
{
    connection->gone = connection->up = false;
    connection->left = true;
    zmq_disconnect(connection->socket, connection->endpoint);
}

static void reconnect(struct connection *connection)
{
    if (connection->endless && !(connection->wanted && clock_now_ns() >= connection->again_ns))
        return;
    connection->left = false;
    zmq_connect(connection->socket, connection->endpoint);
}

/* One event: 16 bits of it, 32 bits of value, then a frame with the address. */
static bool next_event(struct connection *connection, uint16_t *event, int32_t *value)
{
    unsigned char first[64];
    const int size = zmq_recv(connection->monitor, first, sizeof first, ZMQ_DONTWAIT);
    if (size < (int)(sizeof *event + sizeof *value))
        return false;
    memcpy(event, first, sizeof *event);
    memcpy(value, first + sizeof *event, sizeof *value);
    zmq_recv(connection->monitor, first, sizeof first, ZMQ_DONTWAIT);
    return true;
}

enum connection_news connection_hear(struct connection *connection)
{
    enum connection_news news = CONNECTION_NO_NEWS;
    struct tcp_info info;
    uint16_t event;
    int32_t value;
    const bool known = look(connection, &info);
    while (next_event(connection, &event, &value)) {
        if (news == CONNECTION_NO_NEWS)
            news = CONNECTION_NEWS;
        switch (event) {
        case ZMQ_EVENT_CONNECTED:
            connection->tcp_fd = connection->heartbeat_ns > 0 ? value : -1;
            begin_looking(connection);
            break;
        case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
            connection->up = true;
            connection->endless = false;
            connection->trouble = NULL;
            connection->connects++;
            break;
        case ZMQ_EVENT_DISCONNECTED:
            if (connection->up)
                news = CONNECTION_LOST;
            connection->disconnects += connection->up;
            connection->up = false;
            connection->tcp_fd = -1;
            break;
        case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
            connection->trouble = "the handshake fails: it does not know this client's key";
            break;
        default:
            connection->trouble = "the handshake fails: what listens there is no expertd server, or not the one with "
                                  "that key, or one that asks for keys";
            break;
        }
        /* ZeroMQ tells of a connection before it hands over the pipe, and hands it over before it tells of the next:
         * with its commands taken in here, a message goes to the connection that the flag speaks of. */
        int ignored;
        size_t size = sizeof ignored;
        zmq_getsockopt(connection->socket, ZMQ_EVENTS, &ignored, &size);
    }
    if (connection->up && known && news == CONNECTION_NO_NEWS) {
        /* A message that waits has ended; it is to be received, as the signal that it is there has been taken in. */
        const bool used_up = credit_used_up(&connection->credit, info.tcpi_bytes_received, clock_now_ns());
        if (used_up && !message_waits(connection))
            news = give_up_endless(connection);
        else if (is_silent(connection, &info))
            news = give_up(connection);
        else if (used_up)
            news = CONNECTION_NEWS;
    }
    /* What went over ZeroMQ meanwhile is given up as well, so that a loss is one of everything. */
    if (local_lost(connection) && connection->up)
        news = give_up(connection);
    connection->drop_local |= news == CONNECTION_LOST;
    return news;
}

int connection_send(struct connection *connection, zmq_msg_t *frames, size_t count, uint64_t room_bytes)
{
    if (!connection->up) {
        connection->wanted = true;
        return -EAGAIN;
    }
    if (room_bytes != CONNECTION_NOT_LOCAL && connection->local.state == LOCAL_LINK_READY) {
        const int local = local_link_send(&connection->local, frames, count, room_bytes);
        if (local == -EAGAIN) {
            connection->local_full = connection->local.free_count > 0;
            watch_local(connection);
        }
        if (local == 0 || local == -EAGAIN)
            return local;
    }
    int rc = 0;
    for (size_t i = 0; i < count; i++) {
        if (zmq_msg_send(&frames[i], connection->socket, ZMQ_DONTWAIT | (i + 1 < count ? ZMQ_SNDMORE : 0)) >= 0)
            continue;
        if (i == 0)
            return errno == EAGAIN || errno == EINTR ? -EAGAIN : -errno;
        /* The connection broke between two frames: ZeroMQ rolled the message back, and drops the rest of it as long as
         * that is sent as its rest. */
        rc = -EPIPE;
    }
    if (rc == 0)
        credit_asked(&connection->credit);
    return rc;
}

size_t connection_receive(struct connection *connection, zmq_msg_t *frames, size_t limit)
{
    size_t count = receive_local(connection, frames, limit);
    if (count > 0)
        return count;
    zmq_msg_t dropped;
    zmq_msg_init(&dropped);
    for (int more = 1; more; count++) {
        zmq_msg_t *frame = &dropped;
        if (count < limit) {
            frame = &frames[count];
            zmq_msg_init(frame);
        }
        /* A message arrives as a whole, so that only its first frame can be missing. */
        if (zmq_msg_recv(frame, connection->socket, ZMQ_DONTWAIT) < 0)
            break;
        more = zmq_msg_more(frame);
    }
    zmq_msg_close(&dropped);
    if (count > 0)
        credit_taken(&connection->credit);
    if (count == 0 && connection->drop_local) {
        connection->drop_local = false;
        local_link_close(&connection->local);
        watch_local(connection);
    }
    if (count == 0 && connection->gone)
        leave(connection);
    if (count == 0 && connection->left)
        reconnect(connection);
    return count;
}

int connection_wait(const struct connection *connection, int timeout_ms)
{
    struct epoll_event event;
    return epoll_wait(connection->fd, &event, 1, timeout_ms) < 0 ? -errno : 0;
}
