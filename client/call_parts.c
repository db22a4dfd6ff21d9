#include "client/call_parts.h"

#include <stdlib.h>
#include <string.h>

#include "client/call.h"

static char *add_text(char **at, const char *text)
{
    const size_t bytes = strlen(text) + 1;
    char *copy = memcpy(*at, text, bytes);
    *at += bytes;
    return copy;
}

/* They take the place of *answer; the texts are copied. */
static bool put(void **answer, const struct call_part *parts, size_t count)
{
    size_t bytes = 0;
    for (size_t p = 0; p < count; p++)
        bytes += strlen(parts[p].message) + strlen(parts[p].endpoint) + 2;
    struct call_parts *made = malloc(sizeof *made + count * sizeof made->parts[0] + bytes);
    if (!made)
        return false;
    char *text = (char *)&made->parts[count];
    made->count = count;
    for (size_t p = 0; p < count; p++) {
        made->parts[p] = parts[p];
        made->parts[p].message = message_clean(add_text(&text, parts[p].message));
        made->parts[p].endpoint = add_text(&text, parts[p].endpoint);
    }
    free(*answer);
    *answer = made;
    return true;
}

static struct call_part part_of(const Expertd__ReplyHeader *header, size_t p, bool backward)
{
    const Expertd__ReplyHeader__PartResult *result = header->parts[p];
    const enum expertd_status status = (enum expertd_status)result->status;
    const bool known = strcmp(expertd_status_name(status), "UNKNOWN") != 0;
    const bool elsewhere =
        status == EXPERTD_NOT_FOUND && result->frontend > 0 && result->frontend <= header->n_endpoints;
    /* All parts may name the same one, and each gets a copy. */
    const bool named = elsewhere && strlen(header->endpoints[result->frontend - 1]) < CALL_ENDPOINT_SIZE;
    const bool said = result->message[0] || status == EXPERTD_OK;
    return (struct call_part){
        .status = known ? status : EXPERTD_INTERNAL,
        .retry_after_ms = result->retry_after_ms,
        .not_applied = !backward || call_nothing_done(known ? status : EXPERTD_INTERNAL),
        .message = said ? result->message : "the server gives no reason",
        .endpoint = named ? header->endpoints[result->frontend - 1] : "",
    };
}

bool call_parts_take(void **answer, const Expertd__ReplyHeader *header, bool backward)
{
    struct call_part parts[MESSAGE_MAX_PARTS];
    for (size_t p = 0; p < header->n_parts; p++)
        parts[p] = part_of(header, p, backward);
    return put(answer, parts, header->n_parts);
}

bool call_parts_begin(void **answer, size_t count)
{
    struct call_part parts[MESSAGE_MAX_PARTS];
    for (size_t p = 0; p < count; p++)
        parts[p] = (struct call_part){
            .status = EXPERTD_UNAVAILABLE, .not_applied = true, .message = "it was not asked", .endpoint = ""};
    return put(answer, parts, count);
}

void call_parts_say(void **answer, const uint32_t *numbers, const struct call_part *parts, size_t count)
{
    struct call_part all[MESSAGE_MAX_PARTS];
    struct call_parts *before = *answer;
    memcpy(all, before->parts, before->count * sizeof all[0]);
    for (size_t i = 0; i < count; i++)
        all[numbers[i]] = parts[i];
    if (put(answer, all, before->count))
        return;
    for (size_t i = 0; i < count; i++) {
        struct call_part *part = &before->parts[numbers[i]];
        *part = parts[i];
        part->message = part->status == EXPERTD_OK ? "" : "there is no memory for the reason";
        part->endpoint = "";
    }
}

bool call_parts_any_named(const struct call_parts *parts)
{
    for (size_t p = 0; p < parts->count; p++)
        if (parts->parts[p].endpoint[0])
            return true;
    return false;
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
    return parts ? parts->parts[part].not_applied : call->not_applied;
}
