#include "frontend/frontend.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "common/clock.h"
#include "common/copier.h"
#include "common/doorbell.h"
#include "common/log.h"
#include "common/memory.h"
#include "frontend/changes.h"
#include "frontend/elsewhere.h"
#include "frontend/local.h"
#include "frontend/pressure.h"
#include "proto/gate.h"

enum { KEEP_PEERS = 8192, LINGER_MS = 1000 };

static int create_devices(struct server *server)
{
    const struct config *config = server->config;
    server->devices = calloc(config->devices_count, sizeof(struct device_link *));
    if (!server->devices)
        return -ENOMEM;
    for (unsigned d = 0; d < config->devices_count; d++) {
        const int rc = device_link_create(&server->devices[d], config->server.name, config->server.run_dir,
                                          config->devices[d].name, config->frontend.stall_timeout * NS_PER_MS);
        if (rc < 0)
            return rc;
        server->devices_count++;
    }
    return 0;
}

static int create_parts(struct server *server)
{
    const struct config_frontend *config = &server->config->frontend;
    const uint32_t max_requests = (uint32_t)config->max_requests;
    int rc = requests_create(&server->requests, max_requests);
    if (rc == 0)
        rc = shares_create(&server->shares, max_requests);
    if (rc == 0)
        rc = deadlines_create(&server->deadlines, max_requests);
    if (rc == 0)
        rc = client_peers_create(&server->peers, KEEP_PEERS, pressure_unread_max(server->pressure.budget));
    if (rc == 0)
        rc = buffers_create(&server->buffers, pressure_keep_max(server->pressure.budget));
    if (rc == 0)
        rc = repeats_create(&server->repeats, config->replay_cache);
    if (rc == 0)
        rc = expert_table_create(&server->experts);
    if (rc == 0)
        rc = create_devices(server);
    server->arena_memory = malloc(MESSAGE_REQUEST_ARENA);
    message_arena_init(&server->arena, server->arena_memory, MESSAGE_REQUEST_ARENA);
    if (!server->arena_memory)
        rc = -ENOMEM;
    if (rc < 0)
        log_error("out of memory");
    return rc;
}

static int create_copier(struct server *server, const struct config *whole)
{
    const unsigned asked = (unsigned)server->config->frontend.copy_threads;
    const unsigned frontends = whole->frontends_count ? whole->frontends_count : 1;
    const int rc = copier_create(&server->copier, asked ? asked : copier_spare_threads(frontends));
    if (rc < 0)
        log_error("out of memory");
    else if (copier_threads(server->copier) < asked)
        log_warning("%u of %u threads copy large tensors (frontend.copy_threads): no more can be had",
                    copier_threads(server->copier), asked);
    return rc;
}

static int open_bell(struct server *server)
{
    const struct config_server *config = &server->config->server;
    server->bell_fd = doorbell_fifo_create(config->run_dir, config->name);
    if (server->bell_fd < 0)
        log_error("cannot make the doorbell '%s/%s.frontend.bell': %s", config->run_dir, config->name,
                  strerror(-server->bell_fd));
    return server->bell_fd < 0 ? server->bell_fd : 0;
}

static int open_endpoint(struct server *server)
{
    const struct config_frontend *config = &server->config->frontend;
    const uint64_t frame_max = pressure_frame_max(server->pressure.budget, config->max_message);
    if (frame_max < config->max_message)
        log_info("frames may have %" PRIu64 " MiB, as the memory for messages is %" PRIu64 " MiB (frontend.max_memory)",
                 frame_max >> 20, server->pressure.budget >> 20);
    gate_set(GATE_FRAMES, server->pressure.budget, server->config->server.key_file[0] != 0, 0);
    const int rc = endpoint_open(&server->endpoint, server->config, frame_max);
    if (rc == 0)
        changes_listen(server);
    server->socket = server->endpoint.socket;
    server->connections = server->endpoint.connections;
    return rc;
}

int frontend_create(struct server **server, const struct config *config, const struct config *whole, int owner_fd)
{
    struct server *made = aligned_alloc(64, (sizeof *made + 63) / 64 * 64);
    if (!made) {
        log_error("out of memory");
        return -ENOMEM;
    }
    memset(made, 0, sizeof *made);
    made->config = made->live = config;
    made->bell_fd = -1;
    made->owner_fd = owner_fd;
    made->start_ns = clock_now_ns();
    made->list_generation = clock_wall_ns();
    made->pressure.budget = pressure_budget(&config->frontend, memory_limit(""));
    incoming_init(&made->incoming);
    int rc = changes_create(&made->changes, made);
    if (rc == 0)
        rc = elsewhere_create(&made->elsewhere, whole, config->server.name);
    if (rc == 0)
        rc = create_parts(made);
    if (rc == 0)
        rc = create_copier(made, whole);
    if (rc == 0)
        rc = open_bell(made);
    if (rc == 0)
        rc = open_endpoint(made);
    if (rc == 0) {
        size_t size = sizeof made->socket_fd;
        rc = zmq_getsockopt(made->socket, ZMQ_FD, &made->socket_fd, &size) == 0 ? 0 : -errno;
        made->replier =
            (struct replier){made->socket, made->peers, made->buffers, &made->counters, made->copier, false};
    }
    if (rc == 0)
        rc = local_open(&made->local, config);
    if (rc < 0)
        frontend_destroy(&made);
    *server = made;
    return rc;
}

void frontend_destroy(struct server **server)
{
    struct server *old = *server;
    *server = NULL;
    if (!old)
        return;
    local_close(&old->local);
    incoming_clear(&old->incoming);
    /* First: its threads still use buffers and peers. */
    endpoint_close(&old->endpoint, LINGER_MS);
    repeats_destroy(&old->repeats);
    changes_destroy(&old->changes);
    elsewhere_destroy(&old->elsewhere);
    for (unsigned d = 0; d < old->devices_count; d++)
        device_link_destroy(&old->devices[d]);
    free(old->devices);
    if (old->bell_fd >= 0)
        close(old->bell_fd);
    expert_table_destroy(&old->experts);
    requests_destroy(&old->requests);
    shares_destroy(&old->shares);
    deadlines_destroy(&old->deadlines);
    buffers_destroy(&old->buffers);
    copier_destroy(&old->copier);
    client_peers_destroy(&old->peers);
    free(old->arena_memory);
    free(old);
}
