#include "frontend/server.h"

#include <inttypes.h>

#include "common/clock.h"
#include "common/log.h"
#include "frontend/elsewhere.h"
#include "frontend/group.h"

void server_answered(struct server *server, struct request *request)
{
    deadline_remove(server->deadlines, &request->deadline);
    client_peer_release(request->to.peer);
    request->to.peer = NULL;
    if (request->pool && notes_any(&request->to.notes)) {
        char text[NOTES_TEXT_SIZE];
        log_debug("request %" PRIu64 " of '%s' was answered after %.3f ms: %s", request->to.request_id,
                  pool_header(request->pool->pool)->uid, (double)(clock_now_ns() - request->began_ns) / 1e6,
                  notes_text(&request->to.notes, text));
    }
    notes_free(&request->to.notes);
    if (request->pool) {
        request->pool->device->in_flight--;
        server->counters.ended++;
        histogram_add(&server->counters.request_time[request->pool->index % 2], HISTOGRAM_TIME,
                      clock_now_ns() - request->began_ns);
    }
    if (request->group)
        group_end(&server->replier, request);
}

void server_answer(struct server *server, struct request *request, enum status status, const char *message)
{
    if (request->group)
        group_refuse(request->group, request->part, status, message, 0);
    else
        reply_status(&server->replier, &request->to, status, message);
    server_answered(server, request);
}

void server_refuse_unknown(struct server *server, const struct reply_to *to, const char *uid)
{
    char text[UID_SIZE + 400];
    const char *endpoint = elsewhere_where(server->elsewhere, uid, text, sizeof text);
    if (endpoint)
        reply_elsewhere(&server->replier, to, text, endpoint);
    else
        reply_status(&server->replier, to, STATUS_NOT_FOUND, text);
}
