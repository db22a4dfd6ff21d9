#include "client/call_join.h"

#include <string.h>

#include "client/call_parts.h"
#include "client/client_state.h"

enum { CODEC_SAVES = 4 /* times: what comes of a byte at most */ };

void call_join_all(struct expertd_call *call, struct expertd_call *leg)
{
    for (size_t i = 0; i < leg->n_outputs; i++) {
        zmq_msg_init(&call->reply[i]);
        zmq_msg_move(&call->reply[i], &leg->reply[i]);
        call->outputs[i] = leg->outputs[i];
        call->outputs[i].data = zmq_msg_data(&call->reply[i]); /* a tiny one has moved */
    }
    call->n_outputs = leg->n_outputs;
}

static void drop_outputs(struct expertd_call *call)
{
    while (call->n_outputs > 0)
        zmq_msg_close(&call->reply[--call->n_outputs]);
}

/* Whether one frame could have brought as many rows as the call has, of a leg's tensor: a leg of one row, which is all
 * that came, may not take memory for a thousand. */
static bool fits_a_frame(const struct expertd_call *call, const struct expertd_call *leg,
                         const struct expertd_tensor *tensor)
{
    const uint64_t row_bytes = tensor->bytes / leg->rows;
    const uint64_t sent_bytes = tensor->codec == EXPERTD_CODEC_NONE ? row_bytes : row_bytes / CODEC_SAVES;
    return sent_bytes <= call->client->max_frame_bytes / call->rows;
}

/* Rows of zeros for what comes of the legs, of tensors like the leg's. What keeps them from being made; NULL. */
static const char *make_outputs(struct expertd_call *call, const struct expertd_call *leg)
{
    for (; call->n_outputs < leg->n_outputs; call->n_outputs++) {
        struct expertd_tensor *output = &call->outputs[call->n_outputs];
        zmq_msg_t *frame = &call->reply[call->n_outputs];
        *output = leg->outputs[call->n_outputs];
        if (!fits_a_frame(call, leg, output))
            return "its rows are so long that those of all parts are more than a frame may have";
        output->bytes = output->bytes / leg->rows * call->rows;
        output->shape[0] = call->rows;
        if (zmq_msg_init_size(frame, output->bytes) < 0)
            return "there is no memory for its answer";
        output->data = zmq_msg_data(frame);
        memset(zmq_msg_data(frame), 0, output->bytes);
    }
    return NULL;
}

static bool same_outputs(const struct expertd_call *call, const struct expertd_call *leg)
{
    bool same = call->n_outputs == leg->n_outputs;
    for (size_t i = 0; i < leg->n_outputs && same; i++) {
        const struct expertd_tensor *a = &call->outputs[i], *b = &leg->outputs[i];
        same = a->dtype == b->dtype && a->ndim == b->ndim &&
               memcmp(&a->shape[1], &b->shape[1], (a->ndim - 1) * sizeof a->shape[0]) == 0;
    }
    return same;
}

const char *call_join_parts(struct expertd_call *call, struct expertd_call *leg, const struct call_join_rows *rows,
                            size_t count)
{
    const struct call_parts *said = leg->answer;
    const bool first = call->n_outputs == 0;
    if (leg->status != EXPERTD_OK || leg->n_outputs == 0)
        return NULL;
    if (first && count == call->n_parts) {
        call_join_all(call, leg);
        return NULL;
    }
    const char *problem = first ? make_outputs(call, leg) : NULL;
    if (problem) {
        drop_outputs(call);
        return problem;
    }
    if (!same_outputs(call, leg))
        return "its answer has other shapes than that of the parts at another frontend";
    for (size_t i = 0; i < leg->n_outputs; i++) {
        const uint64_t bytes = leg->outputs[i].bytes / leg->rows;
        unsigned char *to = zmq_msg_data(&call->reply[i]);
        const unsigned char *from = leg->outputs[i].data;
        for (size_t p = 0; p < count; p++) {
            if (said->parts[p].status == EXPERTD_OK)
                memcpy(to + rows[p].first * bytes, from, rows[p].count * bytes);
            from += rows[p].count * bytes;
        }
    }
    return NULL;
}

/* Which part's status is that of a call of which no part is OK: PROTOCOL.md, "Many experts at once". */
static int weight(const struct call_part *part)
{
    return part->status == EXPERTD_RESOURCE_EXHAUSTED ? 0 : call_nothing_done(part->status) ? 1 : 2;
}

void call_join_status(struct expertd_call *call)
{
    const struct call_parts *parts = call->answer;
    const struct call_part *worst = &parts->parts[0];
    uint32_t retry_after_ms = 0;
    bool ok = false, not_applied = true;
    for (size_t p = 0; p < parts->count; p++) {
        const struct call_part *part = &parts->parts[p];
        ok |= part->status == EXPERTD_OK;
        not_applied &= part->not_applied;
        retry_after_ms = part->retry_after_ms > retry_after_ms ? part->retry_after_ms : retry_after_ms;
        if (weight(part) > weight(worst))
            worst = part;
    }
    if (ok) {
        call->status = EXPERTD_OK;
        call->message[0] = 0;
    } else {
        call_set_status(call, worst->status, "%s", worst->message);
        drop_outputs(call);
    }
    call->not_applied = call->method != EXPERTD__METHOD__BACKWARD || not_applied;
    call->retry_after_ms = call->status == EXPERTD_RESOURCE_EXHAUSTED ? retry_after_ms : 0;
}
