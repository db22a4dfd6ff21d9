#include "client/backlog.h"

#include <stdlib.h>

static bool is_by_itself(const struct expertd_call *call)
{
    return call->uid_hash == 0 || call->n_parts > 0;
}

/* Forwards and backwards are in pools of their own. */
static uint64_t key_of(const struct expertd_call *call)
{
    return call->uid_hash + (call->method == EXPERTD__METHOD__BACKWARD);
}

static struct backlog *make(const struct expertd_call *call)
{
    struct backlog *backlog = calloc(1, sizeof *backlog);
    if (!backlog)
        return NULL;
    TAILQ_INIT(&backlog->calls);
    backlog->by_itself = is_by_itself(call);
    backlog->by_expert.key = key_of(call);
    if (!backlog->by_itself && key_table_insert(&call->client->backlogs, &backlog->by_expert) < 0) {
        free(backlog);
        return NULL;
    }
    return backlog;
}

struct backlog *backlog_of(struct expertd_call *call)
{
    if (call->backlog)
        return call->backlog;
    struct backlog *backlog =
        is_by_itself(call) ? NULL : (struct backlog *)key_table_find(&call->client->backlogs, key_of(call));
    if (!backlog && !(backlog = make(call)))
        return NULL;
    backlog->members++;
    backlog->flying += call_state_flies(call->state);
    return call->backlog = backlog;
}

struct backlog *backlog_enter(struct expertd_call *call)
{
    return is_by_itself(call) ? NULL : backlog_of(call);
}

void backlog_join(struct backlog *backlog, struct expertd_call *call)
{
    struct expertd_call *next = TAILQ_LAST(&backlog->calls, call_list);
    if (!next || next->request_id < call->request_id) {
        TAILQ_INSERT_TAIL(&backlog->calls, call, behind);
    } else { /* it was tried, and not long ago the first */
        next = TAILQ_FIRST(&backlog->calls);
        while (next->request_id < call->request_id)
            next = TAILQ_NEXT(next, behind);
        TAILQ_INSERT_BEFORE(next, call, behind);
    }
    if (backlog->comeback.waiting++ == 0)
        TAILQ_INSERT_TAIL(&call->client->waiting_backlogs, backlog, link);
}

void backlog_note(struct expertd_call *call, enum call_state to)
{
    struct backlog *backlog = call->backlog;
    if (!backlog)
        return;
    if (call->state == CALL_PAUSED) {
        TAILQ_REMOVE(&backlog->calls, call, behind);
        if (--backlog->comeback.waiting == 0)
            TAILQ_REMOVE(&call->client->waiting_backlogs, backlog, link);
    }
    backlog->flying += (size_t)call_state_flies(to) - (size_t)call_state_flies(call->state);
}

void backlog_stir(const struct expertd_call *call)
{
    if (call->backlog && call->backlog->comeback.waiting > 0)
        call->backlog->comeback.due_ns = call->client->resume_ns = 0;
}

void backlog_settle(const struct expertd_call *call)
{
    if (call->backlog && call->backlog->comeback.waiting == 0)
        call->backlog->comeback = (struct comeback){0};
}

void backlog_leave(struct expertd_call *call)
{
    struct backlog *backlog = call->backlog;
    backlog_settle(call);
    call->backlog = NULL;
    if (!backlog || --backlog->members > 0)
        return;
    if (!backlog->by_itself)
        key_table_remove(&call->client->backlogs, &backlog->by_expert);
    free(backlog);
}
