/* Any bytes are a safetensors file whose tensors can all be read, or are refused with a sentence. */
#include <stdlib.h>
#include <string.h>

#include "runtime/state/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_all(const uint8_t *data, size_t size)
{
    char error[SAFETENSORS_ERROR_SIZE];
    struct safetensors *file;
    uint64_t bytes = 0;
    if (safetensors_parse(&file, data, size, error) < 0) {
        if (!error[0] || file)
            abort();
        return;
    }
    for (unsigned i = 0; i < safetensors_count(file); i++) {
        const struct safetensors_tensor *tensor = safetensors_tensor(file, i);
        bytes += tensor->bytes;
        float *values = malloc(tensor->bytes * 2 + 1);
        if (values && safetensors_read_floats(file, tensor, values, error) < 0 && !error[0])
            abort();
        free(values);
        if (safetensors_find(file, tensor->name) == NULL)
            abort();
    }
    if (bytes > size)
        abort();
    (void)safetensors_metadata(file, "format");
    (void)safetensors_verify(file, error);
    safetensors_close(&file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    read_all(data, size);
    /* The same bytes as a header, with a length before it that is right and some data behind it. */
    const uint64_t length = size, data_bytes = size ? data[size - 1] % 64 : 0;
    uint8_t *file = calloc(1, 8 + size + data_bytes);
    if (!file)
        return 0;
    memcpy(file, &length, 8);
    if (size)
        memcpy(file + 8, data, size);
    read_all(file, 8 + size + data_bytes);
    free(file);
    return 0;
}
