/* A template is read, or refused with a sentence; and what it selects of a tensor lies in the tensor. */
#include <stdlib.h>
#include <string.h>

#include "common/tensor_part.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct tensor_view *view, uint64_t elements)
{
    uint64_t last = view->offset, count = 1;
    for (unsigned i = 0; i < view->ndim; i++)
        count *= view->dims[i];
    for (unsigned i = 0; i < view->ndim && count > 0; i++)
        last += (view->dims[i] - 1) * view->strides[i];
    if (count > elements || (count > 0 && last >= elements))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { DIMS = 3 };
    char error[TENSOR_PART_ERROR_SIZE], *text = malloc(size + 1);
    struct tensor_part part;
    struct tensor_view view;
    uint64_t dims[DIMS], elements = 1;
    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = 0;
    for (unsigned i = 0; i < DIMS; i++) {
        dims[i] = size > i ? data[size - 1 - i] % 9 : 3;
        elements *= dims[i];
    }
    if (tensor_part_parse(&part, text, "m.3.17", error) < 0) {
        if (!error[0])
            abort();
    } else if (tensor_part_view(&view, &part, dims, DIMS, error) < 0) {
        if (!error[0])
            abort();
    } else {
        check(&view, elements);
    }
    free(text);
    return 0;
}
