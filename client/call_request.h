/* Makes a call's request frames. Checks what the program gave, so that only well-formed requests leave. */
#ifndef EXPERTD_CLIENT_CALL_REQUEST_H
#define EXPERTD_CLIENT_CALL_REQUEST_H

#include "client/call.h"
#include "client/local_heap.h"

struct call_request {
    Expertd__Method method;
    const char *uid; /* NULL: none */
    bool many;       /* a call for many experts: `parts` in place of `uid`, whatever they are */
    const struct expertd_part *parts;
    size_t n_parts;
    const struct expertd_tensor *tensors[2]; /* inputs; grad_outputs */
    size_t count[2];
    Expertd__ListQuery *list; /* NULL: none */
    const char *const *settings;
    size_t n_settings;
    const unsigned char *client_id;
    const bool *requires_grad; /* of each input of a BACKWARD; NULL: all */
    const void *metadata;      /* of metadata_bytes; and the trace, "": none */
    size_t metadata_bytes;
    const char *traceparent;
    struct local_heap *heap;     /* where the frames' data goes if it can; NULL */
    uint32_t codec, reply_codec; /* enum codec: of tensors that name none; that is wished for the reply's */
};

/* Fills call->request[] from the request, call->request_id and call->deadline_ms. EXPERTD_OK; or the status that the
 * call ends with, and its message is set. Tensors' data with a free_fn has been handed on, or freed, in every case. */
enum expertd_status call_request_make(struct expertd_call *call, const struct call_request *request);

/* Writes call->deadline_ms into the header of a kept request. -ENOMEM; nothing has changed then. */
int call_request_set_deadline(struct expertd_call *call);

/* Frees all tensors' data that has a free_fn: for a request that there will be no call for. */
void call_request_free_tensors(const struct call_request *request);

#endif
