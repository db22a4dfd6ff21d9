#include "frontend/loop.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <time.h>
#include <zmq.h>

#include "common/clock.h"
#include "common/doorbell.h"
#include "common/log.h"
#include "common/notify.h"
#include "common/process.h"
#include "frontend/changes.h"
#include "frontend/checkpoint.h"
#include "frontend/connections.h"
#include "frontend/dispatch.h"
#include "frontend/local.h"
#include "frontend/local_receive.h"
#include "frontend/lookout.h"
#include "frontend/pressure.h"
#include "frontend/results.h"
#include "frontend/roster.h"
#include "frontend/task_end.h"

enum { DRAINS = 8, BURST_REQUESTS = 64, BURST_BYTES = 1 << 20 };
static const uint64_t connections_ns = 50 * NS_PER_MS;
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
    unsigned left_out = 0;
    uint64_t bytes = 0;
    unsigned count = 0, drained = 0;
    for (; count < BURST_REQUESTS; count++) {
        const int rc = incoming_receive(&server->incoming, server->socket);
        if (rc == -EINPROGRESS && ++drained == DRAINS)
            break; /* results have their turn */
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
        } else if (log_burst_allows(&burst, &left_out, zmq_strerror(-rc))) {
            log_warning("cannot receive: %s (%u more like it)", zmq_strerror(-rc), left_out);
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

static bool receive_local(struct server *server)
{
    const bool any = local_receive(server, clock_now_ns());
    server->local_waits = false;
    ring_all(server);
    local_flush(server->local);
    return any;
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
        else if (request->change)
            changes_expire(server, request);
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
        if (server->devices[d]->state != DEVICE_UP || control_retired(server->devices[d]->control))
            return false;
    }
    return true;
}

/* What the descriptors say within the time. */
static void poll_all(struct server *server, uint64_t wait_ns)
{
    struct pollfd fds[] = {{.fd = server->socket_fd, .events = POLLIN},
                           {.fd = server->bell_fd, .events = POLLIN},
                           {.fd = process_stop_fd(), .events = POLLIN},
                           {.fd = connections_fd(server->connections), .events = POLLIN},
                           {.fd = local_fd(server->local), .events = POLLIN}};
    const struct timespec wait = {.tv_sec = (time_t)(wait_ns / NS_PER_S), .tv_nsec = (long)(wait_ns % NS_PER_S)};
    const int ready = ppoll(fds, sizeof fds / sizeof fds[0], &wait, NULL);
    if (ready > 0 && fds[0].revents)
        server->socket_empty = false;
    if (ready > 0 && fds[3].revents)
        server->next_connections_ns = 0;
    server->local_waits = ready > 0 && fds[4].revents;
    if (ready > 0 && fds[1].revents) {
        doorbell_fifo_drain(server->bell_fd);
        if (!all_up(server))
            server->next_look_ns = 0; /* a runtime rings when it comes up, and when it goes */
    }
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
        const struct deadline *first = deadline_first(server->deadlines);
        uint64_t until_ns = server->next_look_ns;
        if (connections_count(server->connections) && server->next_connections_ns < until_ns)
            until_ns = server->next_connections_ns;
        if (first && first->due_ns < until_ns)
            until_ns = first->due_ns;
        const uint64_t now_ns = clock_now_ns();
        server->counters.sleeps++;
        poll_all(server, until_ns > now_ns ? until_ns - now_ns : 0);
    }
    set_sleeping(server, 0);
}

static bool take_results(struct server *server)
{
    uint32_t results = 0;
    for (unsigned d = 0; d < server->devices_count; d++) {
        struct device_link *device = server->devices[d];
        /* A new runtime has answered what the dead one left: whoever is told so may come with more at once. */
        if (device->state == DEVICE_DEAD && control_any_done(device->control))
            lookout_device(server, device, clock_now_ns());
        results += results_take(server, device);
    }
    return results > 0;
}

/* Who came and went, and how much memory messages take. */
static void look_at_connections(struct server *server, uint64_t now_ns)
{
    if (connections_take(server->connections, now_ns))
        task_drop_gone(server);
    pressure_look(server, now_ns);
    server->next_connections_ns = now_ns + connections_ns;
}

/* Not while requests wait and none of them ends, however often this turns. */
static void tell_alive(struct server *server, uint64_t now_ns)
{
    uint32_t waiting = 0;
    for (unsigned d = 0; d < server->devices_count; d++)
        waiting += server->devices[d]->state == DEVICE_UP ? server->devices[d]->in_flight : 0; /* else for a restart */
    if (waiting == 0 || server->counters.ended != server->ended_told)
        notify_alive(now_ns);
    server->ended_told = server->counters.ended;
}

static int turn(struct server *server)
{
    bool worked = take_results(server);
    if (server->replier.sent)
        server->replier.sent = server->socket_empty = false;
    local_flush(server->local);
    if (!server->socket_empty)
        worked |= receive_burst(server);
    if (server->local_waits || local_count(server->local))
        worked |= receive_local(server);
    const uint64_t now_ns = clock_now_ns();
    if (now_ns >= server->next_connections_ns)
        look_at_connections(server, now_ns);
    if (server->checkpoints.count)
        checkpoint_look(server);
    changes_look(server);
    worked |= expire(server, now_ns);
    const int rc = now_ns >= server->next_look_ns ? lookout_look(server, now_ns) : 0;
    tell_alive(server, now_ns);
    local_flush(server->local);
    if (worked)
        server->spin_until_ns = now_ns + server->config->server.spin * 1000;
    if (rc != 0 || worked || server->replier.sent || !server->socket_empty)
        return rc;
    if (now_ns < server->spin_until_ns) {
        sched_yield(); /* whoever is to answer may have this core alone */
        poll_all(server, 0);
    } else {
        sleep_for_work(server);
    }
    return rc;
}

int loop_run(struct server *server)
{
    roster_rebuild(server);
    int rc = lookout_look(server, clock_now_ns());
    while (rc == 0 && !process_stopping())
        rc = turn(server);
    log_info("stopping");
    notify_stopping();
    for (unsigned d = 0; d < server->devices_count; d++)
        task_fail_device(server, server->devices[d], STATUS_UNAVAILABLE, "the server is stopping");
    checkpoint_fail(server, STATUS_UNAVAILABLE, "the server is stopping");
    changes_fail(server, STATUS_UNAVAILABLE, "the server is stopping");
    local_flush(server->local);
    return rc;
}
