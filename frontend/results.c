#include "frontend/results.h"

#include <string.h>

#include "common/clock.h"
#include "frontend/admission.h"
#include "frontend/group.h"
#include "frontend/task.h"
#include "frontend/task_end.h"

/* --- one result -----------------------------------------------------------------------------------------------------
 */

/* The built answer, its own or its first's, for a request that waits. */
static void deliver(struct server *server, const struct request *request, struct buffer *answer)
{
    if (request->group)
        group_take_answer(&server->replier, request->group, request->part, answer);
    else
        reply_send_kept(&server->replier, &request->to, answer, request->unwanted);
}

/* A repeat that was queued because its first had been given up, and the first's answer has come after all. */
static void answer_twin(struct server *server, const struct request *first, struct buffer *answer)
{
    struct request *twin = repeats_find(server->repeats, &first->key).running;
    if (!twin || twin == first || twin->state != REQUEST_WAITING)
        return;
    deliver(server, twin, answer);
    server->counters.repeats_answered++;
    server_answered(server, twin);
    if (twin->parked) {
        task_forget(server, twin);
        return;
    }
    pool_cancel(twin->pool->pool, twin->task);
    twin->state = REQUEST_ABANDONED; /* until its result, ALREADY_EXISTS, has come */
}

/* Whether what is done has changed its expert. */
static bool applied(const struct pool_link *link)
{
    return pool_header(link->pool)->kind == POOL_BACKWARD && device_link_learns(link->device, link->index / 2);
}

/* RESOURCE_EXHAUSTED says that nothing was done: a forward is as good as that, and so is a backward of what does not
 * learn; but another one was applied. */
static void answer_without_memory(struct server *server, const struct pool_link *link, struct request *request)
{
    if (applied(link))
        server_answer(server, request, STATUS_ALREADY_EXISTS,
                      "this request was applied, but there was no memory for its answer");
    else
        server_answer(server, request, STATUS_RESOURCE_EXHAUSTED, "no memory for the answer");
}

static void finish_ok(struct server *server, struct pool_link *link, struct request *request,
                      const struct pool_result *result)
{
    struct schema some;
    const struct schema *all = &pool_header(link->pool)->outputs, *outputs = request_outputs(request, all, &some);
    const void *data[SCHEMA_MAX_TENSORS];
    for (uint32_t i = 0, n = 0; i < all->count; i++) {
        if (!(request->unwanted >> i & 1))
            data[n++] = (char *)pool_output(link->pool, i) + result->row * pool_output_row_bytes(link->pool, i);
    }
    if (!request->keyed && request->group) {
        const bool taken = group_take_rows(&server->replier, request->group, request->part, data);
        pool_release(link->pool, result->task);
        if (taken)
            server_answered(server, request);
        else
            answer_without_memory(server, link, request);
        task_forget(server, request);
        return;
    }
    if (!request->keyed && request->state == REQUEST_WAITING && reply_goes_straight(&request->to)) {
        reply_rows(&server->replier, &request->to, outputs, result->rows, data, request->codecs);
        pool_release(link->pool, result->task);
        server_answered(server, request);
        task_forget(server, request);
        return;
    }
    /* One that was queued again for an asker that had gone is nobody's until it is repeated, with the same id. */
    const uint64_t id = request->keyed ? request->key.request_id : request->to.request_id;
    struct buffer *answer =
        reply_build(&server->replier, id, outputs, result->rows, data, request->codecs, request->unwanted);
    pool_release(link->pool, result->task);
    if (!answer) {
        if (request->state == REQUEST_WAITING)
            answer_without_memory(server, link, request);
        task_forget(server, request);
        return;
    }
    if (request->state == REQUEST_WAITING) {
        deliver(server, request, answer);
        server_answered(server, request);
    }
    if (request->keyed) {
        answer_twin(server, request, answer);
        repeats_keep(server->repeats, &request->key, answer);
    }
    buffer_release(answer);
    task_forget(server, request);
}

static const char *default_message(enum status status)
{
    switch (status) {
    case STATUS_DEADLINE_EXCEEDED:
        return "the deadline came while the request was queued";
    case STATUS_ALREADY_EXISTS:
        return "this request was applied before, and its answer is no longer kept";
    case STATUS_ABORTED:
        return "a gradient was NaN or Inf; the expert has not changed";
    case STATUS_UNAVAILABLE:
        return "the runtime died while it worked on this request";
    default:
        return "the batch failed on the device; see the runtime's log";
    }
}

static void finish_error(struct server *server, struct request *request, const struct pool_result *result,
                         uint64_t now_ns)
{
    if (request->state == REQUEST_WAITING) {
        enum status status = result->status;
        char message[POOL_MESSAGE_SIZE];
        memcpy(message, result->message, sizeof message);
        message_clean(message);
        struct buffer *kept = NULL;
        if (request->keyed && status == STATUS_ALREADY_EXISTS)
            kept = repeats_find(server->repeats, &request->key).kept;
        if (kept) {
            deliver(server, request, kept);
            server->counters.repeats_answered++;
            server_answered(server, request);
        } else if (status == STATUS_DEADLINE_EXCEEDED &&
                   (request->deadline.place == 0 || request->deadline.due_ns > now_ns)) {
            /* A repeat took the place of its first, whose earlier deadline the task still had. */
            server_answer(server, request, STATUS_UNAVAILABLE, "the first request expired in the queue; repeat it");
        } else {
            server_answer(server, request, status, message[0] ? message : default_message(status));
        }
    }
    task_forget(server, request);
}

static uint32_t take(struct server *server, struct pool_link *link)
{
    uint32_t count = 0, rows = 0;
    struct pool_result result;
    if (link->broken)
        return 0;
    const uint64_t now_ns = clock_now_ns();
    int rc;
    while ((rc = pool_next_result(link->pool, &result)) > 0) {
        count++;
        rows += result.rows;
        struct request *request = link->requests.first;
        if (result.orphan || !request || request->task != result.task) {
            server->counters.results_dropped++;
            pool_release(link->pool, result.task);
        } else if (result.status == STATUS_OK) {
            link->tasks++;
            link->rows += result.rows;
            link->request_ns += now_ns > request->began_ns ? now_ns - request->began_ns : 0;
            finish_ok(server, link, request, &result);
        } else {
            pool_release(link->pool, result.task);
            finish_error(server, request, &result, now_ns);
        }
    }
    if (count) {
        device_link_progress(link->device, now_ns);
        admission_served(link, count, rows, now_ns);
    }
    if (rc < 0)
        task_break_pool(server, link);
    else if (count && admission_queued(link))
        task_admit(server, link);
    return count;
}

/* --- all of them ----------------------------------------------------------------------------------------------------
 */

struct visit {
    struct server *server;
    struct device_link *device;
    uint32_t results;
};

static struct pool_link *link_of(uint32_t pool, void *context)
{
    const struct visit *visit = context;
    return visit->device->pools[pool];
}

static void fetch_link(uint32_t pool, void *context)
{
    __builtin_prefetch(link_of(pool, context));
}

static void fetch_pool(uint32_t pool, void *context)
{
    const struct pool_link *link = link_of(pool, context);
    if (link) {
        pool_prefetch_handle(link->pool);
        __builtin_prefetch(link->requests.first, 1);
    }
}

static void fetch_shared(uint32_t pool, void *context)
{
    const struct pool_link *link = link_of(pool, context);
    if (link)
        pool_prefetch_shared(link->pool);
}

static void visit_pool(uint32_t pool, void *context)
{
    struct visit *visit = context;
    struct pool_link *link = visit->device->pools[pool];
    if (link)
        visit->results += take(visit->server, link);
}

static control_visit *const stages[] = {fetch_link, fetch_pool, fetch_shared, visit_pool};

uint32_t results_take(struct server *server, struct device_link *device)
{
    struct visit visit = {server, device, 0};
    if (device->control)
        control_take_done(device->control, stages, sizeof stages / sizeof stages[0], &visit);
    return visit.results;
}

void results_take_last(struct server *server, struct device_link *device)
{
    struct visit visit = {server, device, 0};
    for (uint32_t p = 0; p < 2 * device->experts_count; p++)
        visit_pool(p, &visit);
}
