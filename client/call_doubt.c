#include "client/call_doubt.h"

#include "client/call_parts.h"

enum { BITS = 64 };

static bool is_in_doubt(const struct expertd_call *call, size_t part)
{
    return call->in_doubt[part / BITS] >> part % BITS & 1;
}

static size_t count_of(const struct expertd_call *call)
{
    return call->n_parts ? call->n_parts : 1;
}

static struct call_parts *parts_of(const struct expertd_call *call)
{
    return call->n_parts ? call->answer : NULL;
}

/* What comes of the batch that the backward was in: that it was not applied before was looked at then. Unless it may be
 * the late answer to an attempt whose deadline came first: then the one after it goes on, and may be applied. */
static bool tells_of_all_attempts(const struct expertd_call *call, enum expertd_status status)
{
    return status == EXPERTD_OK || (!call->unanswered && (status == EXPERTD_ABORTED || status == EXPERTD_INTERNAL));
}

void call_doubt_part(struct expertd_call *call, size_t part)
{
    call->in_doubt[part / BITS] |= UINT64_C(1) << part % BITS;
}

void call_doubt_before(struct expertd_call *call)
{
    const struct call_parts *parts = parts_of(call);
    for (size_t p = 0; p < count_of(call); p++) {
        call->in_doubt[p / BITS] &= ~(UINT64_C(1) << p % BITS);
        if (!(parts ? parts->parts[p].not_applied : call->not_applied))
            call_doubt_part(call, p);
    }
}

void call_doubt_at_end(struct expertd_call *call)
{
    struct call_parts *parts = parts_of(call);
    for (size_t p = 0; p < count_of(call); p++) {
        if (!is_in_doubt(call, p) || tells_of_all_attempts(call, parts ? parts->parts[p].status : call->status))
            continue;
        if (parts)
            parts->parts[p].not_applied = false;
        call->not_applied = false;
    }
}
