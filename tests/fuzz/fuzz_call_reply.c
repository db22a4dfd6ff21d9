/* Any frames are taken as the reply to a call of any method, without more than a status. The first byte chooses the
 * method, the second the length of the header frame (times four); the rest is cut into tensor frames of 8 bytes. */
#include <stdlib.h>
#include <string.h>

#include "client/call_reply.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void frame_of(zmq_msg_t *frame, const uint8_t *data, size_t size)
{
    if (zmq_msg_init_size(frame, size) < 0)
        abort();
    if (size)
        memcpy(zmq_msg_data(frame), data, size);
}

static void check(const struct expertd_call *call)
{
    const struct expertd_info *info = expertd_call_info(call);
    if ((call->status == EXPERTD_OK) != (call->message[0] == '\0'))
        abort();
    for (size_t i = 0; i < call->n_outputs; i++) {
        const struct expertd_tensor *output = expertd_call_output(call, i);
        if (output->shape[0] != call->rows || output->ndim > EXPERTD_MAX_DIMS ||
            (uintptr_t)output->data % expertd_dtype_size(output->dtype))
            abort();
    }
    if (info && (info->forward_schema.count > EXPERTD_MAX_TENSORS || info->forward_schema.count == 0))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct decoder decoder;
    static struct expertd_call call;
    zmq_msg_t frames[1 + EXPERTD_MAX_TENSORS];
    const char *why;
    if (size < 2)
        return 0;
    size_t header_size = (size_t)data[1] * 4;
    memset(&call, 0, offsetof(struct expertd_call, outputs));
    call.method = (Expertd__Method)(1 + data[0] % 7);
    call.rows = 1 + data[0] / 128;
    call.n_gradients = 1;
    data += 2;
    size -= 2;
    header_size = header_size < size ? header_size : size;
    frame_of(&frames[0], data, header_size);
    size_t count = 1;
    for (size_t at = header_size; at < size && count < 1 + EXPERTD_MAX_TENSORS; at += 8)
        frame_of(&frames[count++], data + at, size - at < 8 ? size - at : 8);
    const Expertd__ReplyHeader *header = call_reply_decode(&decoder, &frames[0], &why);
    if (header) {
        call_reply_take(&call, header, frames + 1, count - 1, why);
        check(&call);
        call_drop_answer(&call);
    }
    for (size_t i = 0; i < count; i++)
        zmq_msg_close(&frames[i]);
    return 0;
}
