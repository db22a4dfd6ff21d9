#include "client/call_request.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "proto/codec.h"

_Static_assert((int)EXPERTD_MAX_TENSORS == (int)MESSAGE_MAX_TENSORS && (int)EXPERTD_MAX_DIMS == (int)MESSAGE_MAX_DIMS,
               "the library's limits are the protocol's");
_Static_assert((int)EXPERTD_FLOAT32 == (int)DTYPE_FLOAT32 && (int)EXPERTD_BOOL == (int)DTYPE_BOOL,
               "dtypes have the wire's numbers");

_Static_assert((int)EXPERTD_MAX_PARTS == (int)MESSAGE_MAX_PARTS, "the library's limits are the protocol's");
/* Parts' uids are what can make a header too long: each has a tag, its length, its rows and an id beside it. */
enum { SETTINGS_MAX = 3072, PART_BYTES = 24, PARTS_BYTES_MAX = MESSAGE_REQUEST_MAX - (8 << 10) };

static const struct expertd_tensor *nth_tensor(const struct call_request *request, size_t index)
{
    return index < request->count[0] ? &request->tensors[0][index] : &request->tensors[1][index - request->count[0]];
}

void call_request_free_tensors(const struct call_request *request)
{
    for (size_t which = 0; which < 2; which++) {
        for (size_t i = 0; i < request->count[which]; i++) {
            const struct expertd_tensor *tensor = &request->tensors[which][i];
            if (tensor->free_fn)
                tensor->free_fn((void *)(uintptr_t)tensor->data, tensor->hint);
        }
    }
}

/* What is wrong with a tensor; NULL. */
static const char *tensor_problem(const struct expertd_tensor *tensor)
{
    uint64_t bytes = expertd_dtype_size(tensor->dtype);
    if (bytes == 0)
        return "its dtype is none";
    if (tensor->ndim < 1 || tensor->ndim > EXPERTD_MAX_DIMS)
        return "it must have 1 to 7 dimensions, the first one being its rows";
    for (uint32_t i = 0; i < tensor->ndim; i++)
        if (__builtin_mul_overflow(bytes, tensor->shape[i], &bytes))
            return "its shape is larger than any memory";
    if ((uint32_t)tensor->codec >= CODEC_COUNT || !codec_takes((uint32_t)tensor->codec, (uint32_t)tensor->dtype))
        return "its codec is none, or not one of its dtype";
    if (bytes != tensor->bytes)
        return "its bytes are not those of its shape and dtype";
    return bytes > 0 && !tensor->data ? "it has no data" : NULL;
}

static void check_parts(struct expertd_call *call, const struct call_request *request)
{
    size_t bytes = 0;
    if (!request->parts || request->n_parts < 1 || request->n_parts > EXPERTD_MAX_PARTS) {
        call_set_status(call, EXPERTD_INVALID_ARGUMENT, "a call for many experts has 1 to %d parts", EXPERTD_MAX_PARTS);
        return;
    }
    for (size_t p = 0; p < request->n_parts && call->status == EXPERTD_OK; p++) {
        const char *uid = request->parts[p].uid;
        const size_t length = uid ? strnlen(uid, EXPERTD_MAX_UID + 1) : 0;
        bytes += length + PART_BYTES;
        if (length < 1 || length > EXPERTD_MAX_UID)
            call_set_status(call, EXPERTD_INVALID_ARGUMENT, "part %zu: a uid has 1 to %d bytes", p, EXPERTD_MAX_UID);
    }
    if (bytes > PARTS_BYTES_MAX)
        call_set_status(call, EXPERTD_INVALID_ARGUMENT, "so many parts with uids so long are no one request");
}

/* Sets the call's status and message if something is wrong. */
static enum expertd_status check(struct expertd_call *call, const struct call_request *request)
{
    const char *text = request->list ? request->list->prefix : request->uid;
    if (text && strnlen(text, EXPERTD_MAX_UID + 1) > EXPERTD_MAX_UID)
        call_set_status(call, EXPERTD_INVALID_ARGUMENT, "a uid has at most %d bytes", EXPERTD_MAX_UID);
    else if (request->count[0] > EXPERTD_MAX_TENSORS || request->count[1] > EXPERTD_MAX_TENSORS - request->count[0])
        call_set_status(call, EXPERTD_INVALID_ARGUMENT, "a call has at most %d tensors", EXPERTD_MAX_TENSORS);
    if (request->many)
        check_parts(call, request);
    size_t settings = 0;
    for (size_t i = 0; i < request->n_settings; i++)
        settings += strlen(request->settings[i]) + 4;
    if (settings > SETTINGS_MAX)
        call_set_status(call, EXPERTD_INVALID_ARGUMENT, "all settings together have at most %d bytes", SETTINGS_MAX);
    for (size_t i = 0; i < request->count[0] + request->count[1] && call->status == EXPERTD_OK; i++) {
        const char *problem = tensor_problem(nth_tensor(request, i));
        const bool input = i < request->count[0];
        if (problem)
            call_set_status(call, EXPERTD_INVALID_ARGUMENT, "%s %zu: %s", input ? "input" : "grad_output",
                            input ? i : i - request->count[0], problem);
    }
    return call->status;
}

/* One frame with the tensor's data encoded. False when memory is short; else *codec is what it came to be, and without
 * one there is no frame. */
static bool encode_frame(struct local_heap *heap, zmq_msg_t *frame, const struct expertd_tensor *tensor,
                         uint32_t *codec)
{
    const uint64_t last = tensor->shape[tensor->ndim - 1];
    const uint64_t elements = tensor->bytes / expertd_dtype_size(tensor->dtype);
    uint64_t bytes;
    if (!codec_pays(*codec, (uint32_t)tensor->dtype, elements, last) ||
        !codec_frame_bytes(*codec, (uint32_t)tensor->dtype, elements, last, &bytes)) {
        *codec = CODEC_NONE;
        return true;
    }
    if (!local_heap_message(heap, bytes, frame))
        return false;
    if (!codec_encode(*codec, tensor->data, elements, last, zmq_msg_data(frame))) {
        zmq_msg_close(frame);
        *codec = CODEC_NONE;
    }
    return true;
}

/* One frame with the tensor's data: encoded, copied or borrowed. False when memory is short; borrowed data is free
 * then, too. */
static bool make_frame(struct local_heap *heap, zmq_msg_t *frame, const struct expertd_tensor *tensor, uint32_t *codec)
{
    const bool memory = encode_frame(heap, frame, tensor, codec);
    if (tensor->free_fn && (!memory || *codec != CODEC_NONE))
        tensor->free_fn((void *)(uintptr_t)tensor->data, tensor->hint);
    if (!memory || *codec != CODEC_NONE)
        return memory;
    void *data = (void *)(uintptr_t)tensor->data;
    if (tensor->free_fn) {
        if (zmq_msg_init_data(frame, data, tensor->bytes, tensor->free_fn, tensor->hint) == 0)
            return true;
        tensor->free_fn(data, tensor->hint);
        return false;
    }
    if (!local_heap_message(heap, tensor->bytes, frame))
        return false;
    if (tensor->bytes > 0)
        memcpy(zmq_msg_data(frame), data, tensor->bytes);
    return true;
}

/* The encoded header becomes the request's first frame. False: no memory. */
static bool set_header(struct expertd_call *call, const Expertd__RequestHeader *header)
{
    const size_t size = protobuf_c_message_get_packed_size(&header->base);
    zmq_msg_t frame;
    if (zmq_msg_init_size(&frame, size) < 0)
        return false;
    (void)message_encode_request(header, zmq_msg_data(&frame), size);
    zmq_msg_move(&call->request[0], &frame);
    zmq_msg_close(&frame);
    return true;
}

static void describe_parts(const struct call_request *request, Expertd__RequestHeader *header,
                           Expertd__RequestHeader__Part *parts, Expertd__RequestHeader__Part **pointers)
{
    for (size_t p = 0; p < request->n_parts; p++) {
        expertd__request_header__part__init(&parts[p]);
        parts[p].uid = (char *)(uintptr_t)request->parts[p].uid;
        parts[p].rows = request->parts[p].rows;
        parts[p].request_id = request->parts[p].request_id;
        pointers[p] = &parts[p];
    }
    header->n_parts = request->n_parts;
    header->parts = pointers;
}

/* The header's frame. The tensors' descriptions point into the program's shapes, which have the wire's type. */
static bool make_header(struct expertd_call *call, const struct call_request *request, const uint32_t *codecs)
{
    Expertd__Tensor tensors[EXPERTD_MAX_TENSORS];
    Expertd__Tensor *pointers[EXPERTD_MAX_TENSORS];
    Expertd__RequestHeader__Part parts[MESSAGE_MAX_PARTS], *part_pointers[MESSAGE_MAX_PARTS];
    Expertd__RequestHeader header = EXPERTD__REQUEST_HEADER__INIT;
    header.version = MESSAGE_VERSION;
    header.request_id = call->request_id;
    header.method = request->method;
    header.n_settings = request->n_settings;
    header.settings = (char **)(uintptr_t)request->settings;
    header.deadline_ms = call->deadline_ms;
    header.list = request->list;
    header.metadata = (ProtobufCBinaryData){request->metadata_bytes, (uint8_t *)(uintptr_t)request->metadata};
    if (request->traceparent)
        header.traceparent = (char *)(uintptr_t)request->traceparent;
    if (request->uid)
        header.uid = (char *)(uintptr_t)request->uid;
    if (request->method == EXPERTD__METHOD__BACKWARD)
        header.client_id =
            (ProtobufCBinaryData){MESSAGE_CLIENT_ID_SIZE, (unsigned char *)(uintptr_t)request->client_id};
    header.n_tensors = request->count[0] + request->count[1];
    header.tensors = pointers;
    Expertd__Codec reply_codec = (Expertd__Codec)request->reply_codec;
    if (header.n_tensors > 0 && request->reply_codec != CODEC_NONE) {
        header.n_reply_codecs = 1;
        header.reply_codecs = &reply_codec;
    }
    protobuf_c_boolean requires_grad[EXPERTD_MAX_TENSORS];
    for (size_t i = 0; i < request->count[0] && request->requires_grad; i++)
        requires_grad[i] = request->requires_grad[i];
    header.n_requires_grad = request->requires_grad ? request->count[0] : 0;
    header.requires_grad = requires_grad;
    for (size_t i = 0; i < header.n_tensors; i++) {
        const struct expertd_tensor *tensor = nth_tensor(request, i);
        expertd__tensor__init(&tensors[i]);
        tensors[i].dtype = (Expertd__DType)tensor->dtype;
        tensors[i].n_shape = tensor->ndim;
        tensors[i].shape = (uint64_t *)(uintptr_t)tensor->shape;
        tensors[i].codec = (Expertd__Codec)codecs[i];
        pointers[i] = &tensors[i];
    }
    describe_parts(request, &header, parts, part_pointers);
    return set_header(call, &header);
}

enum expertd_status call_request_make(struct expertd_call *call, const struct call_request *request)
{
    const size_t count = request->count[0] + request->count[1];
    call->status = EXPERTD_OK;
    if (check(call, request) != EXPERTD_OK) {
        call_request_free_tensors(request);
        return call->status;
    }
    uint32_t codecs[EXPERTD_MAX_TENSORS] = {0};
    bool made = true;
    zmq_msg_init(&call->request[0]);
    call->n_request = 1;
    for (size_t i = 0; i < count; i++) {
        /* After a failure the rest is gone through for the sake of what it borrows. */
        const struct expertd_tensor *tensor = nth_tensor(request, i);
        codecs[i] = tensor->codec != EXPERTD_CODEC_NONE ? (uint32_t)tensor->codec : request->codec;
        if (made && make_frame(request->heap, &call->request[1 + i], tensor, &codecs[i])) {
            call->n_request++;
        } else {
            if (!made && tensor->free_fn)
                tensor->free_fn((void *)(uintptr_t)tensor->data, tensor->hint);
            made = false;
        }
    }
    made = made && make_header(call, request, codecs);
    if (!made) {
        call_drop_request(call);
        call_set_status(call, EXPERTD_RESOURCE_EXHAUSTED, "no memory for the request");
        return call->status;
    }
    call->n_gradients = 0;
    for (size_t i = 0; i < request->count[0]; i++)
        call->n_gradients += !request->requires_grad || request->requires_grad[i];
    call->n_parts = request->n_parts;
    call->rows = count > 0 ? nth_tensor(request, 0)->shape[0] : 0;
    return EXPERTD_OK;
}

int call_request_set_deadline(struct expertd_call *call)
{
    const size_t size = call->n_parts ? MESSAGE_REQUEST_ARENA : MESSAGE_OWN_ARENA;
    struct message_arena arena;
    Expertd__RequestHeader *header;
    const char *why;
    void *memory = malloc(size);
    if (!memory)
        return -ENOMEM;
    message_arena_init(&arena, memory, size);
    bool set = false;
    if (message_decode_request(&arena, zmq_msg_data(&call->request[0]), zmq_msg_size(&call->request[0]), &header,
                               &why) == 0) {
        header->deadline_ms = call->deadline_ms;
        set = set_header(call, header);
    }
    free(memory);
    return set ? 0 : -ENOMEM;
}
