#include "client/call_reply.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "client/call_parts.h"
#include "client/method_answer.h"
#include "proto/codec.h"

/* LIST and STATS need more than the usual arena; a header of many tiny fields grows by some forty times as it is
 * decoded. */
static const size_t decoder_max = (size_t)64 << 20;

Expertd__ReplyHeader *call_reply_decode(struct decoder *decoder, zmq_msg_t *frame, const char **why)
{
    Expertd__ReplyHeader *header = NULL;
    *why = "no memory";
    if (!decoder_ready(decoder))
        return NULL;
    for (;;) {
        const int rc = message_decode_reply(&decoder->arena, zmq_msg_data(frame), zmq_msg_size(frame), &header, why);
        if (rc == 0)
            *why = NULL;
        if (rc != -ENOBUFS || !decoder_grow(decoder, decoder_max))
            return header;
    }
}

static bool malformed(struct expertd_call *call, const char *problem)
{
    call_drop_answer(call);
    call->not_applied = call->method != EXPERTD__METHOD__BACKWARD;
    call_set_status(call, EXPERTD_INTERNAL, "the server's reply is malformed: %s", problem);
    return false;
}

/* Outputs are read in place where ZeroMQ put them at an address that suits their dtype; small messages lie anywhere in
 * its receive buffer and are copied. */
static bool take_frame(zmq_msg_t *to, zmq_msg_t *from, size_t alignment)
{
    if ((uintptr_t)zmq_msg_data(from) % alignment == 0) {
        zmq_msg_init(to);
        zmq_msg_move(to, from);
        /* A tiny message lies inside its zmq_msg_t, so it has moved. */
        if ((uintptr_t)zmq_msg_data(to) % alignment == 0)
            return true;
        zmq_msg_move(from, to);
        zmq_msg_close(to);
    }
    if (zmq_msg_init_size(to, zmq_msg_size(from)) < 0)
        return false;
    memcpy(zmq_msg_data(to), zmq_msg_data(from), zmq_msg_size(from));
    return true;
}

/* ZeroMQ's memory for a message is aligned for any type. */
static const char *decode_frame(zmq_msg_t *to, zmq_msg_t *from, const Expertd__Tensor *described,
                                const struct message_tensor_size *size)
{
    const uint32_t codec = (uint32_t)described->codec;
    const char *problem = codec_check(codec, zmq_msg_data(from), size->elements);
    if (problem)
        return problem;
    if (zmq_msg_init_size(to, size->bytes) < 0)
        return "no memory for its tensors";
    codec_decode(codec, zmq_msg_data(from), size->elements, size->last, zmq_msg_data(to));
    return NULL;
}

static const char *take_output(struct expertd_call *call, const Expertd__Tensor *described, zmq_msg_t *frame)
{
    const size_t index = call->n_outputs;
    struct expertd_tensor *tensor = &call->outputs[index];
    struct message_tensor_size size;
    if (!message_tensor_size(described, &size))
        return "a tensor's dtype, codec or shape is none";
    if (size.frame_bytes != zmq_msg_size(frame))
        return "a tensor's frame is not of the size that its shape says";
    if (described->shape[0] != call->rows)
        return "a tensor has not as many rows as the request";
    if (described->codec != EXPERTD__CODEC__RAW) {
        const char *problem = decode_frame(&call->reply[index], frame, described, &size);
        if (problem)
            return problem;
    } else if (!take_frame(&call->reply[index], frame, expertd_dtype_size((enum expertd_dtype)described->dtype)))
        return "no memory for its tensors";
    *tensor = (struct expertd_tensor){.dtype = (enum expertd_dtype)described->dtype,
                                      .ndim = (uint32_t)described->n_shape,
                                      .data = zmq_msg_data(&call->reply[index]),
                                      .bytes = size.bytes,
                                      .codec = (enum expertd_codec)described->codec};
    memcpy(tensor->shape, described->shape, described->n_shape * sizeof tensor->shape[0]);
    call->n_outputs++;
    return NULL;
}

static const char *take_outputs(struct expertd_call *call, const Expertd__ReplyHeader *header, zmq_msg_t *frames)
{
    const bool backward = call->method == EXPERTD__METHOD__BACKWARD;
    if (header->n_tensors == 0 && !backward)
        return "it has no tensors";
    if (backward && header->n_tensors != call->n_gradients)
        return "it has not one gradient for each input that requires one";
    for (size_t i = 0; i < header->n_tensors; i++) {
        const char *problem = take_output(call, header->tensors[i], &frames[i]);
        if (problem)
            return problem;
    }
    return NULL;
}

static const char *take_ok(struct expertd_call *call, const Expertd__ReplyHeader *header, zmq_msg_t *frames)
{
    switch (call->method) {
    case EXPERTD__METHOD__FORWARD:
    case EXPERTD__METHOD__BACKWARD:
        return take_outputs(call, header, frames);
    case EXPERTD__METHOD__PING:
        return header->pong ? method_answer_take_pong(&call->answer, header->pong) : "it has no pong";
    case EXPERTD__METHOD__LIST:
        return header->list ? method_answer_take_list(&call->answer, header->list) : "it has no list";
    case EXPERTD__METHOD__INFO:
        return header->info ? method_answer_take_info(&call->answer, header->info) : "it has no info";
    case EXPERTD__METHOD__STATS:
        return header->stats ? method_answer_take_stats(&call->answer, header->stats) : "it has no stats";
    case EXPERTD__METHOD__LOAD:
    case EXPERTD__METHOD__UNLOAD:
    case EXPERTD__METHOD__SET:
    case EXPERTD__METHOD__RELOAD:
        return header->changes ? method_answer_take_changes(&call->answer, header->changes) : "it has no changes";
    default:
        return NULL;
    }
}

/* NULL: taken. A reply without parts refuses the whole, and then that is each part's. */
static const char *take_parts(struct expertd_call *call, const Expertd__ReplyHeader *header)
{
    const bool refused = header->n_parts == 0 && header->status != EXPERTD__STATUS__OK;
    if (call->n_parts == 0 || refused)
        return NULL;
    if (header->n_parts != call->n_parts)
        return "it has not a status for each part";
    return call_parts_take(&call->answer, header, call->method == EXPERTD__METHOD__BACKWARD)
               ? NULL
               : "no memory for its parts";
}

/* The server's own sentence, for a terminal: it may be long, and may be anything. */
static void take_error(struct expertd_call *call, const Expertd__ReplyHeader *header)
{
    const enum expertd_status status = (enum expertd_status)header->status;
    const bool known = strcmp(expertd_status_name(status), "UNKNOWN") != 0;
    call->not_applied = call->method != EXPERTD__METHOD__BACKWARD || (known && call_nothing_done(status));
    if (known)
        call_set_status(call, status, "%s", header->message[0] ? header->message : "the server gives no reason");
    else
        call_set_status(call, EXPERTD_INTERNAL, "the server says status %d, which this library does not know: %s",
                        (int)header->status, header->message);
    call->retry_after_ms = status == EXPERTD_RESOURCE_EXHAUSTED ? header->retry_after_ms : 0;
    message_clean(call->message);
}

bool call_reply_take(struct expertd_call *call, const Expertd__ReplyHeader *header, zmq_msg_t *frames, size_t n_frames,
                     const char *why)
{
    if (header->version != MESSAGE_VERSION) {
        malformed(call, "");
        call_set_status(call, EXPERTD_INTERNAL, "the server speaks version %" PRIu32 " of the protocol, not %d",
                        header->version, MESSAGE_VERSION);
        return false;
    }
    if (why)
        return malformed(call, why);
    if (header->metadata.len <= sizeof call->metadata) {
        call->metadata_bytes = header->metadata.len;
        if (header->metadata.len)
            memcpy(call->metadata, header->metadata.data, header->metadata.len);
    }
    if (n_frames != header->n_tensors)
        return malformed(call, "it has not a frame for each tensor");
    const char *problem = take_parts(call, header);
    if (problem)
        return malformed(call, problem);
    if (header->status != EXPERTD__STATUS__OK) {
        take_error(call, header);
        return true;
    }
    call->status = EXPERTD_OK;
    call->not_applied = call->method != EXPERTD__METHOD__BACKWARD;
    problem = take_ok(call, header, frames);
    return problem ? malformed(call, problem) : true;
}
