/* Any bytes are an array file, or are refused with a message. */
#include <stdlib.h>

#include "client/expertctl/npy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct npy array;
    char error[128] = "";
    size_t offset = 0;
    const int rc = npy_parse(data, size, &array, &offset, error, sizeof error);
    if ((rc == 0) != (error[0] == '\0'))
        abort();
    if (rc == 0 && (offset > size || size - offset != array.bytes || array.ndim > NPY_MAX_DIMS))
        abort();
    return 0;
}
