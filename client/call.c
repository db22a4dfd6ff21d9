#include "client/call.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void call_drop_request(struct expertd_call *call)
{
    for (size_t i = 0; i < call->n_request; i++)
        zmq_msg_close(&call->request[i]);
    call->n_request = 0;
}

void call_drop_answer(struct expertd_call *call)
{
    for (size_t i = 0; i < call->n_outputs; i++)
        zmq_msg_close(&call->reply[i]);
    call->n_outputs = 0;
    call->metadata_bytes = 0;
    free(call->answer);
    call->answer = NULL;
    call->message[0] = 0;
}

void call_set_status(struct expertd_call *call, enum expertd_status status, const char *format, ...)
{
    va_list arguments;
    call->status = status;
    va_start(arguments, format);
    vsnprintf(call->message, sizeof call->message, format, arguments);
    va_end(arguments);
}

bool call_nothing_done(enum expertd_status status)
{
    switch (status) {
    case EXPERTD_INVALID_ARGUMENT:
    case EXPERTD_NOT_FOUND:
    case EXPERTD_PERMISSION_DENIED:
    case EXPERTD_RESOURCE_EXHAUSTED:
    case EXPERTD_ABORTED:
    case EXPERTD_UNIMPLEMENTED:
    case EXPERTD_INTERNAL:
        return true;
    default:
        return false;
    }
}

/* ---- table: request ids count up, so their low bits spread by themselves --------------------------------------- */

int call_table_insert(struct key_table *table, struct expertd_call *call)
{
    call->by_id.key = call->request_id;
    return key_table_insert(table, &call->by_id);
}

struct expertd_call *call_table_find(const struct key_table *table, uint64_t request_id)
{
    return (struct expertd_call *)key_table_find(table, request_id);
}

/* ---- what programs see of a call ------------------------------------------------------------------------------- */

bool expertd_call_done(const struct expertd_call *call)
{
    return !call_in_flight(call);
}

void expertd_call_set_user(struct expertd_call *call, void *user)
{
    call->user = user;
}

void *expertd_call_user(const struct expertd_call *call)
{
    return call->user;
}

enum expertd_status expertd_call_status(const struct expertd_call *call)
{
    return call->status;
}

const char *expertd_call_message(const struct expertd_call *call)
{
    return call->message;
}

uint32_t expertd_call_retry_after_ms(const struct expertd_call *call)
{
    return call->retry_after_ms;
}

bool expertd_call_not_applied(const struct expertd_call *call)
{
    return call->not_applied;
}

size_t expertd_call_output_count(const struct expertd_call *call)
{
    return call->n_outputs;
}

const struct expertd_tensor *expertd_call_output(const struct expertd_call *call, size_t index)
{
    return index < call->n_outputs ? &call->outputs[index] : NULL;
}

const void *expertd_call_metadata(const struct expertd_call *call, size_t *bytes)
{
    *bytes = call->metadata_bytes;
    return call->metadata;
}

static const void *answer_of(const struct expertd_call *call, Expertd__Method method)
{
    return call->method == method ? call->answer : NULL;
}

const struct expertd_pong *expertd_call_pong(const struct expertd_call *call)
{
    return answer_of(call, EXPERTD__METHOD__PING);
}

const struct expertd_list *expertd_call_list(const struct expertd_call *call)
{
    return answer_of(call, EXPERTD__METHOD__LIST);
}

const struct expertd_stats *expertd_call_stats(const struct expertd_call *call)
{
    return answer_of(call, EXPERTD__METHOD__STATS);
}

const struct expertd_info *expertd_call_info(const struct expertd_call *call)
{
    return answer_of(call, EXPERTD__METHOD__INFO);
}

const struct expertd_changes *expertd_call_changes(const struct expertd_call *call)
{
    const bool change = call->method >= EXPERTD__METHOD__LOAD && call->method <= EXPERTD__METHOD__RELOAD;
    return change ? answer_of(call, call->method) : NULL;
}
