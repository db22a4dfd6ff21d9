#include "client/call_parts.h"

#include <stdlib.h>
#include <string.h>

#include "client/call.h"

bool call_parts_take(void **answer, const Expertd__ReplyHeader *header)
{
    static const char no_reason[] = "the server gives no reason";
    size_t bytes = 0;
    struct call_parts *parts;
    for (size_t p = 0; p < header->n_parts; p++)
        bytes += strlen(header->parts[p]->message) + 1;
    parts = malloc(sizeof *parts + header->n_parts * sizeof parts->parts[0] + bytes);
    if (!parts)
        return false;
    char *text = (char *)&parts->parts[header->n_parts];
    parts->count = header->n_parts;
    for (size_t p = 0; p < header->n_parts; p++) {
        const Expertd__ReplyHeader__PartResult *result = header->parts[p];
        const size_t length = strlen(result->message);
        const enum expertd_status status = (enum expertd_status)result->status;
        const bool known = strcmp(expertd_status_name(status), "UNKNOWN") != 0;
        parts->parts[p].status = known ? status : EXPERTD_INTERNAL;
        parts->parts[p].retry_after_ms = result->retry_after_ms;
        memcpy(text, result->message, length + 1);
        parts->parts[p].message = length > 0 || status == EXPERTD_OK ? message_clean(text) : no_reason;
        text += length + 1;
    }
    free(*answer);
    *answer = parts;
    return true;
}

/* ---- what programs see of them --------------------------------------------------------------------------------- */

uint64_t expertd_call_request_id(const struct expertd_call *call)
{
    return call->request_id;
}

size_t expertd_call_part_count(const struct expertd_call *call)
{
    return call->n_parts;
}

/* NULL: the part has what the call has. */
static const struct call_parts *parts_of(const struct expertd_call *call)
{
    return call->n_parts ? call->answer : NULL;
}

enum expertd_status expertd_call_part_status(const struct expertd_call *call, size_t part)
{
    const struct call_parts *parts = parts_of(call);
    if (part >= call->n_parts)
        return EXPERTD_INVALID_ARGUMENT;
    return parts ? parts->parts[part].status : call->status;
}

const char *expertd_call_part_message(const struct expertd_call *call, size_t part)
{
    const struct call_parts *parts = parts_of(call);
    if (part >= call->n_parts)
        return "the call has not so many parts";
    return parts ? parts->parts[part].message : call->message;
}

uint32_t expertd_call_part_retry_after_ms(const struct expertd_call *call, size_t part)
{
    const struct call_parts *parts = parts_of(call);
    if (part >= call->n_parts)
        return 0;
    return parts ? parts->parts[part].retry_after_ms : call->retry_after_ms;
}

bool expertd_call_part_not_applied(const struct expertd_call *call, size_t part)
{
    const struct call_parts *parts = parts_of(call);
    if (part >= call->n_parts || call->method != EXPERTD__METHOD__BACKWARD)
        return true;
    return parts ? call_nothing_done(parts->parts[part].status) : call->not_applied;
}
