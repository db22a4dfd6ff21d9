#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/memory.h"
#include "frontend/connections.h"
#include "proto/gate.h"
#include "frontend/inspect.h"
#include "frontend/local.h"
#include "frontend/measures.h"

/* Counters are gathered here, names and all; room for all of them is there before the first. */
enum {
    NAME_SIZE = 96,
    FRONTEND_COUNTERS = 64 + COUNTERS_METHODS * COUNTERS_STATUSES,
    DEVICE_COUNTERS = 8 + CONTROL_COUNTERS
};

struct gathering {
    Expertd__Stats__Counter *counters;
    Expertd__Stats__Counter **pointers;
    char (*names)[NAME_SIZE];
    size_t count, capacity;
};

__attribute__((format(printf, 3, 4))) static void add(struct gathering *gathering, double value, const char *name, ...)
{
    if (gathering->count == gathering->capacity)
        return;
    Expertd__Stats__Counter *counter = &gathering->counters[gathering->count];
    expertd__stats__counter__init(counter);
    va_list arguments;
    va_start(arguments, name);
    (void)vsnprintf(gathering->names[gathering->count], NAME_SIZE, name, arguments);
    va_end(arguments);
    counter->name = gathering->names[gathering->count];
    counter->value = value;
    gathering->pointers[gathering->count++] = counter;
}

/* Those that may be alerted on are there from the start; of other methods, what has been. */
static void add_outcomes(struct gathering *gathering, const struct counters *counters, unsigned method,
                         const char *name)
{
    const bool computed = method == EXPERTD__METHOD__FORWARD || method == EXPERTD__METHOD__BACKWARD;
    for (unsigned s = 0; s < COUNTERS_STATUSES; s++) {
        const char *status = status_name((enum status)s);
        if (strcmp(status, "UNKNOWN") != 0 && (computed || counters->outcomes[method][s] > 0))
            add(gathering, (double)counters->outcomes[method][s], "frontend.outcomes.%s.%s", name, status);
    }
}

static void add_traffic(struct gathering *gathering, const struct counters *counters)
{
    static const char *const methods[COUNTERS_METHODS] = {"other",   "ping",     "list",  "info",
                                                          "forward", "backward", "stats", "checkpoint",
                                                          "load",    "unload",   "set",   "reload"};
    for (unsigned m = 0; m < COUNTERS_METHODS; m++)
        add(gathering, (double)counters->requests[m], "frontend.requests.%s", methods[m]);
    for (unsigned m = 0; m < COUNTERS_METHODS; m++)
        add_outcomes(gathering, counters, m, methods[m]);
    for (unsigned s = 0; s < COUNTERS_STATUSES; s++) {
        const char *name = status_name((enum status)s);
        if (strcmp(name, "UNKNOWN") != 0)
            add(gathering, (double)counters->replies[s], "frontend.replies.%s", name);
    }
    add(gathering, (double)counters->bytes_in, "frontend.bytes_in");
    add(gathering, (double)counters->bytes_out, "frontend.bytes_out");
    add(gathering, (double)counters->peers_vanished, "frontend.peers_vanished");
    add(gathering, (double)counters->replies_dropped, "frontend.replies_dropped");
    add(gathering, (double)counters->results_dropped, "frontend.results_dropped");
    add(gathering, (double)counters->requests_dropped, "frontend.requests_dropped");
    add(gathering, (double)counters->denied, "frontend.denied");
    add(gathering, (double)counters->requests_waited, "frontend.requests_waited");
    add(gathering, (double)counters->parts, "frontend.parts");
    add(gathering, (double)counters->repeats_answered, "frontend.replay.answered");
    add(gathering, (double)counters->repeats_joined, "frontend.replay.joined");
    add(gathering, (double)counters->sleeps, "frontend.sleeps");
}

static void add_frontend(struct gathering *gathering, const struct server *server)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    add(gathering, (double)(clock_now_ns() - server->start_ns) / (double)NS_PER_S, "frontend.uptime_s");
    add(gathering, (double)getpid(), "frontend.pid");
    add_traffic(gathering, &server->counters);
    add(gathering, requests_taken(server->requests), "frontend.in_flight");
    add(gathering, requests_capacity(server->requests), "frontend.max_requests");
    add(gathering, repeats_kept(server->repeats), "frontend.replay.kept");
    add(gathering, (double)repeats_kept_bytes(server->repeats), "frontend.replay.kept_bytes");
    add(gathering, (double)buffers_bytes(server->buffers), "frontend.buffer_bytes");
    add(gathering, (double)client_peers_unsent(server->peers), "frontend.unsent_bytes");
    add(gathering, (double)usage.ru_minflt, "frontend.page_faults");
    add(gathering, connections_count(server->connections), "frontend.connections");
    const struct connections_counters *closed = connections_counters(server->connections);
    add(gathering, (double)closed->accept_failures, "frontend.accept_failures");
    add(gathering, local_count(server->local), "frontend.local.clients");
    const struct local_counters *local = local_counters(server->local);
    add(gathering, (double)local->requests, "frontend.local.requests");
    add(gathering, (double)local->refused, "frontend.local.refused");
    add(gathering, (double)local->ended, "frontend.local.ended");
    add(gathering, (double)closed->closed_idle, "frontend.closed.idle");
    add(gathering, (double)(closed->closed_large + gate_ended()), "frontend.closed.large");
    const bool keys = guard_is_on(&server->endpoint.guard); /* without them the counters are 0 */
    const struct zap_counters handshakes = keys ? zap_counters(server->endpoint.guard.zap) : (struct zap_counters){0};
    add(gathering, keys ? keyring_count(server->endpoint.guard.keyring) : 0, "frontend.known_clients");
    add(gathering, (double)handshakes.accepted, "frontend.handshakes.accepted");
    add(gathering, (double)handshakes.refused, "frontend.handshakes.refused");
    add(gathering, (double)closed->failed_handshakes, "frontend.handshakes.failed");
    add(gathering, (double)memory_own(), "frontend.memory");
    add(gathering, (double)server->pressure.budget, "frontend.max_memory");
}

/* How long the request has waited that came first of those in the device's pools. */
static double oldest_seconds(const struct device_link *device, uint64_t now_ns)
{
    uint64_t began_ns = now_ns;
    for (uint32_t p = 0; device->in_flight > 0 && device->pools && p < 2 * device->experts_count; p++) {
        const struct request *first = device->pools[p] ? device->pools[p]->requests.first : NULL;
        if (first && first->began_ns < began_ns)
            began_ns = first->began_ns;
    }
    return (double)(now_ns - began_ns) / (double)NS_PER_S;
}

static void add_device(struct gathering *gathering, const struct device_link *device, uint64_t now_ns)
{
    add(gathering, device->state == DEVICE_UP, "device.%s.alive", device->name);
    add(gathering, device->control != NULL, "device.%s.attached", device->name);
    add(gathering, device->in_flight, "device.%s.in_flight", device->name);
    add(gathering, oldest_seconds(device, now_ns), "device.%s.oldest_s", device->name);
    add(gathering, (double)device->restarts, "device.%s.restarts", device->name);
    if (!device->control)
        return;
    struct control_shared *page = control_page(device->control);
    add(gathering, atomic_load_explicit(&page->runtime.pid, memory_order_relaxed), "device.%s.pid", device->name);
    add(gathering, (double)control_generation(device->control), "device.%s.generation", device->name);
    add(gathering, device_link_count(device), "device.%s.experts", device->name);
    for (unsigned c = 0; c < CONTROL_COUNTERS; c++)
        add(gathering, (double)atomic_load_explicit(&page->statistics.counters[c], memory_order_relaxed),
            "device.%s.%s", device->name, control_counter_name((enum control_counter)c));
}

void inspect_stats(struct server *server, const struct reply_to *to, const Expertd__RequestHeader *header)
{
    const size_t capacity = FRONTEND_COUNTERS + (size_t)server->devices_count * DEVICE_COUNTERS;
    struct gathering gathering = {.counters = malloc(capacity * sizeof *gathering.counters),
                                  .pointers = malloc(capacity * sizeof(Expertd__Stats__Counter *)),
                                  .names = malloc(capacity * NAME_SIZE),
                                  .capacity = capacity};
    struct measures *measures = NULL;
    const uint64_t now_ns = clock_now_ns();
    Expertd__Stats stats = EXPERTD__STATS__INIT;
    if (gathering.counters && gathering.pointers && gathering.names &&
        measures_gather(&measures, server, header->list, now_ns, &stats) == 0) {
        add_frontend(&gathering, server);
        for (unsigned d = 0; d < server->devices_count; d++)
            add_device(&gathering, server->devices[d], now_ns);
        Expertd__ReplyHeader reply = EXPERTD__REPLY_HEADER__INIT;
        stats.n_counters = gathering.count;
        stats.counters = gathering.pointers;
        reply.stats = &stats;
        reply_header(&server->replier, to, &reply);
    } else {
        reply_status(&server->replier, to, STATUS_RESOURCE_EXHAUSTED, "no memory for the answer");
    }
    measures_free(&measures);
    free(gathering.counters);
    free(gathering.pointers);
    free(gathering.names);
}
