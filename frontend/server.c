#include "frontend/server.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

#include "common/clock.h"
#include "common/doorbell.h"
#include "common/log.h"
#include "common/process.h"
#include "frontend/checkpoint.h"
#include "frontend/dispatch.h"
#include "frontend/endpoint.h"
#include "frontend/roster.h"
#include "frontend/task.h"

enum { BURST_REQUESTS = 64, BURST_BYTES = 1 << 20, KEEP_PEERS = 8192, LINGER_MS = 1000 };
#define KEEP_BUFFER_BYTES ((size_t)256 << 20)
#define UNSENT_MAX_BYTES ((size_t)1 << 30)

/* --- setting up -----------------------------------------------------------------------------------------------------
 */

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
        rc = deadlines_create(&server->deadlines, max_requests);
    if (rc == 0)
        rc = peers_create(&server->peers, KEEP_PEERS, UNSENT_MAX_BYTES);
    if (rc == 0)
        rc = buffers_create(&server->buffers, KEEP_BUFFER_BYTES);
    if (rc == 0)
        rc = replay_create(&server->replay, config->replay_cache);
    if (rc == 0)
        rc = expert_table_create(&server->experts);
    if (rc == 0)
        rc = create_devices(server);
    if (rc < 0)
        log_error("out of memory");
    return rc;
}

static int open_bell(struct server *server)
{
    const struct config_server *config = &server->config->server;
    server->bell_fd = doorbell_fifo_create(config->run_dir, config->name);
    if (server->bell_fd < 0)
        log_error("cannot make the doorbell in '%s': %s", config->run_dir, strerror(-server->bell_fd));
    return server->bell_fd < 0 ? server->bell_fd : 0;
}

int server_create(struct server **server, const struct config *config)
{
    struct server *made = aligned_alloc(64, (sizeof *made + 63) / 64 * 64);
    if (!made) {
        log_error("out of memory");
        return -ENOMEM;
    }
    memset(made, 0, sizeof *made);
    made->config = config;
    made->bell_fd = -1;
    made->start_ns = clock_now_ns();
    made->list_generation = clock_wall_ns();
    message_arena_init(&made->arena, made->arena_memory, sizeof made->arena_memory);
    incoming_init(&made->incoming);
    int rc = create_parts(made);
    if (rc == 0)
        rc = open_bell(made);
    if (rc == 0)
        rc = endpoint_open(&config->frontend, &made->context, &made->socket);
    if (rc == 0) {
        size_t size = sizeof made->socket_fd;
        rc = zmq_getsockopt(made->socket, ZMQ_FD, &made->socket_fd, &size) == 0 ? 0 : -errno;
        made->replier = (struct replier){made->socket, made->peers, made->buffers, &made->counters, false};
    }
    if (rc < 0)
        server_destroy(&made);
    *server = made;
    return rc;
}

void server_destroy(struct server **server)
{
    struct server *old = *server;
    *server = NULL;
    if (!old)
        return;
    incoming_clear(&old->incoming);
    /* First: its threads still use buffers and peers. */
    endpoint_close(&old->context, &old->socket, LINGER_MS);
    replay_destroy(&old->replay);
    for (unsigned d = 0; d < old->devices_count; d++)
        device_link_destroy(&old->devices[d]);
    free(old->devices);
    if (old->bell_fd >= 0)
        close(old->bell_fd);
    expert_table_destroy(&old->experts);
    requests_destroy(&old->requests);
    deadlines_destroy(&old->deadlines);
    buffers_destroy(&old->buffers);
    peers_destroy(&old->peers);
    free(old);
}

/* --- answers --------------------------------------------------------------------------------------------------------
 */

void server_answered(struct server *server, struct request *request)
{
    deadline_remove(server->deadlines, &request->deadline);
    peer_release(request->to.peer);
    request->to.peer = NULL;
    if (request->pool)
        request->pool->device->in_flight--;
}

void server_answer(struct server *server, struct request *request, enum status status, const char *message)
{
    reply_status(&server->replier, &request->to, status, message);
    server_answered(server, request);
}

/* --- the loop -------------------------------------------------------------------------------------------------------
 */

static void ring_all(struct server *server)
{
    for (unsigned d = 0; d < server->devices_count; d++)
        device_link_ring(server->devices[d]);
}

/* Reads what is there, but not more than a burst: results wait meanwhile. The runtimes are rung at its end, so that
 * they find a batch, or in its middle when copying takes long. */
static bool receive_burst(struct server *server)
{
    static struct log_burst burst;
    uint64_t bytes = 0;
    unsigned count = 0;
    for (; count < BURST_REQUESTS; count++) {
        const int rc = incoming_receive(&server->incoming, server->socket);
        if (rc == -EINPROGRESS)
            continue;
        if (rc == 0) {
            server->socket_empty = true;
            server->replier.sent = false; /* what this burst sent, it sent before */
            break;
        }
        if (rc > 0) {
            bytes += server->incoming.bytes;
            dispatch(server, clock_now_ns());
        } else if (log_burst_allows(&burst)) {
            log_warning("cannot receive: %s (%u more like it)", zmq_strerror(-rc), burst.suppressed_before);
        }
        incoming_clear(&server->incoming);
        if (bytes >= BURST_BYTES) {
            ring_all(server);
            bytes = 0;
        }
    }
    ring_all(server);
    return count > 0;
}

static bool expire(struct server *server, uint64_t now_ns)
{
    bool any = false;
    struct deadline *first;
    while ((first = deadline_first(server->deadlines)) && first->due_ns <= now_ns) {
        struct request *request = (struct request *)(void *)first;
        any = true;
        if (request->checkpoint)
            checkpoint_expire(server, request);
        else
            task_expire(server, request);
    }
    if (any)
        ring_all(server);
    return any;
}

static void set_sleeping(struct server *server, uint32_t value)
{
    for (unsigned d = 0; d < server->devices_count; d++) {
        if (server->devices[d]->control)
            atomic_store_explicit(&control_page(server->devices[d]->control)->frontend.sleeping, value,
                                  memory_order_seq_cst);
    }
}

static bool any_done(const struct server *server)
{
    for (unsigned d = 0; d < server->devices_count; d++) {
        if (server->devices[d]->control && control_any_done(server->devices[d]->control))
            return true;
    }
    return false;
}

static bool all_up(const struct server *server)
{
    for (unsigned d = 0; d < server->devices_count; d++) {
        if (server->devices[d]->state != DEVICE_UP)
            return false;
    }
    return true;
}

/* Sleeps until a request, a ring, a stop or the next deadline. Why no wake-up is lost: for rings see common/doorbell.h.
 * ZMQ_FD tells of new events by becoming readable, and is made unreadable by any call on the socket; the last such call
 * was the receive that found nothing (socket_empty), so whatever came after it is still told. */
static void sleep_for_work(struct server *server)
{
    set_sleeping(server, 1);
    /* Pairs with the fence in the ringer: the look cannot move above the stores. */
    atomic_thread_fence(memory_order_seq_cst);
    if (!any_done(server)) {
        struct pollfd fds[] = {{.fd = server->socket_fd, .events = POLLIN},
                               {.fd = server->bell_fd, .events = POLLIN},
                               {.fd = process_stop_fd(), .events = POLLIN}};
        const struct deadline *first = deadline_first(server->deadlines);
        uint64_t until_ns = server->next_look_ns;
        if (first && first->due_ns < until_ns)
            until_ns = first->due_ns;
        const uint64_t now_ns = clock_now_ns(), wait_ns = until_ns > now_ns ? until_ns - now_ns : 0;
        const struct timespec wait = {.tv_sec = (time_t)(wait_ns / NS_PER_S), .tv_nsec = (long)(wait_ns % NS_PER_S)};
        server->counters.sleeps++;
        const int ready = ppoll(fds, sizeof fds / sizeof fds[0], &wait, NULL);
        if (ready > 0 && fds[0].revents)
            server->socket_empty = false;
        if (ready > 0 && fds[1].revents) {
            doorbell_fifo_drain(server->bell_fd);
            if (!all_up(server))
                server->next_look_ns = 0; /* a runtime rings when it comes up */
        }
    }
    set_sleeping(server, 0);
}

static void turn(struct server *server)
{
    bool worked = roster_take_results(server);
    if (server->replier.sent)
        server->replier.sent = server->socket_empty = false;
    if (!server->socket_empty)
        worked |= receive_burst(server);
    const uint64_t now_ns = clock_now_ns();
    if (server->checkpoints.count)
        checkpoint_look(server);
    worked |= expire(server, now_ns);
    if (now_ns >= server->next_look_ns)
        roster_look(server, now_ns);
    if (!worked && !server->replier.sent && server->socket_empty)
        sleep_for_work(server);
}

int server_run(struct server *server)
{
    roster_rebuild(server);
    roster_look(server, clock_now_ns());
    while (!process_stopping())
        turn(server);
    log_info("stopping");
    for (unsigned d = 0; d < server->devices_count; d++)
        task_fail_device(server, server->devices[d], STATUS_UNAVAILABLE, "the server is stopping");
    checkpoint_fail(server, STATUS_UNAVAILABLE, "the server is stopping");
    return 0;
}
