#include "frontend/group.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/config.h"
#include "common/log.h"
#include "frontend/request.h"

/* Bytes of all endpoints and of parts' messages in one reply: its header has to go to a client on this host, too. */
enum { TEXTS_MAX = 4096, PART_MAX = 16, PARTS_MAX = TEXTS_MAX + MESSAGE_MAX_PARTS * PART_MAX, TEXT_MAX = 320 };
enum { ENDPOINT_BYTES = 4 /* beside its text */, ENDPOINTS_MAX = CONFIG_FRONTENDS_MAX };
_Static_assert((int)PARTS_MAX <= (int)REPLY_MORE_MAX, "a reply takes what is said of the parts");

struct part {
    uint64_t row;
    uint32_t rows, retry_after_ms;
    uint32_t frontend; /* which of the group's endpoints, from 1 on; 0: none */
    enum status status;
    char *message; /* malloc'd; NULL: none */
};

struct group {
    struct reply_to to;
    uint64_t began_ns, rows;
    struct schema outputs;
    uint32_t unwanted;     /* that are not in `outputs`, a bit each */
    struct buffer *answer; /* the rows of the parts that are done; NULL: none is */
    uint32_t open, count;  /* parts that go on; all */
    bool closed;
    uint8_t codecs[SCHEMA_MAX_TENSORS];
    char *endpoints[ENDPOINTS_MAX]; /* of other frontends that have experts of parts, each once */
    uint32_t endpoints_count, endpoints_bytes;
    struct part parts[];
};

struct group *group_open(const struct reply_to *to, uint32_t parts, const uint8_t *codecs)
{
    struct group *group = calloc(1, sizeof *group + parts * sizeof group->parts[0]);
    if (!group)
        return NULL;
    group->to = *to;
    group->count = parts;
    group->began_ns = clock_now_ns();
    memcpy(group->codecs, codecs, sizeof group->codecs);
    for (uint32_t p = 0; p < parts; p++)
        group->parts[p].status = STATUS_UNAVAILABLE; /* until something else is said */
    client_peer_hold(to->peer);
    notes_keep(&group->to.notes);
    return group;
}

void group_set_outputs(struct group *group, const struct schema *outputs, uint32_t unwanted, uint64_t rows)
{
    group->outputs = *outputs;
    group->unwanted = unwanted;
    group->rows = rows;
}

void group_set_part(struct group *group, uint32_t part, uint64_t row, uint32_t rows)
{
    group->parts[part].row = row;
    group->parts[part].rows = rows;
}

/* --- the reply ------------------------------------------------------------------------------------------------------
 */

/* Which of the statuses of parts that all failed is the reply's: one that leaves open whether something was done before
 * one that says that nothing was, and last the one that asks to come again. */
static int weight(enum status status)
{
    switch (status) {
    case STATUS_DEADLINE_EXCEEDED:
    case STATUS_UNAVAILABLE:
    case STATUS_ALREADY_EXISTS:
        return 3;
    case STATUS_RESOURCE_EXHAUSTED:
        return 1;
    case STATUS_OK:
        return 0;
    default:
        return 2;
    }
}

/* Into results[] and pointers[], one for each part, which are valid as long as the group is. */
static void describe_parts(const struct group *group, Expertd__ReplyHeader__PartResult *results,
                           Expertd__ReplyHeader__PartResult **pointers)
{
    size_t texts = group->endpoints_bytes;
    for (uint32_t p = 0; p < group->count; p++) {
        const struct part *part = &group->parts[p];
        expertd__reply_header__part_result__init(&results[p]);
        results[p].status = (Expertd__Status)part->status;
        results[p].frontend = part->frontend;
        if (part->status == STATUS_RESOURCE_EXHAUSTED)
            results[p].retry_after_ms = part->retry_after_ms;
        const size_t length = part->message ? strlen(part->message) : 0;
        if (length > 0 && texts + length <= TEXTS_MAX) {
            results[p].message = part->message;
            texts += length;
        }
        pointers[p] = &results[p];
    }
}

static void send_failure(struct replier *replier, const struct group *group, Expertd__ReplyHeader *header)
{
    const struct part *worst = &group->parts[0];
    uint32_t retry_after_ms = 0;
    bool together = worst->frontend != 0;
    for (uint32_t p = 0; p < group->count; p++) {
        const struct part *part = &group->parts[p];
        together &= part->frontend == group->parts[0].frontend;
        if (weight(part->status) > weight(worst->status))
            worst = part;
        if (part->retry_after_ms > retry_after_ms)
            retry_after_ms = part->retry_after_ms;
    }
    header->status = (Expertd__Status)worst->status;
    header->message = worst->message ? worst->message : (char *)(uintptr_t) "no part was done";
    header->retry_after_ms = worst->status == STATUS_RESOURCE_EXHAUSTED ? retry_after_ms : 0;
    if (together) /* then the whole request belongs there */
        header->endpoint = group->endpoints[worst->frontend - 1];
    reply_header(replier, &group->to, header);
}

/* With the tensors, of which parts that failed have zeros. */
static void send_rows(struct replier *replier, const struct group *group, const Expertd__ReplyHeader *header)
{
    unsigned char encoded[PARTS_MAX];
    struct buffer *answer = group->answer;
    const void *data[SCHEMA_MAX_TENSORS];
    bool plain = true;
    for (uint32_t i = 0; i < group->outputs.count; i++) {
        const size_t row_bytes = tensor_row_bytes(&group->outputs.tensors[i]);
        unsigned char *rows = reply_tensor(answer, i);
        for (uint32_t p = 0; p < group->count; p++) {
            const struct part *part = &group->parts[p];
            if (part->status != STATUS_OK)
                memset(rows + part->row * row_bytes, 0, part->rows * row_bytes);
        }
        data[i] = rows;
        plain &= group->codecs[i] == 0;
    }
    const long bytes = message_encode_reply(header, encoded, sizeof encoded);
    if (!plain)
        answer = reply_build(replier, group->to.request_id, &group->outputs, (uint32_t)group->rows, data, group->codecs,
                             group->unwanted);
    if (!answer) /* then as they are */
        answer = group->answer;
    reply_send_parts(replier, &group->to, answer, encoded, (size_t)bytes);
    if (answer != group->answer)
        buffer_release(answer);
}

static void finish(struct replier *replier, struct group *group)
{
    Expertd__ReplyHeader__PartResult results[MESSAGE_MAX_PARTS], *pointers[MESSAGE_MAX_PARTS];
    Expertd__ReplyHeader header = EXPERTD__REPLY_HEADER__INIT;
    describe_parts(group, results, pointers);
    header.n_parts = group->count;
    header.parts = pointers;
    header.n_endpoints = group->endpoints_count;
    header.endpoints = group->endpoints;
    if (!group->to.peer->gone && group->answer)
        send_rows(replier, group, &header);
    else if (!group->to.peer->gone)
        send_failure(replier, group, &header);
    if (notes_any(&group->to.notes)) {
        char text[NOTES_TEXT_SIZE];
        log_debug("request %" PRIu64 " of %" PRIu32 " parts was answered after %.3f ms: %s", group->to.request_id,
                  group->count, (double)(clock_now_ns() - group->began_ns) / 1e6, notes_text(&group->to.notes, text));
    }
    client_peer_release(group->to.peer);
    notes_free(&group->to.notes);
    for (uint32_t p = 0; p < group->count; p++)
        free(group->parts[p].message);
    for (uint32_t e = 0; e < group->endpoints_count; e++)
        free(group->endpoints[e]);
    if (group->answer)
        buffer_release(group->answer);
    free(group);
}

/* --- its parts ------------------------------------------------------------------------------------------------------
 */

void group_close(struct replier *replier, struct group *group)
{
    group->closed = true;
    if (group->open == 0)
        finish(replier, group);
}

void group_hold(struct group *group, uint32_t part, struct request *request)
{
    request->group = group;
    request->part = part;
    group->open++;
}

void group_end(struct replier *replier, struct request *request)
{
    struct group *group = request->group;
    request->group = NULL;
    group->open--;
    if (group->open == 0 && group->closed)
        finish(replier, group);
}

void group_refuse(struct group *group, uint32_t part, enum status status, const char *message, uint32_t retry_after_ms)
{
    struct part *of = &group->parts[part];
    of->status = status;
    of->retry_after_ms = retry_after_ms;
    free(of->message);
    const size_t length = message ? strlen(message) : 0;
    of->message = message ? strndup(message, length < TEXT_MAX ? length : TEXT_MAX) : NULL;
}

void group_refer(struct group *group, uint32_t part, const char *endpoint)
{
    uint32_t at = 0;
    while (at < group->endpoints_count && strcmp(group->endpoints[at], endpoint) != 0)
        at++;
    if (at == group->endpoints_count) {
        const size_t bytes = strlen(endpoint) + ENDPOINT_BYTES;
        char *copy = at < ENDPOINTS_MAX && group->endpoints_bytes + bytes <= TEXTS_MAX ? strdup(endpoint) : NULL;
        if (!copy)
            return; /* its message says where */
        group->endpoints[group->endpoints_count++] = copy;
        group->endpoints_bytes += (uint32_t)bytes;
    }
    group->parts[part].frontend = at + 1;
}

/* The rows of all parts, once one has some. */
static bool make_room(struct replier *replier, struct group *group)
{
    if (!group->answer)
        group->answer = reply_open(replier, group->to.request_id, &group->outputs, (uint32_t)group->rows);
    return group->answer != NULL;
}

bool group_take_rows(struct replier *replier, struct group *group, uint32_t part, const void *const *data)
{
    struct part *of = &group->parts[part];
    if (!make_room(replier, group))
        return false;
    for (uint32_t i = 0; i < group->outputs.count; i++) {
        const size_t row_bytes = tensor_row_bytes(&group->outputs.tensors[i]);
        copier_copy(replier->copier, reply_tensor(group->answer, i) + of->row * row_bytes, data[i],
                    of->rows * row_bytes);
    }
    of->status = STATUS_OK;
    return true;
}

/* What is refused was applied: INVALID_ARGUMENT and RESOURCE_EXHAUSTED would say that it was not. */
void group_take_answer(struct replier *replier, struct group *group, uint32_t part, const struct buffer *answer)
{
    struct part *of = &group->parts[part];
    if (!reply_fits(answer, &group->outputs, of->rows, group->unwanted)) {
        group_refuse(group, part, STATUS_ALREADY_EXISTS, reply_other_first, 0);
        return;
    }
    if (!make_room(replier, group)) {
        group_refuse(group, part, STATUS_UNAVAILABLE, "no memory for the answer now; repeat the request", 0);
        return;
    }
    for (uint32_t i = 0; i < group->outputs.count; i++)
        reply_decode(answer, i,
                     reply_tensor(group->answer, i) + of->row * tensor_row_bytes(&group->outputs.tensors[i]));
    of->status = STATUS_OK;
}
