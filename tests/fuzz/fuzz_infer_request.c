/* Any body, with any length of JSON, is a request whose tensors are whole, or is refused with a reason. */
#include <stdlib.h>
#include <string.h>

#include "http/infer_request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct infer_request request;
    char why[INFER_WHY_SIZE] = "";
    if (size < 2)
        return 0;
    const size_t json_bytes = data[0] | (size_t)data[1] << 8;
    const int rc = infer_request_parse(&request, (const char *)data + 2, size - 2, json_bytes, why);
    if ((rc == 0) != (why[0] == '\0'))
        abort();
    unsigned sum = 0;
    for (size_t i = 0; rc == 0 && i < request.inputs_count; i++) {
        const struct expertd_tensor *tensor = &request.inputs[i].tensor;
        size_t bytes = expertd_dtype_size(tensor->dtype);
        for (uint32_t d = 0; d < tensor->ndim; d++)
            bytes *= tensor->shape[d];
        if (bytes != tensor->bytes)
            abort();
        for (size_t b = 0; b < bytes; b++)
            sum += ((const unsigned char *)tensor->data)[b];
    }
    infer_request_free(&request);
    return sum == 1 ? 0 : 0;
}
