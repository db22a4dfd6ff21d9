#include "frontend/task_end.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "frontend/admission.h"

void task_forget(struct server *server, struct request *request)
{
    if (request->keyed)
        repeats_end(server->repeats, &request->key, request);
    if (request->parked)
        admission_free(admission_unpark(server, request));
    else
        request_list_remove(&request->pool->requests, request);
    shares_credit(server->shares, request->share, request->rows);
    requests_give(server->requests, request);
}

void task_end_early(struct server *server, struct request *request, enum status status, const char *message)
{
    if (request->parked) {
        server_answer(server, request, status, message);
        task_forget(server, request);
        return;
    }
    pool_cancel(request->pool->pool, request->task);
    server_answer(server, request, status, message);
    /* Waiting for a result that a repeat might want is a favour, as long as slots are plenty. */
    if (request->keyed && requests_taken(server->requests) <= requests_capacity(server->requests) / 2)
        request->state = REQUEST_ABANDONED;
    else
        task_forget(server, request);
}

void task_expire(struct server *server, struct request *request)
{
    struct pool_link *link = request->pool;
    task_end_early(server, request, STATUS_DEADLINE_EXCEEDED,
                   request->keyed && !request->parked ? "the deadline came first; the step may still be applied"
                                                      : "the deadline came first");
    /* A pool that waits for min_batch_size is looked at when its batch_timeout ends: until then the rows would be
     * taken. */
    device_link_ready(link->device, link->index);
}

/* A BACKWARD with ids whose asker has gone moves to the end of the queue, as long as slots are plenty. Its task of
 * before is cancelled; if that has begun after all, the runtime knows the other one as a repeat. False: it cannot. */
static bool queue_last(struct server *server, struct request *request)
{
    struct pool_link *link = request->pool;
    uint64_t task;
    if (requests_taken(server->requests) > requests_capacity(server->requests) / 2)
        return false;
    struct request *last = requests_take(server->requests);
    if (!last)
        return false;
    if (pool_queue_again(link->pool, request->task, clock_now_ns(), &task) < 0 ||
        repeats_begin(server->repeats, &request->key, last) < 0) {
        requests_give(server->requests, last);
        return false;
    }
    last->state = REQUEST_ABANDONED;
    last->keyed = true;
    last->key = request->key;
    last->pool = link;
    last->task = task;
    last->rows = request->rows;
    last->unwanted = request->unwanted;
    memcpy(last->codecs, request->codecs, sizeof last->codecs);
    last->share = shares_charge(server->shares, link, request->share->peer, request->rows);
    request_list_append(&link->requests, last);
    device_link_ready(link->device, link->index);
    return true;
}

static void drop(struct server *server, struct request *request)
{
    server->counters.requests_dropped++;
    server_answered(server, request);
    if (request->parked) {
        task_forget(server, request); /* it is computed if it is repeated */
        return;
    }
    if (request->keyed) {
        request->state = REQUEST_ABANDONED;
        if (queue_last(server, request))
            pool_cancel(request->pool->pool, request->task);
        return;
    }
    pool_cancel(request->pool->pool, request->task);
    task_forget(server, request);
}

void task_drop_gone(struct server *server)
{
    for (unsigned d = 0; d < server->devices_count; d++) {
        struct device_link *device = server->devices[d];
        for (uint32_t p = 0; device->in_flight > 0 && p < 2 * device->experts_count; p++) {
            struct request *last = device->pools[p] ? device->pools[p]->requests.last : NULL;
            for (struct request *request = last ? device->pools[p]->requests.first : NULL, *next; request;
                 request = next) {
                next = request == last ? NULL : request->next;
                if (request->state == REQUEST_WAITING && request->to.peer->gone)
                    drop(server, request);
            }
            for (struct request *request = device->pools[p] ? device->pools[p]->parked.first : NULL, *next; request;
                 request = next) {
                next = request->next;
                if (request->to.peer->gone)
                    drop(server, request);
            }
            if (last)
                device_link_ready(device, p); /* what waits for min_batch_size is looked at */
        }
    }
}

static void fail_pool(struct server *server, struct pool_link *link, enum status status, const char *message)
{
    for (struct request *request = link->requests.first, *next; request; request = next) {
        next = request->next;
        if (request->state == REQUEST_WAITING)
            task_end_early(server, request, status, message);
    }
    while (link->parked.first)
        task_end_early(server, link->parked.first, status, message);
}

void task_fail_device(struct server *server, struct device_link *device, enum status status, const char *message)
{
    for (uint32_t p = 0; device->in_flight > 0 && p < 2 * device->experts_count; p++) {
        if (device->pools[p])
            fail_pool(server, device->pools[p], status, message);
    }
    assert(device->in_flight == 0);
}

void task_forget_device(struct server *server, struct device_link *device)
{
    for (uint32_t p = 0; p < 2 * device->experts_count; p++) {
        while (device->pools[p] && device->pools[p]->requests.first)
            task_forget(server, device->pools[p]->requests.first);
    }
}

void task_end_expert(struct server *server, struct device_link *device, uint32_t expert, const char *message)
{
    for (uint32_t p = 2 * expert; p < 2 * expert + 2; p++) {
        if (!device->pools[p])
            continue;
        fail_pool(server, device->pools[p], STATUS_UNAVAILABLE, message);
        while (device->pools[p]->requests.first)
            task_forget(server, device->pools[p]->requests.first);
    }
    device_link_close(device, expert);
}

void task_break_pool(struct server *server, struct pool_link *link)
{
    if (link->broken)
        return;
    device_link_break(link->device, link);
    log_error("the shared memory of pool %" PRIu32 " of device '%s' is damaged, or its name is gone; its runtime is "
              "asked to make a new one",
              link->index, link->device->name);
    fail_pool(server, link, STATUS_UNAVAILABLE, "the expert's task pool is damaged");
}
