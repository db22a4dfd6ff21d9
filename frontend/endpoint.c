#include "frontend/endpoint.h"

#include <errno.h>
#include <string.h>
#include <zmq.h>

#include "common/log.h"
#include "frontend/connections.h"

/* Requests of one client that wait in ZeroMQ; beyond, TCP makes the client wait. The frontend reads fast and refuses
 * what it cannot queue, so few are needed. */
enum { RECEIVE_HIGH_WATER = 256, SEND_HIGH_WATER_LEAST = 1000, BACKLOG = 1024 };
/* Seconds after which a peer whose host has gone is noticed: 60 + 3 * 10. */
enum { KEEPALIVE_IDLE = 60, KEEPALIVE_INTERVAL = 10, KEEPALIVE_COUNT = 3 };

static int set(void *socket, int option, int value)
{
    return zmq_setsockopt(socket, option, &value, sizeof value) == 0 ? 0 : -errno;
}

static int set_options(void *socket, const struct config_frontend *config, uint64_t frame_max)
{
    const int64_t max_message = (int64_t)frame_max;
    /* Replies of one client that wait in ZeroMQ, as many as it can have requests here: a client that pipelines must not
     * lose replies because it reads a little later. The bytes are bounded by frontend/client_peer.h. */
    const int send_high_water =
        config->max_requests > SEND_HIGH_WATER_LEAST ? (int)config->max_requests : SEND_HIGH_WATER_LEAST;
    int rc = zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &max_message, sizeof max_message) == 0 ? 0 : -errno;
    const struct {
        int option, value;
    } options[] = {
        {ZMQ_ROUTER_MANDATORY, 1}, /* a peer that is gone is an error, which is counted */
        /* A client that comes back with the routing id that it chose gets its replies on the new connection, though
         * the old one may look alive for another minute. Ids that ZeroMQ makes cannot be taken over. */
        {ZMQ_ROUTER_HANDOVER, 1},
        {ZMQ_SNDHWM, send_high_water},
        {ZMQ_RCVHWM, RECEIVE_HIGH_WATER},
        {ZMQ_BACKLOG, BACKLOG},
        {ZMQ_LINGER, 0},
        {ZMQ_TCP_KEEPALIVE, 1},
        {ZMQ_TCP_KEEPALIVE_IDLE, KEEPALIVE_IDLE},
        {ZMQ_TCP_KEEPALIVE_INTVL, KEEPALIVE_INTERVAL},
        {ZMQ_TCP_KEEPALIVE_CNT, KEEPALIVE_COUNT},
    };
    for (size_t i = 0; rc == 0 && i < sizeof options / sizeof options[0]; i++)
        rc = set(socket, options[i].option, options[i].value);
    if (rc < 0)
        log_error("cannot set up the socket: %s", zmq_strerror(-rc));
    return rc;
}

static int bind_all(struct endpoint *made, const struct config_frontend *config)
{
    void *socket = made->socket;
    for (unsigned i = 0; i < config->listen.count; i++) {
        const char *endpoint = config->listen.items[i];
        char bound[256] = "";
        size_t size = sizeof bound;
        (void)set(socket, ZMQ_IPV6, strchr(endpoint, '[') != NULL);
        if (bindings_bind(&made->bindings, socket, endpoint) != 0) {
            const int rc = -errno;
            log_error("cannot listen on %s: %s (frontend.listen)", endpoint, zmq_strerror(-rc));
            return rc;
        }
        /* Scripts read this line: its form is part of the documentation. */
        (void)zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, bound, &size);
        log_info("listening on %s", bound);
    }
    return 0;
}

/* With keys, a routing id that a client chose is no proof of who it is: nobody takes over a connection by it. */
static int close_to_strangers(const struct endpoint *endpoint)
{
    if (!guard_is_on(&endpoint->guard))
        return 0;
    int rc = guard_socket(&endpoint->guard, endpoint->socket);
    if (rc == 0)
        rc = set(endpoint->socket, ZMQ_ROUTER_HANDOVER, 0);
    if (rc < 0)
        log_error("cannot ask clients for their keys: %s", zmq_strerror(-rc));
    return rc;
}

int endpoint_open(struct endpoint *endpoint, const struct config *whole, uint64_t frame_max)
{
    const struct config_frontend *config = &whole->frontend;
    *endpoint = (struct endpoint){0};
    int rc = guard_open(&endpoint->guard, &whole->server);
    if (rc < 0)
        return rc;
    endpoint->context = zmq_ctx_new();
    if (endpoint->context) {
        zmq_ctx_set(endpoint->context, ZMQ_IO_THREADS, (int)config->io_threads);
        endpoint->socket = zmq_socket(endpoint->context, ZMQ_ROUTER);
    }
    if (!endpoint->socket) {
        rc = -errno;
        log_error("cannot make a ZeroMQ socket: %s", zmq_strerror(-rc));
    }
    if (rc == 0)
        rc = set_options(endpoint->socket, config, frame_max);
    if (rc == 0)
        rc = guard_watch(&endpoint->guard, endpoint->context);
    if (rc == 0)
        rc = close_to_strangers(endpoint);
    if (rc == 0)
        rc = connections_create(&endpoint->connections, endpoint->context, endpoint->socket);
    if (rc == 0)
        rc = bind_all(endpoint, config);
    if (rc == 0)
        rc = connections_set_limit(endpoint->connections);
    if (rc < 0)
        endpoint_close(endpoint, 0);
    return rc;
}

int endpoint_listen(struct endpoint *endpoint, const char *where)
{
    return bindings_bind(&endpoint->bindings, endpoint->socket, where) == 0 ? 0 : -errno;
}

void endpoint_keep(struct endpoint *endpoint)
{
    bindings_keep(&endpoint->bindings, endpoint->socket);
}

void endpoint_close(struct endpoint *endpoint, int linger_ms)
{
    connections_destroy(&endpoint->connections);
    if (endpoint->socket) {
        (void)set(endpoint->socket, ZMQ_LINGER, linger_ms);
        zmq_close(endpoint->socket);
    }
    if (endpoint->context) {
        while (zmq_ctx_term(endpoint->context) != 0 && errno == EINTR)
            ;
    }
    guard_close(&endpoint->guard);
    *endpoint = (struct endpoint){0};
}
