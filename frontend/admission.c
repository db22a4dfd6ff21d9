#include "frontend/admission.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"

enum {
    SLOTS_SHARE = 8,   /* a client has at most so many slots for each that is free: alone, 8 of 9 */
    WAITING_SHARE = 4, /* of the memory for messages, for what waits */
    RETRY_LEAST_MS = 1,
    RETRY_MOST_MS = 1000,
    SMOOTHING = 8,
};

struct request *admission_slot(struct server *server, const struct client_peer *peer)
{
    const uint64_t left = requests_capacity(server->requests) - requests_taken(server->requests);
    /* Also those of its shares are counted, and so each client may have a few in any case. */
    return peer->references > SLOTS_SHARE * left + SLOTS_SHARE ? NULL : requests_take(server->requests);
}

bool admission_queued(const struct pool_link *link)
{
    return link->parked.count > 0;
}

bool admission_may_wait(const struct server *server, const struct pool_link *link, const struct client_peer *peer,
                        uint32_t rows, uint64_t bytes)
{
    const struct pool_shared *header = pool_header(link->pool);
    const struct share *share = shares_find(server->shares, link, peer);
    if (server->parked_bytes + bytes > server->pressure.budget / WAITING_SHARE)
        return false;
    if (!share)
        return true;
    return share->tasks < header->capacity_tasks / link->clients &&
           share->rows + (uint64_t)rows <= header->capacity_rows / link->clients;
}

/* The frame moves here, unless its memory is a client's own, which goes with the client, and the request may have
 * become another's; or it has the rows of other parts of its call, too. */
static bool keep_frame(const struct request *request, struct task_inputs *inputs, uint32_t i, zmq_msg_t *frame,
                       zmq_msg_t *kept)
{
    if (!request->to.peer->local && !request->group) {
        zmq_msg_init(kept);
        zmq_msg_move(kept, frame);
    } else if (!task_inputs_keep(inputs, i, kept)) {
        return false;
    }
    inputs->tensors[i].data = zmq_msg_data(kept); /* a small one has moved */
    return true;
}

bool admission_park(struct server *server, struct request *request, const struct task_inputs *inputs,
                    uint64_t deadline_ns)
{
    struct incoming *incoming = &server->incoming;
    struct request_parked *parked = malloc(sizeof *parked);
    if (!parked)
        return false;
    parked->inputs = *inputs;
    parked->frames_count = pool_header(request->pool->pool)->inputs.count;
    parked->bytes = 0;
    parked->deadline_ns = deadline_ns;
    for (uint32_t i = 0; i < parked->frames_count; i++) {
        if (!keep_frame(request, &parked->inputs, i, &incoming->tensors[i], &parked->frames[i])) {
            parked->frames_count = i;
            admission_free(parked);
            return false;
        }
        parked->bytes += parked->inputs.tensors[i].bytes;
    }
    request->parked = parked;
    server->parked_bytes += parked->bytes;
    server->counters.requests_waited++;
    request_list_append(&request->pool->parked, request);
    return true;
}

struct request_parked *admission_unpark(struct server *server, struct request *request)
{
    struct request_parked *parked = request->parked;
    request_list_remove(&request->pool->parked, request);
    server->parked_bytes -= parked->bytes;
    request->parked = NULL;
    return parked;
}

void admission_free(struct request_parked *parked)
{
    for (uint32_t i = 0; i < parked->frames_count; i++)
        zmq_msg_close(&parked->frames[i]);
    free(parked);
}

/* The time in which the pool works off what it holds, and as much again for each time that it was refused lately for
 * one that was served: so many stand before the door. */
uint32_t admission_retry_after_ms(const struct pool_link *link)
{
    const double ms = link->row_ns * link->held_rows * (1 + link->crowd) / (double)NS_PER_MS;
    return ms <= RETRY_LEAST_MS ? RETRY_LEAST_MS : ms >= RETRY_MOST_MS ? RETRY_MOST_MS : (uint32_t)ms;
}

void admission_served(struct pool_link *link, uint32_t tasks, uint32_t rows, uint64_t now_ns)
{
    const double crowd = (double)link->refused / tasks;
    link->crowd += (crowd - link->crowd) / SMOOTHING;
    link->refused = 0;
    if (link->served_ns && rows > 0) {
        const double row_ns = (double)(now_ns - link->served_ns) / rows;
        link->row_ns += link->row_ns > 0 ? (row_ns - link->row_ns) / SMOOTHING : row_ns;
    }
    link->served_ns = link->requests.count ? now_ns : 0; /* of a pool that has nothing to do, time says nothing */
}
