#include "client/backlog.h"

#include <stdlib.h>

static bool is_by_itself(const struct expertd_call *call)
{
    return call->uid_hash == 0 || call->n_parts > 0;
}

/* Forwards and backwards are in pools of their own. */
static uint64_t key_of(const struct expertd_call *call)
{
    if (is_by_itself(call))
        return call->request_id;
    return call->uid_hash + (call->method == EXPERTD__METHOD__BACKWARD);
}

struct backlog *backlog_find(const struct expertd_call *call)
{
    struct backlog *backlog = TAILQ_FIRST(&call->client->backlogs);
    while (backlog && backlog->key != key_of(call))
        backlog = TAILQ_NEXT(backlog, link);
    return backlog;
}

static size_t count(const struct call_list *calls, uint64_t key)
{
    size_t found = 0;
    for (const struct expertd_call *call = TAILQ_FIRST(calls); call; call = TAILQ_NEXT(call, link))
        found += key_of(call) == key;
    return found;
}

struct backlog *backlog_take(const struct expertd_call *call)
{
    struct backlog *backlog = backlog_find(call);
    if (backlog || !(backlog = calloc(1, sizeof *backlog)))
        return backlog;
    TAILQ_INIT(&backlog->calls);
    backlog->key = key_of(call);
    backlog->flying = is_by_itself(call) ? 1
                                         : count(&call->client->calls[CALL_SENT], backlog->key) +
                                               count(&call->client->calls[CALL_UNSENT], backlog->key);
    TAILQ_INSERT_TAIL(&call->client->backlogs, backlog, link);
    return backlog;
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
    call->backlog = backlog;
    backlog->comeback.waiting++;
}

void backlog_note(struct expertd_call *call, enum call_state to)
{
    struct backlog *backlog = call->backlog;
    if (backlog) {
        TAILQ_REMOVE(&backlog->calls, call, behind);
        backlog->comeback.waiting--;
        call->backlog = NULL;
    }
    if (call_state_flies(call->state) != call_state_flies(to) && (backlog = backlog_find(call)) != NULL)
        backlog->flying += call_state_flies(to) ? 1 : -(size_t)1;
}

void backlog_stir(const struct expertd_call *call)
{
    struct backlog *backlog = backlog_find(call);
    if (backlog && backlog->comeback.waiting > 0)
        backlog->comeback.due_ns = call->client->resume_ns = 0;
}

void backlog_settle(const struct expertd_call *call)
{
    struct backlog *backlog = backlog_find(call);
    if (!backlog || backlog->comeback.waiting > 0)
        return;
    TAILQ_REMOVE(&call->client->backlogs, backlog, link);
    free(backlog);
}

void backlog_clear(struct expertd_client *client)
{
    for (struct backlog *backlog = TAILQ_FIRST(&client->backlogs), *next; backlog; backlog = next) {
        next = TAILQ_NEXT(backlog, link);
        free(backlog);
    }
    TAILQ_INIT(&client->backlogs);
}
