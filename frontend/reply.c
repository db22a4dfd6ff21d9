#include "frontend/reply.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "proto/codec.h"

/* Headers up to this many bytes are sent by copy and not charged to their peer; the high-water mark bounds them. */
enum { SMALL_HEADER = 1024, BODY_HEADER = 512, ALIGN = 64 };
/* ReplyHeader.metadata, field 11: tag and length. */
enum { METADATA_TAG = 11 << 3 | 2, NOTE_FIELD = 3 };
enum { PERSONAL_HEADER = BODY_HEADER + NOTE_FIELD + MESSAGE_METADATA_MAX + REPLY_MORE_MAX };

const char reply_other_first[] = "this request was applied, but its first had other rows, or wanted other gradients";

/* What lies at the front of the buffer of an OK with tensors. */
struct body {
    uint32_t header_bytes, count;
    size_t offset[SCHEMA_MAX_TENSORS], bytes[SCHEMA_MAX_TENSORS]; /* from the buffer's data on */
    size_t tensor_bytes;
    uint64_t elements[SCHEMA_MAX_TENSORS], last[SCHEMA_MAX_TENSORS];
    uint32_t rows, unwanted;
    uint8_t dtypes[SCHEMA_MAX_TENSORS], codecs[SCHEMA_MAX_TENSORS];
    unsigned char header[BODY_HEADER];
};

/* --- sending --------------------------------------------------------------------------------------------------------
 */

static bool send_bytes(void *socket, const void *data, size_t size, int flags)
{
    int n;
    do
        n = zmq_send(socket, data, size, ZMQ_DONTWAIT | flags);
    while (n < 0 && errno == EINTR);
    return n >= 0;
}

/* Routing id and envelope. False: the reply cannot go; that is counted. After it, nothing can fail but a peer that goes
 * away, whose frames ZeroMQ then drops: room is checked for whole messages, with the routing id. */
static bool send_front(struct replier *replier, const struct reply_to *to)
{
    replier->sent = true;
    if (!send_bytes(replier->socket, to->peer->id, to->peer->id_size, ZMQ_SNDMORE)) {
        if (errno == EAGAIN)
            replier->counters->replies_dropped++;
        else
            replier->counters->peers_vanished++;
        return false;
    }
    if (to->envelope.kind == REPLY_CORRELATED)
        send_bytes(replier->socket, &to->envelope.correlate, sizeof to->envelope.correlate, ZMQ_SNDMORE);
    if (to->envelope.kind != REPLY_BARE)
        send_bytes(replier->socket, "", 0, ZMQ_SNDMORE);
    return true;
}

/* ZeroMQ has let go of a frame; in one of its threads, mostly. */
static void frame_done(void *data, void *hint)
{
    (void)data;
    struct buffer *buffer = hint;
    struct client_peer *peer = buffer->peer;
    const size_t bytes = buffer->used;
    /* Release: whoever sees 0 may charge the buffer to another peer. Pairs with the acquire in reply_send. */
    if (atomic_fetch_sub_explicit(&buffer->frames, 1, memory_order_acq_rel) != 1)
        return;
    client_peer_credit(peer, bytes);
    buffer_release(buffer);
}

/* Makes a buffer's frames; charges it and holds it until all of them are let go of. False: not possible; counted. */
static bool begin_frames(struct replier *replier, const struct reply_to *to, struct buffer *buffer, zmq_msg_t *frames,
                         uint32_t count, unsigned char *const *data, const size_t *bytes)
{
    if (!client_peer_charge(replier->peers, to->peer, buffer->used)) {
        replier->counters->replies_dropped++;
        return false;
    }
    buffer->peer = to->peer;
    buffer_hold(buffer);
    atomic_store_explicit(&buffer->frames, count, memory_order_relaxed);
    for (uint32_t i = 0; i < count; i++) {
        if (zmq_msg_init_data(&frames[i], data[i], bytes[i], frame_done, buffer) == 0)
            continue;
        for (uint32_t j = 0; j < i; j++)
            zmq_msg_close(&frames[j]);
        for (uint32_t j = i; j < count; j++)
            frame_done(NULL, buffer);
        replier->counters->replies_dropped++;
        return false;
    }
    return true;
}

static void send_frames(void *socket, zmq_msg_t *frames, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        int n;
        do
            n = zmq_msg_send(&frames[i], socket, ZMQ_DONTWAIT | (i + 1 < count ? ZMQ_SNDMORE : 0));
        while (n < 0 && errno == EINTR);
        if (n < 0)
            zmq_msg_close(&frames[i]);
    }
}

/* --- headers alone --------------------------------------------------------------------------------------------------
 */

static void count_reply(struct replier *replier, const struct reply_to *to, enum status status, size_t bytes)
{
    replier->counters->replies[(unsigned)status % COUNTERS_STATUSES]++;
    replier->counters->outcomes[to->method][(unsigned)status % COUNTERS_STATUSES]++;
    replier->counters->bytes_out += bytes;
}

/* To a client on this host: a header, and tensors that lie in its memory. */
static void answer_local(const struct reply_to *to, const void *header, size_t bytes, const struct local_span *spans,
                         uint32_t count)
{
    struct local_record record = {
        .slot = to->slot, .header = header, .header_bytes = (uint32_t)bytes, .tensors = count};
    if (count)
        memcpy(record.spans, spans, count * sizeof *spans);
    local_client_answer(to->peer->local, &record);
}

static void answer_local_header(struct replier *replier, const struct reply_to *to, const Expertd__ReplyHeader *header,
                                size_t bytes)
{
    unsigned char encoded[LOCAL_HEADER_MAX];
    if (bytes > sizeof encoded) {
        reply_status(replier, to, STATUS_RESOURCE_EXHAUSTED, "the answer is too long for this way; ask over ZeroMQ");
        return;
    }
    message_encode_reply(header, encoded, sizeof encoded);
    count_reply(replier, to, (enum status)header->status, bytes);
    answer_local(to, encoded, bytes, NULL, 0);
}

static void send_small_header(struct replier *replier, const struct reply_to *to, const void *header, size_t bytes)
{
    if (send_front(replier, to))
        send_bytes(replier->socket, header, bytes, 0);
}

static void send_large_header(struct replier *replier, const struct reply_to *to, const Expertd__ReplyHeader *header,
                              size_t bytes)
{
    struct buffer *buffer = buffers_take(replier->buffers, bytes);
    if (!buffer) {
        /* What has failed stays what it was: that nothing was done may not be true of it. */
        const bool failed = header->status != EXPERTD__STATUS__OK;
        reply_status(replier, to, failed ? (enum status)header->status : STATUS_RESOURCE_EXHAUSTED,
                     failed ? header->message : "no memory for the answer");
        return;
    }
    zmq_msg_t frame;
    unsigned char *data = buffer->data;
    const long encoded = message_encode_reply(header, data, buffer_capacity(buffer));
    assert(encoded == (long)bytes);
    (void)encoded;
    buffer->used = bytes;
    if (begin_frames(replier, to, buffer, &frame, 1, &data, &bytes)) {
        if (send_front(replier, to))
            send_frames(replier->socket, &frame, 1);
        else
            zmq_msg_close(&frame);
    }
    buffer_release(buffer);
}

void reply_header(struct replier *replier, const struct reply_to *to, Expertd__ReplyHeader *header)
{
    unsigned char small[SMALL_HEADER];
    header->version = MESSAGE_VERSION;
    header->request_id = to->request_id;
    header->metadata = (ProtobufCBinaryData){to->notes.metadata_bytes, (uint8_t *)(uintptr_t)to->notes.metadata};
    const size_t bytes = protobuf_c_message_get_packed_size(&header->base);
    if (bytes > MESSAGE_REPLY_MAX) {
        reply_status(replier, to, STATUS_RESOURCE_EXHAUSTED, "the answer is too long");
        return;
    }
    if (to->peer->local) {
        answer_local_header(replier, to, header, bytes);
        return;
    }
    count_reply(replier, to, (enum status)header->status, bytes);
    if (bytes <= sizeof small) {
        message_encode_reply(header, small, sizeof small);
        send_small_header(replier, to, small, bytes);
    } else {
        send_large_header(replier, to, header, bytes);
    }
}

void reply_refusal(struct replier *replier, const struct reply_to *to, enum status status, const char *message,
                   uint32_t retry_after_ms)
{
    char text[SMALL_HEADER / 2] = "";
    if (message) {
        const size_t length = strnlen(message, sizeof text - 1);
        memcpy(text, message, length);
        text[length] = 0;
    }
    Expertd__ReplyHeader header = EXPERTD__REPLY_HEADER__INIT;
    header.status = (Expertd__Status)status;
    header.message = text;
    header.retry_after_ms = retry_after_ms;
    reply_header(replier, to, &header);
}

void reply_status(struct replier *replier, const struct reply_to *to, enum status status, const char *message)
{
    reply_refusal(replier, to, status, message, 0);
}

void reply_elsewhere(struct replier *replier, const struct reply_to *to, const char *message, const char *endpoint)
{
    Expertd__ReplyHeader header = EXPERTD__REPLY_HEADER__INIT;
    header.status = EXPERTD__STATUS__NOT_FOUND;
    header.message = (char *)(uintptr_t)message;
    header.endpoint = (char *)(uintptr_t)endpoint;
    reply_header(replier, to, &header);
}

/* --- with tensors ---------------------------------------------------------------------------------------------------
 */

/* Into BODY_HEADER bytes; how many they are. */
static uint32_t build_header(unsigned char *to, uint64_t request_id, const struct schema *schema, uint32_t rows,
                             const uint8_t *codecs)
{
    Expertd__Tensor tensors[SCHEMA_MAX_TENSORS], *pointers[SCHEMA_MAX_TENSORS];
    uint64_t shapes[SCHEMA_MAX_TENSORS][MESSAGE_MAX_DIMS];
    for (uint32_t i = 0; i < schema->count; i++) {
        const struct tensor_desc *desc = &schema->tensors[i];
        shapes[i][0] = rows;
        memcpy(&shapes[i][1], desc->dims, desc->ndim * sizeof desc->dims[0]);
        expertd__tensor__init(&tensors[i]);
        tensors[i].dtype = (Expertd__DType)desc->dtype;
        tensors[i].n_shape = desc->ndim + 1;
        tensors[i].shape = shapes[i];
        tensors[i].codec = (Expertd__Codec)codecs[i];
        pointers[i] = &tensors[i];
    }
    Expertd__ReplyHeader header = EXPERTD__REPLY_HEADER__INIT;
    header.version = MESSAGE_VERSION;
    header.request_id = request_id;
    header.n_tensors = schema->count;
    header.tensors = pointers;
    const long bytes = message_encode_reply(&header, to, BODY_HEADER);
    assert(bytes > 0); /* 8 tensors of 7 dimensions below 2^40 are 8 * 54 bytes */
    return (uint32_t)bytes;
}

/* The copy out of the pool's rows. Returns the frame's bytes, and the codec that it came to be. */
static size_t copy_out(const struct replier *replier, const struct tensor_desc *desc, uint32_t rows, const void *from,
                       unsigned char *to, uint8_t *codec)
{
    const size_t bytes = tensor_row_bytes(desc) * rows;
    const uint64_t elements = bytes / dtype_size(desc->dtype);
    const uint64_t last = desc->ndim ? desc->dims[desc->ndim - 1] : rows;
    uint64_t frame_bytes;
    if (codec_pays(*codec, desc->dtype, elements, last) &&
        codec_frame_bytes(*codec, desc->dtype, elements, last, &frame_bytes) &&
        codec_encode(*codec, from, elements, last, to))
        return frame_bytes;
    *codec = CODEC_NONE;
    copier_copy(replier->copier, to, from, bytes);
    return bytes;
}

/* data NULL: nothing is copied, and the codecs have to be none. */
static struct buffer *build(struct replier *replier, uint64_t request_id, const struct schema *schema, uint32_t rows,
                            const void *const *data, const uint8_t *codecs)
{
    struct body layout = {.count = schema->count, .rows = rows};
    const size_t front = (sizeof layout + ALIGN - 1) / ALIGN * ALIGN;
    size_t end = front;
    for (uint32_t i = 0; i < schema->count; i++)
        end += (tensor_row_bytes(&schema->tensors[i]) * rows + ALIGN - 1) / ALIGN * ALIGN;
    struct buffer *buffer = buffers_take(replier->buffers, end);
    if (!buffer)
        return NULL;
    end = front;
    for (uint32_t i = 0; i < schema->count; i++) {
        const struct tensor_desc *desc = &schema->tensors[i];
        layout.codecs[i] = codecs[i];
        layout.offset[i] = end;
        layout.bytes[i] = tensor_row_bytes(desc) * rows;
        layout.dtypes[i] = (uint8_t)desc->dtype;
        layout.elements[i] = layout.bytes[i] / dtype_size(desc->dtype);
        layout.last[i] = desc->ndim ? desc->dims[desc->ndim - 1] : rows;
        if (data)
            layout.bytes[i] = copy_out(replier, desc, rows, data[i], buffer->data + end, &layout.codecs[i]);
        layout.tensor_bytes += layout.bytes[i];
        end += (layout.bytes[i] + ALIGN - 1) / ALIGN * ALIGN;
    }
    layout.header_bytes = build_header(layout.header, request_id, schema, rows, layout.codecs);
    memcpy(buffer->data, &layout, sizeof layout);
    buffer->used = end;
    return buffer;
}

struct buffer *reply_build(struct replier *replier, uint64_t request_id, const struct schema *schema, uint32_t rows,
                           const void *const *data, const uint8_t *codecs, uint32_t unwanted)
{
    struct buffer *built = build(replier, request_id, schema, rows, data, codecs);
    if (built)
        ((struct body *)(void *)built->data)->unwanted = unwanted;
    return built;
}

struct buffer *reply_open(struct replier *replier, uint64_t request_id, const struct schema *schema, uint32_t rows)
{
    static const uint8_t none[SCHEMA_MAX_TENSORS];
    return build(replier, request_id, schema, rows, NULL, none);
}

unsigned char *reply_tensor(struct buffer *built, uint32_t tensor)
{
    return built->data + ((const struct body *)(const void *)built->data)->offset[tensor];
}

bool reply_answers(const struct buffer *built, uint32_t rows, uint32_t unwanted)
{
    const struct body *body = (const struct body *)(const void *)built->data;
    return body->unwanted == unwanted && (rows == 0 || body->rows == rows);
}

bool reply_fits(const struct buffer *built, const struct schema *schema, uint32_t rows, uint32_t unwanted)
{
    const struct body *body = (const struct body *)(const void *)built->data;
    bool fits = body->count == schema->count && reply_answers(built, rows, unwanted);
    for (uint32_t i = 0; i < schema->count && fits; i++)
        fits = body->dtypes[i] == schema->tensors[i].dtype &&
               body->elements[i] * dtype_size(schema->tensors[i].dtype) == tensor_row_bytes(&schema->tensors[i]) * rows;
    return fits;
}

void reply_decode(const struct buffer *built, uint32_t tensor, void *to)
{
    const struct body *body = (const struct body *)(const void *)built->data;
    const unsigned char *from = built->data + body->offset[tensor];
    if (body->codecs[tensor] == CODEC_NONE)
        memcpy(to, from, body->bytes[tensor]);
    else
        codec_decode(body->codecs[tensor], from, body->elements[tensor], body->last[tensor], to);
}

/* A header that was encoded, for this asker: what stands behind it counts as part of it (protobuf merges). */
static size_t personal_header(const struct reply_to *to, const void *header, size_t bytes, unsigned char *personal)
{
    const size_t n = to->notes.metadata_bytes;
    unsigned char *at = personal + bytes;
    memcpy(personal, header, bytes);
    if (n == 0)
        return bytes;
    *at++ = METADATA_TAG;
    if (n < 128) {
        *at++ = (unsigned char)n;
    } else {
        *at++ = (unsigned char)(n % 128 + 128);
        *at++ = (unsigned char)(n / 128);
    }
    memcpy(at, to->notes.metadata, n);
    return (size_t)(at - personal) + n;
}

/* The same with more of it behind the OK's own. */
static size_t whole_header(const struct reply_to *to, const struct body *body, const void *more, size_t more_bytes,
                           unsigned char personal[PERSONAL_HEADER])
{
    assert(more_bytes <= REPLY_MORE_MAX);
    const size_t bytes = personal_header(to, body->header, body->header_bytes, personal);
    if (more_bytes)
        memcpy(personal + bytes, more, more_bytes);
    return bytes + more_bytes;
}

/* --- into the memory of a client on this host -----------------------------------------------------------------------
 */

static void want_room(const struct reply_to *to, uint64_t bytes)
{
    local_client_answer(to->peer->local, &(struct local_record){.slot = to->slot, .wanted = bytes});
}

/* Tensors begin at multiples of ALIGN of the memory, whatever the room does. */
static uint64_t room_begin(const struct reply_to *to)
{
    return (to->room.at + ALIGN - 1) / ALIGN * ALIGN;
}

static bool room_takes(const struct reply_to *to, uint64_t bytes)
{
    const uint64_t lost = room_begin(to) - to->room.at;
    return lost <= to->room.bytes && bytes <= to->room.bytes - lost;
}

static uint64_t rows_room(const struct schema *schema, uint32_t rows)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < schema->count; i++)
        bytes += (tensor_row_bytes(&schema->tensors[i]) * rows + ALIGN - 1) / ALIGN * ALIGN;
    return bytes;
}

bool reply_has_room(struct replier *replier, const struct reply_to *to, const struct schema *schema, uint32_t rows)
{
    (void)replier;
    const uint64_t bytes = rows_room(schema, rows);
    if (!to->peer->local || room_takes(to, bytes))
        return true;
    want_room(to, bytes + ALIGN);
    return false;
}

void reply_withdraw(struct replier *replier, const struct reply_to *to)
{
    (void)replier;
    if (to->peer->local)
        local_client_answer(to->peer->local, &(struct local_record){.slot = to->slot});
}

bool reply_goes_straight(const struct reply_to *to)
{
    return to->peer->local != NULL;
}

void reply_rows(struct replier *replier, const struct reply_to *to, const struct schema *schema, uint32_t rows,
                const void *const *data, const uint8_t *codecs)
{
    unsigned char header[BODY_HEADER];
    uint8_t used[SCHEMA_MAX_TENSORS];
    struct local_span spans[SCHEMA_MAX_TENSORS];
    uint64_t at = room_begin(to), tensor_bytes = 0;
    assert(room_takes(to, rows_room(schema, rows)));
    for (uint32_t i = 0; i < schema->count; i++) {
        used[i] = codecs[i];
        spans[i].at = at;
        spans[i].bytes =
            copy_out(replier, &schema->tensors[i], rows, data[i], local_client_at(to->peer->local, at), &used[i]);
        tensor_bytes += spans[i].bytes;
        at += (spans[i].bytes + ALIGN - 1) / ALIGN * ALIGN;
    }
    unsigned char personal[sizeof header + NOTE_FIELD + MESSAGE_METADATA_MAX];
    const size_t bytes =
        personal_header(to, header, build_header(header, to->request_id, schema, rows, used), personal);
    count_reply(replier, to, STATUS_OK, bytes + tensor_bytes);
    answer_local(to, personal, bytes, spans, schema->count);
}

/* A kept answer, which may be another's of before: its rows are not this request's. */
static void send_local(struct replier *replier, const struct reply_to *to, const struct buffer *built, const void *more,
                       size_t more_bytes)
{
    const struct body *body = (const struct body *)(const void *)built->data;
    struct local_span spans[SCHEMA_MAX_TENSORS];
    uint64_t at = room_begin(to), room = 0;
    for (uint32_t i = 0; i < body->count; i++)
        room += (body->bytes[i] + ALIGN - 1) / ALIGN * ALIGN;
    if (!room_takes(to, room)) {
        want_room(to, room + ALIGN);
        return;
    }
    for (uint32_t i = 0; i < body->count; i++) {
        spans[i] = (struct local_span){at, body->bytes[i]};
        copier_copy(replier->copier, local_client_at(to->peer->local, at), built->data + body->offset[i],
                    body->bytes[i]);
        at += (body->bytes[i] + ALIGN - 1) / ALIGN * ALIGN;
    }
    unsigned char personal[PERSONAL_HEADER];
    const size_t bytes = whole_header(to, body, more, more_bytes, personal);
    count_reply(replier, to, STATUS_OK, bytes + body->tensor_bytes);
    answer_local(to, personal, bytes, spans, body->count);
}

void reply_send(struct replier *replier, const struct reply_to *to, struct buffer *built)
{
    reply_send_parts(replier, to, built, NULL, 0);
}

void reply_send_kept(struct replier *replier, const struct reply_to *to, struct buffer *built, uint32_t unwanted)
{
    if (reply_answers(built, 0, unwanted))
        reply_send(replier, to, built);
    else
        reply_status(replier, to, STATUS_ALREADY_EXISTS, reply_other_first);
}

void reply_send_parts(struct replier *replier, const struct reply_to *to, struct buffer *built, const void *more,
                      size_t more_bytes)
{
    if (to->peer->local) {
        send_local(replier, to, built, more, more_bytes);
        return;
    }
    /* A kept answer that is still on its way to one client while it goes to another has to be copied: a buffer is
     * charged to one peer at a time. */
    struct buffer *buffer = built;
    if (atomic_load_explicit(&built->frames, memory_order_acquire) != 0) {
        buffer = buffers_take(replier->buffers, built->used);
        if (!buffer) {
            /* A backward's, that was applied; it may be asked for again. */
            reply_status(replier, to, STATUS_UNAVAILABLE, "no memory for the answer now; repeat the request");
            return;
        }
        copier_copy(replier->copier, buffer->data, built->data, built->used);
        buffer->used = built->used;
    }
    struct body *body = (struct body *)(void *)buffer->data;
    count_reply(replier, to, STATUS_OK, body->header_bytes + more_bytes + body->tensor_bytes);
    zmq_msg_t frames[SCHEMA_MAX_TENSORS];
    unsigned char *data[SCHEMA_MAX_TENSORS];
    for (uint32_t i = 0; i < body->count; i++)
        data[i] = buffer->data + body->offset[i];
    if (body->count == 0) {
        unsigned char personal[PERSONAL_HEADER];
        send_small_header(replier, to, personal, whole_header(to, body, more, more_bytes, personal));
    } else if (begin_frames(replier, to, buffer, frames, body->count, data, body->bytes)) {
        if (send_front(replier, to)) {
            unsigned char personal[PERSONAL_HEADER];
            const size_t bytes = whole_header(to, body, more, more_bytes, personal);
            send_bytes(replier->socket, personal, bytes, ZMQ_SNDMORE);
            send_frames(replier->socket, frames, body->count);
        } else {
            for (uint32_t i = 0; i < body->count; i++)
                zmq_msg_close(&frames[i]);
        }
    }
    if (buffer != built)
        buffer_release(buffer);
}
