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

/* Rows of the whole that are cut out. */
struct span {
    uint64_t row, rows;
};

/* A tensor of which they are cut out. */
struct cut_tensor {
    struct message_tensor_size size; /* of the whole */
    uint64_t width;                  /* elements of a row */
    uint32_t codec;                  /* that the rows travel in */
    uint64_t bytes;                  /* that they are then */
};

/* What a codec says of all rows together stays true of some, as long as no number of it stands for others as well; else
 * they are decoded: to encode them once more would round them once more. */
static struct cut_tensor plan(const Expertd__Tensor *described, const struct span *spans, size_t count, uint64_t rows)
{
    const uint32_t codec = (uint32_t)described->codec;
    struct cut_tensor cut = {.codec = codec};
    message_tensor_size(described, &cut.size);
    cut.width = cut.size.elements / described->shape[0];
    const uint64_t elements = cut.width * rows, last = cut.size.last;
    bool moves = codec == CODEC_NONE || ((codec != CODEC_MEANSTD_16BIT || described->n_shape > 1) &&
                                         codec_pays(codec, (uint32_t)described->dtype, elements, last));
    for (size_t i = 0, row = 0; i < count && moves && codec != CODEC_NONE; row += spans[i++].rows)
        moves =
            codec_moves(codec, last, spans[i].row * cut.width, spans[i].rows * cut.width, elements, row * cut.width);
    if (!moves)
        cut.codec = CODEC_NONE;
    (void)codec_frame_bytes(cut.codec, (uint32_t)described->dtype, elements, last, &cut.bytes);
    return cut;
}

/* The rows of all spans of `from`, as planned, to the frame that has room for them. */
static void cut_rows(unsigned char *at, const unsigned char *frame, const Expertd__Tensor *described,
                     const struct cut_tensor *cut, const struct span *spans, size_t count, uint64_t rows)
{
    const uint32_t codec = (uint32_t)described->codec;
    const uint64_t row_bytes = cut->size.bytes / described->shape[0];
    for (size_t i = 0, row = 0; i < count; row += spans[i++].rows) {
        const uint64_t first = spans[i].row * cut->width, elements = spans[i].rows * cut->width;
        if (codec == CODEC_NONE)
            memcpy(at + row * row_bytes, frame + spans[i].row * row_bytes, spans[i].rows * row_bytes);
        else if (cut->codec == codec)
            codec_move(codec, frame, cut->size.elements, cut->size.last, first, elements, at, rows * cut->width,
                       row * cut->width);
        else
            codec_decode_some(codec, frame, cut->size.elements, cut->size.last, first, elements,
                              (float *)(void *)(at + row * row_bytes));
    }
}

static bool cut_header(struct expertd_call *cut, const Expertd__RequestHeader *whole, const uint32_t *numbers,
                       size_t count, const struct cut_tensor *plans)
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
        tensors[i] = *whole->tensors[i];
        memcpy(shapes[i], whole->tensors[i]->shape, whole->tensors[i]->n_shape * sizeof shapes[i][0]);
        shapes[i][0] = cut->rows;
        tensors[i].shape = shapes[i];
        tensors[i].codec = (Expertd__Codec)plans[i].codec;
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
    struct span spans[MESSAGE_MAX_PARTS] = {{0}};
    struct cut_tensor plans[MESSAGE_MAX_TENSORS];
    uint64_t row = 0;
    cut->rows = 0;
    for (size_t p = 0, next = 0; p < header->n_parts && next < count; p++) {
        const uint64_t rows = header->parts[p]->rows;
        if (p == numbers[next]) {
            spans[next++] = (struct span){row, rows};
            cut->rows += rows;
        }
        row += rows;
    }
    cut->n_parts = count;
    cut->n_gradients = whole->n_gradients;
    cut->uid_hash = uid_hash(first, strlen(first));
    for (size_t i = 0; i < header->n_tensors; i++)
        plans[i] = plan(header->tensors[i], spans, count, cut->rows);
    if (!cut_header(cut, header, numbers, count, plans))
        return false;
    for (size_t i = 0; i < header->n_tensors; i++) {
        zmq_msg_t *from = (zmq_msg_t *)(uintptr_t)&whole->request[1 + i], *to = &cut->request[1 + i];
        if (!local_heap_message(heap, plans[i].bytes, to)) {
            call_drop_request(cut);
            return false;
        }
        cut_rows(zmq_msg_data(to), zmq_msg_data(from), header->tensors[i], &plans[i], spans, count, cut->rows);
        cut->n_request++;
    }
    return true;
}
