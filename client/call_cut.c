#include "client/call_cut.h"

#include <string.h>

#include "common/uid.h"
#include "proto/codec.h"

bool call_cut_possible(const struct expertd_call *whole, const Expertd__RequestHeader *header)
{
    uint64_t rows = 0;
    for (size_t p = 0; p < header->n_parts; p++)
        rows += header->parts[p]->rows;
    bool possible = rows == whole->rows && rows > 0 && header->n_tensors + 1 == whole->n_request;
    for (size_t i = 0; i < header->n_tensors && possible; i++) {
        struct message_tensor_size size;
        possible = header->tensors[i]->shape[0] == rows && message_tensor_size(header->tensors[i], &size) &&
                   size.frame_bytes == zmq_msg_size((zmq_msg_t *)(uintptr_t)&whole->request[1 + i]);
    }
    return possible;
}

/* How the rows of a tensor travel when they are cut out: bytes of a row in the new frame, and whether in the old one
 * they lie behind each other as well. */
static uint64_t row_bytes(const Expertd__Tensor *tensor, const struct message_tensor_size *size, bool *as_they_are)
{
    const uint64_t rows = tensor->shape[0];
    *as_they_are = tensor->codec == EXPERTD__CODEC__RAW || tensor->codec == EXPERTD__CODEC__CODEC_FLOAT16 ||
                   tensor->codec == EXPERTD__CODEC__CODEC_BFLOAT16;
    return (*as_they_are ? size->frame_bytes : size->bytes) / rows;
}

static bool cut_frame(zmq_msg_t *to, zmq_msg_t *from, const Expertd__RequestHeader *header, size_t tensor,
                      const uint32_t *numbers, size_t count, uint64_t rows, struct local_heap *heap)
{
    const Expertd__Tensor *described = header->tensors[tensor];
    struct message_tensor_size size;
    bool as_they_are;
    message_tensor_size(described, &size);
    const uint64_t bytes = row_bytes(described, &size, &as_they_are);
    const uint64_t elements = size.elements / described->shape[0];
    if (!local_heap_message(heap, bytes * rows, to))
        return false;
    unsigned char *at = zmq_msg_data(to);
    uint64_t row = 0;
    for (size_t p = 0, next = 0; p < header->n_parts && next < count; p++) {
        const uint64_t part = header->parts[p]->rows;
        if (p == numbers[next]) {
            if (as_they_are)
                memcpy(at, (const unsigned char *)zmq_msg_data(from) + row * bytes, part * bytes);
            else
                codec_decode_some((uint32_t)described->codec, zmq_msg_data(from), size.elements, size.last,
                                  row * elements, part * elements, (float *)(void *)at);
            at += part * bytes;
            next++;
        }
        row += part;
    }
    return true;
}

static bool cut_header(struct expertd_call *cut, const Expertd__RequestHeader *whole, const uint32_t *numbers,
                       size_t count)
{
    Expertd__RequestHeader header = *whole;
    Expertd__RequestHeader__Part *parts[MESSAGE_MAX_PARTS];
    Expertd__Tensor tensors[MESSAGE_MAX_TENSORS], *pointers[MESSAGE_MAX_TENSORS];
    uint64_t shapes[MESSAGE_MAX_TENSORS][MESSAGE_MAX_DIMS];
    for (size_t i = 0; i < count; i++) {
        parts[i] = whole->parts[numbers[i]];
        if (parts[i]->request_id == 0)
            parts[i]->request_id = whole->request_id;
    }
    header.request_id = cut->request_id;
    header.n_parts = count;
    header.parts = parts;
    for (size_t i = 0; i < whole->n_tensors; i++) {
        struct message_tensor_size size;
        bool as_they_are;
        message_tensor_size(whole->tensors[i], &size);
        (void)row_bytes(whole->tensors[i], &size, &as_they_are);
        tensors[i] = *whole->tensors[i];
        memcpy(shapes[i], whole->tensors[i]->shape, whole->tensors[i]->n_shape * sizeof shapes[i][0]);
        shapes[i][0] = cut->rows;
        tensors[i].shape = shapes[i];
        if (!as_they_are)
            tensors[i].codec = EXPERTD__CODEC__RAW;
        pointers[i] = &tensors[i];
    }
    header.tensors = pointers;
    const size_t size = protobuf_c_message_get_packed_size(&header.base);
    if (zmq_msg_init_size(&cut->request[0], size) < 0)
        return false;
    (void)message_encode_request(&header, zmq_msg_data(&cut->request[0]), size);
    cut->n_request = 1;
    return true;
}

bool call_cut(struct expertd_call *cut, const struct expertd_call *whole, const Expertd__RequestHeader *header,
              const uint32_t *numbers, size_t count, struct local_heap *heap)
{
    const char *first = header->parts[numbers[0]]->uid;
    cut->rows = 0;
    for (size_t i = 0; i < count; i++)
        cut->rows += header->parts[numbers[i]]->rows;
    cut->n_parts = count;
    cut->n_gradients = whole->n_gradients;
    cut->uid_hash = uid_hash(first, strlen(first));
    if (!cut_header(cut, header, numbers, count))
        return false;
    for (size_t i = 0; i < header->n_tensors; i++) {
        zmq_msg_t *from = (zmq_msg_t *)(uintptr_t)&whole->request[1 + i];
        if (!cut_frame(&cut->request[1 + i], from, header, i, numbers, count, cut->rows, heap)) {
            call_drop_request(cut);
            return false;
        }
        cut->n_request++;
    }
    return true;
}
